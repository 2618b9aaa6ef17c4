"""The table in the README and the tests say the same: every number once, every test under its number."""

import re
from collections import defaultdict
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COUNT = 134
NOT_OURS = "does not apply: "
_ROW = re.compile(r"\| (\d+) \| (.+?) \| (.+?) \|")
_TEST = re.compile(r"^(?:async )?def (test_\w+)\(", re.MULTILINE)


def read_rows():
    lines = (HERE / "README.md").read_text().splitlines()
    found = [_ROW.fullmatch(line) for line in lines if re.match(r"\| \d", line)]
    assert all(found)
    return [(int(row[1]), re.findall(r"`(test_\w+)`", row[2]), row[3]) for row in found]


def read_tests():
    found = defaultdict(list)
    for path in sorted(HERE.glob("test_*.py")):
        if path.name != Path(__file__).name:
            for name in _TEST.findall(path.read_text()):
                found[int(name.split("_")[1])].append(name)
    return found


def test_every_number_has_one_row_in_order():
    assert [number for number, _, _ in read_rows()] == list(range(1, COUNT + 1))


def test_every_row_names_the_tests_of_its_number_or_says_why_there_are_none():
    tests = read_tests()
    for number, names, behaviour in read_rows():
        assert names == tests.pop(number, []), number
        assert behaviour.startswith(NOT_OURS) is (not names), number
        assert behaviour != NOT_OURS.strip(), number
    assert not tests


@pytest.mark.parametrize("path", sorted(HERE.glob("test_*.py")), ids=lambda path: path.name)
def test_every_file_stands_in_the_text(path):
    assert f"[{path.name}]({path.name})" in (HERE / "README.md").read_text()
