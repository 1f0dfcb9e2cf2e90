-- Horse and passport are created together, or not at all.
BEGIN TRANSACTION;

SELECT throw(50001, 'the dam must be a registered mare') AS "@check"
WHERE @dam IS NOT NULL AND NOT EXISTS (SELECT 1 FROM horse WHERE ueln = @dam AND sex = 'mare');

SELECT throw(50002, 'the sire must be a registered stallion') AS "@check"
WHERE @sire IS NOT NULL AND NOT EXISTS (SELECT 1 FROM horse WHERE ueln = @sire AND sex = 'stallion');

-- If the number or the microchip is already in use, its unique key causes a conflict.
INSERT INTO horse (ueln, name, breed, sex, born, microchip, height_cm, weight_kg, sire, dam, owner,
                   registered_at, registered_by)
VALUES (@ueln, @name, @breed, @sex, @born, @microchip, @height_cm, @weight_kg, @sire, @dam, @owner,
        strftime('%Y-%m-%dT%H:%M:%SZ'), @principal);

SELECT printf('NL%08d', 1 + (SELECT CAST(substr(max(number), 3) AS INTEGER) FROM passport)) AS "@passport";

SELECT '/v1/horses/' || @ueln AS "@location";

INSERT INTO passport (number, document, ueln, issuer, issued, slaughter)
VALUES (@passport, newid(), @ueln, 'Demo Stud Book', date(), 0);

COMMIT;

SELECT ueln, name, registered_at FROM horse WHERE ueln = @ueln;
