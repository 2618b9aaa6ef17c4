"""The durable edge: outbox and inbox in one SQLite store, with one writer thread and group commit.

The way of an operation: `outbox.MessageStore` (on the loop) -> a queue -> `writer.Writer` (its
thread: takes everything queued) -> `database.Database.apply` (one statement, one commit) -> back on
the loop once per batch, where futures are resolved and `lane.Lane` windows are filled.
"""
