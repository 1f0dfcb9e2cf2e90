-- Raises an error from the procedure itself, whose message contains all arguments.
SELECT throw(60000, 'refused: ' || concat_ws(', ', @id, @text, @note, @body, @number)) AS "@check";
