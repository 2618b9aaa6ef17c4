"""Commands are found where they lie: a new one is a file, and nothing else names it."""

import typer

import appliance.cli
from appliance.cli.app import _ORDER, find_commands

NEW = """
def register(app):
    app.command("shout")(lambda: 0)
"""


def test_module_of_a_command_that_nobody_names_is_found_behind_all_others(tmp_path, monkeypatch):
    named = [f"appliance.cli.{name}" for name in _ORDER]
    (tmp_path / "aaa_shout_command.py").write_text(NEW)
    monkeypatch.setattr(appliance.cli, "__path__", [*appliance.cli.__path__, str(tmp_path)])
    found = list(find_commands(appliance.cli))
    # behind those that have a place in the help: there may be others without one
    assert [module.__name__ for module in found[: len(named)]] == named
    (new,) = [module for module in found if module.__name__.endswith("aaa_shout_command")]
    assert found.index(new) >= len(named)
    app = typer.Typer()
    new.register(app)
    assert [command.name for command in app.registered_commands] == ["shout"]


def test_every_module_of_commands_is_found_once():
    names = [module.__name__ for module in find_commands(appliance.cli)]
    assert len(names) == len(set(names)) > 25
