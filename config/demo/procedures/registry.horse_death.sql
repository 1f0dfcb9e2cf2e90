SELECT 1 AS "@return" WHERE NOT EXISTS (SELECT 1 FROM horse WHERE ueln = @ueln);

SELECT throw(50003, 'a horse cannot die before it is born') AS "@check"
FROM horse WHERE ueln = @ueln AND born > @died;

SELECT throw(50409, 'its death on ' || died || ' is already registered') AS "@check"
FROM horse WHERE ueln = @ueln AND died IS NOT NULL;

UPDATE horse SET died = @died WHERE ueln = @ueln;
