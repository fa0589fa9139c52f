-- The audit log: events, their leaf hashes and the signed heads of the Merkle tree over them (RFC 9162).

CREATE TABLE audit_events (
    sequence        BIGINT  NOT NULL PRIMARY KEY,      -- from 0, without gaps; the leaf's index
    event           BYTEA   NOT NULL,                  -- the event's one encoding; ids and reasons, never content
    leaf_hash       BYTEA   NOT NULL                   -- SHA-256(0x00 || event)
);

CREATE TABLE audit_waiting (
    in_transaction  XID8    NOT NULL,                  -- in which transaction the access was made
    position        BIGINT  NOT NULL,                  -- order within it
    event           BYTEA   NOT NULL,                  -- as in audit_events, where it moves when it gets its place
    leaf_hash       BYTEA   NOT NULL,                  -- SHA-256(0x00 || event)
    PRIMARY KEY (in_transaction, position)
);

CREATE TABLE audit_checkpoints (
    size            BIGINT  NOT NULL PRIMARY KEY,      -- events covered
    root_hash       BYTEA   NOT NULL,                  -- root of the tree of that size
    created_at      BIGINT  NOT NULL,                  -- when it was signed
    body            BYTEA   NOT NULL                   -- the signed bytes and the signature
);
