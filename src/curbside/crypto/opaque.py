"""OPAQUE (RFC 9807): sign-in in which the server never learns the passphrase.

ristretto255-SHA512, 3DH, argon2id with 19,456 KiB, 2 passes, 1 lane on the client; no identities on either side, since
the library takes none. `web/src/core/crypto/opaque.ts` is the client's twin.

    client start_registration → server respond_registration → client finish_registration → server accept_registration
    client start_login        → server respond_login        → client complete_login      → server finish_login
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import opaque_ke_py as ke

from curbside.crypto.passphrase import prepare_passphrase
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.errors import Malformed, UsageError, WrongPassphrase
from curbside.ids import UserId, encode_base64url


@dataclass(frozen=True, slots=True)
class Started:
    """A client's first step. message: to the server. state: to the client's own second step."""

    message: bytes
    state: SecretBytes


@dataclass(frozen=True, slots=True)
class Registered:
    """record: to the server, 192 bytes. export_key: 64 bytes that only this passphrase gives again."""

    record: bytes
    export_key: SecretBytes


@dataclass(frozen=True, slots=True)
class LoginResponse:
    """A server's first step. response: to the client, 320 bytes. state: to `finish_login`, in any process."""

    response: bytes
    state: SecretBytes


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """finalization: to the server, 64 bytes. session_key: shared with the server. export_key: as at registration."""

    finalization: bytes
    session_key: SecretBytes
    export_key: SecretBytes


# --- server -----------------------------------------------------------------------------------


def make_server_setup() -> SecretBytes:
    """The server's long-term OPAQUE keys, made once; whoever has them can try passphrases offline."""
    return SecretBytes(ke.server_setup().to_bytes())


@final
class OpaqueServer:
    """The server's steps. Making one takes as long as one sign-in on a client: it registers a record for strangers."""

    __slots__ = ("_setup", "_stranger")

    def __init__(self, setup: SecretBytes) -> None:
        """Load the keys that `make_server_setup` made.

        Raises: UsageError.
        """
        try:
            self._setup = ke.ServerSetupData.from_bytes(setup.reveal())
        except ValueError:
            raise UsageError("not an OPAQUE server setup") from None
        passphrase = encode_base64url(random_bytes(32))
        start = start_registration(passphrase)
        response = self.respond_registration(UserId("stranger"), start.message)
        self._stranger = finish_registration(passphrase, start.state, response).record

    def respond_registration(self, user_id: UserId, request: bytes) -> bytes:
        """Answer a registration request.

        Raises: Malformed.
        """
        try:
            return ke.server_registration_start(self._setup, request, user_id.encode()).get_message()
        except ValueError:
            raise Malformed("not an OPAQUE registration request") from None

    def respond_login(self, user_id: UserId, record: bytes | None, request: bytes) -> LoginResponse:
        """Answer a login request. record None: nobody of this id; the answer looks the same and no passphrase fits.

        Raises: Malformed.
        """
        stored = self._stranger if record is None else record
        try:
            data = ke.server_login_start(self._setup, stored, request, user_id.encode())
        except ValueError:
            raise Malformed("not an OPAQUE login request") from None
        return LoginResponse(data.get_message(), SecretBytes(data.get_state()))


def accept_registration(record: bytes) -> bytes:
    """The record to store for a user, out of what the client sent.

    Raises: Malformed.
    """
    try:
        return ke.server_registration_finish(record).get_password_file()
    except ValueError:
        raise Malformed("not an OPAQUE record") from None


def finish_login(state: SecretBytes, finalization: bytes) -> SecretBytes:
    """The session key, when the client has proved that it knows the passphrase.

    Raises: WrongPassphrase, whatever is wrong.
    """
    try:
        return SecretBytes(ke.server_login_finish(state.reveal(), finalization).get_session_key())
    except ValueError:
        raise WrongPassphrase from None


# --- client -----------------------------------------------------------------------------------


def start_registration(passphrase: str) -> Started:
    """A client's first step to register a passphrase."""
    data = ke.client_registration_start(prepare_passphrase(passphrase).reveal())
    return Started(data.get_message(), SecretBytes(data.get_state()))


def finish_registration(passphrase: str, state: SecretBytes, response: bytes) -> Registered:
    """A client's second step to register; runs argon2id.

    Raises: Malformed.
    """
    try:
        data = ke.client_registration_finish(prepare_passphrase(passphrase).reveal(), state.reveal(), response)
    except ValueError:
        raise Malformed("not an OPAQUE registration response") from None
    return Registered(data.get_message(), SecretBytes(data.get_export_key()))


def start_login(passphrase: str) -> Started:
    """A client's first step to sign in."""
    data = ke.client_login_start(prepare_passphrase(passphrase).reveal())
    return Started(data.get_message(), SecretBytes(data.get_state()))


def complete_login(passphrase: str, state: SecretBytes, response: bytes) -> LoggedIn:
    """A client's second step to sign in; runs argon2id.

    Raises: WrongPassphrase, also for an answer that is not the server's.
    """
    try:
        data = ke.client_login_finish(prepare_passphrase(passphrase).reveal(), state.reveal(), response)
    except ValueError:
        raise WrongPassphrase from None
    return LoggedIn(data.get_message(), SecretBytes(data.get_session_key()), SecretBytes(data.get_export_key()))
