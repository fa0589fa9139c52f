-- The audit log: events, their leaf hashes and the signed heads of the Merkle tree over them (RFC 9162).

CREATE TABLE audit_events (
    sequence        BIGINT  NOT NULL PRIMARY KEY,      -- from 0, without gaps; the leaf's index
    event           BYTEA   NOT NULL,                  -- the event's one encoding; ids and reasons, never content
    leaf_hash       BYTEA   NOT NULL                   -- SHA-256(0x00 || event)
);

CREATE TABLE audit_checkpoints (
    size            BIGINT  NOT NULL PRIMARY KEY,      -- events covered
    root_hash       BYTEA   NOT NULL,                  -- root of the tree of that size
    created_at      BIGINT  NOT NULL,                  -- when it was signed
    body            BYTEA   NOT NULL                   -- the signed bytes and the signature
);
