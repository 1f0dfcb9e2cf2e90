-- Writes a line for each key, once.
INSERT INTO ledger (request_id) SELECT @key WHERE NOT EXISTS (SELECT 1 FROM ledger WHERE request_id = @key);
SELECT changes() AS inserted;
