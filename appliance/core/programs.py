"""The words with which appliances look at and end each other's programs.

They are messages of methods that run programs in all but the method's name in the body: subject, rights and way are
those of the method that started the program.
"""

from __future__ import annotations

PROGRAM_STOP = "REQProgramStop"
PROGRAM_LIST = "REQProgramList"
PROGRAM_ORDERS = (PROGRAM_STOP, PROGRAM_LIST)
PROGRAM_METHODS = ("REQCliCommand", "REQCliCommandCont")
"""Methods of the program's own that run programs; those of a config with `exec` do, too."""
