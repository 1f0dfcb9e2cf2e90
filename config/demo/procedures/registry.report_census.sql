SELECT b.code, b.name, count(*) AS horses, sum(h.died IS NULL) AS living,
       sum(h.sex = 'mare') AS mares, sum(h.sex = 'stallion') AS stallions,
       printf('%.1f', avg(CAST(h.height_cm AS REAL))) AS "height_cm:decimal"
FROM horse AS h
JOIN breed AS b ON b.code = h.breed
WHERE h.born >= printf('%04d-01-01', @year_from)
GROUP BY b.code
ORDER BY b.code;

SELECT CAST(substr(born, 1, 4) AS INTEGER) AS year, count(*) AS foals
FROM horse
WHERE born >= printf('%04d-01-01', @year_from)
GROUP BY year
ORDER BY year;

-- How often each founder occurs among the ancestors of the living horses.
WITH RECURSIVE behind (ancestor, generation) AS (
    SELECT ueln, 0 FROM horse WHERE died IS NULL AND born >= printf('%04d-01-01', @year_from)
    UNION ALL
    SELECT parent.ueln, b.generation + 1
    FROM behind AS b
    JOIN horse AS h ON h.ueln = b.ancestor
    JOIN horse AS parent ON parent.ueln IN (h.sire, h.dam)
    WHERE b.generation < @generations
)
SELECT h.ueln, h.name, count(*) AS descendants
FROM behind AS b
JOIN horse AS h ON h.ueln = b.ancestor
WHERE b.generation > 0
GROUP BY h.ueln
ORDER BY descendants DESC, h.ueln
LIMIT 10;
