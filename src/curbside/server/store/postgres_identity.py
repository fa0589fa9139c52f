"""Identity in PostgreSQL: settings, invites, people, devices, sessions, key packages."""

from __future__ import annotations

from collections.abc import Sequence

from curbside.errors import DuplicateRequest
from curbside.ids import DeviceId, InviteId, UserId
from curbside.server.store.postgres_sealing import Sealer
from curbside.server.store.postgres_session import Row, Session
from curbside.server.store.records import (
    DeviceRecord,
    InviteRecord,
    KeyPackageRecord,
    SessionRecord,
    SigninRecord,
    UserRecord,
)

_INVITE = "invite_id, user_id, role, enrolment_certificate, created_at, expires_at, used_at"
_USER = "user_id, name, role, user_certificate, enrolment_certificate, created_at"
_DEVICE = "device_id, user_id, label, device_certificate, api_key, created_at, last_seen_at, revoked_at"
_SIGNIN = "signin_id, user_id, device_id, expires_at, state"
_SESSION = "token_hash, user_id, device_id, created_at, expires_at"
_NUL = "\0"
"""A character that PostgreSQL's text cannot hold: what has it is not there."""


class PostgresIdentity:
    """Implements IdentityChange (and so IdentityView) on one connection."""

    def __init__(self, session: Session, sealer: Sealer) -> None:
        self._session = session
        self._sealer = sealer

    # --- settings and invites -----------------------------------------------------------------

    def find_setting(self, name: str) -> bytes | None:
        row = self._session.one("SELECT value FROM settings WHERE name = %s", (name,))
        return self._sealer.open("settings.value", name, row[0]) if row else None

    def put_setting(self, name: str, value: bytes) -> None:
        self._session.change(
            """INSERT INTO settings (name, value) VALUES (%s, %s)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value""",
            (name, self._sealer.seal("settings.value", name, value)),
        )

    def find_invite(self, invite_id: InviteId) -> InviteRecord | None:
        row = self._session.one(f"SELECT {_INVITE} FROM invites WHERE invite_id = %s", (invite_id,))
        return InviteRecord(*row) if row else None

    def add_invite(self, record: InviteRecord) -> None:
        values = (
            record.invite_id,
            record.user_id,
            record.role,
            record.enrolment_certificate,
            record.created_at,
            record.expires_at,
            record.used_at,
        )
        self._insert("invites", _INVITE, values)

    def use_invite(self, invite_id: InviteId, used_at: int) -> bool:
        statement = "UPDATE invites SET used_at = %s WHERE invite_id = %s AND used_at = 0"
        return self._session.change(statement, (used_at, invite_id)) == 1

    # --- people and devices -------------------------------------------------------------------

    def find_user(self, user_id: UserId) -> UserRecord | None:
        row = self._session.one(f"SELECT {_USER} FROM users WHERE user_id = %s", (user_id,))
        return UserRecord(*row) if row else None

    def list_users(self, query: str, after: UserId | None, limit: int) -> list[UserRecord]:
        if _NUL in query or _NUL in (after or ""):
            return []
        rows = self._session.all(
            f"""SELECT {_USER} FROM users
            WHERE position(lower(%(query)s COLLATE "C") IN lower(name)) > 0
              AND (%(after)s::text IS NULL
                   OR (lower(name), user_id) > (SELECT lower(name), user_id FROM users WHERE user_id = %(after)s))
            ORDER BY lower(name), user_id LIMIT %(limit)s""",
            {"query": query, "after": after, "limit": limit},
        )
        return [UserRecord(*row) for row in rows]

    def add_user(self, record: UserRecord, opaque_record: bytes) -> None:
        values = (
            record.user_id,
            record.name,
            record.role,
            record.user_certificate,
            record.enrolment_certificate,
            record.created_at,
            self._sealer.seal("users.opaque_record", record.user_id, opaque_record),
        )
        self._insert("users", f"{_USER}, opaque_record", values)

    def find_opaque_record(self, user_id: UserId) -> bytes | None:
        row = self._session.one("SELECT opaque_record FROM users WHERE user_id = %s", (user_id,))
        return self._sealer.open("users.opaque_record", user_id, row[0]) if row else None

    def find_device(self, device_id: DeviceId) -> DeviceRecord | None:
        row = self._session.one(f"SELECT {_DEVICE} FROM devices WHERE device_id = %s", (device_id,))
        return DeviceRecord(*row) if row else None

    def list_devices(self, user_id: UserId) -> list[DeviceRecord]:
        rows = self._session.all(
            f"SELECT {_DEVICE} FROM devices WHERE user_id = %s ORDER BY created_at, device_id", (user_id,)
        )
        return [DeviceRecord(*row) for row in rows]

    def add_device(self, record: DeviceRecord) -> None:
        values = (
            record.device_id,
            record.user_id,
            record.label,
            record.device_certificate,
            record.api_key,
            record.created_at,
            record.last_seen_at,
            record.revoked_at,
        )
        self._insert("devices", _DEVICE, values)

    def revoke_device(self, device_id: DeviceId, revoked_at: int) -> bool:
        statement = "UPDATE devices SET revoked_at = %s WHERE device_id = %s AND revoked_at = 0"
        is_revoked_now = self._session.change(statement, (revoked_at, device_id)) == 1
        for table in ("sessions", "key_packages", "queue_items"):
            self._session.change(f"DELETE FROM {table} WHERE device_id = %s", (device_id,))
        return is_revoked_now

    def touch_device(self, device_id: DeviceId, last_seen_at: int) -> None:
        statement = "UPDATE devices SET last_seen_at = %s WHERE device_id = %s"
        self._session.change(statement, (last_seen_at, device_id), alongside=True)

    # --- sessions, sign-ins, proofs -----------------------------------------------------------

    def find_session(self, token_hash: bytes) -> SessionRecord | None:
        row = self._session.one(f"SELECT {_SESSION} FROM sessions WHERE token_hash = %s", (token_hash,))
        return SessionRecord(*row) if row else None

    def add_session(self, record: SessionRecord) -> None:
        values = (record.token_hash, record.user_id, record.device_id, record.created_at, record.expires_at)
        self._insert("sessions", _SESSION, values, alongside=True)

    def end_session(self, token_hash: bytes) -> None:
        self._session.change("DELETE FROM sessions WHERE token_hash = %s", (token_hash,))

    def take_expired_sessions(self, now: int, limit: int) -> list[SessionRecord]:
        return [SessionRecord(*row) for row in self._take_expired("sessions", "token_hash", _SESSION, (now, limit))]

    def take_expired_signins(self, now: int, limit: int) -> list[SigninRecord]:
        return [self._open_signin(row) for row in self._take_expired("signins", "signin_id", _SIGNIN, (now, limit))]

    def delete_expired_proofs(self, now: int) -> None:
        self._session.change("DELETE FROM used_proofs WHERE expires_at <= %s", (now,), alongside=True)

    def add_signin(self, record: SigninRecord) -> None:
        state = self._sealer.seal("signins.state", record.signin_id, record.state)
        values = (record.signin_id, record.user_id, record.device_id, record.expires_at, state)
        self._insert("signins", _SIGNIN, values, alongside=True)

    def take_signin(self, signin_id: str) -> SigninRecord | None:
        statement = f"DELETE FROM signins WHERE signin_id = %s RETURNING {_SIGNIN}"
        rows = self._session.change_all(statement, (signin_id,), alongside=True)
        return self._open_signin(rows[0]) if rows else None

    def use_proof(self, proof_id: bytes, expires_at: int) -> bool:
        statement = "INSERT INTO used_proofs (proof_id, expires_at) VALUES (%s, %s) ON CONFLICT DO NOTHING"
        return self._session.change(statement, (proof_id, expires_at), alongside=True) == 1

    # --- key packages -------------------------------------------------------------------------

    def count_key_packages(self, device_id: DeviceId) -> int:
        row = self._session.one(
            "SELECT count(*) FROM key_packages WHERE device_id = %s AND NOT is_last_resort", (device_id,)
        )
        return int(row[0]) if row else 0

    def add_key_packages(self, records: Sequence[KeyPackageRecord]) -> None:
        for record in records:
            if record.is_last_resort:
                self._session.change(
                    "DELETE FROM key_packages WHERE device_id = %s AND is_last_resort", (record.device_id,)
                )
            self._session.change(
                "INSERT INTO key_packages (device_id, is_last_resort, key_package) VALUES (%s, %s, %s)",
                (record.device_id, record.is_last_resort, record.key_package),
            )

    def claim_key_package(self, device_id: DeviceId) -> bytes | None:
        rows = self._session.change_all(
            """WITH next AS MATERIALIZED (
                SELECT number FROM key_packages WHERE device_id = %s AND NOT is_last_resort
                ORDER BY number LIMIT 1 FOR UPDATE SKIP LOCKED
            ) DELETE FROM key_packages USING next WHERE key_packages.number = next.number RETURNING key_package""",
            (device_id,),
            alongside=True,
        )
        row = (
            rows[0]
            if rows
            else self._session.one(
                "SELECT key_package FROM key_packages WHERE device_id = %s AND is_last_resort", (device_id,)
            )
        )
        return bytes(row[0]) if row is not None else None

    # --- inside -------------------------------------------------------------------------------

    def _take_expired(self, table: str, key: str, names: str, values: tuple[int, int]) -> list[Row]:
        """Rows that another server takes at the same moment are passed over."""
        return self._session.change_all(
            f"""WITH over AS MATERIALIZED (
                SELECT {key} AS own_key FROM {table} WHERE expires_at <= %s LIMIT %s FOR UPDATE SKIP LOCKED
            ) DELETE FROM {table} USING over WHERE {key} = own_key RETURNING {names}""",
            values,
            alongside=True,
        )

    def _insert(self, table: str, names: str, values: tuple[object, ...], alongside: bool = False) -> None:
        marks = ", ".join(["%s"] * len(values))
        statement = f"INSERT INTO {table} ({names}) VALUES ({marks}) ON CONFLICT DO NOTHING"
        if self._session.change(statement, values, alongside) != 1:
            raise DuplicateRequest

    def _open_signin(self, row: Row) -> SigninRecord:
        signin_id, user_id, device_id, expires_at, state = row
        return SigninRecord(
            signin_id, user_id, device_id, expires_at, self._sealer.open("signins.state", signin_id, state)
        )
