-- Attachments: what is known of them; the ciphertext itself lies in the blobs folder.

CREATE TABLE blobs (
    blob_id         TEXT    NOT NULL PRIMARY KEY,      -- 22 characters
    conversation_id TEXT    NOT NULL,                  -- whose members may read it
    uploader        TEXT    NOT NULL,                  -- device that may add bytes
    size            INTEGER NOT NULL,                  -- ciphertext bytes in the end
    held            INTEGER NOT NULL,                  -- bytes held so far
    sha256          BLOB    NOT NULL,                  -- of the whole ciphertext
    created_at      INTEGER NOT NULL,                  -- when the upload began
    expires_at      INTEGER NOT NULL,                  -- an upload that is not complete by then is removed
    completed_at    INTEGER NOT NULL DEFAULT 0         -- when the hash fitted; 0: not yet
) STRICT, WITHOUT ROWID;
CREATE INDEX blobs_unfinished ON blobs (expires_at) WHERE completed_at = 0;
CREATE INDEX blobs_by_conversation ON blobs (conversation_id);
