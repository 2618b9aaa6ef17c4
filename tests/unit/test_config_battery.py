"""Every mistake of the battery gets its code at its place, and every code has a story and a mistake."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from appliance.config.error_codes import ERROR_CODES
from appliance.core.problems import Severity
from appliance.errors import ConfigInvalid
from tests.support.config_files import (
    ROOT,
    WARNINGS,
    battery,
    expected_of,
    found_in,
    load,
)

CODES_TESTED_ELSEWHERE = {
    "E003": "needs megabytes: test_config_files",
    "E213": "needs a method with a long name: test_compile_ends",
    "E301": "needs a running daemon: system/test_reload",
    "E302": "needs a running daemon: system/test_reload",
    "E303": "needs a running daemon: system/test_reload",
    "E304": "needs a running daemon: system/test_broker_change",
    "E307": "needs a running daemon: system/test_inputs",
    "E306": "needs what nobody foresaw: component/test_reconciler",
    "E305": "needs a running daemon: system/test_broker_change",
    "E308": "needs a set in force: component/test_ways_into_force",
    "E310": "needs a running daemon: system/test_going_back",
    "E311": "needs a repository: system/test_git_source",
    "E312": "needs a repository: system/test_git_source",
    "E244": "reads files: component/bus/test_inspection",
    "W207": "reads files: component/bus/test_inspection",
    "E314": "needs a repository: system/test_git_source",
    "E313": "needs a repository: system/test_git_source",
    "W282": "asks the file system: test_config_commands",
    "W280": "needs a choice of nodes: test_permissions",
    "W301": "needs a running daemon: system/test_going_back",
    "W302": "needs a running daemon: system/test_going_back",
    "W303": "needs a running daemon: system/test_git_source",
    "W304": "needs a restart: component/test_ways_into_force",
}


@pytest.mark.parametrize("entry", battery(), ids=lambda entry: entry.name)
def test_bad_config_is_refused_with_its_code_at_its_place_and_nothing_else(entry: Path) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        load(entry)
    assert found_in(entry, caught.value.problems) == sorted(expected_of(entry))


@pytest.mark.parametrize("entry", sorted(WARNINGS.iterdir()), ids=lambda entry: entry.name)
def test_warnings_are_told_and_refuse_nothing(entry: Path) -> None:
    warnings = load(entry).warnings
    assert found_in(entry, warnings) == sorted(expected_of(entry))
    assert all(problem.severity is Severity.WARNING for problem in warnings)


def test_the_battery_holds_at_least_sixty_mistakes() -> None:
    assert len(battery()) >= 60


def test_every_code_in_the_sources_has_a_story_and_every_story_is_in_the_sources() -> None:
    found = set()
    for path in (ROOT / "appliance").rglob("*.py"):
        if path.name != "error_codes.py":
            found |= set(re.findall(r"""["']([EW]\d{3})["']""", path.read_text(encoding="utf-8")))
    assert found == set(ERROR_CODES)


def test_every_code_is_produced_by_the_battery_or_by_a_test_of_its_own() -> None:
    entries = [*battery(), *WARNINGS.iterdir()]
    produced = {code for entry in entries for code, _, _ in expected_of(entry)}
    assert produced | CODES_TESTED_ELSEWHERE.keys() == set(ERROR_CODES)


def test_stories_are_whole_and_their_names_distinct() -> None:
    assert len({story.name for story in ERROR_CODES.values()}) == len(ERROR_CODES)
    for story in ERROR_CODES.values():
        assert re.fullmatch(r"[a-z0-9]+([-.][a-z0-9]+)*", story.name)
        assert story.meaning.endswith((".", ":"))
        assert story.example
        assert story.mend
