"""Programs of the machine that methods run, and what they say."""
