-- Who there is: settings of the installation, invites, people, devices, sessions, key packages.
-- "Sealed": encrypted under the database key, bound to its row; a copy of the database alone does not open it.

CREATE TABLE settings (
    name            TEXT    COLLATE "C" NOT NULL PRIMARY KEY, -- which setting
    value           BYTEA   NOT NULL                   -- its value, in the form its owner chose; sealed
);

CREATE TABLE invites (
    invite_id       TEXT    COLLATE "C" NOT NULL PRIMARY KEY, -- 22 characters, in the link
    user_id         TEXT    COLLATE "C" NOT NULL,      -- for whom
    role            TEXT    COLLATE "C" NOT NULL,      -- role the enrolment certificate gives
    enrolment_certificate BYTEA NOT NULL,              -- DER, signed by the authority
    created_at      BIGINT  NOT NULL,                  -- when it was published
    expires_at      BIGINT  NOT NULL,                  -- from then on it opens nothing
    used_at         BIGINT  NOT NULL DEFAULT 0         -- when it was used; 0: not yet
);

CREATE TABLE users (
    user_id         TEXT    COLLATE "C" NOT NULL PRIMARY KEY, -- 22 characters
    name            TEXT    COLLATE "C" NOT NULL,      -- display name, as in the user certificate
    role            TEXT    COLLATE "C" NOT NULL,      -- as in the enrolment certificate
    user_certificate BYTEA  NOT NULL,                  -- DER
    enrolment_certificate BYTEA NOT NULL,              -- DER
    opaque_record   BYTEA   NOT NULL,                  -- RFC 9807 RegistrationRecord; sealed
    created_at      BIGINT  NOT NULL                   -- when the person signed up
);
CREATE INDEX users_by_name ON users (lower(name), user_id);

CREATE TABLE devices (
    device_id       TEXT    COLLATE "C" NOT NULL PRIMARY KEY, -- 22 characters
    user_id         TEXT    COLLATE "C" NOT NULL REFERENCES users (user_id), -- whose
    label           TEXT    COLLATE "C" NOT NULL,      -- as in the device certificate
    device_certificate BYTEA NOT NULL,                 -- DER
    api_key         BYTEA   NOT NULL,                  -- raw Ed25519 public key of its DPoP proofs
    created_at      BIGINT  NOT NULL,                  -- when it was enrolled
    last_seen_at    BIGINT  NOT NULL,                  -- when it last signed in or connected
    revoked_at      BIGINT  NOT NULL DEFAULT 0         -- when it was removed; 0: active
);
CREATE INDEX devices_by_user ON devices (user_id, created_at);
CREATE INDEX devices_revoked ON devices (device_id) WHERE revoked_at > 0;

CREATE TABLE sessions (
    token_hash      BYTEA   NOT NULL PRIMARY KEY,      -- SHA-256 of the token
    user_id         TEXT    COLLATE "C" NOT NULL,      -- who
    device_id       TEXT    COLLATE "C" NOT NULL,      -- the device whose api key must sign each proof
    created_at      BIGINT  NOT NULL,                  -- when it began
    expires_at      BIGINT  NOT NULL                   -- when it ends
);
CREATE INDEX sessions_by_device ON sessions (device_id);

CREATE TABLE signins (
    signin_id       TEXT    COLLATE "C" NOT NULL PRIMARY KEY, -- 22 characters
    user_id         TEXT    COLLATE "C" NOT NULL,      -- who claims to sign in; may not exist
    device_id       TEXT    COLLATE "C" NOT NULL,      -- on which device
    expires_at      BIGINT  NOT NULL,                  -- one minute after the start
    state           BYTEA   NOT NULL                   -- OPAQUE's server state between start and finish; sealed
);

CREATE TABLE used_proofs (
    proof_id        BYTEA   NOT NULL PRIMARY KEY,      -- hash of a DPoP proof's key and jti
    expires_at      BIGINT  NOT NULL                   -- from then on its iat is refused anyway
);

CREATE TABLE key_packages (
    number          BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- order of handing out
    device_id       TEXT    COLLATE "C" NOT NULL REFERENCES devices (device_id), -- whose
    is_last_resort  BOOLEAN NOT NULL,                  -- handed out when no other is left, again and again
    key_package     BYTEA   NOT NULL                   -- MLSMessage (KeyPackage)
);
CREATE INDEX key_packages_by_device ON key_packages (device_id, is_last_resort, number);
