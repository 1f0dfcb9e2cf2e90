SELECT h.ueln, h.name, b.name AS breed, h.sex, h.born, h.died, h.microchip,
       CASE @detail WHEN 'full' THEN h.height_cm END AS "height_cm:decimal",
       CASE @detail WHEN 'full' THEN h.weight_kg END AS weight_kg,
       CASE @detail WHEN 'full' THEN h.sire END AS sire,
       CASE @detail WHEN 'full' THEN h.dam END AS dam,
       h.owner, h.died IS NULL AS "alive:boolean"
FROM horse AS h
JOIN breed AS b ON b.code = h.breed
WHERE h.ueln = @ueln
