-- Many sends and deliveries under one leaf of the audit log (audit/batch.py).

ALTER TABLE audit_events ADD COLUMN
    rows            BLOB    NOT NULL DEFAULT x'';      -- of a message.batch: its rows; empty otherwise

-- From here on conversations.last_sequence is a lower bound: the last place taken is the greatest of it and of the
-- log's own last entry, so that storing a message need not rewrite the conversation. What deletes entries raises it first.
