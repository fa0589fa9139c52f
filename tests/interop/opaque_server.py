"""The server's side of OPAQUE over standard input and output, for the web client's test: one JSON object a line.

{"step": "register", "user_id", "message"} → {"response"}         {"step": "record", "user_id", "message"} → {}
{"step": "login", "user_id", "message"} → {"response"}            {"step": "finish", "message"} → {"session_key"}
A refusal is {"error": code}.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from curbside.crypto.opaque import LoginResponse, OpaqueServer, accept_registration, finish_login, make_server_setup
from curbside.errors import CurbsideError
from curbside.ids import UserId, decode_base64url, encode_base64url


class Desk:
    """One server, its records and the sign-in under way."""

    def __init__(self) -> None:
        self.server = OpaqueServer(make_server_setup())
        self.records: dict[UserId, bytes] = {}
        self.login: LoginResponse | None = None

    def answer(self, step: str, user_id: UserId, message: bytes) -> dict[str, str]:
        match step:
            case "register":
                return {"response": encode_base64url(self.server.respond_registration(user_id, message))}
            case "record":
                self.records[user_id] = accept_registration(message)
                return {}
            case "login":
                self.login = self.server.respond_login(user_id, self.records.get(user_id), message)
                return {"response": encode_base64url(self.login.response)}
            case _:
                assert self.login is not None
                return {"session_key": encode_base64url(finish_login(self.login.state, message).reveal())}


def main() -> None:
    desk = Desk()
    for line in sys.stdin:
        question: dict[str, Any] = json.loads(line)
        try:
            user_id = UserId(question.get("user_id", ""))
            answer = desk.answer(question["step"], user_id, decode_base64url(question["message"]))
        except CurbsideError as error:
            answer = {"error": error.code}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
