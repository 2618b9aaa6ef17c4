"""The database's shape, and the one statement that changes it on the hot path.

Every batch is one INSERT into the temporary view `batch`, whose trigger spreads the batch over the
tables. So a whole transaction, commit included, is a single `sqlite3_step`. The reason is the
interpreter: sqlite3 releases the GIL around each step, and getting it back beside a busy event loop
takes up to a switch interval (5 ms by default). Measured with a busy main thread and batches of 256
rows, per batch: 13 ms so, 55 ms as BEGIN, multi-row INSERTs, DELETE, COMMIT; with an interval of
0.5 ms 3.8 against 8 ms. A single statement is also atomic by itself: nothing to roll back.

Lists travel as JSON arrays, bytes in one blob that the rows cut their parts from (`substr` counts
from 1).
"""

from __future__ import annotations

from appliance.outbox.rows import STARTED

APPLICATION_ID = 0x53544150
SCHEMA_VERSION = 101
MIN_SQLITE = (3, 35, 0)
"""JSON functions built in, and UPDATE … FROM."""

CREATE = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE tail(one INTEGER PRIMARY KEY CHECK (one = 1), commits INTEGER NOT NULL, last_id INTEGER
NOT NULL); INSERT INTO tail VALUES (1, 0, 0); CREATE TABLE lanes(no INTEGER PRIMARY KEY, node TEXT
NOT NULL, subject TEXT NOT NULL, UNIQUE (node, subject)); CREATE TABLE outbox(
    id INTEGER PRIMARY KEY, lane INTEGER NOT NULL, head BLOB NOT NULL, payload BLOB NOT NULL,
    crc INTEGER NOT NULL, tries TEXT);
CREATE INDEX outbox_by_lane ON outbox(lane);
CREATE TABLE dead(
    id INTEGER PRIMARY KEY, lane INTEGER NOT NULL, head BLOB NOT NULL, payload BLOB NOT NULL,
    crc INTEGER NOT NULL, tries TEXT, reason TEXT NOT NULL, died_at REAL NOT NULL);
CREATE INDEX dead_by_time ON dead(died_at);
CREATE TABLE senders(
    no INTEGER PRIMARY KEY, subject TEXT NOT NULL, sender TEXT NOT NULL,
    instance TEXT NOT NULL, UNIQUE (subject, sender, instance));
CREATE TABLE seen(
    sender INTEGER NOT NULL, id INTEGER NOT NULL, at INTEGER NOT NULL, row_id INTEGER, attempt INTEGER, verdict TEXT,
    PRIMARY KEY (sender, id)) WITHOUT ROWID;
CREATE TABLE inbox(
    row_id INTEGER PRIMARY KEY, node TEXT NOT NULL, subject TEXT NOT NULL, head BLOB NOT NULL,
    payload BLOB NOT NULL, crc INTEGER NOT NULL, started INTEGER NOT NULL, note TEXT);
CREATE TABLE facts(kind TEXT, key TEXT, value TEXT, PRIMARY KEY (kind, key)) WITHOUT ROWID;
"""

BATCH_COLUMNS = (
    "blob",
    "lanes",
    "senders",
    "puts",
    "tries",
    "dead",
    "gone",
    "inbox",
    "started",
    "notes",
    "seen",
    "dropped",
    "facts",
    "commits",
    "last_id",
)

_VIEW = "CREATE TEMP VIEW batch AS SELECT " + ", ".join(f"NULL AS {name}" for name in BATCH_COLUMNS)

_TRIGGER = f"""
CREATE TEMP TRIGGER apply_batch INSTEAD OF INSERT ON batch BEGIN
    INSERT OR IGNORE INTO lanes(no, node, subject)
        SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')
        FROM json_each(NEW.lanes);
    INSERT OR IGNORE INTO senders(no, subject, sender, instance)
        SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value,
        '$[2]'),
            json_extract(value, '$[3]')
        FROM json_each(NEW.senders);
    INSERT OR IGNORE INTO outbox(id, lane, head, payload, crc, tries)
        SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'),
            substr(NEW.blob, json_extract(value, '$[2]'), json_extract(value, '$[3]')),
            substr(NEW.blob, json_extract(value, '$[4]'), json_extract(value, '$[5]')),
            json_extract(value, '$[6]'), json_extract(value, '$[7]')
        FROM json_each(NEW.puts);
    UPDATE outbox SET tries = json_extract(change.value, '$[1]')
        FROM json_each(NEW.tries) AS change WHERE outbox.id = json_extract(change.value, '$[0]');
    INSERT OR IGNORE INTO dead(id, lane, head, payload, crc, tries, reason, died_at)
        SELECT o.id, o.lane, o.head, o.payload, o.crc, json_extract(value, '$[3]'),
            json_extract(value, '$[1]'), json_extract(value, '$[2]')
        FROM json_each(NEW.dead) CROSS JOIN outbox AS o
        WHERE o.id = json_extract(value, '$[0]');
    DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(NEW.gone));
    INSERT INTO inbox(row_id, node, subject, head, payload, crc, started)
        SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value,
        '$[2]'),
            substr(NEW.blob, json_extract(value, '$[3]'), json_extract(value, '$[4]')),
            substr(NEW.blob, json_extract(value, '$[5]'), json_extract(value, '$[6]')),
            json_extract(value, '$[7]'), json_extract(value, '$[8]')
        FROM json_each(NEW.inbox);
    UPDATE inbox SET started = {STARTED} WHERE row_id IN (SELECT value FROM json_each(NEW.started));
    UPDATE inbox SET note = json_extract(change.value, '$[1]')
        FROM json_each(NEW.notes) AS change WHERE inbox.row_id = json_extract(change.value, '$[0]');
    INSERT OR REPLACE INTO seen(sender, id, at, row_id, attempt, verdict)
        SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value,
        '$[2]'),
            json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]')
        FROM json_each(NEW.seen);
    DELETE FROM inbox WHERE row_id IN (SELECT value FROM json_each(NEW.dropped));
    INSERT OR REPLACE INTO facts
        SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')
        FROM json_each(NEW.facts);
    DELETE FROM facts WHERE value IS NULL;
    UPDATE tail SET commits = NEW.commits, last_id = max(last_id, NEW.last_id);
END
"""

TEMPORARY = (_VIEW, _TRIGGER)

APPLY = f"INSERT INTO batch VALUES ({', '.join('?' * len(BATCH_COLUMNS))})"
