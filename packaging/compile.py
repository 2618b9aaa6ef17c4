#!/usr/bin/env python3
"""Compile the modules that every message passes through, in a copy of the program, with mypyc.

    python3 compile.py --into DIRECTORY [--wheel DIRECTORY]
    python3 compile.py --into DIRECTORY --translate
    python3 compile.py --check
    python3 compile.py --needs

The packages carry the result; a checkout, its tests and the wheel of `pip install` run the plain modules, which do the
same and take longer. The copy holds both: a module's compiled form stands beside its source and is what gets imported.
`--wheel` makes a wheel of the copy, for the interpreter and the architecture that run this. `--translate` stops before the
C compiler: in some seconds it says what mypyc does not take. `--check` imports every module of the list and fails when one
of them is a plain one. `--needs` prints what the interpreter needs, as lines for pip; beyond it a C compiler and Python's
headers are needed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GROUP = "appliance_compiled"

_PLACES = {
    "core": "message pacing",
    "wire": "alike base cbor codecs frame headers layout zstd",
    "wire/gob": "decode encode numbers plan types",
    "dialect": "base headers steward",
    "delivery": "base core jetstream",
    "bus": "frames parser protocol",
    "telemetry": "stats",
    "outbox": "blobs composing dedupe ids inbox lane newness patience segments steady writer",
    "workers": "backlog executor finishing in_flight incoming lane_answers lane_ends lane_sender lane_standing "
    "reply_builder router taking_in",
}
MODULES = [f"{place}/{name}" for place, names in _PLACES.items() for name in names.split()]
"""Where a profile of `tests/measure/heart_bench.py` finds time spent in Python's own steps.

NB: no module that defines dataclasses made for every message: mypyc leaves their `__init__` to the interpreter, which
sets the fields one by one through descriptors, and that takes longer than the plain class. Nor what tests put a double in
the place of (the store) or a fault into (its database): a compiled class takes neither.
"""


class CannotCompile(Exception):
    """What is missing, and what brings it."""


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--into", type=Path, metavar="DIRECTORY", help="where the copy goes")
    parser.add_argument("--wheel", type=Path, metavar="DIRECTORY", help="where a wheel of it goes")
    parser.add_argument("--translate", action="store_true", help="only as far as C")
    parser.add_argument(
        "--check", action="store_true", help="whether the program that is imported here is compiled"
    )
    parser.add_argument("--needs", action="store_true", help="print what pip has to install")
    options = parser.parse_args()
    if options.needs:
        print(*needs(), sep="\n")
    elif options.check:
        check_compiled()
    elif options.into is None:
        parser.error("one of --into, --check, --needs")
    else:
        try:
            check_place(options.into.resolve())
            wheel = options.wheel and options.wheel.resolve()  # before the directory changes
            if not options.translate:
                check_tools()
            extensions = translate_copy(options.into.resolve())
            if not options.translate:
                compile_copy(extensions, wheel)
        except CannotCompile as error:
            raise SystemExit(f"packaging/compile.py: {error}") from None


def needs() -> list[str]:
    """mypyc reads types as mypy does, so all that the program imports has to be there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["compile"]]


def check_place(place: Path) -> None:
    """Raises CannotCompile where the copy would lie in or over the sources, which the tests run as they are."""
    if place == ROOT or ROOT / "appliance" in (place, *place.parents):
        raise CannotCompile("not into the sources: the tests run them as they are")


def check_tools() -> None:
    """Raises CannotCompile with what is missing."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        raise CannotCompile(
            f"no C compiler: {compiler} is not found (Debian: gcc; CC names another)"
        )
    headers = Path(sysconfig.get_paths()["include"])
    if not (headers / "Python.h").is_file():
        raise CannotCompile(f"no Python.h in {headers} (Debian: python3-dev)")
    try:
        importlib.import_module("mypyc.build")
        importlib.import_module("setuptools")
    except ImportError as error:
        raise CannotCompile(f"{error}; install what --needs prints") from None


def check_compiled() -> None:
    """Ends with the names of the modules that are plain."""
    names = [f"appliance.{module.replace('/', '.')}" for module in MODULES]
    plain = [name for name in names if str(importlib.import_module(name).__file__).endswith(".py")]
    if plain:
        raise SystemExit(f"not compiled: {' '.join(plain)}")
    print(f"compiled: {len(names)} modules")


def translate_copy(place: Path) -> list[Any]:
    """Copy the program to `place` and translate its modules there; what is to be compiled."""
    program = place / "appliance"
    place.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(program, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "appliance", program, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, place)
    os.chdir(place)  # mypy and setuptools read what lies here
    from mypyc.build import mypycify

    paths = [f"appliance/{module}.py" for module in MODULES]
    return mypycify(
        ["--config-file", "pyproject.toml", *paths],
        opt_level="2",
        debug_level="0",
        group_name=GROUP,
        target_dir=str(place / "build"),
    )


def compile_copy(extensions: list[Any], wheel: Path | None) -> None:
    """Compile what was translated, and pack the copy if a wheel is wanted."""
    from setuptools import setup

    for extension in extensions:
        extension.libraries.append("m")  # whose functions mypyc calls, and which it does not name
    commands = ["build_ext", "--inplace"] if wheel is None else ["bdist_wheel", "-d", str(wheel)]
    setup(ext_modules=extensions, script_args=["-q", *commands])


if __name__ == "__main__":
    main()
