"""Transport: HTTPS requests and the stream, both with proofs of the device's key. No state beyond the session."""

from __future__ import annotations

import asyncio
import email.utils
from collections.abc import AsyncIterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from curbside.client.network import CONNECT_SECONDS, Network, Socket
from curbside.clock import Clock
from curbside.crypto.jose import ProofRequest, make_proof
from curbside.crypto.secret import SecretBytes
from curbside.errors import CurbsideError, Malformed, NotAuthenticated, PeerUnavailable, UsageError
from curbside.wire import bodies, frames

T = TypeVar("T")
SLOW_SECONDS = 24 * 3600
"""How far a device's clock may be behind the server's without harm."""


def _errors_by_code() -> dict[str, type[CurbsideError]]:
    found: dict[str, type[CurbsideError]] = {}
    waiting: list[type[CurbsideError]] = [CurbsideError]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            if "code" in vars(kind):
                found[kind.code] = kind
    return found


ERRORS = _errors_by_code()


def error_of_problem(code: str, detail: str, members: dict[str, Any]) -> CurbsideError:
    """The error a problem on the wire stands for; an unknown code becomes PeerUnavailable, which is tried again."""
    kind = ERRORS.get(code)
    if kind is None:
        return PeerUnavailable(f"the server answered with an unknown problem {code!r}")
    error = kind.__new__(kind)
    CurbsideError.__init__(error, detail, **members)
    for name in ("check", "device"):
        if name in members:
            setattr(error, name, members[name])
    return error


class Transport:
    """One device's connection to one server. `session` is set after sign-in."""

    def __init__(self, server: str, api_key: SecretBytes, clock: Clock, network: Network) -> None:
        self.server = server.rstrip("/")
        self.api_key = api_key
        self._clock = clock
        self._skew = 0
        self._network = network
        self.session: bodies.Session | None = None
        self._http = network.open_http(self.server)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def call(
        self, method: str, path: str, answer: type[T], body: msgspec.Struct | None = None, *, proof: bool = True
    ) -> T:
        """One JSON request. `answer`: the struct to decode, or `type(None)` for 204.

        Raises: PeerUnavailable, or the error that the server's problem names.
        """
        content = None if body is None else msgspec.json.encode(body)
        headers = {"content-type": "application/json"} if content is not None else {}
        response = await self.request(method, path, content=content, headers=headers, proof=proof)
        if answer is type(None):
            return None
        try:
            return msgspec.json.decode(response.content, type=answer)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise Malformed("the server's answer could not be read") from error

    async def request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        proof: bool = True,
    ) -> httpx.Response:
        """One request with any body; the answer's status is below 400. Raises: as `call`."""
        for attempt in (1, 2):
            sent = dict(headers or {})
            if proof:
                sent |= self._proof_headers(method, path)
            try:
                response = await self._http.request(method, path, content=content, headers=sent)
            except (httpx.TransportError, OSError) as error:
                raise PeerUnavailable() from error
            if response.status_code == 401 and proof and attempt == 1 and self._correct_clock(response):
                continue
            if response.status_code >= 400:
                raise _error_of_response(response)
            return response
        raise UsageError()

    async def fetch(self, url: str, first: int, last: int) -> bytes:
        """Bytes first to last (included) from another place than the server, which is told nothing of us.

        Raises: PeerUnavailable, also when the answer is not these bytes.
        """
        asked = {"range": f"bytes={first}-{last}", "accept-encoding": "identity"}
        parts = urlsplit(url)
        try:
            async with (
                self._network.open_http(f"{parts.scheme}://{parts.netloc}") as client,
                client.stream("GET", url, headers=asked) as response,
            ):
                if response.status_code != 206 or int(response.headers.get("content-length", -1)) != last - first + 1:
                    raise PeerUnavailable
                return await response.aread()
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise PeerUnavailable from error

    def _proof_headers(self, method: str, path: str) -> dict[str, str]:
        token = self.session.token if self.session else None
        htu = self.server + urlsplit(path).path
        proof = make_proof(self.api_key, ProofRequest(method, htu, self._now(), token or ""))
        return {"dpop": proof} | ({"authorization": f"DPoP {token}"} if token else {})

    def now_ms(self) -> int:
        """Unix milliseconds: this device's clock, put right when the server's is ahead, by a day at most.

        A slow clock would refuse people who have just signed up; beyond a day the server's word is not taken.
        """
        return self._clock.now_ms() + min(max(self._skew, 0), SLOW_SECONDS) * 1000

    def now(self) -> int:
        """The same in seconds."""
        return self.now_ms() // 1000

    def _now(self) -> int:
        return self._clock.now() + self._skew

    def _correct_clock(self, response: httpx.Response) -> bool:
        """Take over the server's clock when ours is off by more than a proof allows; whether it was."""
        try:
            server_now = int(email.utils.parsedate_to_datetime(response.headers["date"]).timestamp())
        except (KeyError, ValueError):
            return False
        skew = server_now - self._clock.now()
        changed = abs(skew - self._skew) > 60
        self._skew = skew if changed else self._skew
        return changed

    async def open_stream(self) -> Stream:
        """Connect and authenticate the stream. Raises: PeerUnavailable, NotAuthenticated, DeviceRevoked."""
        if self.session is None:
            raise NotAuthenticated()
        socket = await self._network.open_socket("ws" + self.server.removeprefix("http") + "/v1/stream")
        stream = Stream(socket)
        try:
            challenge = await asyncio.wait_for(stream.receive(), CONNECT_SECONDS)
            if not isinstance(challenge, frames.Challenge):
                raise Malformed("the server did not open the stream with a challenge")
            url = self.server + "/v1/stream"
            now = challenge.server_time // 1000
            proof = make_proof(self.api_key, ProofRequest("GET", url, now, self.session.token, challenge.nonce))
            await stream.send(frames.Authenticate(self.session.token, proof, frames.PROTOCOL))
            ready = await asyncio.wait_for(stream.receive(), CONNECT_SECONDS)
            if isinstance(ready, frames.Closing):
                raise error_of_problem(ready.code, ready.detail, {})
            if not isinstance(ready, frames.Ready):
                raise Malformed("the server did not accept the stream")
        except TimeoutError as error:
            await stream.close()
            raise PeerUnavailable() from error
        except BaseException:
            await stream.close()
            raise
        return stream


class Stream:
    """An authenticated stream: frames in, frames out."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[frames.ServerFrame] = msgspec.msgpack.Decoder(frames.ServerFrame)

    async def send(self, frame: frames.ClientFrame) -> None:
        """Send one frame. Raises: PeerUnavailable."""
        await self._socket.send(self._encoder.encode(frame))

    async def receive(self) -> frames.ServerFrame:
        """The next frame. Raises: PeerUnavailable (closed), Malformed."""
        data = await self._socket.receive()
        try:
            return self._decoder.decode(data)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise Malformed("a frame from the server could not be read") from error

    async def __aiter__(self) -> AsyncIterator[frames.ServerFrame]:
        while True:
            yield await self.receive()

    async def close(self) -> None:
        """Close the connection."""
        await self._socket.close()


def _error_of_response(response: httpx.Response) -> CurbsideError:
    try:
        problem = response.json()
        code = str(problem["type"]).removeprefix("urn:curbside:problem:")
        standard = {"type", "title", "status", "detail", "instance", "next_step"}
        members = {k: v for k, v in problem.items() if k not in standard}
        return error_of_problem(code, str(problem.get("detail", "")), members)
    except (ValueError, KeyError, TypeError):
        return PeerUnavailable(f"the server answered {response.status_code}")
