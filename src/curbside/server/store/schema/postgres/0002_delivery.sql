-- Conversations and their logs, memberships, queues and cursors (RFC 9750, Delivery Service).
-- Ids are 22 characters of base64url. Times are Unix seconds unless the name ends in _ms.

CREATE TABLE conversations (
    number          BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- short name inside this database; never reused
    conversation_id TEXT    COLLATE "C" NOT NULL UNIQUE, -- the MLS group id
    epoch           BIGINT  NOT NULL,                  -- current epoch
    last_sequence   BIGINT  NOT NULL,                  -- last place taken in the log; 0 when empty
    created_at      BIGINT  NOT NULL,                  -- when it was made
    waiting         BIGINT  NOT NULL DEFAULT 0,        -- proposals that must be committed before the next message
    group_state     BYTEA   NOT NULL                   -- public view of the group at this epoch; no secrets in it
);

CREATE TABLE entries (
    conversation    BIGINT  NOT NULL REFERENCES conversations (number), -- whose log
    sequence        BIGINT  NOT NULL,                  -- place in the log: 1, 2, 3… without gaps
    kind            BIGINT  NOT NULL,                  -- application message, commit or proposal
    message_id      BYTEA   NOT NULL,                  -- 16 bytes made by the sender; makes a retry harmless
    received_at_ms  BIGINT  NOT NULL,                  -- when it was accepted
    envelope        BYTEA   NOT NULL                   -- MLSMessage, opaque to the server if a PrivateMessage
);
ALTER TABLE entries ALTER COLUMN envelope SET STORAGE EXTERNAL; -- ciphertext does not get smaller
CREATE UNIQUE INDEX entries_by_sequence ON entries (conversation, sequence);
CREATE UNIQUE INDEX entries_by_message_id ON entries (conversation, message_id);

CREATE TABLE stays (
    conversation    BIGINT  NOT NULL REFERENCES conversations (number), -- where
    device_id       TEXT    COLLATE "C" NOT NULL,      -- which leaf's device
    first_sequence  BIGINT  NOT NULL,                  -- first entry the device may read
    last_sequence   BIGINT,                            -- last entry it may read; NULL while it is a member
    user_id         TEXT    COLLATE "C" NOT NULL,      -- whose device
    leaf            BIGINT  NOT NULL,                  -- leaf index in the ratchet tree during this stay
    PRIMARY KEY (device_id, conversation, first_sequence)
);
CREATE INDEX stays_present ON stays (conversation, leaf) WHERE last_sequence IS NULL;

CREATE TABLE queue_items (
    position        BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- rises; never reused
    device_id       TEXT    COLLATE "C" NOT NULL,      -- for whom
    kind            BIGINT  NOT NULL,                  -- Welcome
    conversation_id TEXT    COLLATE "C" NOT NULL,      -- which conversation it opens
    sequence        BIGINT  NOT NULL,                  -- of the commit that added the device
    payload         BYTEA   NOT NULL                   -- MLSMessage, sealed to the device
);
CREATE INDEX queue_items_by_device ON queue_items (device_id, position);

CREATE TABLE cursors (
    device_id       TEXT    COLLATE "C" NOT NULL,      -- whose progress
    conversation    BIGINT  NOT NULL REFERENCES conversations (number), -- in which log
    sequence        BIGINT  NOT NULL,                  -- durably processed by the device up to here
    PRIMARY KEY (device_id, conversation)
);
