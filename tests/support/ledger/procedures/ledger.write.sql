-- Writes one line, which is committed by itself, so that the ledger has one line for each execution,
-- even if its answer was lost.
SELECT sleep_ms(@ms) AS "@slept";
INSERT INTO ledger (request_id) VALUES (@request_id);
SELECT last_insert_rowid() AS line, @request_id AS request_id;
