-- An error of its own that says all it was given.
SELECT throw(60000, 'refused: ' || concat_ws(', ', @id, @text, @note, @body, @number)) AS "@check";
