-- The audit log: events, their leaf hashes and the signed heads of the Merkle tree over them (RFC 9162).

CREATE TABLE audit_events (
    sequence        INTEGER PRIMARY KEY,               -- from 0, without gaps; the leaf's index
    event           BLOB    NOT NULL,                  -- the event's one encoding; ids and reasons, never content
    leaf_hash       BLOB    NOT NULL                   -- SHA-256(0x00 || event)
) STRICT;

CREATE TABLE audit_checkpoints (
    size            INTEGER PRIMARY KEY,               -- events covered
    root_hash       BLOB    NOT NULL,                  -- root of the tree of that size
    created_at      INTEGER NOT NULL,                  -- when it was signed
    body            BLOB    NOT NULL                   -- the signed bytes and the signature
) STRICT;
