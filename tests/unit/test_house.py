"""The house: what documents say of it is there, and nobody reaches into another's private rooms."""

import ast
import re

import pytest

from tests.support.source_trees import APPLIANCE as ROOT
from tests.support.source_trees import GROUP, trees_below

pytestmark = GROUP
PAGE = ROOT.parent / "docs" / "architecture.md"


def modules():
    for path, tree in trees_below(ROOT).items():
        yield ".".join(("appliance", *path.relative_to(ROOT).with_suffix("").parts)), tree


def imports_of(tree):
    for item in ast.walk(tree):
        if isinstance(item, ast.ImportFrom) and item.module and item.module.startswith("appliance"):
            for alias in item.names:
                yield item.module, alias.name


def test_every_file_and_class_that_the_architecture_names_exists():
    text = re.sub(r"```.*?```", "", PAGE.read_text(), flags=re.DOTALL)
    classes = set()
    for _, tree in modules():
        classes |= {item.name for item in ast.walk(tree) if isinstance(item, ast.ClassDef)}
    named = re.findall(r"`([^`]+)`", text)
    assert len(named) > 50
    for name in named:
        if "/" in name:
            assert (ROOT.parent if name == "appliance/" else ROOT).joinpath(name).exists(), name
        elif name[0].isupper():
            assert name in classes, name


def test_no_private_module_is_imported_from_another_package():
    found = []
    for name, tree in modules():
        for module, imported in imports_of(tree):
            parts = [*module.split("."), imported]
            for index, part in enumerate(parts):
                is_private = part.startswith("_") and not part.startswith("__")
                is_module = ROOT.parent.joinpath(*parts[: index + 1]).with_suffix(".py").exists()
                package = ".".join(parts[:index])
                if is_private and is_module and name.rpartition(".")[0] != package:
                    found.append(f"{name} imports {package}.{part}")
    assert not found


def test_no_modules_import_one_another_in_a_circle():
    known = {name.removesuffix(".__init__") for name, _ in modules()}
    graph = {}
    for name, tree in modules():
        edges = set()
        for item in tree.body:  # at the import, not within functions
            if isinstance(item, ast.ImportFrom) and item.module:
                for alias in item.names:
                    full = f"{item.module}.{alias.name}"
                    edges.add(full if full in known else item.module)
        graph[name.removesuffix(".__init__")] = edges & known
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name in done:
            return
        path.append(name)
        for below in sorted(graph[name] - {name}):
            visit(below)
        path.pop()
        done.add(name)

    for name in sorted(graph):
        visit(name)


def test_workers_leave_the_reading_of_headers_to_the_dialect():
    found = []
    for name, tree in modules():
        if not name.startswith("appliance.workers."):
            continue
        found += [
            f"{name} imports {what}" for _, what in imports_of(tree) if what == "parse_headers"
        ]
        for item in ast.walk(tree):
            value = item.value if isinstance(item, ast.Constant) else None
            if isinstance(value, bytes) and re.search(rb"appl-|cmp|serial", value):
                found.append(f"{name} knows {value!r}")
    assert not found


@pytest.mark.parametrize("value", ["x" * 1_000_000, b"\x00" * 1_000_000])
def test_a_test_of_a_large_value_has_a_short_name(value, request):
    """Every process that runs tests makes all of their names, and each report carries one."""
    assert len(request.node.nodeid) < 200
