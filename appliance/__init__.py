"""A declarative, hot-reloading message daemon for NATS that speaks Steward's wire."""

__version__ = "0.1.0"
