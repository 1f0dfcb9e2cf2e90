SELECT ueln, name, breed, sex, born, height_cm, died IS NULL AS "alive:boolean", owner
FROM horse
WHERE ueln > coalesce(@after, '')
  AND (@name IS NULL OR substr(name, 1, length(@name)) = @name COLLATE NOCASE)
  AND (@breed IS NULL OR breed = @breed)
  AND (@sex IS NULL OR sex = @sex)
  AND (@born_from IS NULL OR born >= @born_from)
  AND (@born_to IS NULL OR born <= @born_to)
  AND (@alive IS NULL OR (died IS NULL) = @alive)
  AND (@height_min_cm IS NULL OR CAST(height_cm AS REAL) >= CAST(@height_min_cm AS REAL))
  AND (@owner IS NULL OR owner = @owner)
ORDER BY ueln
LIMIT coalesce(@limit, 20)
