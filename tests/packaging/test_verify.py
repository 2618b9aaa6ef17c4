"""What `packaging/verify` says of an expectation: held, failed, or not asked because a program is missing."""

import subprocess
from pathlib import Path

import pytest

from tests.packaging.conftest import PACKAGING


def verify(tmp_path: Path, *lines: str) -> tuple[int, list[str]]:
    script = "\n".join(["set -euo pipefail", f". {PACKAGING}/expect", *lines, "outcome"])
    done = subprocess.run(
        ["bash", "-c", script],
        env={"work": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    return done.returncode, [line for line in done.stdout.splitlines() if line]


def test_all_that_was_expected_and_held_is_a_proof(tmp_path):
    status, said = verify(tmp_path, "expect 'it is so' true")
    assert (status, said[0]) == (0, "ok: it is so")


def test_what_failed_shows_its_status_and_its_words(tmp_path):
    status, said = verify(tmp_path, "expect 'it is so' sh -c 'echo no; exit 3'", "expect then true")
    assert (status, said[:3]) == (1, ["FAILED (3): it is so", "no", "ok: then"])


@pytest.mark.parametrize(
    "command",
    [
        "sh -c 'there-is-no-such-program x'",
        "bash -c '! there-is-no-such-program x'",
        "sh -c '! there-is-no-such-program x'",
        "bash -c 'there-is-no-such-program || true'",
        "env there-is-no-such-program",
        "there-is-no-such-program",
    ],
)
def test_a_missing_program_is_no_failure_and_no_proof(tmp_path, command):
    status, said = verify(tmp_path, f"expect 'it is so' {command}")
    assert said[0].startswith("MISSING: it is so")
    assert "0 failures, 1 not asked" in said[-1]
    assert status == 69


def test_a_failure_beside_something_missing_is_a_failure(tmp_path):
    status, _ = verify(tmp_path, "expect a env there-is-no-such-program", "expect b false")
    assert status == 1


def test_a_part_without_its_tools_is_skipped_and_counted(tmp_path):
    status, said = verify(
        tmp_path, "if has sh there-is-no-such-program; then expect 'it is so' true; fi"
    )
    assert said[0].startswith("MISSING: there-is-no-such-program is not installed")
    assert (len(said), status) == (2, 69)


@pytest.mark.parametrize("name", ["build", "image", "lock", "oldest/build", "repository", "verify"])
def test_no_script_ends_by_a_reader_that_has_seen_enough(name):
    # with pipefail a writer that is not done by then fails the whole, on a busy machine
    text = (PACKAGING / name).read_text()
    assert "pipefail" in text
    assert "| head" not in text
