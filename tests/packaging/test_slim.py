"""What the bundle leaves out, and what it compiles."""

import marshal
import subprocess
import sys

import pytest

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


def test_our_own_modules_keep_their_sources_and_words(slim, tmp_path):
    ours = tmp_path / "appliance/module.py"
    ours.parent.mkdir()
    ours.write_text(LIBRARY)
    slim.compile_modules(tmp_path, "/usr/lib/appliance")
    assert ours.read_text() == LIBRARY
    program = "import appliance.module as it; print(it.__doc__)"
    said = subprocess.check_output([sys.executable, "-c", program], cwd=tmp_path, text=True)
    assert said == "What it is for.\n"
    assert len(list(ours.parent.glob("__pycache__/*.pyc"))) == 1


def test_a_module_that_is_named_anywhere_and_was_left_out_ends_the_build(slim, tmp_path):
    ours = tmp_path / "appliance/module.py"
    ours.parent.mkdir()
    ours.write_text("def late():\n    import no_such_library\n")
    with pytest.raises(subprocess.CalledProcessError):
        slim.check_imports(sys.executable, tmp_path)
