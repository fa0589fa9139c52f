"""Behind proxies: rates by the client's address on HTTP and on the stream alike, and who may read the counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import websockets
from running import GENEROUS, Running

from curbside.errors import ConfigError
from curbside.server.app import create_app
from curbside.server.config import Proxy, Telemetry

TIGHT = msgspec.structs.replace(
    GENEROUS, attempts_per_second=0.01, attempts_burst=2, connects_per_second=0.01, connects_burst=2
)
TRUSTING = Proxy(trusted=("127.0.0.1",))


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[Running]:
    """A server with these settings."""
    running = Running(folder, **settings).start()
    try:
        yield running
    finally:
        running.stop()


async def try_signup(running: Running, *forwarded: str, name: str = "x-forwarded-for") -> int:
    """The status of one try to sign up."""
    headers = [(name, value) for value in forwarded]
    async with httpx.AsyncClient(base_url=running.url) as http:
        return (await http.post("/v1/signup/start", content=b"{}", headers=headers)).status_code


async def try_stream(running: Running, *forwarded: str) -> int:
    """The status of one stream's opening."""
    url = "ws" + running.url.removeprefix("http") + "/v1/stream"
    try:
        async with websockets.connect(url, additional_headers=[("x-forwarded-for", value) for value in forwarded]):
            return 101
    except websockets.InvalidStatus as refused:
        return refused.response.status_code


async def test_each_client_behind_a_trusted_proxy_has_its_own_budget(tmp_path: Path) -> None:
    with serving(tmp_path, limits=TIGHT, proxy=TRUSTING) as running:
        for attempt, expected in ((try_signup, 400), (try_stream, 101)):
            assert [await attempt(running, "203.0.113.7") for _ in range(3)] == [expected, expected, 429]
            assert await attempt(running, "203.0.113.8") == expected
            assert await attempt(running, "203.0.113.99, 203.0.113.7") == 429, "what a client invents moves nothing"
            assert await attempt(running, "203.0.113.99", "203.0.113.7") == 429


async def test_a_stranger_who_says_it_is_a_proxy_is_not_believed(tmp_path: Path) -> None:
    for number, proxy in enumerate((Proxy(), Proxy(trusted=("192.0.2.0/24",)))):
        folder = tmp_path / str(number)
        folder.mkdir()
        with serving(folder, limits=TIGHT, proxy=proxy) as running:
            assert [await try_signup(running, f"203.0.113.{n}") for n in range(3)] == [400, 400, 429]
            assert await try_signup(running, "for=203.0.113.50", name="forwarded") == 429
            assert [await try_stream(running, f"203.0.113.{n}") for n in range(3)] == [101, 101, 429]


async def test_made_up_tokens_are_counted_on_the_client_behind_the_proxy(tmp_path: Path) -> None:
    limits = msgspec.structs.replace(GENEROUS, requests_per_second=0.01, requests_burst=2)
    with serving(tmp_path, limits=limits, proxy=TRUSTING) as running:
        async with httpx.AsyncClient(base_url=running.url) as http:

            async def ask(client: str) -> int:
                headers = {"authorization": "DPoP made-up", "dpop": "a.b.c", "x-forwarded-for": client}
                return (await http.get("/v1/devices", headers=headers)).status_code

            assert [await ask("203.0.113.7") for _ in range(3)] == [401, 401, 429]
            assert (await http.get("/v1/organization", headers={"x-forwarded-for": "203.0.113.9"})).status_code == 200


# --- who may read /metrics ------------------------------------------------------------------------


async def scrape(running: Running, **headers: str) -> int:
    """The status of /metrics."""
    async with httpx.AsyncClient(base_url=running.url) as http:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return (await http.get("/metrics", headers=named)).status_code


async def test_counts_are_for_this_machine_and_not_for_a_proxy_on_it(tmp_path: Path) -> None:
    with serving(tmp_path, metrics=True) as running:
        port = running.config.port
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", "localhost"):
            assert await scrape(running, host=host) == 200, host
        for host in ("curbside.example.org", f"10.0.0.1:{port}", "localhost.example.org", "", "127.0.0.1.evil:80"):
            assert await scrape(running, host=host) in (400, 404), host
        for header in ("x_forwarded_for", "forwarded", "x_real_ip", "via", "x_forwarded_host"):
            assert await scrape(running, **{header: "127.0.0.1"}) in (400, 404), header


async def test_counts_behind_a_trusted_proxy_go_by_the_clients_address(tmp_path: Path) -> None:
    telemetry = Telemetry(metrics_networks=("192.0.2.0/24", "127.0.0.0/8"))
    with serving(tmp_path, metrics=True, proxy=TRUSTING, telemetry=telemetry) as running:
        assert await scrape(running, x_forwarded_for="192.0.2.9") == 200
        assert await scrape(running, x_forwarded_for="192.0.2.9, 203.0.113.7") != 200
        assert await scrape(running, x_forwarded_for="127.0.0.1") != 200
        assert await scrape(running) == 200


async def test_a_token_is_asked_for_when_there_is_one(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("correct-horse-battery\nsecond line\n")
    with serving(tmp_path, metrics=True, telemetry=Telemetry(metrics_token_file=file)) as running:
        assert await scrape(running, authorization="Bearer correct-horse-battery") == 200
        for wrong in (
            "Bearer correct-horse-batterx",
            "Bearer",
            "correct-horse-battery",
            "Basic x",
            "Bearer second line",
        ):
            assert await scrape(running, authorization=wrong) != 200
        assert await scrape(running) != 200


@pytest.mark.parametrize("content", [None, "", "short", "a token with \x07 bells\n", "tökentökentökentöken"])
def test_a_token_file_without_a_token_stops_the_start(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    config = Running(tmp_path, metrics=True, telemetry=Telemetry(metrics_token_file=file)).config
    with pytest.raises(ConfigError, match="metrics_token_file"):
        create_app(config)
