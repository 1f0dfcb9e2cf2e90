SELECT 1 AS "@return" WHERE NOT EXISTS (SELECT 1 FROM owner WHERE id = @id);

UPDATE owner
SET name = @name, email = @email, phone = @phone, newsletter = coalesce(@newsletter, 0),
    call_after = @call_after, preferences = coalesce(@preferences, '{}'),
    changed_at = strftime('%Y-%m-%dT%H:%M:%SZ')
WHERE id = @id;
