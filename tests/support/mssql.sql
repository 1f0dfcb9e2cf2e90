-- The objects that tests/sql_server.rs uses. Every batch ends with GO on a line of its own. The tests' fake server reads the
-- parameters of its procedures from this file, so each CREATE PROCEDURE has its parameters on one line, up to AS. The file
-- uses only syntax that both SQL Server and Babelfish accept.
CREATE SCHEMA fjord_test
GO
CREATE TABLE fjord_test.things (id int NOT NULL PRIMARY KEY, name nvarchar(100) NULL)
GO
CREATE TABLE fjord_test.kept (word nvarchar(20) NOT NULL)
GO
CREATE TABLE fjord_test.locks (id int NOT NULL PRIMARY KEY, n int NOT NULL)
GO
INSERT INTO fjord_test.locks VALUES (1, 0), (2, 0)
GO
CREATE TABLE fjord_test.audit (who varchar(10) NOT NULL)
GO
CREATE TYPE fjord_test.thing_list AS TABLE (id int NULL, name varchar(100) NULL, price decimal(9, 2) NULL, at datetime2(3) NULL)
GO
CREATE TYPE fjord_test.name_list AS TABLE (name nvarchar(100) NULL)
GO
CREATE TYPE fjord_test.code_list AS TABLE (code varchar(5) NULL, kana varchar(5) COLLATE Japanese_CI_AS NULL)
GO
CREATE TYPE fjord_test.required_list AS TABLE (id int NOT NULL, note nvarchar(20) NULL)
GO
CREATE TYPE fjord_test.long_list AS TABLE (wide nvarchar(max) NULL, narrow varchar(max) NULL, bytes varbinary(max) NULL)
GO
CREATE TYPE fjord_test.cell_list AS TABLE (n int NULL, a_bit bit NULL, a_tinyint tinyint NULL, a_smallint smallint NULL, a_bigint bigint NULL, a_money money NULL, a_smallmoney smallmoney NULL, a_real real NULL, a_float float NULL, a_date date NULL, a_time time(7) NULL, a_datetime datetime NULL, a_smalldatetime smalldatetime NULL, a_datetime2 datetime2(7) NULL, a_datetimeoffset datetimeoffset(6) NULL, a_uniqueidentifier uniqueidentifier NULL, a_binary binary(4) NULL)
GO
-- One procedure for each type, which returns its argument as a column and as an OUTPUT parameter. Two procedures have no
-- OUTPUT parameter, because Babelfish 4 cannot return their types in one.
CREATE PROCEDURE fjord_test.echo_bit @v bit = NULL, @out bit OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_tinyint @v tinyint = NULL, @out tinyint OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_smallint @v smallint = NULL, @out smallint OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_int @v int = NULL, @out int OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_bigint @v bigint = NULL, @out bigint OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_decimal_38_10 @v decimal(38, 10) = NULL, @out decimal(38, 10) OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_numeric_9_2 @v numeric(9, 2) = NULL, @out numeric(9, 2) OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_money @v money = NULL, @out money OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_smallmoney @v smallmoney = NULL, @out smallmoney OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_real @v real = NULL, @out real OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_float @v float = NULL, @out float OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_char_10 @v char(10) = NULL, @out char(10) OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_varchar_5 @v varchar(5) = NULL, @out varchar(5) OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_varchar_50 @v varchar(50) = NULL, @out varchar(50) OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_varchar_max @v varchar(max) = NULL, @out varchar(max) OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_nchar_10 @v nchar(10) = NULL, @out nchar(10) OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_nvarchar_50 @v nvarchar(50) = NULL, @out nvarchar(50) OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_nvarchar_max @v nvarchar(max) = NULL, @out nvarchar(max) OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_binary_4 @v binary(4) = NULL, @out binary(4) OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_varbinary_50 @v varbinary(50) = NULL, @out varbinary(50) OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_varbinary_max @v varbinary(max) = NULL, @out varbinary(max) OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_date @v date = NULL, @out date OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_time_7 @v time(7) = NULL, @out time(7) OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_time_0 @v time(0) = NULL AS SELECT @v AS v
GO
CREATE PROCEDURE fjord_test.echo_datetime @v datetime = NULL, @out datetime OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_smalldatetime @v smalldatetime = NULL, @out smalldatetime OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_datetime2_7 @v datetime2(7) = NULL, @out datetime2(7) OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_datetime2_3 @v datetime2(3) = NULL AS SELECT @v AS v
GO
CREATE PROCEDURE fjord_test.echo_datetimeoffset_6 @v datetimeoffset(6) = NULL, @out datetimeoffset(6) OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_uniqueidentifier @v uniqueidentifier = NULL, @out uniqueidentifier OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_xml @v xml = NULL, @out xml OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_sql_variant @v sql_variant = NULL, @out sql_variant OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_decimal_38_38 @v decimal(38, 38) = NULL, @out decimal(38, 38) OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_varchar_8000 @v varchar(8000) = NULL, @out varchar(8000) OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_nvarchar_4000 @v nvarchar(4000) = NULL, @out nvarchar(4000) OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
CREATE PROCEDURE fjord_test.echo_varbinary_8000 @v varbinary(8000) = NULL, @out varbinary(8000) OUTPUT AS BEGIN SET @out = @v; SELECT @v AS v; END
GO
-- An absent argument is replaced by the default; NULL is not.
CREATE PROCEDURE fjord_test.defaults @a int = 7, @b nvarchar(20) = 'seven' AS SELECT @a AS a, @b AS b
GO
CREATE PROCEDURE fjord_test.returns @status int AS RETURN @status
GO
CREATE PROCEDURE fjord_test.nothing AS RETURN 0
GO
CREATE PROCEDURE fjord_test.sets AS BEGIN SELECT 1 AS a, 2 AS a; SELECT id, name FROM fjord_test.things WHERE 1 = 0; SELECT 3; END
GO
CREATE PROCEDURE fjord_test.wide AS BEGIN SELECT 1 AS c1, CAST(2 AS decimal(9, 2)) AS c2, 3 AS c3, CAST(4 AS decimal(9, 2)) AS c4, 5 AS c5, CAST(6 AS decimal(9, 2)) AS c6, 7 AS c7, CAST(8 AS decimal(9, 2)) AS c8, 9 AS c9, CAST(10 AS decimal(9, 2)) AS c10, 11 AS c11, CAST(12 AS decimal(9, 2)) AS c12, 13 AS c13, CAST(14 AS decimal(9, 2)) AS c14, 15 AS c15, CAST(16 AS decimal(9, 2)) AS c16, 17 AS c17, CAST(18 AS decimal(9, 2)) AS c18, 19 AS c19, CAST(20 AS decimal(9, 2)) AS c20; END
GO
CREATE PROCEDURE fjord_test.outputs @given int OUTPUT, @text nvarchar(max) OUTPUT, @amount decimal(20, 4) OUTPUT, @untouched nvarchar(20) OUTPUT AS BEGIN SET @given = @given + 1; SET @text = REPLICATE(CAST(N'ab' AS nvarchar(max)), 5000); SET @amount = 1234567890123456.7890; RETURN -3; END
GO
CREATE PROCEDURE fjord_test.throws @number int, @message nvarchar(200) AS BEGIN IF @number = 50404 THROW 50404, @message, 1; IF @number = 50001 THROW 50001, @message, 1; RAISERROR(@message, 16, 1); END
GO
CREATE PROCEDURE fjord_test.rows_then_error AS BEGIN SELECT 1 AS a; THROW 50500, 'after rows', 1; END
GO
CREATE PROCEDURE fjord_test.doubles AS BEGIN DELETE FROM fjord_test.things WHERE id = 1; INSERT INTO fjord_test.things VALUES (1, N'one'); INSERT INTO fjord_test.things VALUES (1, N'two'); END
GO
-- Without TRY, the procedure continues after the failed statement.
CREATE PROCEDURE fjord_test.doubles_then_throws AS BEGIN DELETE FROM fjord_test.things WHERE id = 2; INSERT INTO fjord_test.things VALUES (2, N'one'); INSERT INTO fjord_test.things VALUES (2, N'two'); IF @@ERROR <> 0 THROW 50422, 'already there', 1; END
GO
CREATE PROCEDURE fjord_test.prints AS BEGIN PRINT 'before'; SELECT 1 AS v; PRINT 'after'; END
GO
-- Commits a row by itself, and may then become a deadlock victim.
CREATE PROCEDURE fjord_test.deadlocks AS BEGIN SET NOCOUNT ON; INSERT INTO fjord_test.audit (who) VALUES ('a'); BEGIN TRAN; UPDATE fjord_test.locks SET n = n + 1 WHERE id = 1; UPDATE fjord_test.locks SET n = n + 1 WHERE id = 2; COMMIT; END
GO
CREATE PROCEDURE fjord_test.divides @by int AS SELECT 1 / @by AS v
GO
CREATE PROCEDURE fjord_test.lists @things fjord_test.thing_list READONLY AS SELECT id, name, price, at FROM @things ORDER BY id
GO
CREATE PROCEDURE fjord_test.names @names fjord_test.name_list READONLY AS SELECT name FROM @names
GO
CREATE PROCEDURE fjord_test.codes @codes fjord_test.code_list READONLY AS SELECT code, kana FROM @codes
GO
CREATE PROCEDURE fjord_test.longs @rows fjord_test.long_list READONLY AS SELECT wide, narrow, bytes FROM @rows
GO
CREATE PROCEDURE fjord_test.requires @rows fjord_test.required_list READONLY AS SELECT id, note FROM @rows ORDER BY id
GO
CREATE PROCEDURE fjord_test.json @count int AS BEGIN DECLARE @t TABLE (n int); DECLARE @i int = 0; WHILE @i < @count BEGIN INSERT INTO @t VALUES (@i); SET @i = @i + 1; END; SELECT n, N'a "quoted" name' AS name FROM @t ORDER BY n FOR JSON PATH; END
GO
CREATE PROCEDURE fjord_test.many @count int AS BEGIN DECLARE @t TABLE (n int); DECLARE @i int = 0; WHILE @i < @count BEGIN INSERT INTO @t VALUES (@i); SET @i = @i + 1; END; SELECT n FROM @t ORDER BY n; END
GO
CREATE PROCEDURE fjord_test.slow @ms int AS BEGIN DECLARE @until datetime2(3) = DATEADD(ms, @ms, SYSDATETIME()); DECLARE @n int = 0; WHILE SYSDATETIME() < @until SET @n = @n + 1; SELECT 1 AS done; END
GO
CREATE PROCEDURE fjord_test.application AS SELECT APP_NAME() AS name
GO
CREATE PROCEDURE fjord_test.remembers @v nvarchar(20) AS BEGIN EXEC sp_set_session_context N'fjord', @v; EXEC sp_getapplock @Resource = N'fjord', @LockMode = 'Exclusive', @LockOwner = 'Session'; END
GO
-- When Babelfish 4 resets a session, it keeps the session context.
CREATE PROCEDURE fjord_test.recalls AS SELECT CASE WHEN @@VERSION LIKE '%Babelfish%' THEN NULL ELSE CAST(SESSION_CONTEXT(N'fjord') AS nvarchar(20)) END AS v, APPLOCK_MODE('public', N'fjord', 'Session') AS held
GO
CREATE PROCEDURE fjord_test.who @key nvarchar(128) AS SELECT CAST(SESSION_CONTEXT(@key) AS nvarchar(4000)) AS v
GO
CREATE PROCEDURE fjord_test.claims_to_be @name nvarchar(100) AS EXEC sp_set_session_context N'principal', @name
GO
CREATE PROCEDURE fjord_test.leaves_open AS BEGIN BEGIN TRANSACTION; UPDATE fjord_test.things SET name = N'open' WHERE id = 1; THROW 50409, 'left open', 1; END
GO
CREATE PROCEDURE fjord_test.transactions AS SELECT @@TRANCOUNT AS v
GO
CREATE PROCEDURE fjord_test.process AS SELECT @@SPID AS v
GO
CREATE PROCEDURE fjord_test.takes_variant @v sql_variant AS SELECT CAST(@v AS nvarchar(50)) AS v
GO
CREATE PROCEDURE fjord_test.variant AS SELECT CAST(7 AS sql_variant) AS v
GO
CREATE PROCEDURE fjord_test.money_in_variant @v money AS SELECT CAST(@v AS sql_variant) AS v
GO
CREATE PROCEDURE fjord_test.money_as_decimal @v money AS SELECT CAST(@v AS decimal(19, 4)) AS v
GO
CREATE PROCEDURE fjord_test.money_as_output @v money, @out money OUTPUT AS SET @out = @v
GO
-- The driver would read the largest values of money as doubles.
CREATE PROCEDURE fjord_test.cells @rows fjord_test.cell_list READONLY AS SELECT n, a_bit, a_tinyint, a_smallint, a_bigint, CAST(a_money AS decimal(19, 4)) AS a_money, a_smallmoney, a_real, a_float, a_date, a_time, a_datetime, a_smalldatetime, a_datetime2, a_datetimeoffset, a_uniqueidentifier, a_binary FROM @rows ORDER BY n
GO
-- Values at the beginning and at the end of each type, as the server stores them.
CREATE PROCEDURE fjord_test.first_and_last AS BEGIN SELECT CAST('00:00:00.0000001' AS time(7)) AS a_time, CAST('0001-01-01T00:00:00.0000001' AS datetime2(7)) AS a_datetime2, CAST('0001-01-01T14:00:00+14:00' AS datetimeoffset(6)) AS a_datetimeoffset; SELECT CAST('23:59:59.9999999' AS time(7)) AS a_time, CAST('9999-12-31T23:59:59.9999999' AS datetime2(7)) AS a_datetime2, CAST('9999-12-31T09:59:59.999999-14:00' AS datetimeoffset(6)) AS a_datetimeoffset; END
GO
-- Writes a row, ends @commits transactions, and begins @begins transactions.
CREATE PROCEDURE fjord_test.keeps @word nvarchar(20), @commits int, @begins int AS BEGIN INSERT INTO fjord_test.kept VALUES (@word); WHILE @commits > 0 BEGIN COMMIT TRANSACTION; SET @commits = @commits - 1; END; WHILE @begins > 0 BEGIN BEGIN TRANSACTION; SET @begins = @begins - 1; END; SELECT COUNT(*) AS n FROM fjord_test.kept WHERE word = @word; END
GO
CREATE PROCEDURE fjord_test.kept_count @word nvarchar(20) AS SELECT COUNT(*) AS n FROM fjord_test.kept WHERE word = @word
GO
CREATE TYPE fjord_test.[order] AS TABLE ([sort order] int NULL, größe nvarchar(20) NULL)
GO
CREATE PROCEDURE fjord_test.[Sales by Year] @größe int AS SELECT @größe AS größe
GO
CREATE PROCEDURE fjord_test.[a.b] @1 int, @a$b int AS SELECT @1 + @a$b AS v
GO
CREATE PROCEDURE fjord_test.größe_lesen AS SELECT N'ß' AS v
GO
CREATE PROCEDURE fjord_test.[order by] @rows fjord_test.[order] READONLY AS SELECT [sort order], größe FROM @rows
GO
CREATE PROCEDURE fjord_test.[it's; -- out] @text nvarchar(max) OUTPUT AS SET @text = N'out'
GO
CREATE PROCEDURE fjord_test.sums @rows fjord_test.thing_list READONLY, @note varchar(10), @text nvarchar(max) OUTPUT, @total decimal(20, 4) OUTPUT AS BEGIN SELECT @text = REPLICATE(CAST(N'ab' AS nvarchar(max)), 5000), @total = SUM(price) FROM @rows; SELECT COUNT(*) AS n, @note AS note FROM @rows; RETURN 5; END
GO
CREATE PROCEDURE fjord_test.inserts_then_throws @word nvarchar(20) AS BEGIN INSERT INTO fjord_test.kept VALUES (@word); THROW 50422, 'no', 1; END
GO
CREATE PROCEDURE fjord_test.inserts_null AS INSERT INTO fjord_test.kept VALUES (NULL)
GO
CREATE PROCEDURE fjord_test.inserts_long @word nvarchar(100) AS INSERT INTO fjord_test.kept VALUES (@word)
GO
CREATE PROCEDURE fjord_test.same @a nvarchar(20), @b nvarchar(20) AS SELECT CASE WHEN @a = @b THEN 1 ELSE 0 END AS v
GO
CREATE TABLE fjord_test.digits (n int NOT NULL)
GO
INSERT INTO fjord_test.digits VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)
GO
-- The rows that benchmarks read: 5,000, the first with the id 1.
CREATE TABLE fjord_test.articles (id int NOT NULL PRIMARY KEY, name nvarchar(50) NOT NULL, price decimal(9, 2) NOT NULL, added datetime2(3) NOT NULL)
GO
INSERT INTO fjord_test.articles SELECT a.id, N'article ' + CAST(a.id AS nvarchar(10)), CAST(a.id AS decimal(9, 2)) / 4, DATEADD(second, a.id, CAST('2026-01-01T00:00:00.125' AS datetime2(3))) FROM (SELECT 1000 * m.n + 100 * c.n + 10 * d.n + u.n + 1 AS id FROM fjord_test.digits AS m CROSS JOIN fjord_test.digits AS c CROSS JOIN fjord_test.digits AS d CROSS JOIN fjord_test.digits AS u WHERE m.n < 5) AS a
GO
CREATE PROCEDURE fjord_test.first_articles @count int AS SELECT TOP (@count) id, name, price, added FROM fjord_test.articles ORDER BY id
GO
CREATE PROCEDURE fjord_test.first_ids @count int AS SELECT TOP (@count) id FROM fjord_test.articles ORDER BY id
GO
