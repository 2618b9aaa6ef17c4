"""How a generation of peers writes a message and an answer. Nothing outside knows their headers and texts."""
