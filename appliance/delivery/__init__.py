"""How a message is carried and confirmed. One file and one registration for each way."""
