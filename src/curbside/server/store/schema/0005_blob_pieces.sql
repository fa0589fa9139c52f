-- Uploads that several nodes may continue, and whose turn it is to compare rows with the object store.

CREATE TABLE blob_pieces (
    blob_id         TEXT    NOT NULL,                  -- upload that it belongs to
    first           INTEGER NOT NULL,                  -- offset of its first byte
    size            INTEGER NOT NULL,                  -- bytes
    name            TEXT    NOT NULL,                  -- object that holds it
    PRIMARY KEY (blob_id, first)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX blob_pieces_by_name ON blob_pieces (name);

-- One row: the round through the object store. A node claims a step of it, so that two never do the same one.
CREATE TABLE blob_sweeps (
    round           TEXT    NOT NULL PRIMARY KEY,      -- always 'objects'
    due_at          INTEGER NOT NULL,                  -- the next step may begin then; a claim moves it
    after           TEXT    NOT NULL                   -- the last name looked at; '' at the beginning
) STRICT, WITHOUT ROWID;
INSERT INTO blob_sweeps (round, due_at, after) VALUES ('objects', 0, '');

-- Bytes of uploads begun before have no rows here: they begin anew.
UPDATE blobs SET held = 0 WHERE completed_at = 0;
