-- The procedure app.greeting_get. On SQL Server, it would be:
--   CREATE PROCEDURE app.greeting_get @language nvarchar(10) AS
--       SELECT language, text FROM app.greeting WHERE language = @language;
SELECT language, text FROM greeting WHERE language = @language;
