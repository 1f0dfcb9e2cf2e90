CREATE TABLE ledger (
    line INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL,
    at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ'))
);
