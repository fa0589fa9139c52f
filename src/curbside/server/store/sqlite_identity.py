"""Identity in SQLite: settings, invites, people, devices, sessions, key packages."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from curbside.errors import DuplicateRequest
from curbside.ids import DeviceId, InviteId, UserId
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
_TAKEN = (apsw.SQLITE_CONSTRAINT_PRIMARYKEY, apsw.SQLITE_CONSTRAINT_UNIQUE)
_SIGNIN = "signin_id, user_id, device_id, expires_at, state"
_SESSION = "token_hash, user_id, device_id, created_at, expires_at"


class SqliteIdentity:
    """Implements IdentityChange (and so IdentityView) on one connection."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._run = connection.execute
        self._connection = connection

    # --- settings and invites -----------------------------------------------------------------

    def find_setting(self, name: str) -> bytes | None:
        row = self._run("SELECT value FROM settings WHERE name = ?", (name,)).get
        return bytes(row) if row is not None else None

    def put_setting(self, name: str, value: bytes) -> None:
        self._run("INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", (name, value))

    def find_invite(self, invite_id: InviteId) -> InviteRecord | None:
        row = self._run(f"SELECT {_INVITE} FROM invites WHERE invite_id = ?", (invite_id,)).fetchone()
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
        self._insert(f"INSERT INTO invites ({_INVITE}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def use_invite(self, invite_id: InviteId, used_at: int) -> bool:
        self._run("UPDATE invites SET used_at = ? WHERE invite_id = ? AND used_at = 0", (used_at, invite_id))
        return self._connection.changes() == 1

    # --- people and devices -------------------------------------------------------------------

    def find_user(self, user_id: UserId) -> UserRecord | None:
        row = self._run(f"SELECT {_USER} FROM users WHERE user_id = ?", (user_id,)).fetchone()
        return UserRecord(*row) if row else None

    def list_users(self, query: str, after: UserId | None, limit: int) -> list[UserRecord]:
        rows = self._run(
            f"""SELECT {_USER} FROM users
            WHERE instr(lower(name), lower(:query)) > 0
              AND (:after IS NULL
                   OR (name COLLATE NOCASE, user_id)
                      > (SELECT name COLLATE NOCASE, user_id FROM users WHERE user_id = :after))
            ORDER BY name COLLATE NOCASE, user_id LIMIT :limit""",
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
            opaque_record,
        )
        self._insert(f"INSERT INTO users ({_USER}, opaque_record) VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def find_opaque_record(self, user_id: UserId) -> bytes | None:
        row = self._run("SELECT opaque_record FROM users WHERE user_id = ?", (user_id,)).get
        return bytes(row) if row is not None else None

    def find_device(self, device_id: DeviceId) -> DeviceRecord | None:
        row = self._run(f"SELECT {_DEVICE} FROM devices WHERE device_id = ?", (device_id,)).fetchone()
        return DeviceRecord(*row) if row else None

    def list_devices(self, user_id: UserId) -> list[DeviceRecord]:
        rows = self._run(f"SELECT {_DEVICE} FROM devices WHERE user_id = ? ORDER BY created_at, device_id", (user_id,))
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
        self._insert(f"INSERT INTO devices ({_DEVICE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def revoke_device(self, device_id: DeviceId, revoked_at: int) -> bool:
        self._run("UPDATE devices SET revoked_at = ? WHERE device_id = ? AND revoked_at = 0", (revoked_at, device_id))
        is_revoked_now = self._connection.changes() == 1
        self._run("DELETE FROM sessions WHERE device_id = ?", (device_id,))
        self._run("DELETE FROM key_packages WHERE device_id = ?", (device_id,))
        self._run("DELETE FROM queue_items WHERE device_id = ?", (device_id,))
        return is_revoked_now

    def touch_device(self, device_id: DeviceId, last_seen_at: int) -> None:
        self._run("UPDATE devices SET last_seen_at = ? WHERE device_id = ?", (last_seen_at, device_id))

    # --- sessions, sign-ins, proofs -----------------------------------------------------------

    def find_session(self, token_hash: bytes) -> SessionRecord | None:
        row = self._run(f"SELECT {_SESSION} FROM sessions WHERE token_hash = ?", (token_hash,)).fetchone()
        return SessionRecord(*row) if row else None

    def add_session(self, record: SessionRecord) -> None:
        values = (record.token_hash, record.user_id, record.device_id, record.created_at, record.expires_at)
        self._insert(f"INSERT INTO sessions ({_SESSION}) VALUES (?, ?, ?, ?, ?)", values)

    def end_session(self, token_hash: bytes) -> None:
        self._run("DELETE FROM sessions WHERE token_hash = ?", (token_hash,))

    def take_expired_sessions(self, now: int, limit: int) -> list[SessionRecord]:
        rows = self._run(
            f"""DELETE FROM sessions WHERE token_hash IN
            (SELECT token_hash FROM sessions WHERE expires_at <= ? LIMIT ?) RETURNING {_SESSION}""",
            (now, limit),
        )
        return [SessionRecord(*row) for row in rows]

    def take_expired_signins(self, now: int, limit: int) -> list[SigninRecord]:
        rows = self._run(
            f"""DELETE FROM signins WHERE signin_id IN
            (SELECT signin_id FROM signins WHERE expires_at <= ? LIMIT ?) RETURNING {_SIGNIN}""",
            (now, limit),
        )
        return [SigninRecord(*row) for row in rows]

    def delete_expired_proofs(self, now: int) -> None:
        self._run("DELETE FROM used_proofs WHERE expires_at <= ?", (now,))

    def add_signin(self, record: SigninRecord) -> None:
        values = (record.signin_id, record.user_id, record.device_id, record.expires_at, record.state)
        self._insert(f"INSERT INTO signins ({_SIGNIN}) VALUES (?, ?, ?, ?, ?)", values)

    def take_signin(self, signin_id: str) -> SigninRecord | None:
        row = self._run(f"DELETE FROM signins WHERE signin_id = ? RETURNING {_SIGNIN}", (signin_id,)).fetchone()
        return SigninRecord(*row) if row else None

    def use_proof(self, proof_id: bytes, expires_at: int) -> bool:
        self._run("INSERT OR IGNORE INTO used_proofs (proof_id, expires_at) VALUES (?, ?)", (proof_id, expires_at))
        return self._connection.changes() == 1

    # --- key packages -------------------------------------------------------------------------

    def count_key_packages(self, device_id: DeviceId) -> int:
        query = "SELECT count(*) FROM key_packages WHERE device_id = ? AND is_last_resort = 0"
        return int(self._run(query, (device_id,)).get)

    def add_key_packages(self, records: Sequence[KeyPackageRecord]) -> None:
        for record in records:
            if record.is_last_resort:
                self._run("DELETE FROM key_packages WHERE device_id = ? AND is_last_resort = 1", (record.device_id,))
            self._run(
                "INSERT INTO key_packages (device_id, is_last_resort, key_package) VALUES (?, ?, ?)",
                (record.device_id, int(record.is_last_resort), record.key_package),
            )

    def claim_key_package(self, device_id: DeviceId) -> bytes | None:
        row = self._run(
            """SELECT number, is_last_resort, key_package FROM key_packages
            WHERE device_id = ? ORDER BY is_last_resort, number LIMIT 1""",
            (device_id,),
        ).fetchone()
        if row is None:
            return None
        number, is_last_resort, key_package = row
        if not is_last_resort:
            self._run("DELETE FROM key_packages WHERE number = ?", (number,))
        return bytes(key_package)

    def _insert(self, statement: str, values: tuple[object, ...]) -> None:
        try:
            self._run(statement, values)
        except apsw.ConstraintError as error:
            if getattr(error, "extendedresult", 0) in _TAKEN:
                raise DuplicateRequest from error
            raise
