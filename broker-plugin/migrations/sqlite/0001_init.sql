-- Version 1 of the service's database. Integers are 64 bits with sign; unsigned values above 2^63 keep their bits.

-- Signed SUIT envelopes, text removed.
CREATE TABLE releases (
    digest   BLOB PRIMARY KEY,   -- of the manifest, 32 bytes
    envelope BLOB NOT NULL,
    added    INTEGER NOT NULL    -- seconds since 1970
) STRICT, WITHOUT ROWID;

-- Payloads that are complete in the payload folder.
CREATE TABLE payloads (
    index_digest    BLOB PRIMARY KEY,  -- 32 bytes; names the files
    image           BLOB NOT NULL,     -- digest of the image that the payload becomes
    transfer_size   INTEGER NOT NULL,
    chunk_size_log2 INTEGER NOT NULL,
    added           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE devices (
    id                 TEXT PRIMARY KEY,
    standing           INTEGER NOT NULL,  -- 0 forgotten (its assignment's version is kept), 1 pending, 2 accepted
    key                BLOB,              -- COSE_Key; none while forgotten
    class              BLOB NOT NULL,     -- 16 bytes
    enrolled           INTEGER NOT NULL,  -- rises with each enrolment: which pending device is the oldest
    groups             TEXT NOT NULL,     -- separated by spaces
    assignment         BLOB,              -- COSE_Sign1; while accepted
    assignment_version INTEGER NOT NULL,  -- never falls, also when the device is forgotten
    running            BLOB,              -- what the device last said: digest of its image, 8 bytes
    sequence           INTEGER NOT NULL,
    seen               INTEGER NOT NULL   -- seconds since 1970; 0 never
) STRICT, WITHOUT ROWID;

CREATE TABLE campaigns (
    id          BLOB PRIMARY KEY,  -- 8 bytes
    group_name  TEXT NOT NULL,
    version     INTEGER NOT NULL,  -- of the document
    attempt     INTEGER NOT NULL,
    phase       INTEGER NOT NULL,  -- 0 active, 1 aborted, 2 replaced
    created     INTEGER NOT NULL,
    life_s      INTEGER NOT NULL,
    document    BLOB NOT NULL      -- COSE_Sign1: the order with all its fields
) STRICT, WITHOUT ROWID;

-- How far each device is with each campaign.
CREATE TABLE deployments (
    campaign       BLOB NOT NULL,
    device         TEXT NOT NULL,
    attempt        INTEGER NOT NULL,
    report         INTEGER NOT NULL,  -- number of the report that says so, from 1; 0: only a hint
    state          INTEGER NOT NULL,
    reason         INTEGER NOT NULL,
    bytes_received INTEGER NOT NULL,
    bytes_twice    INTEGER NOT NULL,
    updated        INTEGER NOT NULL,
    PRIMARY KEY (campaign, device)
) STRICT, WITHOUT ROWID;

-- Reports as signed by their devices. A digest that is here is not counted again.
CREATE TABLE reports (
    number   INTEGER PRIMARY KEY,
    device   TEXT NOT NULL,
    digest   BLOB NOT NULL,       -- first 8 bytes of the SHA-256
    received INTEGER NOT NULL,
    signed   BLOB NOT NULL,
    UNIQUE (device, digest)
) STRICT;

-- Numbers that only rise.
CREATE TABLE marks (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
