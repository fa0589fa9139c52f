"""Invites: enrolment certificates signed by the organisation authority, each good for one sign-up until it expires."""

from __future__ import annotations

from curbside.audit.events import EventName, ObjectType
from curbside.clock import Clock
from curbside.crypto.x509 import Certificate, parse_certificate
from curbside.errors import CurbsideError, DuplicateRequest, InviteExpired, InviteUsed, NotFound, UntrustedDevice
from curbside.ids import InviteId, decode_base64url, decode_id, encode_base64url
from curbside.policy.chain import verify_issued, verify_role
from curbside.server.keys import ServerKeys
from curbside.server.recording import AUTHORITY, NOBODY, About, Recorder
from curbside.server.store.ports import Change, IdentityView, Store
from curbside.server.store.records import InviteRecord
from curbside.wire import bodies

ENROLMENT: str = "an enrolment"
"""What an enrolment certificate is called when it is refused; its person has no name yet."""


class InviteService:
    """Takes invites in, and shows them to those who have the link."""

    def __init__(self, store: Store, clock: Clock, keys: ServerKeys) -> None:
        self._store = store
        self._clock = clock
        self._keys = keys
        self._recorder = Recorder(clock)

    async def create_invite(self, body: bodies.NewInvite) -> bodies.Invite:
        """Deposit an enrolment certificate; the authority's signature on it is the permission. Repeating is harmless.

        Raises: Malformed; UntrustedDevice; InviteExpired; DuplicateRequest.
        """
        invite_id = parse_invite_id(body.invite_id)
        about = About(
            EventName.INVITE_CREATED,
            "R-invite-create",
            ObjectType.INVITE,
            invite_id,
            refused=EventName.INVITE_REFUSED,
        )
        try:
            record = self._verify(invite_id, decode_base64url(body.enrolment_certificate))
        except CurbsideError as error:
            event = self._recorder.refused(about, NOBODY)(error)
            await self._store.write(lambda tx: tx.append_audit(event))
            raise
        await self._store.write(lambda tx: self._add(tx, record, about), self._recorder.refused(about, AUTHORITY))
        return self._show(record)

    async def get_invite(self, invite_id: str) -> bodies.Invite:
        """The invite of a link.

        Raises: Malformed; NotFound; InviteExpired; InviteUsed.
        """
        wanted = parse_invite_id(invite_id)
        about = About(
            EventName.INVITE_VIEWED, "R-invite-read", ObjectType.INVITE, wanted, refused=EventName.INVITE_REFUSED
        )

        def view(tx: Change) -> InviteRecord:
            record = get_open_invite(tx.identity, wanted, self._clock.now())
            tx.append_audit(self._recorder.done(about, NOBODY))
            return record

        return self._show(await self._store.write(view, self._recorder.refused(about, NOBODY)))

    def _verify(self, invite_id: InviteId, raw: bytes) -> InviteRecord:
        certificate = parse_certificate(raw)
        if certificate.kind != "enrolment":
            raise UntrustedDevice(ENROLMENT, "trust.chain.parse")
        verify_issued(certificate, self._keys.authority, ENROLMENT)
        verify_role(certificate, ENROLMENT)
        now = self._clock.now()
        if now > certificate.not_after:
            raise InviteExpired
        if now < certificate.not_before:
            raise UntrustedDevice(ENROLMENT, "trust.enrolment.window")
        return _build_record(invite_id, certificate, now)

    def _add(self, tx: Change, record: InviteRecord, about: About) -> None:
        former = tx.identity.find_invite(record.invite_id)
        if former is not None and former.enrolment_certificate == record.enrolment_certificate:
            return
        if former is not None or tx.identity.find_user(record.user_id) is not None:
            raise DuplicateRequest
        tx.identity.add_invite(record)
        tx.append_audit(self._recorder.done(about, AUTHORITY))

    def _show(self, record: InviteRecord) -> bodies.Invite:
        return bodies.Invite(
            invite_id=record.invite_id,
            organization=self._keys.organization,
            authority_certificate=encode_base64url(self._keys.authority.raw),
            enrolment_certificate=encode_base64url(record.enrolment_certificate),
            user_id=record.user_id,
            role=record.role,
            expires_at=record.expires_at,
        )


def parse_invite_id(text: str) -> InviteId:
    """An invite's id.

    Raises: Malformed.
    """
    decode_id(text)
    return InviteId(text)


def get_open_invite(identity: IdentityView, invite_id: InviteId, now: int) -> InviteRecord:
    """An invite that can be used now.

    Raises: NotFound; InviteUsed; InviteExpired.
    """
    record = identity.find_invite(invite_id)
    if record is None:
        raise NotFound
    if record.used_at:
        raise InviteUsed
    if now > record.expires_at:
        raise InviteExpired
    return record


def _build_record(invite_id: InviteId, certificate: Certificate, now: int) -> InviteRecord:
    subject = certificate.subject
    return InviteRecord(invite_id, subject.user_id, subject.role, certificate.raw, now, certificate.not_after)
