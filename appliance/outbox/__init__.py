"""The durable edge: outbox, inbox and their one SQLite store."""
