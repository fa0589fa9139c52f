"""Sign-up by invite, sign-in, and the identity that a vault holds (docs/trust.md, docs/protocol.md)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from curbside.client.groups import Groups
from curbside.client.network import Network
from curbside.client.transport import Transport, error_of_problem
from curbside.client.trust import VerifiedInvite, verify_invite
from curbside.client.vault import Vault
from curbside.clock import Clock
from curbside.crypto import opaque
from curbside.crypto.jose import sign_api_key
from curbside.crypto.passphrase_rating import rate_passphrase
from curbside.crypto.random import random_bytes
from curbside.crypto.secret import SecretBytes
from curbside.crypto.sign import Signer, generate_signature_key
from curbside.crypto.x509 import Issuer, make_device_certificate, make_user_certificate
from curbside.errors import (
    CurbsideError,
    DeviceRevoked,
    IntegrityError,
    InviteUsed,
    NotFound,
    PeerUnavailable,
    RuleBroken,
    Unavailable,
    WrongPassphrase,
)
from curbside.ids import DeviceId, decode_base64url, encode_base64url, encode_id
from curbside.mls.key_package import OwnLeaf
from curbside.mls.nodes import CREDENTIAL_X509, Capabilities, Credential
from curbside.policy.validator import OrganizationValidator
from curbside.wire import bodies, frames
from curbside.wire.group_policy import GROUP_POLICY
from curbside.wire.invite_link import InviteLink, parse_invite_link

FIRST_KEY_PACKAGES = 30
FINALIZATION_BYTES = 64


@dataclass(frozen=True)
class SignUp:
    """What a person gives at sign-up."""

    path: Path
    link: str
    name: str
    label: str
    passphrase: str


@dataclass(frozen=True)
class Identity:
    """Who this device is, out of its vault."""

    leaf: OwnLeaf
    api_key: SecretBytes
    validator: OrganizationValidator


def load_identity(vault: Vault) -> Identity:
    """The identity in an open vault. Raises: NotFound when sign-up was not completed."""
    rows = vault.rows
    chain = tuple(rows.get_certificate(name) for name in ("device", "user", "enrolment"))
    leaf = OwnLeaf(
        Credential.x509(*chain),
        SecretBytes(rows.get_secret("device_key")),
        Capabilities(suites=(1, 2), extensions=(GROUP_POLICY,), credentials=(CREDENTIAL_X509,)),
    )
    sender = decode_base64url(rows.get_setting("external_sender"))
    validator = OrganizationValidator(rows.get_certificate("authority"), sender)
    return Identity(leaf, SecretBytes(rows.get_secret("api_key")), validator)


async def sign_up(
    wanted: SignUp, clock: Clock, network: Network, progress: Callable[[str], None] = lambda _: None
) -> Vault:
    """Make keys and vault, enrol with the server, and answer the open vault.

    Everything is in the vault before the server hears of it, so that a lost answer loses no key: when the server says
    that the invite was used, signing in tells whether it was used by us. Where nobody can tell (the server is away, the
    process ends), the vault stays, and the next sign-up at the same place finds out.

    Raises: see `Device.join`; IntegrityError (somebody's vault is at that place).
    """
    if (joined := await _resume(wanted, clock, network, progress)) is not None:
        return joined
    link = parse_invite_link(wanted.link)
    transport = Transport(link.origin, generate_signature_key("ed25519"), clock, network)
    try:
        progress("Checking the invite")
        invite = await _verified_invite(transport, link, clock.now())
        score = rate_passphrase(wanted.passphrase, wanted.name, invite.organization)
        if not score.acceptable:
            raise RuleBroken("passphrase.strength", score.hint)
        organization = await transport.call("GET", "/v1/organization", bodies.Organization, proof=False)
        progress("Making keys")
        vault = Vault.create(wanted.path, wanted.passphrase)
    except BaseException:
        await transport.close()
        raise
    is_asked = False
    try:
        enrolment = await _make_identity(vault, wanted, link, invite, organization, transport, clock.now())
        progress("Signing up")
        is_asked = True
        await _finish(vault, transport, enrolment, wanted.passphrase)
        with vault.transaction() as rows:
            rows.put_setting("joined", "yes")
    except BaseException as error:
        vault.close()
        is_refused = isinstance(error, CurbsideError) and not isinstance(error, Unavailable)
        if is_refused or not is_asked:
            _erase(wanted.path)
        raise
    finally:
        await transport.close()
    return vault


async def _resume(wanted: SignUp, clock: Clock, network: Network, progress: Callable[[str], None]) -> Vault | None:
    """The vault of a sign-up whose end nobody heard, if the server took it; None when there is none any more."""
    if not wanted.path.exists():
        return None
    try:
        vault = Vault.open(wanted.path, wanted.passphrase)
    except (NotFound, WrongPassphrase) as error:
        raise IntegrityError("a vault exists at this place already") from error
    try:
        if vault.rows.find_setting("joined") == "yes":
            raise IntegrityError("a vault exists at this place already")
        progress("Asking how the last try ended")
        transport = Transport(vault.rows.get_setting("server"), load_identity(vault).api_key, clock, network)
        try:
            await sign_in(vault, transport, SecretBytes(wanted.passphrase.encode()))
        finally:
            await transport.close()
        with vault.transaction() as rows:
            rows.put_setting("joined", "yes")
    except (NotFound, WrongPassphrase, DeviceRevoked):
        vault.close()
        _erase(wanted.path)
        return None
    except BaseException:
        vault.close()
        raise
    return vault


def _erase(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", ".wraps"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


async def _verified_invite(transport: Transport, link: InviteLink, now: int) -> VerifiedInvite:
    answer = await transport.call("GET", f"/v1/invites/{link.invite_id}", bodies.Invite, proof=False)
    return verify_invite(link, answer, now)


async def _make_identity(
    vault: Vault,
    wanted: SignUp,
    link: InviteLink,
    invite: VerifiedInvite,
    organization: bodies.Organization,
    transport: Transport,
    now: int,
) -> bodies.SignupFinish:
    """Make all keys and certificates, put them into the vault, and answer the request that enrols them."""
    user_key, device_key = generate_signature_key("ed25519"), generate_signature_key("ed25519")
    device_id = DeviceId(encode_id(random_bytes(16)))
    user = make_user_certificate(invite.enrolment, Signer("ed25519", user_key).public, wanted.name, now)
    device_public = Signer("ed25519", device_key).public
    device = make_device_certificate(Issuer(user, user_key), device_public, wanted.label, device_id, now)
    started = opaque.start_registration(wanted.passphrase)
    answer = await transport.call(
        "POST",
        "/v1/signup/start",
        bodies.SignupStarted,
        bodies.SignupStart(link.invite_id, encode_base64url(started.message)),
        proof=False,
    )
    registered = opaque.finish_registration(wanted.passphrase, started.state, decode_base64url(answer.opaque_response))
    with vault.transaction() as rows:
        for name, key in (("user_key", user_key), ("device_key", device_key), ("api_key", transport.api_key)):
            rows.put_secret(name, key.reveal())
        certificates = {
            "authority": invite.authority,
            "enrolment": invite.enrolment.certificate,
            "user": user,
            "device": device,
        }
        for name, certificate in certificates.items():
            rows.put_certificate(name, certificate.raw)
        rows.put_setting("user_id", invite.user_id)
        rows.put_setting("device_id", device_id)
        rows.put_setting("name", wanted.name)
        rows.put_setting("role", invite.role)
        rows.put_setting("organization", invite.organization)
        rows.put_setting("server", link.origin)
        rows.put_setting("external_sender", organization.external_sender)
        identity = load_identity(vault)
        groups = Groups(vault, identity.leaf, identity.validator)
        packages = groups.make_key_packages(FIRST_KEY_PACKAGES, now)
        last_resort = groups.make_key_packages(1, now, last_resort=True)[0]
    api_public = Signer("ed25519", transport.api_key).public
    return bodies.SignupFinish(
        invite_id=link.invite_id,
        opaque_record=encode_base64url(registered.record),
        user_certificate=encode_base64url(user.raw),
        device=bodies.NewDevice(
            device_id,
            encode_base64url(device.raw),
            encode_base64url(api_public),
            encode_base64url(sign_api_key(device_key, device_id, api_public)),
        ),
        key_packages=[encode_base64url(package) for package in packages],
        last_resort_key_package=encode_base64url(last_resort),
    )


async def _finish(vault: Vault, transport: Transport, request: bodies.SignupFinish, passphrase: str) -> None:
    lost_answer = False
    for attempt in (1, 2, 3):
        try:
            transport.session = await transport.call("POST", "/v1/signup/finish", bodies.Session, request)
        except PeerUnavailable:
            lost_answer = True
            if attempt == 3:
                raise
        except InviteUsed:
            if not lost_answer:
                raise
            await sign_in(vault, transport, SecretBytes(passphrase.encode()))
            return
        else:
            return


async def sign_in(vault: Vault, transport: Transport, passphrase: SecretBytes) -> None:
    """Sign in by OPAQUE; the session is then in `transport.session`.

    [Note: refused in two steps] A device that was removed gets an answer that no passphrase opens, as strangers do.
    Only the proof of its key, in the second step, lets the server say that it was removed: so that is taken even then.

    Raises: WrongPassphrase, DeviceRevoked, TooMany, PeerUnavailable.
    """
    text = passphrase.reveal().decode()
    user_id, device_id = vault.rows.get_setting("user_id"), vault.rows.get_setting("device_id")
    transport.session = None
    started = opaque.start_login(text)
    start = bodies.SigninStart(user_id, device_id, encode_base64url(started.message))
    answer = await transport.call("POST", "/v1/signin/start", bodies.SigninStarted, start)
    refused: WrongPassphrase | None = None
    finalization = bytes(FINALIZATION_BYTES)
    try:
        finalization = opaque.complete_login(text, started.state, decode_base64url(answer.opaque_response)).finalization
    except WrongPassphrase as error:
        refused = error
    finish = bodies.SigninFinish(answer.signin_id, encode_base64url(finalization))
    session = await transport.call("POST", "/v1/signin/finish", bodies.Session, finish)
    if refused is not None:
        raise refused
    transport.session = session


def error_of_closing(frame: frames.Closing) -> CurbsideError:
    """Why the server ended a stream, as an error; "draining" is PeerUnavailable: connect again."""
    if frame.code == "draining":
        return PeerUnavailable("the server restarts")
    return error_of_problem(frame.code, frame.detail, {})


def error_of_json(text: str) -> CurbsideError:
    """The error that `outbox.problem_json` kept."""
    body = json.loads(text)
    return error_of_problem(body["code"], body["detail"], body.get("members", {}))
