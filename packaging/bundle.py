"""Make a directory that holds the daemon, its libraries and an interpreter, and needs nothing of the machine but glibc.

    python3 bundle.py PREFIX WHEEL…

The interpreter that runs this is the one that is copied; its version decides which wheels fit. Nothing in the result
knows where it was built: libraries are found relative to whoever needs them, the interpreter finds its library relative
to itself. The result is what `appliance` runs from; it is compiled once here, so that nothing has to be written there,
and `slim.py` leaves out what is never read.

Printed at the end, for the packages' dependencies: the newest glibc symbol version that anything in it needs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import slim

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
UNUSED_PACKAGES = frozenset(
    [
        *("test", "idlelib", "tkinter", "turtledemo", "turtle.py", "lib2to3", "ensurepip"),
        *("distutils", "pydoc_data", "curses", "dbm", "venv", "site-packages", "dist-packages"),
        *("EXTERNALLY-MANAGED", "sitecustomize.py"),
    ]
)
UNUSED_MODULES = re.compile(
    r"^(_tkinter|_curses(_panel)?|readline|_?dbm|_gdbm|nis|_?crypt|ossaudiodev|pyexpat|_elementtree"
    r"|_test\w*|_ctypes_test|_xx\w*|xx\w*|spwd|audioop|_lsprof|syslog)\."
)
"""Modules that nothing here imports and that would bring libraries along."""
UNUSED_IN_PACKAGES = ("tests", "test", "testing_data", "bin")
SYSTEM_LIBRARIES = re.compile(
    r"^(ld-linux.*|linux-vdso|libc|libm|libdl|libpthread|librt|libutil|libresolv|libgcc_s|libstdc\+\+)\.so"
)
"""What every machine with glibc has, or the packages depend on (the libraries of GCC)."""


def main() -> None:
    """Build the bundle named on the command line."""
    prefix, wheels = Path(sys.argv[1]).resolve(), sys.argv[2:]
    python = copy_interpreter(prefix)
    packages = find_packages(python, prefix)
    packages.mkdir()
    run(sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--target", packages, *wheels)
    for name in UNUSED_IN_PACKAGES:
        for found in (*packages.glob(f"*/{name}"), packages / name):
            shutil.rmtree(found, ignore_errors=True)
    standard = prefix / "lib" / VERSION
    slim.slim(packages, standard)
    forget_where_it_was_built(packages)
    for found in standard.rglob("*.py"):
        forget_interpreter(found)
    elves = [path for path in prefix.rglob("*") if is_elf(path)]
    for path in elves:
        run("strip", "--strip-unneeded", path)
    bring_libraries(prefix, elves)
    slim.compile_modules(prefix, "/usr/lib/appliance")
    elves = [path for path in prefix.rglob("*") if is_elf(path)]
    for path in prefix.rglob("*"):
        if not path.is_symlink():
            is_open = path.is_dir() or path.parent == prefix / "bin"
            path.chmod(0o755 if is_open else 0o644)
    slim.check_imports(python, packages)
    run(python, "-I", "-B", "-c", "import ssl, sqlite3, ctypes")
    print(max(needed_glibc(path) for path in elves)[1])


def copy_interpreter(prefix: Path) -> Path:
    """Copy binary, library and standard library; returns the copy."""
    shutil.rmtree(prefix, ignore_errors=True)
    (prefix / "bin").mkdir(parents=True)
    python = prefix / "bin" / VERSION
    shutil.copy2(os.path.realpath(getattr(sys, "_base_executable", sys.executable)), python)
    (prefix / "bin" / "python3").symlink_to(VERSION)
    shutil.copytree(
        sysconfig.get_paths(vars={"base": sys.base_prefix})["stdlib"],
        prefix / "lib" / VERSION,
        ignore=ignore_unused,
        symlinks=False,
        ignore_dangling_symlinks=True,
    )
    library = sysconfig.get_config_var("INSTSONAME") if is_shared() else None
    if library:
        shutil.copy2(Path(sysconfig.get_config_var("LIBDIR")) / library, prefix / "lib" / library)
    return python


def find_packages(python: Path, prefix: Path) -> Path:
    """Where the copied interpreter looks for packages; Debian's looks elsewhere than its authors' does."""
    asked = "import site; print(*site.getsitepackages(), sep='\\n')"
    found = subprocess.run(
        [python, "-I", "-B", "-c", asked], capture_output=True, text=True, check=True
    ).stdout
    ours = prefix / "lib" / VERSION
    return next(path for path in map(Path, found.splitlines()) if path.parent == ours)


def is_shared() -> bool:
    """Whether the interpreter is a small program beside a library."""
    return (
        bool(sysconfig.get_config_var("Py_ENABLE_SHARED"))
        and b"libpython"
        in subprocess.run(
            ["readelf", "-d", os.path.realpath(getattr(sys, "_base_executable", sys.executable))],
            capture_output=True,
            check=True,
        ).stdout
    )


def ignore_unused(directory: str, names: list[str]) -> list[str]:
    """What of the standard library stays behind."""
    is_top = os.path.basename(directory) == VERSION
    return [
        name
        for name in names
        if name == "__pycache__"
        or name.startswith("config-3")
        or name == "macholib"
        or (is_top and name in UNUSED_PACKAGES)
        or (os.path.basename(directory) == "lib-dynload" and UNUSED_MODULES.match(name))
        or (name in ("test", "tests") and os.path.isdir(os.path.join(directory, name)))
    ]


def forget_where_it_was_built(packages: Path) -> None:
    """Leave out what pip notes about the place it installed from; a package manager records the rest."""
    for info in packages.glob("*.dist-info"):
        for name in ("direct_url.json", "REQUESTED", "INSTALLER", "RECORD"):
            (info / name).unlink(missing_ok=True)
    for pth in packages.glob("*.pth"):
        pth.unlink()


def forget_interpreter(module: Path) -> None:
    """Modules are imported and never run as programs by a Python of the system's."""
    text = module.read_bytes()
    if text.startswith(b"#!"):
        line, _, rest = text.partition(b"\n")
        module.write_bytes(b"#" + line[2:] + b"\n" + rest)


def bring_libraries(prefix: Path, elves: list[Path]) -> None:
    """Copy every library that is not of glibc, and let everyone find it relative to himself."""
    target = prefix / "lib"
    waiting = list(elves)
    while waiting:
        path = waiting.pop()
        found = subprocess.run(
            ["ldd", path],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LD_LIBRARY_PATH": str(target)},
        ).stdout
        is_ours = False
        for name, place in re.findall(r"^\s*(\S+) => (\S+)", found, re.MULTILINE):
            if SYSTEM_LIBRARIES.match(name):
                continue
            source = Path(place)
            if not source.is_relative_to(prefix):
                copy = target / name
                if not copy.exists():
                    shutil.copy(os.path.realpath(source), copy)
                    copy.chmod(0o644)
                    run("strip", "--strip-unneeded", copy)
                    waiting.append(copy)
                is_ours = True
            is_ours |= source.parent == target
        if is_ours:
            origin = os.path.relpath(target, path.parent)
            run("patchelf", "--set-rpath", f"$ORIGIN/{origin}".removesuffix("/."), path)


def is_elf(path: Path) -> bool:
    """Whether it is a program or a library."""
    if path.is_symlink() or not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def needed_glibc(path: Path) -> tuple[tuple[int, ...], str]:
    """The newest version of glibc's symbols that `path` refers to."""
    text = subprocess.run(
        ["readelf", "-V", path], capture_output=True, text=True, check=True
    ).stdout
    versions = set(re.findall(r"GLIBC_(2\.[0-9]+)", text)) or {"2.0"}
    newest = max(versions, key=lambda version: int(version.split(".")[1]))
    return (2, int(newest.split(".")[1])), newest


def run(*command: str | Path) -> None:
    """Run a program; its failure is ours."""
    subprocess.run([str(part) for part in command], check=True)


if __name__ == "__main__":
    main()
