"""The versions that packages are built of are written down, for every library and tool."""

import re
import tomllib

from packaging.requirements import Requirement

from tests.packaging.conftest import PACKAGING

PINNED = dict(
    line.split("==")
    for line in (PACKAGING / "constraints.txt").read_text().splitlines()
    if not line.startswith("#")
)


def plain(name):
    return re.sub("[-_.]+", "-", name).lower()


def test_every_library_and_tool_of_the_build_has_one_version_within_what_is_declared():
    project = tomllib.loads((PACKAGING.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pinned = {plain(name): version for name, version in PINNED.items()}
    for text in (*project["dependencies"], *extras["broker"], *extras["compile"]):
        wanted = Requirement(text)
        assert wanted.specifier.contains(pinned[plain(wanted.name)]), text
    tools = re.search(r"^tools=\((.*)\)$", (PACKAGING / "lock").read_text(), re.MULTILINE)
    assert set(tools[1].split()) <= set(pinned)


def test_the_build_takes_these_versions_and_the_tools_among_them():
    build = (PACKAGING / "build").read_text()
    assert "export PIP_CONSTRAINT=$here/constraints.txt" in build
    tools = re.search(r"pip install -q --upgrade (.*)$", build, re.MULTILINE)
    assert tools
    assert set(tools[1].split()) <= {plain(name) for name in PINNED}
