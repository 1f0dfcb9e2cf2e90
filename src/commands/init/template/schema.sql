-- Executed once, when the database file is created.
CREATE TABLE greeting (
    language NVARCHAR (10) PRIMARY KEY,
    text     NVARCHAR (100) NOT NULL
);

INSERT INTO greeting VALUES ('en', 'Hello'), ('de', 'Hallo'), ('fr', 'Bonjour'), ('is', 'Halló');
