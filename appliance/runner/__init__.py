"""The runner: a process of its own, with rights of its own, that runs what the daemon may not."""
