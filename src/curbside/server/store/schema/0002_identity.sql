-- Who there is: settings of the installation, invites, people, devices, sessions, key packages.

CREATE TABLE settings (
    name            TEXT    NOT NULL PRIMARY KEY,      -- which setting
    value           BLOB    NOT NULL                   -- its value, in the form its owner chose
) STRICT, WITHOUT ROWID;

CREATE TABLE invites (
    invite_id       TEXT    NOT NULL PRIMARY KEY,      -- 22 characters, in the link
    user_id         TEXT    NOT NULL,                  -- for whom
    role            TEXT    NOT NULL,                  -- role the enrolment certificate gives
    enrolment_certificate BLOB NOT NULL,               -- DER, signed by the authority
    created_at      INTEGER NOT NULL,                  -- when it was published
    expires_at      INTEGER NOT NULL,                  -- from then on it opens nothing
    used_at         INTEGER NOT NULL DEFAULT 0         -- when it was used; 0: not yet
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
    user_id         TEXT    NOT NULL PRIMARY KEY,      -- 22 characters
    name            TEXT    NOT NULL,                  -- display name, as in the user certificate
    role            TEXT    NOT NULL,                  -- as in the enrolment certificate
    user_certificate BLOB   NOT NULL,                  -- DER
    enrolment_certificate BLOB NOT NULL,               -- DER
    opaque_record   BLOB    NOT NULL,                  -- RFC 9807 RegistrationRecord: tells nothing about the passphrase alone
    created_at      INTEGER NOT NULL                   -- when the person signed up
) STRICT, WITHOUT ROWID;
CREATE INDEX users_by_name ON users (name COLLATE NOCASE, user_id);

CREATE TABLE devices (
    device_id       TEXT    NOT NULL PRIMARY KEY,      -- 22 characters
    user_id         TEXT    NOT NULL REFERENCES users (user_id), -- whose
    label           TEXT    NOT NULL,                  -- as in the device certificate
    device_certificate BLOB NOT NULL,                  -- DER
    api_key         BLOB    NOT NULL,                  -- raw Ed25519 public key of its DPoP proofs
    created_at      INTEGER NOT NULL,                  -- when it was enrolled
    last_seen_at    INTEGER NOT NULL,                  -- when it last signed in or connected
    revoked_at      INTEGER NOT NULL DEFAULT 0         -- when it was removed; 0: active
) STRICT, WITHOUT ROWID;
CREATE INDEX devices_by_user ON devices (user_id, created_at);
CREATE INDEX devices_revoked ON devices (device_id) WHERE revoked_at > 0;

CREATE TABLE sessions (
    token_hash      BLOB    NOT NULL PRIMARY KEY,      -- SHA-256 of the token
    user_id         TEXT    NOT NULL,                  -- who
    device_id       TEXT    NOT NULL,                  -- the device whose api key must sign each proof
    created_at      INTEGER NOT NULL,                  -- when it began
    expires_at      INTEGER NOT NULL                   -- when it ends
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_device ON sessions (device_id);

CREATE TABLE signins (
    signin_id       TEXT    NOT NULL PRIMARY KEY,      -- 22 characters
    user_id         TEXT    NOT NULL,                  -- who claims to sign in; may not exist
    device_id       TEXT    NOT NULL,                  -- on which device
    expires_at      INTEGER NOT NULL,                  -- one minute after the start
    state           BLOB    NOT NULL                   -- OPAQUE's server state between start and finish
) STRICT, WITHOUT ROWID;

CREATE TABLE used_proofs (
    proof_id        BLOB    NOT NULL PRIMARY KEY,      -- hash of a DPoP proof's key and jti
    expires_at      INTEGER NOT NULL                   -- from then on its iat is refused anyway
) STRICT, WITHOUT ROWID;

CREATE TABLE key_packages (
    number          INTEGER PRIMARY KEY AUTOINCREMENT, -- order of handing out
    device_id       TEXT    NOT NULL REFERENCES devices (device_id), -- whose
    is_last_resort  INTEGER NOT NULL,                  -- 1: handed out when no other is left, again and again
    key_package     BLOB    NOT NULL                   -- MLSMessage (KeyPackage)
) STRICT;
CREATE INDEX key_packages_by_device ON key_packages (device_id, is_last_resort, number);
