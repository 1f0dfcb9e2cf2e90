-- Writes one line for each key, even if it is called repeatedly.
INSERT INTO ledger (request_id) SELECT @key WHERE NOT EXISTS (SELECT 1 FROM ledger WHERE request_id = @key);
SELECT changes() AS inserted;
