-- Many sends and deliveries under one leaf of the audit log (audit/batch.py).

ALTER TABLE audit_events ADD COLUMN
    rows            BYTEA   NOT NULL DEFAULT '';       -- of a message.batch: its rows; empty otherwise
ALTER TABLE audit_waiting ADD COLUMN
    rows            BYTEA   NOT NULL DEFAULT '';       -- as in audit_events
