-- Returns the requested number of rows of about 1 KiB each. Pauses at one of them and raises an error at another, if requested.
WITH RECURSIVE rows (number) AS (SELECT 1 WHERE @rows > 0 UNION ALL SELECT number + 1 FROM rows WHERE number < @rows)
SELECT number, printf('%01000d', number) AS text,
       CASE number WHEN @pause_at THEN sleep_ms(@ms) WHEN @fail_at THEN throw(50422, 'halfway') END AS event
FROM rows
