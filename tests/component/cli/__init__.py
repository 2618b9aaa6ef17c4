"""The command line by itself, or against a served facade."""
