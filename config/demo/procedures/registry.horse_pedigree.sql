SELECT throw(50404, 'no horse has this number') AS "@check"
WHERE NOT EXISTS (SELECT 1 FROM horse WHERE ueln = @ueln);

WITH RECURSIVE ancestor (ueln, generation) AS (
    SELECT @ueln, 0
    UNION
    SELECT parent.ueln, a.generation + 1
    FROM ancestor AS a
    JOIN horse AS h ON h.ueln = a.ueln
    JOIN horse AS parent ON parent.ueln IN (h.sire, h.dam)
    WHERE a.generation < @generations
)
SELECT json_object('ueln', @ueln, 'ancestors', json_group_array(
           json_object('generation', a.generation, 'ueln', h.ueln, 'name', h.name, 'sex', h.sex)
           ORDER BY a.generation, h.ueln))
FROM ancestor AS a
JOIN horse AS h ON h.ueln = a.ueln
WHERE a.generation > 0;
