"""The command of the program, which knows one method more."""

import runpy

from tests.support.computing import add_methods

add_methods()
runpy.run_module("appliance", run_name="__main__", alter_sys=True)
