"""The command line: words, tables and exit codes. Everything heavy is imported by the command that
needs it.
"""

from appliance.cli.app import main

__all__ = ["main"]
