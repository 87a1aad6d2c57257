-- Version 4. Reports are known by the digest of their payload from now on; the digests that are stored are of whole
-- messages, so that a device whose report was not acknowledged yet is asked to do so once more.

-- The number after that of the device's highest report, and what that report said: digest of the image that ran, 8 bytes,
-- and sequence number. They begin anew where the device gets another key.
ALTER TABLE devices ADD COLUMN report INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN reported_running BLOB;
ALTER TABLE devices ADD COLUMN reported_sequence INTEGER NOT NULL DEFAULT 0;

-- The other key that an accepted device introduced itself with last, as a COSE_Key, its class, 16 bytes, and when; none if
-- it did not.
ALTER TABLE devices ADD COLUMN other_key BLOB;
ALTER TABLE devices ADD COLUMN other_class BLOB;
ALTER TABLE devices ADD COLUMN other_seen INTEGER NOT NULL DEFAULT 0;
