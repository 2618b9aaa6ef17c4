"""Allowed commands, escaped texts, and the registry."""

from __future__ import annotations

import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

import appliance.methods
from appliance.core.allow import is_command_allowed
from appliance.core.escape import escape_controls, escape_line
from appliance.core.message import bytes_to_text
from appliance.core.method import OnCrash
from appliance.core.names import ERROR_CENTRAL, Category
from appliance.errors import MethodUnusable
from appliance.methods.registry import METHOD_TABLE, METHODS, find_methods


@pytest.mark.parametrize(
    ("argv", "patterns", "expected"),
    [
        (("rm", "-rf"), None, True),
        (("uptime",), (), False),
        (("uptime",), (("uptime",),), True),
        (("uptime", "-p"), (("uptime",),), False),
        (("/usr/bin/uptime",), (("uptime",),), False),
        (("systemctl", "status", "nginx"), (("systemctl", "status", "*"),), True),
        (("systemctl", "status"), (("systemctl", "status", "*"),), False),
        (("systemctl", "status", "a", "b"), (("systemctl", "status", "*"),), False),
        (("systemctl", "stop", "a"), (("systemctl", "status", "*"),), False),
        (("systemctl", "status", "nginx@1"), (("systemctl", "status", "nginx*"),), True),
        (("systemctl", "status", "apache"), (("systemctl", "status", "nginx*"),), False),
        (("echo", "a", "b"), (("echo", "**"),), True),
        (("echo",), (("echo", "**"),), True),
        (("echo", "a", "b", "c"), (("echo", "a", "**"),), True),
        (("echo", "b"), (("echo", "a", "**"),), False),
        (("echo", "a", "x", "c"), (("echo", "**", "c"),), False),
        (("rm",), (("*",),), False),
        (("sort", "--output=/x"), (("sort", "*"),), False),
        (("sort", "-o"), (("sort", "?o"),), False),
        (("sort", "-k2"), (("sort", "-*"),), True),
        (("cat", "/srv/app/a.log"), (("cat", "/srv/app/*"),), True),
        (("cat", "/srv/app/../key"), (("cat", "/srv/app/*"),), False),
        (("cat", "/srv/app/.."), (("cat", "/srv/app/*"),), False),
        (("tar", "--directory=.."), (("tar", "--directory=*"),), False),
        (("tar", "--directory=a/.."), (("tar", "--directory=*"),), False),
        (("tar", "--directory=a..b"), (("tar", "--directory=*"),), True),
        (("sort", "--output=/x"), (("sort", "**"),), True),
        (("rm", "x"), (("*", "**"),), False),
        (("rm", "x"), (("**",),), False),
        (("rm",), ((),), False),
        ((), ((),), False),
        (("a",), (("b",), ("a",)), True),
        (("echo", "A"), (("echo", "a"),), False),
        (("echo", "line\nline"), (("echo", "line*"),), True),
    ],
)
def test_pattern_stands_for_exactly_these_commands(argv, patterns, expected):
    assert is_command_allowed(argv, patterns) is expected


words = st.lists(st.text("ab*?[]", max_size=4), min_size=1, max_size=4)


@given(words, words)
def test_plain_pattern_allows_no_other_program(argv, pattern):
    if is_command_allowed(argv, [pattern]):
        assert argv[0] == pattern[0]


@given(st.binary())
def test_escaped_text_holds_nothing_a_terminal_obeys(raw):
    text = escape_controls(bytes_to_text(raw))
    text.encode()
    assert all(
        character.isprintable() or character in "\n\t" or character > "\xa0" for character in text
    )
    assert not any(character < " " and character not in "\n\t" for character in text)
    assert not any("\x7f" <= character <= "\x9f" for character in text)
    assert "\n" not in escape_line(text)


def test_ordinary_text_stays_as_it_is():
    text = "Grüße, 世界 ✓\tC:\\dir\n"
    assert escape_controls(text) == text


def test_every_method_of_the_table_is_found_with_its_facts():
    commands = {
        "REQCliCommand",
        "REQCliCommandCont",
        "REQOpProcessList",
        "REQOpProcessStart",
        "REQOpProcessStop",
        "REQProgramList",
        "REQProgramStop",
    }
    answering = {
        *commands,
        "REQCopyFileFrom",
        "REQCopyFileTo",
        "REQHttpGet",
        "REQPing",
        "REQCopyFileList",
        "REQTailFile",
    }
    quiet = {
        "REQCopyFileChunk",
        "REQErrorLog",
        "REQHello",
        "REQPong",
        "REQRelay",
        "REQRelayInitial",
        "REQToConsole",
        "REQToFile",
        "REQToFileAppend",
        "REQToSocket",
    }
    assert set(METHODS) == answering | quiet
    assert all(METHOD_TABLE[name] is METHODS[name].info for name in METHODS)
    assert {name for name in METHODS if METHOD_TABLE[name].category is Category.COMMAND} == commands
    assert {name for name in METHODS if METHOD_TABLE[name].replies} == answering
    assert [name for name in METHODS if not METHOD_TABLE[name].acks_by_default] == ["REQHello"]
    assert METHOD_TABLE["REQErrorLog"].subject_node == ERROR_CENTRAL
    assert METHOD_TABLE["REQCliCommand"].on_crash is OnCrash.INTERRUPT
    assert METHOD_TABLE["REQCliCommandCont"].on_crash is OnCrash.INTERRUPT


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "methods_under_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "_helper.py").write_text("raise AssertionError")
    (folder / "base.py").write_text("raise AssertionError")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.startswith("methods_under_test")]:
        del sys.modules[name]


def import_package():
    return __import__("methods_under_test")


def test_new_method_is_one_new_file(package):
    (package / "one.py").write_text("from appliance.methods.ping import METHOD\n")
    assert list(find_methods(import_package())) == ["REQPing"]


def test_module_without_a_method_is_an_error(package):
    (package / "one.py").write_text("METHODS = 1\n")
    with pytest.raises(MethodUnusable, match=r"one holds no METHOD"):
        find_methods(import_package())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nowhere_to_be_found", r"No module named 'nowhere_to_be_found'"),
        ("def (", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_module_that_cannot_be_loaded_is_named_with_its_file(package, text, said):
    (package / "one.py").write_text(text)
    with pytest.raises(MethodUnusable, match=said) as caught:
        find_methods(import_package())
    assert str(package / "one.py") in str(caught.value)


def test_two_modules_with_one_name_are_an_error(package):
    for name in ("one.py", "two.py"):
        (package / name).write_text("from appliance.methods.ping import METHOD\n")
    with pytest.raises(MethodUnusable, match=r"two: method REQPing is defined twice"):
        find_methods(import_package())


def test_table_cannot_be_changed():
    assert isinstance(METHODS, types.MappingProxyType)
    assert appliance.methods is sys.modules["appliance.methods"]
