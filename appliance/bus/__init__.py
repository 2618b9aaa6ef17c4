"""The messaging edge: our adapter for NATS and the embedded broker."""
