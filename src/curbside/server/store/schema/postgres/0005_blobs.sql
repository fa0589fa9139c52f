-- Attachments: what is known of them; the ciphertext itself lies in the blobs folder.

CREATE TABLE blobs (
    blob_id         TEXT    COLLATE "C" NOT NULL PRIMARY KEY, -- 22 characters
    conversation_id TEXT    COLLATE "C" NOT NULL,      -- whose members may read it
    uploader        TEXT    COLLATE "C" NOT NULL,      -- device that may add bytes
    size            BIGINT  NOT NULL,                  -- ciphertext bytes in the end
    held            BIGINT  NOT NULL,                  -- bytes held so far
    sha256          BYTEA   NOT NULL,                  -- of the whole ciphertext
    created_at      BIGINT  NOT NULL,                  -- when the upload began
    expires_at      BIGINT  NOT NULL,                  -- an upload that is not complete by then is removed
    completed_at    BIGINT  NOT NULL DEFAULT 0         -- when the hash fitted; 0: not yet
);
CREATE INDEX blobs_unfinished ON blobs (expires_at) WHERE completed_at = 0;
CREATE INDEX blobs_by_conversation ON blobs (conversation_id);
