-- Times are stored in UTC, so that their text sorts chronologically.
SELECT throw(50404, 'no horse has the number ' || (r.value ->> 'ueln')) AS "@check"
FROM json_each(@movements) AS r
WHERE NOT EXISTS (SELECT 1 FROM horse WHERE ueln = r.value ->> 'ueln');

INSERT INTO movement (ueln, moved_at, from_site, to_site, purpose, distance_km, checked, device, logged_by)
SELECT r.value ->> 'ueln', strftime('%Y-%m-%dT%H:%M:%SZ', r.value ->> 'moved_at'),
       r.value ->> 'from_site', r.value ->> 'to_site', r.value ->> 'purpose',
       r.value ->> 'distance_km', coalesce(r.value ->> 'checked', 0), @device, @principal
FROM json_each(@movements) AS r
WHERE true;

SELECT max(id) AS "@last_id" FROM movement;

SELECT json_array_length(@movements) AS logged;
