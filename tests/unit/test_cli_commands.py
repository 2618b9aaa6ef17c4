"""Commands are found where they lie: a new one is a file, and nothing else names it."""

import typer

import appliance.cli
from appliance.cli.app import find_commands

NEW = """
def register(app):
    app.command("shout")(lambda: 0)
"""


def test_module_of_a_command_that_nobody_names_is_found_behind_all_others(tmp_path, monkeypatch):
    known = [module.__name__ for module in find_commands(appliance.cli)]
    (tmp_path / "aaa_shout_command.py").write_text(NEW)
    monkeypatch.setattr(appliance.cli, "__path__", [*appliance.cli.__path__, str(tmp_path)])
    *others, new = find_commands(appliance.cli)
    assert [module.__name__ for module in others] == known
    app = typer.Typer()
    new.register(app)
    assert [command.name for command in app.registered_commands] == ["shout"]


def test_every_module_of_commands_is_found_once():
    names = [module.__name__ for module in find_commands(appliance.cli)]
    assert len(names) == len(set(names)) > 25
