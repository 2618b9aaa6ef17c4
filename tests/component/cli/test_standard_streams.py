"""Standard streams that are closed, full or left by their reader: told in our words, and never taken for a bug of ours."""

import subprocess
import sys

import pytest

SCHEMA = [sys.executable, "-m", "appliance", "schema"]


def shell(script, *words):
    done = subprocess.run(
        ["bash", "-c", script, "sh", *words], capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("where", "why"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
def test_what_standard_output_does_not_take_is_told(where, why, unbuffered, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    assert shell(f'"$@" {where}', *SCHEMA) == (
        74,
        f"appliance: cannot write to standard output: {why}\n",
    )


def test_a_reader_that_has_gone_ends_it_without_a_word():
    # `:` reads nothing and has gone when the output comes
    assert shell('exec 3> >(:); wait $!; "$@" >&3', *SCHEMA) == (141, "")


@pytest.mark.parametrize("where", ["2>&-", "0<&-", "0<&- 2>&-"])
def test_a_closed_stream_that_is_not_needed_is_no_trouble(where):
    assert shell(f'"$@" {where} >/dev/null', *SCHEMA) == (0, "")


def test_lost_words_on_standard_error_are_a_failure_of_a_success_only():
    assert shell('"$@" 2>/dev/full', *SCHEMA[:-1], "--no-such-option")[0] == 64


FOLLOWING = """
import time
from appliance.cli.standard_streams import end_with_reader
from appliance.errors import OutputLost
try:
    with end_with_reader():
        print("first", flush=True)
        time.sleep(60)
except OutputLost as error:
    raise SystemExit(141 if error.is_reader_gone else 1)
"""


def test_whoever_follows_ends_when_its_reader_does_and_not_with_its_next_words():
    # head ends after a line, while nothing more comes
    script = 'set -o pipefail; "$@" | head -1 >/dev/null'
    assert shell(script, sys.executable, "-c", FOLLOWING) == (141, "")


@pytest.mark.parametrize("where", [">/dev/null", "| cat >/dev/null"])
def test_a_reader_that_stays_ends_nobody(where):
    following = FOLLOWING.replace("sleep(60)", "sleep(0.1)")
    assert shell(f'set -o pipefail; "$@" {where}', sys.executable, "-c", following) == (0, "")
