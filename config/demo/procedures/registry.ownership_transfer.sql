-- The transfer and the owner of the horse are changed together, and the key is checked with them.
BEGIN TRANSACTION;

-- If the key was used before, the first answer is returned, and nothing is changed.
SELECT id AS "@id" FROM ownership_transfer
WHERE principal = @principal AND idempotency_key = @idempotency_key;

SELECT throw(50422, 'this Idempotency-Key was used for another transfer') AS "@check"
FROM ownership_transfer
WHERE id = @id AND (ueln <> @ueln OR to_owner <> @to_owner OR CAST(price AS REAL) IS NOT CAST(@price AS REAL));

SELECT throw(50404, 'no horse has this number') AS "@check"
WHERE @id IS NULL AND NOT EXISTS (SELECT 1 FROM horse WHERE ueln = @ueln);

SELECT throw(50004, 'the horse is dead') AS "@check"
FROM horse WHERE @id IS NULL AND ueln = @ueln AND died IS NOT NULL;

SELECT throw(50409, 'the horse is this owner''s already') AS "@check"
FROM horse WHERE @id IS NULL AND ueln = @ueln AND owner = @to_owner;

SELECT @id IS NULL AS "@is_new:boolean", coalesce(@id, newid()) AS "@id";

INSERT INTO ownership_transfer (id, ueln, from_owner, to_owner, price, sold_at, office,
                                principal, idempotency_key, request_id, client_ip)
SELECT @id, ueln, owner, @to_owner, @price, strftime('%Y-%m-%dT%H:%M:%SZ', coalesce(@sold_at, 'now')), @office,
       @principal, @idempotency_key, @request_id, @client_ip
FROM horse WHERE @is_new AND ueln = @ueln;

UPDATE horse SET owner = @to_owner WHERE @is_new AND ueln = @ueln;

COMMIT;

SELECT id, ueln, from_owner, to_owner, price, sold_at FROM ownership_transfer WHERE id = @id;

SELECT 1 AS "@return" WHERE NOT @is_new;
