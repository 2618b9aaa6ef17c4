"""What the bundle leaves out, and what it compiles."""

import json
import marshal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import appliance
from tests.packaging.conftest import PACKAGING


@pytest.fixture
def slim(monkeypatch):
    monkeypatch.syspath_prepend(PACKAGING)
    import slim

    return slim


LIBRARY = '''"""What it is for."""
from __future__ import annotations


def shout(text):
    """In capitals."""
    assert text
    return text.upper()


def nothing():
    """Said alone."""


class Empty:
    """Said alone."""
'''


def test_a_librarys_module_stays_compiled_alone_and_works_without_its_words(slim, tmp_path):
    (tmp_path / "library.py").write_text(LIBRARY)
    slim.compile_modules(tmp_path, "/usr/lib/appliance")
    assert [path.name for path in tmp_path.iterdir()] == ["library.pyc"]
    program = "import library; print(library.shout('up'), library.nothing(), library.Empty.__doc__, library.__doc__)"
    said = subprocess.check_output([sys.executable, "-c", program], cwd=tmp_path, text=True)
    assert said.split() == ["UP", "None", "None", "None"]
    code = marshal.loads((tmp_path / "library.pyc").read_bytes()[16:])
    assert code.co_filename == "/usr/lib/appliance/library.py"


def test_nothing_stays_of_what_an_interpreter_wrote_while_the_bundle_was_made(slim, tmp_path):
    """It bears the time of its source, and no two builds would be the same."""
    cache = tmp_path / "library/__pycache__"
    cache.mkdir(parents=True)
    (cache / "__init__.cpython-311.pyc").touch()
    (tmp_path / "library/__init__.py").write_text(LIBRARY)
    slim.compile_modules(tmp_path, "/usr/lib/appliance")
    assert [path.name for path in (tmp_path / "library").iterdir()] == ["__init__.pyc"]


def test_our_own_modules_keep_their_sources_and_the_commands_their_words(slim, tmp_path):
    ours, command = tmp_path / "appliance/module.py", tmp_path / "appliance/cli/command.py"
    command.parent.mkdir(parents=True)
    for path in (ours, command):
        path.write_text(LIBRARY)
    slim.compile_modules(tmp_path, "/usr/lib/appliance")
    assert ours.read_text() == command.read_text() == LIBRARY
    program = (
        "import appliance.module as it, appliance.cli.command as said; "
        "print(it.__doc__, it.Empty.__doc__, said.__doc__)"
    )
    said = subprocess.check_output([sys.executable, "-c", program], cwd=tmp_path, text=True)
    assert said == ". . What it is for.\n"
    assert len(list(tmp_path.rglob("__pycache__/*.pyc"))) == 2


def test_what_is_compiled_knows_lines_and_no_columns(slim, tmp_path):
    (tmp_path / "library.py").write_text(LIBRARY)
    slim.compile_modules(tmp_path, "/usr/lib/appliance")
    code = marshal.loads((tmp_path / "library.pyc").read_bytes()[16:])
    shout = next(part for part in code.co_consts if getattr(part, "co_name", "") == "shout")
    lines = LIBRARY.splitlines()
    asserted = lines.index("    assert text") + 1
    assert {(line, *columns) for line, _, *columns in shout.co_positions() if line == asserted} == {
        (asserted, None, None)
    }


def test_what_was_made_a_library_is_not_compiled_a_second_time(slim, tmp_path):
    for name in ("appliance", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "hot.py").write_text(LIBRARY)
        (tmp_path / name / "hot.cpython-311-x86_64-linux-gnu.so").touch()
    slim.compile_modules(tmp_path, "/usr/lib/appliance")
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.py*"))
    assert left == ["appliance/hot.py"]


def test_a_module_that_is_named_anywhere_and_was_left_out_ends_the_build(slim, tmp_path):
    ours = tmp_path / "appliance/module.py"
    ours.parent.mkdir()
    ours.write_text("def late():\n    import no_such_library\n")
    with pytest.raises(subprocess.CalledProcessError):
        slim.check_imports(sys.executable, tmp_path)


WITHOUT = """
import importlib, json, sys
from importlib.machinery import PathFinder
from pathlib import Path

names, gone = json.load(sys.stdin)
gone = set(gone)


class Slimmed(PathFinder):
    @classmethod
    def find_spec(cls, *arguments):
        spec = super().find_spec(*arguments)
        place = spec and spec.origin and Path(spec.origin)
        if place and gone.intersection(map(str, (place, *place.parents))):
            return None
        return spec


sys.meta_path[sys.meta_path.index(PathFinder)] = Slimmed
for name in names:
    importlib.import_module(name)
"""


def test_the_program_imports_nothing_that_is_left_out(slim):
    """Told here, where an import is written, and not by the next build alone."""
    paths = {name: Path(place) for name, place in sysconfig.get_paths().items()}
    names = slim.named_imports(Path(appliance.__file__).parents[1])
    gone = [str(path) for path in slim.left_out(paths["purelib"], paths["stdlib"])]
    assert len(gone) > 100
    command = [sys.executable, "-B", "-c", WITHOUT]
    done = subprocess.run(
        command, input=json.dumps([names, gone]), text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
