-- Connections of devices, for servers that share one database.

CREATE TABLE streams (
    device_id       TEXT    NOT NULL PRIMARY KEY,      -- whose connections are counted
    number          INTEGER NOT NULL                   -- of its newest one; any older one is over
) STRICT, WITHOUT ROWID;
