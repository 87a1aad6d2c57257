-- Version 3: what an operator says about a campaign and no document says, as a JSON object.

ALTER TABLE campaigns ADD COLUMN terms TEXT NOT NULL DEFAULT '{}';
UPDATE campaigns SET terms = json_object('life_s', life_s);
ALTER TABLE campaigns DROP COLUMN life_s;
