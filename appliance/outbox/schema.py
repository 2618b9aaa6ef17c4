"""The database's shape, and the one statement that changes it.

A commit is one row of `log`, whatever it holds: a head and a body (see `blobs`). What is rare travels with it: commits
that can go, dead letters, facts, blocks of remembered ids. Then the row is inserted into the temporary view `batch`,
whose trigger spreads it, so that also such a transaction is a single `sqlite3_step`. The reason is the interpreter:
sqlite3 releases the GIL around each step, and getting it back beside a busy event loop takes up to a switch interval
(5 ms by default). A single statement is also atomic by itself: nothing to roll back.

What goes is deleted before anything is inserted, so that a full store can use that room at once.
"""

from __future__ import annotations

APPLICATION_ID = 0x53544150
SCHEMA_VERSION = 2
MIN_SQLITE = (3, 35, 0)
"""JSON functions built in."""

TABLES = """
CREATE TABLE log(seq INTEGER PRIMARY KEY, head BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE letters(
    id INTEGER PRIMARY KEY, node TEXT NOT NULL, subject TEXT NOT NULL, body BLOB NOT NULL,
    reason TEXT NOT NULL, died_at REAL NOT NULL);
CREATE INDEX letters_by_time ON letters(died_at);
CREATE TABLE facts(
    kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE id_senders(
    no INTEGER PRIMARY KEY, scope TEXT NOT NULL, sender TEXT NOT NULL, instance TEXT NOT NULL);
CREATE TABLE id_blocks(
    no INTEGER PRIMARY KEY, sender INTEGER NOT NULL, low INTEGER NOT NULL, high INTEGER NOT NULL,
    count INTEGER NOT NULL, oldest REAL NOT NULL, newest REAL NOT NULL,
    exceptions INTEGER NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE id_verdicts(
    sender INTEGER NOT NULL, id INTEGER NOT NULL, attempt INTEGER NOT NULL, verdict TEXT NOT NULL,
    at REAL NOT NULL, PRIMARY KEY (sender, id)) WITHOUT ROWID;
CREATE INDEX id_verdicts_by_time ON id_verdicts(at);
"""
META = "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"

VERDICT_SLICE = 1_000
"""Verdicts that are forgotten at once."""

COLUMNS = (
    "seq",
    "head",
    "body",
    "gone",
    "blob",
    "letters",
    "risen",
    "facts",
    "senders",
    "blocks",
    "verdicts",
    "blocks_gone",
    "senders_gone",
    "verdicts_before",
)
"""`letters` and `blocks` cut their bodies from `blob`; `risen` are letters that go."""

_VIEW = "CREATE TEMP VIEW batch AS SELECT " + ", ".join(f"NULL AS {name}" for name in COLUMNS)


def _fields(*places: int) -> str:
    return ", ".join(f"json_extract(value, '$[{at}]')" for at in places)


_TRIGGER = f"""
CREATE TEMP TRIGGER apply_batch INSTEAD OF INSERT ON batch BEGIN
    DELETE FROM log WHERE seq IN (SELECT value FROM json_each(NEW.gone));
    DELETE FROM letters WHERE id IN (SELECT value FROM json_each(NEW.risen));
    DELETE FROM id_blocks WHERE no IN (SELECT value FROM json_each(NEW.blocks_gone));
    DELETE FROM id_senders WHERE no IN (SELECT value FROM json_each(NEW.senders_gone));
    DELETE FROM id_verdicts WHERE (sender, id) IN (
        SELECT sender, id FROM id_verdicts WHERE at < NEW.verdicts_before LIMIT {VERDICT_SLICE});
    INSERT INTO log VALUES (NEW.seq, NEW.head, NEW.body);
    INSERT OR IGNORE INTO letters
        SELECT {_fields(0, 1, 2)},
            substr(NEW.blob, json_extract(value, '$[3]'), json_extract(value, '$[4]')),
            {_fields(5, 6)}
        FROM json_each(NEW.letters);
    DELETE FROM facts WHERE (kind, key) IN (SELECT {_fields(0, 1)} FROM json_each(NEW.facts));
    INSERT INTO facts SELECT {_fields(0, 1, 2)} FROM json_each(NEW.facts)
        WHERE json_extract(value, '$[2]') IS NOT NULL;
    INSERT OR IGNORE INTO id_senders SELECT {_fields(0, 1, 2, 3)} FROM json_each(NEW.senders);
    INSERT INTO id_blocks
        SELECT {_fields(0, 1, 2, 3, 4, 5, 6, 7, 8)},
            substr(NEW.blob, json_extract(value, '$[9]'), json_extract(value, '$[10]'))
        FROM json_each(NEW.blocks);
    INSERT OR REPLACE INTO id_verdicts SELECT {_fields(0, 1, 2, 3, 4)} FROM json_each(NEW.verdicts);
END
"""

TEMPORARY = (_VIEW, _TRIGGER)

APPEND = "INSERT INTO log VALUES (?, ?, ?)"
APPLY = f"INSERT INTO batch VALUES ({', '.join('?' * len(COLUMNS))})"
