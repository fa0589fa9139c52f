-- Conversations and their logs, memberships, queues and cursors (RFC 9750, Delivery Service).
-- Ids are 22 characters of base64url. Times are Unix seconds unless the name ends in _ms.

CREATE TABLE conversations (
    number          INTEGER PRIMARY KEY AUTOINCREMENT, -- short name inside this database; never reused
    conversation_id TEXT    NOT NULL UNIQUE,           -- the MLS group id
    epoch           INTEGER NOT NULL,                  -- current epoch
    last_sequence   INTEGER NOT NULL,                  -- last place taken in the log; 0 when empty
    created_at      INTEGER NOT NULL,                  -- when it was made
    waiting         INTEGER NOT NULL DEFAULT 0,        -- proposals that must be committed before the next message
    group_state     BLOB    NOT NULL                   -- public view of the group at this epoch; no secrets in it
) STRICT;

CREATE TABLE entries (
    conversation    INTEGER NOT NULL REFERENCES conversations (number), -- whose log
    sequence        INTEGER NOT NULL,                  -- place in the log: 1, 2, 3… without gaps
    kind            INTEGER NOT NULL,                  -- application message, commit or proposal
    message_id      BLOB    NOT NULL,                  -- 16 bytes made by the sender; makes a retry harmless
    received_at_ms  INTEGER NOT NULL,                  -- when it was accepted
    envelope        BLOB    NOT NULL                   -- MLSMessage, opaque to the server if a PrivateMessage
) STRICT;
CREATE UNIQUE INDEX entries_by_sequence ON entries (conversation, sequence);
CREATE UNIQUE INDEX entries_by_message_id ON entries (conversation, message_id);

CREATE TABLE stays (
    conversation    INTEGER NOT NULL REFERENCES conversations (number), -- where
    device_id       TEXT    NOT NULL,                  -- which leaf's device
    first_sequence  INTEGER NOT NULL,                  -- first entry the device may read
    last_sequence   INTEGER,                           -- last entry it may read; NULL while it is a member
    user_id         TEXT    NOT NULL,                  -- whose device
    leaf            INTEGER NOT NULL,                  -- leaf index in the ratchet tree during this stay
    PRIMARY KEY (device_id, conversation, first_sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX stays_present ON stays (conversation, leaf) WHERE last_sequence IS NULL;

CREATE TABLE queue_items (
    position        INTEGER PRIMARY KEY AUTOINCREMENT, -- rises; never reused
    device_id       TEXT    NOT NULL,                  -- for whom
    kind            INTEGER NOT NULL,                  -- Welcome
    conversation_id TEXT    NOT NULL,                  -- which conversation it opens
    sequence        INTEGER NOT NULL,                  -- of the commit that added the device
    payload         BLOB    NOT NULL                   -- MLSMessage, sealed to the device
) STRICT;
CREATE INDEX queue_items_by_device ON queue_items (device_id, position);

CREATE TABLE cursors (
    device_id       TEXT    NOT NULL,                  -- whose progress
    conversation    INTEGER NOT NULL REFERENCES conversations (number), -- in which log
    sequence        INTEGER NOT NULL,                  -- durably processed by the device up to here
    PRIMARY KEY (device_id, conversation)
) STRICT, WITHOUT ROWID;
