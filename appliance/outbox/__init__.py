"""The durable edge: outbox and inbox in one SQLite store, with one writer thread and group commit.

The way of an operation: `store.MessageStore` (on the loop) -> a queue -> `writer.Writer` (its thread: takes everything
queued) -> `composing.Composer` (what is known, fresh, settled) -> `database.Database.commit` (one blob, one statement)
-> back on the loop once per batch, where futures are resolved and `lane.Lane` windows are filled.

A commit is a head and a body (`blobs`). In memory is which of their messages live (`segments`), where rows of the inbox
are (`inbox`), which ids are remembered (`dedupe`), and for each lane where its records lie (`disk_index`).
"""
