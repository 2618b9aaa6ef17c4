"""`appliance bench`: how many messages a second, and how long one takes, through the broker of the config.

Two processes, made of the daemon's own parts. They touch nothing of a running daemon: their state is in a directory of
their own, their subjects stand below a name that nobody else has, and nothing is left behind.
"""
