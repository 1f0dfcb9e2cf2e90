SELECT id, name, email, phone, country, newsletter, call_after, preferences, changed_at,
       (SELECT count(*) FROM horse WHERE owner = @id) AS horses
FROM owner WHERE id = @id
