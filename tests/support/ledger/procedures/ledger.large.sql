WITH RECURSIVE rows (number) AS (SELECT 1 WHERE @rows > 0 UNION ALL SELECT number + 1 FROM rows WHERE number < @rows)
SELECT number, printf('%0100d', number) AS text FROM rows
