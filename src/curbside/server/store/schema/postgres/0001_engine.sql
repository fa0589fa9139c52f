-- What this engine itself needs. Text compares by its bytes (COLLATE "C"), so that every engine sorts alike.

CREATE TABLE schema_versions (
    version         BIGINT  NOT NULL PRIMARY KEY,      -- number of a schema file
    applied_at      TIMESTAMPTZ NOT NULL DEFAULT now() -- when it was applied
);

CREATE TABLE writers (
    writer          TEXT    COLLATE "C" NOT NULL PRIMARY KEY, -- 22 characters, made when a store is opened
    commits         BIGINT  NOT NULL,                  -- its last transaction that is durable
    committed_at    TIMESTAMPTZ NOT NULL               -- when that was; rows of stores that are gone are removed by it
);
