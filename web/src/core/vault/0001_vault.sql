-- The vault of one device. The same file format in Python and in the browser: SQLite with SQLite3 Multiple Ciphers
-- (chacha20, raw key). The web client carries a copy of this file, checked by a test to be identical.
-- Times are Unix milliseconds unless a comment says otherwise.

create table setting (
  name  text primary key,          -- 'schema', 'user_id', 'device_id', 'server', 'organization', 'authority', …
  value blob not null
) strict, without rowid;

create table secret (
  name  text primary key,          -- 'user_key', 'device_key', 'api_key': private keys, raw; 'session': token and expiry
  value blob not null
) strict, without rowid;

create table certificate (
  name text primary key,           -- 'authority', 'enrolment', 'user', 'device': DER
  der  blob not null
) strict, without rowid;

create table key_package (
  reference   blob primary key,    -- KeyPackageRef
  secrets     blob not null,       -- public key package and its private keys, as the MLS core saves them
  last_resort integer not null,    -- 0 or 1
  created_at  integer not null
) strict, without rowid;

create table conversation (
  id         text primary key,
  mls        blob not null,        -- the group's state as the MLS core saves it
  kind       text not null,        -- 'direct' or 'group'
  title      text not null,
  cursor     integer not null,     -- last sequence number processed
  created_at integer not null,
  draft      text not null default '',
  read_upto  integer not null default 0,  -- highest sequence the person has seen
  alarm      text not null default ''     -- problem as JSON when the conversation stopped
) strict, without rowid;

create table person (
  user_id     text primary key,
  name        text not null,
  role        text not null,
  certificate blob not null        -- user certificate, DER
) strict, without rowid;

create table message (
  row          integer primary key autoincrement,
  id           text not null unique,    -- base64url of the 16-byte message id
  mimi_id      blob not null,           -- message id derived by the MIMI content draft; what replies and reports refer to
  conversation text not null references conversation(id),
  sequence     integer not null,        -- 0 while it waits in the outbox
  sender       text not null,           -- user id
  sender_device text not null,          -- device id
  at           integer not null,        -- when the server received it; for waiting messages when it was written
  delivery     text not null,           -- 'sending' 'sent' 'delivered' 'read' 'failed' for own messages, '' for others
  content      blob not null,           -- MIMI content, CBOR
  problem      text not null default ''
) strict;
create index message_by_place on message (conversation, sequence, row);
create index message_by_mimi on message (mimi_id);

create table receipt (
  mimi_id blob not null,
  user_id text not null,
  status  text not null,                -- 'delivered' or 'read'
  at      integer not null,
  primary key (mimi_id, user_id)
) strict, without rowid;

create table outbox (
  row          integer primary key autoincrement,
  id           text not null unique,    -- message id, as in message.id; also for reports, which have no message row
  conversation text not null,
  content      blob not null,           -- MIMI content, so that it can be encrypted again in a newer epoch
  epoch        integer not null,        -- of the envelope; -1 before encryption
  envelope     blob not null,           -- empty before encryption
  report       integer not null,        -- 1: a status report, 0: something a person wrote
  tries        integer not null default 0
) strict;

create table pending_commit (
  conversation text primary key,
  id           blob not null,           -- message id of the commit
  request      blob not null            -- body of the request, to repeat it as it was
) strict, without rowid;

create table upload (
  id           text primary key,        -- message id it belongs to
  conversation text not null,
  blob_id      text not null,           -- '' before the server gave one
  ciphertext   blob not null,
  offset       integer not null
) strict, without rowid;

create table attachment (
  blob_id    text primary key,
  ciphertext blob not null,             -- as downloaded; opened with the key in the message
  at         integer not null
) strict, without rowid;

create table queue_position (
  only     integer primary key check (only = 1),
  position integer not null
) strict;
insert into queue_position values (1, 0);
