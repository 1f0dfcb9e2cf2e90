-- The line is written in the same transaction: what is not answered may still be here, what is here once is once.
SELECT sleep_ms(@ms) AS "@slept";
INSERT INTO ledger (request_id) VALUES (@request_id);
SELECT last_insert_rowid() AS line, @request_id AS request_id;
