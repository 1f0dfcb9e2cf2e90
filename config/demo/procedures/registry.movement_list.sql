SELECT id, moved_at, from_site, to_site, purpose, distance_km, checked, device
FROM movement
WHERE ueln = @ueln AND (@before IS NULL OR id < @before) AND (@since IS NULL OR moved_at >= strftime('%Y-%m-%dT%H:%M:%SZ', @since))
ORDER BY id DESC
LIMIT coalesce(@limit, 20)
