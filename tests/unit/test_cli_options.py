"""Where a client finds its daemon, and what it warns of."""

import io
import json
import os
import re
from pathlib import Path

import pytest

from appliance.cli import options
from appliance.cli.options import print_json, print_json_line
from appliance.core.escape import escape_controls
from appliance.core.times import say_short, say_span


@pytest.fixture
def as_user(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def test_the_flag_wins_over_everything():
    environ = {"APPLIANCE_CONFIG": "/nowhere", "STATE_DIRECTORY": "/b"}
    assert options.find_state_dir(Path("/a"), environ) == Path("/a")


def test_the_config_says_where_its_daemon_keeps_state(tmp_path):
    config = tmp_path / "a.yaml"
    config.write_text("version: 1\nstate: {dir: /srv/state}\n")
    assert options.find_state_dir(None, {"APPLIANCE_CONFIG": str(config)}) == Path("/srv/state")


@pytest.mark.parametrize("text", ["state: [", "state: 3", "state: {dir: 3}", "\udcff", None])
def test_a_broken_config_does_not_keep_a_client_from_its_daemon(tmp_path, text):
    config = tmp_path / "a.yaml"
    if text is not None:
        config.write_bytes(text.encode("utf-8", "surrogateescape"))
    environ = {"APPLIANCE_CONFIG": str(config), "STATE_DIRECTORY": "/from/systemd"}
    assert options.find_state_dir(None, environ) == Path("/from/systemd")


def test_systemd_may_name_several_state_directories():
    assert options.default_state_dir({"STATE_DIRECTORY": "/a:/b"}) == Path("/a")


def test_root_keeps_state_in_var_lib(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert options.default_state_dir({"HOME": "/root"}) == Path("/var/lib/appliance")


def test_a_user_keeps_state_below_xdg_state_home_or_its_default(as_user):
    assert options.default_state_dir({"XDG_STATE_HOME": "/x"}) == Path("/x/appliance")
    assert options.default_state_dir({"HOME": "/home/u"}) == Path("/home/u/.local/state/appliance")
    # a relative one is to be ignored, says the specification
    found = options.default_state_dir({"HOME": "/home/u", "XDG_STATE_HOME": "x"})
    assert found == Path("/home/u/.local/state/appliance")


def test_unknown_variables_of_our_prefix_are_found():
    environ = {"APPLIANCE_STATE_DIR": "", "APPLIANCE_STATEDIR": "", "HOME": ""}
    assert options.unknown_variables(environ) == ["APPLIANCE_STATEDIR"]


def test_every_variable_that_an_option_takes_is_known():
    command_line = Path(options.__file__).parent
    named = {
        name
        for path in command_line.glob("*.py")
        for name in re.findall(r"APPLIANCE_[A-Z_]+[A-Z]", path.read_text())
    }
    assert len(named) > 4
    assert options.unknown_variables(dict.fromkeys(named, "x")) == []


def test_names_may_be_repeated_or_separated_by_commas():
    assert options.split_names(["a,b", "c", "a", " "]) == ["a", "b", "c"]


def test_spans_are_said_in_the_unit_that_fits():
    said = [say_span(seconds) for seconds in (0, 59, 150, 9_000, 400_000)]
    assert said == ["0 s", "59 s", "2 min", "2 h", "5 d"]
    assert [say_short(seconds) for seconds in (0.0005, 0.0123, 1.5)] == [
        "0.5 ms",
        "12.3 ms",
        "1.5 s",
    ]


HOSTILE = "\x9b31m red \x1b]0;title\x07 \u202ecba\u202c \x7f \u2028 \udc9b grün"


@pytest.mark.parametrize("show", [print_json, print_json_line])
def test_json_on_a_terminal_gives_it_no_orders_and_says_the_same(monkeypatch, show):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    monkeypatch.setattr("sys.stdout", screen)
    show({HOSTILE: [HOSTILE]})
    text = screen.buffer.getvalue().decode()
    assert json.loads(text) == {HOSTILE: [HOSTILE]}
    assert "grün" in text
    assert escape_controls(text) == text
