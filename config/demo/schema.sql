-- The register of the demo. It is created once, in one transaction, in a new database file.
-- Every row is computed from its number, so that the register is the same on every machine.

CREATE TABLE breed (
    code TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

INSERT INTO breed VALUES
    ('KWPN', 'Dutch Warmblood'), ('HOLST', 'Holsteiner'), ('HANN', 'Hanoverian'),
    ('OLD', 'Oldenburger'), ('TRAK', 'Trakehner'), ('AA', 'Anglo-Arabian'), ('OX', 'Arabian'),
    ('XX', 'Thoroughbred'), ('FRIES', 'Friesian'), ('HAFL', 'Haflinger'), ('ISL', 'Icelandic'),
    ('SHET', 'Shetland Pony');

CREATE TABLE owner (
    id            INTEGER PRIMARY KEY,
    name          TEXT NOT NULL,
    email         TEXT NOT NULL,
    phone         TEXT,
    country       TEXT NOT NULL,
    newsletter    BOOLEAN NOT NULL DEFAULT 0,
    call_after    TEXT,
    preferences   TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(preferences)),
    changed_at    TEXT NOT NULL
);

CREATE TABLE horse (
    ueln          TEXT PRIMARY KEY CHECK (length(ueln) = 15),
    name          TEXT NOT NULL,
    breed         TEXT NOT NULL REFERENCES breed (code),
    sex           TEXT NOT NULL CHECK (sex IN ('mare', 'stallion', 'gelding')),
    born          DATE NOT NULL,
    died          DATE,
    microchip     TEXT UNIQUE CHECK (length(microchip) = 15),
    height_cm     DECIMAL TEXT (5, 1),
    weight_kg     REAL,
    sire          TEXT REFERENCES horse (ueln),
    dam           TEXT REFERENCES horse (ueln),
    owner         INTEGER NOT NULL REFERENCES owner (id),
    registered_at TEXT NOT NULL,
    registered_by TEXT
) WITHOUT ROWID;

-- Created before the horses are inserted, because each INSERT looks for children of the new row.
CREATE INDEX horse_by_sire ON horse (sire);
CREATE INDEX horse_by_dam ON horse (dam);

CREATE TABLE passport (
    number      TEXT PRIMARY KEY,
    document    TEXT NOT NULL UNIQUE,
    ueln        TEXT NOT NULL UNIQUE REFERENCES horse (ueln),
    issuer      TEXT NOT NULL,
    issued      DATE NOT NULL,
    slaughter   BOOLEAN NOT NULL,
    scan        BLOB
) WITHOUT ROWID;

CREATE TABLE movement (
    id          INTEGER PRIMARY KEY,
    ueln        TEXT NOT NULL REFERENCES horse (ueln),
    moved_at    TEXT NOT NULL,
    from_site   TEXT NOT NULL,
    to_site     TEXT NOT NULL,
    purpose     TEXT NOT NULL,
    distance_km REAL,
    checked     BOOLEAN NOT NULL DEFAULT 0,
    device      TEXT,
    logged_by   TEXT
);

CREATE TABLE ownership_transfer (
    id              TEXT PRIMARY KEY,
    ueln            TEXT NOT NULL REFERENCES horse (ueln),
    from_owner      INTEGER NOT NULL REFERENCES owner (id),
    to_owner        INTEGER NOT NULL REFERENCES owner (id),
    price           DECIMAL TEXT (12, 2),
    sold_at         TEXT NOT NULL,
    office          TEXT,
    principal       TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    request_id      TEXT,
    client_ip       TEXT,
    UNIQUE (principal, idempotency_key)
) WITHOUT ROWID;

-- 4,000 owners.
WITH RECURSIVE
    n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000),
    given (k, name) AS (VALUES
        (0, 'Anna'), (1, 'Bram'), (2, 'Clara'), (3, 'Daan'), (4, 'Emma'), (5, 'Finn'), (6, 'Greta'),
        (7, 'Hugo'), (8, 'Iris'), (9, 'Jonas'), (10, 'Karla'), (11, 'Lars'), (12, 'Marie')),
    family (k, name) AS (VALUES
        (0, 'de Vries'), (1, 'Petersen'), (2, 'Brandt'), (3, 'Jansen'), (4, 'Keller'), (5, 'Dubois'),
        (6, 'Novak'), (7, 'Lindqvist'), (8, 'O''Hara'), (9, 'van Dijk'), (10, 'Rossi'))
INSERT INTO owner (id, name, email, phone, country, newsletter, call_after, changed_at)
SELECT i, given.name || ' ' || family.name,
       lower(given.name) || '.' || i || '@example.org',
       CASE WHEN i % 4 > 0 THEN printf('+31 20 %07d', (i * 7919) % 10000000) END,
       CASE i % 5 WHEN 0 THEN 'NL' WHEN 1 THEN 'DE' WHEN 2 THEN 'BE' WHEN 3 THEN 'DK' ELSE 'FR' END,
       i % 3 = 0, printf('%02d:00:00', 8 + i % 10),
       '2026-01-01T00:00:00Z'
FROM n JOIN given ON given.k = i % 13 JOIN family ON family.k = (i / 13) % 11;

-- 24,000 horses. From number 2,401 on, each horse has parents: a stallion and a mare about 2,400 numbers before it.
WITH RECURSIVE
    n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 24000),
    first (k, name) AS (VALUES
        (0, 'Silver'), (1, 'Golden'), (2, 'Dark'), (3, 'Royal'), (4, 'Morning'), (5, 'Wild'),
        (6, 'Northern'), (7, 'Little'), (8, 'Grand'), (9, 'Quiet'), (10, 'Summer')),
    second (k, name) AS (VALUES
        (0, 'Star'), (1, 'Dancer'), (2, 'Wind'), (3, 'Duke'), (4, 'Lady'), (5, 'Storm'), (6, 'Dream'),
        (7, 'Spirit'), (8, 'River'), (9, 'Song'), (10, 'Knight'), (11, 'Rose'), (12, 'Comet')),
    breeds (k, code) AS (SELECT row_number() OVER (ORDER BY code) - 1, code FROM breed)
INSERT INTO horse (ueln, name, breed, sex, born, died, microchip, height_cm, weight_kg, sire, dam,
                   owner, registered_at, registered_by)
SELECT printf('528003%09d', i),
       first.name || ' ' || second.name || ' ' || i,
       breeds.code,
       CASE i % 4 WHEN 0 THEN 'stallion' WHEN 1 THEN 'gelding' ELSE 'mare' END,
       date('1990-01-01', '+' || (i / 2 + i % 300) || ' days'),
       CASE WHEN i < 6000 AND i % 3 = 0
            THEN date('1990-01-01', '+' || (i / 2 + 5000 + i % 3000) || ' days') END,
       printf('528%012d', i * 104729),
       printf('%d.%d', 140 + (i * 37) % 40, i % 10),
       380.0 + (i * 53) % 300 + (i % 4) * 0.25,
       CASE WHEN i > 2400 THEN printf('528003%09d', (i - 2400) / 4 * 4 + 4) END,
       CASE WHEN i > 2400 THEN printf('528003%09d', (i - 2400) / 4 * 4 + 2 + i % 2) END,
       1 + (i * 31) % 4000,
       strftime('%Y-%m-%dT09:00:00Z', '1990-01-02', '+' || (i / 2 + i % 300) || ' days'),
       'founding'
FROM n JOIN first ON first.k = i % 11 JOIN second ON second.k = (i / 11) % 13
       JOIN breeds ON breeds.k = (i / 7) % 12;

-- A passport for each horse. The scan is a PNG image of one pixel.
INSERT INTO passport (number, document, ueln, issuer, issued, slaughter, scan)
SELECT printf('NL%08d', i),
       printf('%08x-0000-4000-8000-%012x', i, i * 104729),
       ueln, 'Demo Stud Book', date(born, '+30 days'), i % 6 = 0,
       x'89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082'
FROM (SELECT ueln, born, CAST(substr(ueln, 7) AS INTEGER) AS i FROM horse);

-- Two or three movements for every other horse.
INSERT INTO movement (ueln, moved_at, from_site, to_site, purpose, distance_km, checked, logged_by)
SELECT ueln,
       strftime('%Y-%m-%dT%H:%M:00Z', born, '+' || (700 + 90 * leg) || ' days', '+' || (i % 1440) || ' minutes'),
       printf('NL-%05d', (i * 17 + leg) % 90000), printf('NL-%05d', (i * 17 + leg + 1) % 90000),
       CASE (i + leg) % 4 WHEN 0 THEN 'competition' WHEN 1 THEN 'breeding' WHEN 2 THEN 'sale' ELSE 'clinic' END,
       round(5.0 + (i * 13 + leg * 101) % 900 / 2.0, 1), i % 2, 'founding'
FROM (SELECT ueln, born, CAST(substr(ueln, 7) AS INTEGER) AS i FROM horse) AS h
JOIN (SELECT 0 AS leg UNION ALL SELECT 1 UNION ALL SELECT 2) AS legs ON leg < 2 + i % 3 / 2
WHERE i % 2 = 0;

CREATE INDEX horse_by_name ON horse (name COLLATE NOCASE, ueln);
CREATE INDEX horse_by_owner ON horse (owner);
CREATE INDEX movement_by_horse ON movement (ueln, id);
CREATE INDEX transfer_by_horse ON ownership_transfer (ueln);
