"""Facts told once: log lines, counts and events. Knows nothing of those who tell them."""
