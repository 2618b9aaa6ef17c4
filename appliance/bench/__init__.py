"""`appliance bench`: two processes made of the daemon's own parts, which touch nothing of a daemon."""
