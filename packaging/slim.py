"""Take out of a bundle what the daemon never reads, and compile the rest.

What a library brings along for other programs than this one goes: `UNUSED` says what and why. Of libraries and of the
interpreter only the compiled modules stay, without their documentation; our own modules keep their sources, so that a
traceback shows our lines, and one that was made a library has no other compiled form beside it. `check_imports` then
has the slimmed interpreter import whatever our modules name anywhere.
"""

from __future__ import annotations

import ast
import importlib._bootstrap_external as external
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

PROGRAM = "appliance"
COMMANDS = "cli"
"""The part of it whose docstrings are shown: they are what `--help` says."""
UNUSED = {
    "pygments": ["*"],  # rich.syntax, which colours source code, and rich.traceback
    "markdown_it": ["*"],  # rich.markdown
    "mdurl": ["*"],
    "cffi": ["*"],  # builds extensions; running them takes _cffi_backend alone
    "pycparser": ["*"],
    "zstandard": ["_cffi.*", "backend_cffi.py"],  # the second implementation of the same
    "urllib3": ["*"],  # dulwich.client
    "dulwich": [
        # what changes, sends or shows a repository: the daemon reads objects
        *("aiohttp", "cloud", "porcelain", "_diff_tree.*", "am.py", "annotate.py"),
        *("diffstat.py", "log_utils.py", "mailmap.py", "notes.py", "rebase.py", "whitespace.py"),
        # the second implementation of some functions, a megabyte; reading all of a set takes hardly longer without
        *("_objects.*", "_pack.*"),
        *("archive.py", "bisect.py", "bundle.py", "bundle_uri.py", "cli.py", "client.py"),
        *("dumb.py", "fastexport.py", "filter_branch.py", "gc.py", "lfs.py"),
        *("lfs_server.py", "maintenance.py", "mbox.py", "merge.py", "merge_drivers.py"),
        *("patch.py", "range_diff.py", "rerere.py", "server.py", "signature.py", "stash.py"),
        *("stripspace.py", "subtree.py", "web.py"),
    ],
    "rich": [
        *("_win32_console.py", "_windows*.py", "markdown.py", "syntax.py", "traceback.py"),
        *(
            "bar.py",
            "diagnose.py",
            "layout.py",
            "logging.py",
            "progress*.py",
            "prompt.py",
            "tree.py",
        ),
    ],
    "anyio": ["_backends/_trio.py", "pytest_plugin.py"],
    "aiohttp": ["pytest_plugin.py", "test_utils.py", "worker.py", "_websocket/reader_py.py"],
    "multidict": ["_multidict_py.py", "_testcapi.*"],
    "jsonschema": ["benchmarks", "cli.py"],
    "typer": ["cli.py", "testing.py"],
    "prometheus_client": [
        *("aiohttp", "bridge", "django", "twisted", "multiprocess.py", "parser.py"),
        "openmetrics/parser.py",
    ],
    "cbor2": ["tool.py"],
    "watchfiles": ["cli.py", "__main__.py"],
    "uvloop": ["_testbase.py"],
    "pyasn1": ["codec/native", "codec/*/encoder.py"],  # certificates are read, never written
    "dateutil": ["zoneinfo"],  # a database of zones beside tzdata's
    "nats": ["micro"],
    "pyasn1_modules": ["rfc[!5]*.py", "rfc5[!2]*.py", "rfc52[!8]*.py", "pem.py"],
}
"""Below each library: what no module of ours leads to."""
UNUSED_OF_PYTHON = (
    *("xml", "xmlrpc", "plistlib.py"),  # their parser is left out, too
    *("unittest", "doctest.py", "pdb.py", "bdb.py", "pydoc.py", "trace.py", "cProfile.py"),
    *("mailbox.py", "imaplib.py", "nntplib.py", "ftplib.py", "smtplib.py", "smtpd.py"),
    *("poplib.py", "telnetlib.py", "cgi.py", "cgitb.py", "webbrowser.py", "antigravity.py"),
    *("aifc.py", "wave.py", "sunau.py", "chunk.py", "sndhdr.py", "imghdr.py", "this.py"),
    *("_pydecimal.py", "_pyio.py", "pickletools.py", "modulefinder.py", "zipapp.py"),
    *("pstats.py", "profile.py", "symtable.py", "tabnanny.py", "compileall.py", "optparse.py"),
    *("logging/config.py", "logging/handlers.py", "html/parser.py", "_markupbase.py"),
    *("asyncore.py", "asynchat.py", "imp.py", "fileinput.py", "filecmp.py", "xdrlib.py"),
    *("mailcap.py", "shelve.py", "pipes.py", "uu.py", "graphlib.py", "sched.py", "crypt.py"),
    *("urllib/robotparser.py", "wsgiref/validate.py", "json/tool.py", "sqlite3/dump.py"),
    *("__hello__.py", "__phello__", "asyncio/__main__.py"),
    *("asyncio/windows_events.py", "asyncio/windows_utils.py", "asyncio/proactor_events.py"),
    *("msilib", "nturl2path.py", "_aix_support.py", "_bootsubprocess.py", "pyclbr.py"),
)
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
NOT_READ = ("*.pyi", "*.pyx", "*.pxd", "*.pxi", "*.c", "*.h", "*.hash", "py.typed", "*.rs")


def slim(packages: Path, standard: Path) -> None:
    """Take out what is not used of the libraries in `packages` and of the interpreter's in `standard`."""
    for library, pattern in _patterns():
        if next((packages / library).glob(pattern), None) is None:
            print(f"slim.py: no {pattern} in {library} any more", file=sys.stderr)
    for path in left_out(packages, standard):
        _remove(path)
    for library, patterns in UNUSED.items():
        if patterns == ["*"]:
            _remove(packages / library)
            for info in packages.glob("*.dist-info"):
                if info.name.lower().split("-")[0] in (library, f"{library}_py"):
                    _remove(info)
    for pattern in NOT_READ:
        for path in list(packages.rglob(pattern)):
            path.unlink()
    for info in packages.glob("*.dist-info"):
        _remove(info / "sboms")
        _shorten_metadata(info / "METADATA")
    _keep_zones_once(packages / "tzdata")


def compile_modules(prefix: Path, shown_at: str) -> None:
    """Compile every module; the check for a newer source is left out, since nobody edits them.

    Libraries' modules take their sources' place. Nothing asks for their texts, and `inspect` does without. What is
    compiled knows its lines and not the columns in them, a twelfth of its size; an option of the interpreter says so.
    """
    command = [sys.executable, "-X", "no_debug_ranges", "-B", __file__, prefix, shown_at]
    subprocess.run(command, check=True)


def _compile_here(prefix: Path, shown_at: str) -> None:
    for cache in list(prefix.rglob("__pycache__")):  # of what ran while the bundle was made
        _remove(cache)
    for source in sorted(prefix.rglob("*.py")):
        inner = source.relative_to(prefix)
        shown = f"{shown_at}/{inner}"
        content = source.read_bytes()
        is_ours = PROGRAM in inner.parts
        if next(source.parent.glob(f"{source.stem}.*.so"), None) is not None:
            if not is_ours:
                _remove(source)
            continue  # the library of that name is what gets imported
        try:
            tree = ast.parse(content, shown)
        except SyntaxError:
            print(f"not compiled: {shown}", file=sys.stderr)
            _remove(source)
            continue
        if not is_ours:
            _forget_docstrings(tree)
        elif COMMANDS not in inner.parts:
            _shorten_docstrings(tree)
        code: CodeType = compile(tree, shown, "exec", dont_inherit=True, optimize=0)
        target = (
            Path(importlib.util.cache_from_source(str(source)))
            if is_ours
            else source.with_suffix(".pyc")
        )
        target.parent.mkdir(exist_ok=True)
        digest = importlib.util.source_hash(content)
        target.write_bytes(external._code_to_hash_pyc(code, digest, False))
        if not is_ours:
            source.unlink()


def check_imports(python: Path, packages: Path) -> None:
    """Have the interpreter of the bundle import all that our modules name, at their heads and within functions."""
    program = "import importlib, json, sys\nfor name in json.load(sys.stdin): importlib.import_module(name)"
    names = json.dumps(named_imports(packages))
    subprocess.run([python, "-I", "-B", "-c", program], input=names, text=True, check=True)


def named_imports(packages: Path) -> list[str]:
    """Every module of ours below `packages`, and every module that one of them names anywhere."""
    named: set[str] = set()
    for source in sorted((packages / PROGRAM).rglob("*.py")):
        module = ".".join(source.relative_to(packages).with_suffix("").parts)
        if source.stem not in ("__main__", "__init__"):
            named.add(module)
        for node in ast.walk(ast.parse(source.read_bytes())):
            if isinstance(node, ast.Import):
                named.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                named.add(node.module)
    return sorted(named)


def left_out(packages: Path, standard: Path) -> list[Path]:
    """What `slim` takes from the libraries in `packages` and from the interpreter's in `standard`."""
    found = [
        path for library, pattern in _patterns() for path in (packages / library).glob(pattern)
    ]
    return [*found, *(standard / name for name in UNUSED_OF_PYTHON)]


def _patterns() -> list[tuple[str, str]]:
    return [(library, pattern) for library, patterns in UNUSED.items() for pattern in patterns]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _shorten_metadata(path: Path) -> None:
    """Keep the facts, which say whose it is and under which licence, and leave out the advertisement below them."""
    if path.exists():
        head, _, _ = path.read_text("utf-8").partition("\n\n")
        path.write_text(head + "\n", "utf-8")


def _keep_zones_once(tzdata: Path) -> None:
    """zoneinfo reads the compiled zones; the text that they were compiled from and lists for people stay behind."""
    zones = tzdata / "zoneinfo"
    for name in (
        "tzdata.zi",
        "zone.tab",
        "zone1970.tab",
        "zonenow.tab",
        "iso3166.tab",
        "leapseconds",
    ):
        _remove(zones / name)


def _forget_docstrings(tree: ast.Module) -> None:
    for node, first in _find_docstrings(tree):
        del node.body[0]  # NB: before a `from __future__` nothing else may stand
        if not node.body and not isinstance(node, ast.Module):
            node.body.append(ast.copy_location(ast.Pass(), first))


def _shorten_docstrings(tree: ast.Module) -> None:
    """A word stays where one was: a dataclass without any makes one up, at every start."""
    for _, first in _find_docstrings(tree):
        first.value = ast.copy_location(ast.Constant("."), first.value)


def _find_docstrings(tree: ast.Module) -> Iterator[tuple[_Documented, ast.Expr]]:
    for node in ast.walk(tree):
        if isinstance(node, _Documented):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                yield node, first


if __name__ == "__main__":
    _compile_here(Path(sys.argv[1]), sys.argv[2])
