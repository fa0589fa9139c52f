"""The gateway: problems for everything, headers on everything, sizes, rates, hosts, origins, and engines that fail."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
from litestar import get
from running import GENEROUS, Person, Running

from curbside.errors import ConfigError
from curbside.ids import encode_base64url
from curbside.policy.access import RULES
from curbside.server.app import create_app
from curbside.server.interface import ROUTES
from curbside.server.store.sqlite_open import open_connection
from curbside.wire import bodies, limits


@pytest_asyncio.fixture
async def http(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=running.url, timeout=20) as client:
        yield client


def check_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is this problem, in the form of RFC 9457."""
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert (response.status_code, found["type"]) == (status, "urn:curbside:problem:" + code), found
    assert found["status"] == status
    assert found["title"]
    assert found["detail"]
    assert found["next_step"]
    assert len(found["instance"]) == 22
    return found


HEADERS = {
    "content-security-policy",
    "cross-origin-opener-policy",
    "cross-origin-embedder-policy",
    "cross-origin-resource-policy",
    "permissions-policy",
    "referrer-policy",
    "x-content-type-options",
    "x-request-id",
}


async def test_every_answer_carries_the_security_headers(running: Running, http: httpx.AsyncClient) -> None:
    answers = [
        await http.get("/v1/health/live"),
        await http.get("/v1/health/ready"),
        await http.get("/v1/openapi.json"),
        await http.get("/v1/nowhere"),
        await http.get("/nowhere"),
        await http.get("/metrics"),
        await http.get("/v1/people"),
        await http.put("/v1/people"),
        await http.post("/v1/signin/start", content=b"{"),
        await http.get("/v1/organization", headers={"host": "evil.example"}),
        await http.post("/v1/signup/start", content=bytes(limits.BODY_BYTES + 1)),
    ]
    for answer in answers:
        assert set(answer.headers) >= HEADERS, answer.request.url
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self' 'wasm-unsafe-eval';")
        assert "unsafe-inline" not in policy
        assert f"connect-src 'self' ws{running.url[4:]}" in policy
        assert "require-trusted-types-for 'script'; trusted-types curbside" in policy
        assert "strict-transport-security" not in answer.headers
        if answer.request.url.path.startswith("/v1/"):
            assert answer.headers["cache-control"] == "no-store"


async def test_what_the_framework_refuses_is_a_problem_too(running: Running, http: httpx.AsyncClient) -> None:
    check_problem(await http.get("/v1/nowhere"), 404, "not_found")
    check_problem(await http.get("/nowhere"), 404, "not_found")
    check_problem(await http.delete("/v1/people"), 405, "malformed")
    check_problem(await http.post("/", content=b"x"), 404, "not_found")
    for body in (b"", b"{", b"[]", b'{"user_id": 5}', b"\xff\xfe", b'{"secret_field_7": 1}', b"[" * 5000):
        found = check_problem(await http.post("/v1/signup/start", content=body), 400, "malformed")
        assert "secret_field_7" not in json.dumps(found)
    unauthenticated = await http.get("/v1/devices")
    check_problem(unauthenticated, 401, "not_authenticated")
    assert unauthenticated.headers["www-authenticate"].startswith("DPoP")


async def test_a_mistake_of_ours_says_nothing(tmp_path: Path) -> None:
    @get("/v1/mistake", opt={"rule": "R-health"})
    async def mistake() -> None:
        raise ZeroDivisionError("a secret of ours")

    running = Running(tmp_path)
    running.routes = (*ROUTES, mistake)
    running.start()
    try:
        async with httpx.AsyncClient() as http:
            answer = await http.get(running.url + "/v1/mistake")
            found = check_problem(answer, 500, "internal")
            assert "secret" not in json.dumps(found)
            assert set(answer.headers) >= HEADERS
    finally:
        running.stop()


async def test_bodies_over_the_limit_are_refused_early(running: Running, http: httpx.AsyncClient) -> None:
    check_problem(await http.post("/v1/signin/start", content=bytes(limits.BODY_BYTES + 1)), 413, "too_large")

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(limits.BODY_BYTES // 65536 + 2):
            yield bytes(65536)

    try:
        answer = await http.post("/v1/signin/start", content=endless())
    except httpx.TransportError:
        return  # cut off while it still sent: refused as well
    check_problem(answer, 413, "too_large")


async def test_a_peer_that_stalls_is_dropped(tmp_path: Path) -> None:
    running = Running(tmp_path, limits=msgspec.structs.replace(GENEROUS, idle_seconds=0.3)).start()
    try:
        host, port = running.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /v1/signin/start HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-length: 1000\r\n\r\n{{"
        writer.write(head.encode())
        await writer.drain()
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer == b"" or answer.split(b" ")[1] in (b"400", b"408", b"500"), answer
        writer.close()
        await writer.wait_closed()
    finally:
        running.stop()


async def test_other_hosts_and_foreign_pages_are_refused(running: Running, http: httpx.AsyncClient) -> None:
    check_problem(await http.get("/v1/organization", headers={"host": "evil.example"}), 400, "malformed")
    assert (await http.get("/v1/health/live", headers={"host": "10.0.0.1"})).status_code == 200
    body = msgspec.json.encode(bodies.SigninStart("A" * 22, "A" * 22, "AAAA"))
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ):
        answer = await http.post("/v1/signin/start", content=body, headers=headers)
        check_problem(answer, 403, "policy_denied")
    own = {"origin": running.url, "sec-fetch-site": "same-origin"}
    assert (await http.post("/v1/signin/start", content=body, headers=own)).status_code != 403


async def test_strangers_share_a_budget_and_a_session_has_its_own(tmp_path: Path) -> None:
    given = msgspec.structs.replace(GENEROUS, requests_per_second=0.01, requests_burst=12)
    running = Running(tmp_path, limits=given).start()
    try:
        alice = await Person.join(running)  # three of the twelve
        answers = [(await alice.http.get("/v1/organization")).status_code for _ in range(12)]
        assert answers == [200] * 9 + [429] * 3
        limited = await alice.http.get("/v1/organization")
        assert int(limited.headers["retry-after"]) >= 1
        assert check_problem(limited, 429, "too_many")["retry_after"] >= 1
        assert (await alice.request("GET", "/v1/devices")).status_code == 429, "the address is out of credit"
        await alice.close()
    finally:
        running.stop()


async def test_made_up_tokens_are_counted_on_their_address(tmp_path: Path) -> None:
    given = msgspec.structs.replace(GENEROUS, requests_per_second=0.01, requests_burst=5)
    running = Running(tmp_path, limits=given).start()
    try:
        async with httpx.AsyncClient(base_url=running.url) as http:
            statuses = []
            for number in range(8):
                headers = {"authorization": f"DPoP made-up-{number}", "dpop": "a.b.c"}
                statuses.append((await http.get("/v1/devices", headers=headers)).status_code)
        assert statuses == [401] * 5 + [429] * 3
    finally:
        running.stop()


async def test_a_made_up_token_takes_no_more_memory_for_being_long(running: Running, http: httpx.AsyncClient) -> None:
    for number in range(3):
        await http.get("/v1/devices", headers={"authorization": f"DPoP {number}" + "x" * 10_000, "dpop": "a.b.c"})
    assert max(map(len, running.app._gateway._requests._buckets)) < 100


async def test_sign_in_attempts_have_a_stricter_budget(tmp_path: Path) -> None:
    given = msgspec.structs.replace(GENEROUS, attempts_per_second=0.01, attempts_burst=3)
    running = Running(tmp_path, limits=given).start()
    try:
        async with httpx.AsyncClient(base_url=running.url) as http:
            statuses = [(await http.post("/v1/signup/start", content=b"{}")).status_code for _ in range(5)]
            assert statuses == [400] * 3 + [429] * 2
            assert (await http.get("/v1/organization")).status_code == 200
    finally:
        running.stop()


# --- engines that fail ----------------------------------------------------------------------------


async def test_a_locked_database_is_unavailable_and_recovers(running: Running, alice: Person) -> None:
    group = await alice.begin()
    wire = await alice.connect()
    other = open_connection(str(running.config.database_path), running.key)
    other.execute("BEGIN IMMEDIATE")
    refused = await wire.say(group, b"while locked")
    assert refused.code == "store_unavailable"
    answer = await alice.http.get("/v1/health/ready")
    found = check_problem(answer, 503, "store_unavailable")
    assert answer.headers["retry-after"]
    assert "lock" not in json.dumps(found)
    other.execute("ROLLBACK")
    other.close()
    assert (await wire.say(group, b"after")).sequence == 1


async def test_a_full_database_is_said_and_nothing_acknowledged_is_lost(running: Running, alice: Person) -> None:
    group = await alice.begin()
    wire = await alice.connect()
    assert (await wire.say(group, b"fits")).sequence == 1
    services = running.app.services
    assert services is not None

    def limit(more: int) -> Any:
        async def change() -> None:
            def act(tx: Any) -> None:
                run = tx.delivery._run
                pages = run("PRAGMA page_count").get
                run(f"PRAGMA max_page_count = {pages + more}")

            await services.store.write(act)

        return running.call(change)

    limit(2)
    refusals = 0
    for _ in range(20):
        answer = await wire.say(group, bytes(16_000))
        refusals += getattr(answer, "code", "") == "storage_full"
    assert refusals >= 18
    limit(10_000)
    stored = await wire.say(group, b"again")
    assert stored.sequence == 2 + 20 - refusals


# --- deny by default ------------------------------------------------------------------------------


def test_a_route_without_a_rule_stops_the_app(tmp_path: Path) -> None:
    @get("/v1/forgotten")
    async def forgotten() -> None: ...

    @get("/v1/unknown-rule", opt={"rule": "R-unknown"})
    async def unknown() -> None: ...

    @get("/v1/nobody-asked", opt={"rule": "R-people-list"})
    async def nobody_asked() -> None: ...

    config = Running(tmp_path).config
    for route, path in ((forgotten, "forgotten"), (unknown, "unknown-rule"), (nobody_asked, "nobody-asked")):
        with pytest.raises(ConfigError, match=path):
            create_app(config, routes=(*ROUTES, route))
    with pytest.raises(ConfigError):
        create_app(config, routes=())
    assert create_app(config).services is None


def test_every_route_names_a_rule_and_every_rule_of_a_route_is_used() -> None:
    named = {str(route.opt["rule"]) for route in ROUTES}
    assert named <= set(RULES)
    elsewhere = {"R-metrics", "R-web", "R-stream", "R-message-send", "R-message-read"}
    assert set(RULES) - named == elsewhere


async def test_the_interface_describes_itself(http: httpx.AsyncClient) -> None:
    found = (await http.get("/v1/openapi.json")).json()
    assert found["openapi"].startswith("3.1")
    described = {(path, method.upper()) for path, methods in found["paths"].items() for method in methods}
    expected = {
        (path.replace(":str", ""), method) for route in ROUTES for path in route.paths for method in route.http_methods
    }
    assert described == expected


async def test_metrics_are_off_unless_asked_for(tmp_path: Path) -> None:
    running = Running(tmp_path, metrics=True).start()
    try:
        alice = await Person.join(running)
        group = await alice.begin()
        wire = await alice.connect()
        await wire.say(group, b"counted")
        text = (await alice.http.get("/metrics")).text
        assert "curbside_messages_stored_total 1.0" in text
        assert "curbside_streams_open 1.0" in text
        assert alice.newcomer.user_id not in text
        await alice.close()
    finally:
        running.stop()


# --- the web client -------------------------------------------------------------------------------


async def test_the_web_client_is_served_compressed_and_cached(tmp_path: Path) -> None:
    folder = tmp_path / "dist"
    (folder / "assets").mkdir(parents=True)
    (folder / ".vite").mkdir()
    (folder / "index.html").write_text("<!doctype html><title>Curbside</title>" + " " * 2000)
    (folder / "assets" / "app-1a2b3c4d.js").write_text("console.log(1);" * 500)
    (folder / "assets" / "engine-5e6f.wasm").write_bytes(b"\x00asm" + bytes(5000))
    (folder / "sw.js").write_text("//")
    (folder / ".vite" / "manifest.json").write_text("{}")
    (folder / "notes.exe").write_text("no")
    (tmp_path / "secret.txt").write_text("outside")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    running = Running(tmp_path, static_folder=folder).start()
    try:
        async with httpx.AsyncClient(base_url=running.url) as http:
            page = await http.get("/")
            assert page.text.startswith("<!doctype html>")
            assert page.headers["content-encoding"] == "gzip"
            assert page.headers["cache-control"] == "no-cache"
            assert set(page.headers) >= HEADERS
            script = await http.get("/assets/app-1a2b3c4d.js")
            assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert script.headers["content-type"].startswith("text/javascript")
            wasm = await http.get("/assets/engine-5e6f.wasm", headers={"accept-encoding": "identity"})
            assert wasm.headers["content-type"] == "application/wasm"
            assert "content-encoding" not in wasm.headers
            again = await http.get("/", headers={"if-none-match": page.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            head = await http.head("/sw.js")
            assert (head.status_code, head.content, head.headers["cache-control"]) == (200, b"", "no-cache")
            for path in ("/notes.exe", "/.vite/manifest.json", "/link.txt", "/../secret.txt", "/assets/", "/deep/link"):
                check_problem(await http.get(path), 404, "not_found")
            assert raw_status(running, b"GET /%2e%2e/secret.txt HTTP/1.1") == 404
            assert raw_status(running, b"GET /assets/../../secret.txt HTTP/1.1") == 404
    finally:
        running.stop()


def raw_status(running: Running, line: bytes) -> int:
    """The status of a request line sent as it is."""
    host = running.url.removeprefix("http://")
    with socket.create_connection(("127.0.0.1", running.config.port), timeout=10) as connection:
        connection.sendall(line + b"\r\nhost: " + host.encode() + b"\r\nconnection: close\r\n\r\n")
        return int(connection.makefile("rb").readline().split()[1])


async def test_https_origins_get_hsts(tmp_path: Path) -> None:
    running = Running(tmp_path)
    url = "https://curbside.example.org"
    running.config = msgspec.structs.replace(running.config, public_urls=(url, running.url))
    running.start()
    try:
        async with httpx.AsyncClient(base_url=running.url) as http:
            answer = await http.get("/v1/organization")
            assert answer.headers["strict-transport-security"].startswith("max-age=63072000")
            assert encode_base64url(running.authority.certificate.raw) == answer.json()["authority_certificate"]
    finally:
        running.stop()
