-- Connections of devices, for servers that share one database.

CREATE TABLE streams (
    device_id       TEXT    COLLATE "C" NOT NULL PRIMARY KEY, -- whose connections are counted
    number          BIGINT  NOT NULL                   -- of its newest one; any older one is over
);
