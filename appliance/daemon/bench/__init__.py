"""`appliance bench`: two sides made of the daemon's own parts, round after round through the broker of the config.

It touches nothing of a running daemon: its state is in a directory of its own, its subjects stand below a name that
nobody else has. It is bounded in everything, tells the broker who it is by the names of its connections, and leaves
nothing behind, also when it is interrupted.
"""
