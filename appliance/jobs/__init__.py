"""Jobs: what one command of an operator sent, and what came of it, on disk at the node that asked."""
