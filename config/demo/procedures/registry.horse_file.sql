SELECT 1 AS "@return" WHERE NOT EXISTS (SELECT 1 FROM horse WHERE ueln = @ueln);

SELECT ueln, name, breed, sex, born, died, microchip, height_cm, weight_kg FROM horse WHERE ueln = @ueln;

SELECT o.id, o.name, o.country, o.newsletter
FROM owner AS o JOIN horse AS h ON h.owner = o.id WHERE h.ueln = @ueln;

SELECT id, moved_at, from_site, to_site, purpose, distance_km, checked
FROM movement WHERE ueln = @ueln ORDER BY id;

SELECT id, from_owner, to_owner, price, sold_at FROM ownership_transfer WHERE ueln = @ueln ORDER BY sold_at;

SELECT (SELECT count(*) FROM movement WHERE ueln = @ueln) AS "@movements",
       (SELECT count(*) FROM ownership_transfer WHERE ueln = @ueln) AS "@transfers";
