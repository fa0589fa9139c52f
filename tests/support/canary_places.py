"""Where canaries are looked for: everything that a server and its people leave behind, and what passes between them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import apsw
import httpx
import msgspec
import websockets.sync.client as websocket
from canary import Source, read_folder, read_overheard
from lines import Line
from serving import ServerProcess
from websockets.exceptions import ConnectionClosed

from curbside.crypto.secret import SecretBytes
from curbside.server.store.sqlite_open import open_connection
from curbside.wire import frames

STREAM_SECONDS = 10.0


def read_server(server: ServerProcess) -> Iterator[Source]:
    """The folder (keys, database, -wal, blobs, checkpoints), the logs, the temporary files, and the opened database."""
    yield from read_folder(server.folder, "server")
    yield from read_folder(server.logs, "logs")
    yield from read_folder(server.temp, "server-tmp")
    yield from read_database(server.folder)


def read_database(folder: Path) -> Iterator[Source]:
    """What whoever holds the database key reads: each table's rows, each column on its own."""
    (path,) = folder.rglob("curbside.db")
    (key_file,) = folder.rglob("*database*key*")
    connection = open_connection(str(path), SecretBytes(bytes.fromhex(key_file.read_text("ascii").strip())))
    try:
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        for (table,) in tables:
            yield Source(f"opened database, {table}", b"\n".join(_rows(connection, str(table))))
    finally:
        connection.close()


def _rows(connection: apsw.Connection, table: str) -> Iterator[bytes]:
    for row in connection.execute(f'SELECT * FROM "{table}"'):
        yield b"\x1f".join(cell if isinstance(cell, bytes) else str(cell).encode() for cell in row)


def read_answers(server: ServerProcess) -> Iterator[Source]:
    """What the server tells anybody who asks: metrics, description, organisation, health."""
    for path in ("/metrics", "/v1/openapi.json", "/v1/organization", "/v1/health/ready", "/v1/health/live", "/"):
        yield _source(f"answer to {path}", httpx.get(server.direct + path))


def read_audit(server: ServerProcess, *, index: int) -> Iterator[Source]:
    """An export of the audit log, and what `curbside audit show` prints."""
    target = server.temp.parent / f"export-{index}.jsonl"
    server.curbside("audit", "export", "--folder", str(server.folder), "--output", str(target))
    yield Source("audit export", target.read_bytes())
    yield Source("audit show", server.curbside("audit", "show", "--folder", str(server.folder)).encode())


def read_lines(lines: list[Line]) -> Iterator[Source]:
    """All that was said between people and server."""
    for number, line in enumerate(lines):
        for count, heard in enumerate(line.overheard):
            yield from read_overheard(f"line {number}, connection {count}", bytes(heard.up), bytes(heard.down))


def provoke(server: ServerProcess, word: str) -> Iterator[Source]:
    """Requests that go wrong with a word in every place that a stranger fills in; the answers to them."""
    headers = {"content-type": "application/json"}
    with httpx.Client(base_url=server.direct, headers=headers) as client:
        strange = {"authorization": f"DPoP {word}", "dpop": word, "x-request-id": word, "user-agent": word}
        tries: list[tuple[str, str, dict[str, str], bytes]] = [
            ("GET", f"/v1/people?query={word}", {}, b""),
            ("GET", f"/v1/people/{word}", strange, b""),
            ("GET", f"/v1/{word}", strange, b""),
            ("GET", f"/assets/{word}.js", {}, b""),
            ("GET", f"/v1/blobs/{word}", strange, b""),
            ("GET", f"/v1/invites/{word}", {}, b""),
            ("GET", f"/metrics?{word}", {"referer": f"http://localhost/{word}"}, b""),
            ("POST", "/v1/signup/start", {}, json.dumps({"invite_id": word, "opaque_request": word}).encode()),
            ("POST", "/v1/signup/start", {}, b'{"invite_id": "' + word.encode()),
            ("POST", "/v1/signin/start", {}, json.dumps({word: word}).encode()),
            ("POST", "/v1/signin/start", {}, json.dumps({"account": word, "device_id": word}).encode()),
            ("POST", "/v1/invites", {}, json.dumps({"invite_id": word, "enrolment_certificate": word}).encode()),
            ("POST", "/v1/conversations", strange, json.dumps({"conversation_id": word}).encode()),
            ("PATCH", f"/v1/blobs/{word}", {"upload-offset": word}, word.encode()),
            ("PUT", "/v1/organization", {"content-type": word}, word.encode()),
            (word.upper(), "/v1/organization", {}, b""),
            ("GET", "/v1/organization", {"host": f"{word}.example.org"}, b""),
            ("GET", "/v1/organization", {"origin": f"https://{word}.example.org"}, b""),
        ]
        for method, path, more, body in tries:
            response = client.request(method, path, headers=more, content=body)
            yield _source(f"answer to {method} {path}".replace(word, "…"), response)
    yield from _provoke_stream(server, word)


def _provoke_stream(server: ServerProcess, word: str) -> Iterator[Source]:
    wrong = [word.encode(), msgspec.msgpack.encode(frames.Authenticate(word, word, frames.PROTOCOL)), word]
    for number, said in enumerate(wrong):
        url = server.direct.replace("http", "ws") + "/v1/stream"
        with websocket.connect(url, proxy=None, user_agent_header=word) as stream:
            heard = [stream.recv(STREAM_SECONDS)]
            stream.send(said)
            try:
                heard.append(stream.recv(STREAM_SECONDS))
            except ConnectionClosed as closed:
                heard.append(str(closed).encode())
        parts = [part if isinstance(part, bytes) else part.encode() for part in heard]
        yield Source(f"answer to wrong frame {number}", b"\n".join(parts))


def _source(place: str, response: httpx.Response) -> Source:
    head = "\n".join(f"{name}: {value}" for name, value in response.headers.items())
    return Source(place, f"{response.status_code}\n{head}\n".encode() + response.content)
