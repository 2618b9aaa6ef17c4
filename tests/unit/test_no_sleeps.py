"""No test waits by sleeping: how long a thing takes is the machine's affair."""

import ast

import pytest

from tests.support.source_trees import GROUP, TESTS, trees_below

pytestmark = GROUP
MAY_SLEEP = {
    "support/waiting.py": "the one place where time passes",
    "support/cut_link.py": "a link has a speed",
    "component/methods/append_child.py": "a disk is slow",
}
VIRTUAL_TIME = "tests.support.virtual_time"


def module_of(path):
    return ".".join(("tests", *path.relative_to(TESTS).with_suffix("").parts))


def find_imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def find_sleeps(tree):
    """Where it is called with anything but a plain zero, which only lets others have their turn."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        is_turn = len(node.args) == 1 and getattr(node.args[0], "value", None) == 0
        if name == "sleep" and not is_turn:
            owner = getattr(getattr(function, "value", None), "id", "")
            yield node.lineno, owner


@pytest.fixture(scope="module")
def trees():
    return trees_below(TESTS)


@pytest.fixture(scope="module")
def virtual(trees):
    """Modules whose time is virtual, by themselves or by what they import: there a day is over at once."""
    imports = {module_of(path): set(find_imports(tree)) for path, tree in trees.items()}
    found = {VIRTUAL_TIME}
    while more := {name for name, used in imports.items() if used & found} - found:
        found |= more
    return found


def test_nothing_sleeps_but_what_must(trees, virtual):
    found = [
        f"{path.relative_to(TESTS)}:{line}"
        for path, tree in trees.items()
        for line, owner in find_sleeps(tree)
        if str(path.relative_to(TESTS)) not in MAY_SLEEP
        and not (module_of(path) in virtual and owner == "asyncio")
    ]
    assert found == [], "wait for what it is about: see tests/support/waiting.py"


def test_every_exception_is_needed(trees):
    for name in MAY_SLEEP:
        assert list(find_sleeps(trees[TESTS / name])), name


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("import time\ntime.sleep(0.1)", 1),
        ("from asyncio import sleep\nawait sleep(s)", 1),
        ("await asyncio.sleep(delay=1)", 1),
        ("await asyncio.sleep(0)", 0),
        ("sleep(1)\nbench.sleep()", 2),
    ],
)
def test_sleeps_are_seen_in_any_shape(text, count):
    tree = compile(text, "x", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert len(list(find_sleeps(tree))) == count
