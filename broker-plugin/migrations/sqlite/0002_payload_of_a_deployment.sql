-- Version 2: by which payload the image of a deployment comes. First 8 bytes of index digests.

-- The payload of which chunks were served last; none where nothing was.
ALTER TABLE deployments ADD COLUMN payload BLOB;
-- The one before it, which the device gave up: a patch that did not apply.
ALTER TABLE deployments ADD COLUMN given_up BLOB;
