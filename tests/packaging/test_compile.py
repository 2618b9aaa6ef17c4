"""What compiles the packages' modules: its list, and what it refuses. The compiling itself: packaging/verify-compiled."""

import ast
import os
import subprocess
import sys

import pytest

from tests.packaging.conftest import PACKAGING
from tests.support.source_trees import APPLIANCE, GROUP, trees_below

ROOT = PACKAGING.parent


def run_compile(*arguments, **environment):
    return subprocess.run(
        [sys.executable, PACKAGING / "compile.py", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_module_of_the_list_is_there(monkeypatch):
    monkeypatch.syspath_prepend(PACKAGING)
    import compile as recipe

    assert len(recipe.MODULES) > 20
    for module in recipe.MODULES:
        assert (ROOT / f"appliance/{module}.py").is_file(), module


def test_what_makes_a_field_says_no_type_that_compiled_code_would_hold_it_to(monkeypatch):
    """Typeshed has `field()` return what the field holds; a compiled function that says so fails when it is imported."""
    monkeypatch.syspath_prepend(PACKAGING)
    import compile as recipe

    for module in recipe.MODULES:
        tree = ast.parse((ROOT / f"appliance/{module}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and any(
                isinstance(part, ast.Return)
                and isinstance(part.value, ast.Call)
                and ast.unparse(part.value.func) in ("field", "dataclasses.field")
                for part in ast.walk(node)
            ):
                assert node.returns is not None, module
                assert ast.unparse(node.returns) == "Any", (module, node.name)


@pytest.mark.timeout(600)
def test_mypyc_takes_every_module_of_the_list(tmp_path):
    ended = run_compile("--into", tmp_path, "--translate")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert (tmp_path / "build/__native_appliance_compiled.c").stat().st_size > 1_000_000


def test_without_a_compiler_it_says_what_is_missing(tmp_path):
    ended = run_compile("--into", tmp_path / "copy", CC="no-such-compiler -O2")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "no C compiler: no-such-compiler is not found" in ended.stderr
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("place", [ROOT, ROOT / "appliance", ROOT / "appliance/wire"])
def test_a_copy_in_the_place_of_the_sources_is_refused(place):
    # NB: without a compiler, so that no fault in this can cost the sources
    ended = run_compile("--into", place, CC="no-such-compiler")
    assert ended.returncode == 1
    assert "not into the sources" in ended.stderr


@GROUP
def test_no_plain_class_inherits_from_a_compiled_one(monkeypatch):
    """Such a class can be imported, and fails when the first of its kind is made."""
    monkeypatch.syspath_prepend(PACKAGING)
    import compile as recipe

    trees = {
        path.relative_to(APPLIANCE).with_suffix("").as_posix(): tree
        for path, tree in trees_below(APPLIANCE).items()
    }
    compiled = {
        f"appliance.{module.replace('/', '.')}.{node.name}"
        for module in recipe.MODULES
        for node in trees[module].body
        if isinstance(node, ast.ClassDef)
    }
    found = []
    for module, tree in trees.items():
        if module in recipe.MODULES:
            continue
        nodes = list(ast.walk(tree))
        named = {
            alias.asname or alias.name: f"{node.module}.{alias.name}"
            for node in nodes
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        }
        found += [
            (module, node.name)
            for node in nodes
            if isinstance(node, ast.ClassDef)
            and any(named.get(ast.unparse(base)) in compiled for base in node.bases)
        ]
    assert found == []
