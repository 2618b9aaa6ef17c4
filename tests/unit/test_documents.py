"""What the documents show is true: configs pass, commands and their options exist, links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from appliance.cli.app import load_command
from appliance.core.delivery import DeliveryState, WaitReason
from appliance.telemetry.metrics import OTHER_REASON, STORE_STATES
from appliance.telemetry.stats import ENDS, PUBLISHER_COUNTERS, SUBSCRIBER_COUNTERS
from tests.support.config_files import load_text

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    path
    for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("*/**/README.md"))
    if not any(part.startswith(".") or part == "build" for part in path.relative_to(ROOT).parts)
]
CONFIGS = [
    path
    for path in (ROOT / "configs").rglob("*")
    if path.suffix in (".yaml", ".conf") or path.name == "Containerfile"
]
FENCED = re.compile(r"^```yaml\n(.*?)^```", re.S | re.M)
LINK = re.compile(r"\]\(([^)#\s]+)")
PROJECT_PATH = re.compile(r"`((?:configs|docs|packaging|tests|appliance|schemas)/[\w./-]*)`")
COMMENTS = re.compile(r"^# ?", re.M)

BASE = {
    "version": 1,
    "broker": {"embedded": True},
    "nodes": {"central": {"subscribe": {"REQToFileAppend": {}, "REQErrorLog": {}, "REQHello": {}}}, "ship1": {}},
}  # fmt: skip


def name_of(path):
    return str(path.relative_to(ROOT))


def examples():
    for path in DOCUMENTS:
        for number, block in enumerate(FENCED.findall(path.read_text())):
            yield pytest.param(block, id=f"{name_of(path)}-{number}")


@pytest.mark.parametrize("block", list(examples()))
def test_every_config_shown_passes_as_it_stands_or_in_a_small_fleet(block, tmp_path):
    shown = yaml.safe_load(block)
    nodes = {**BASE["nodes"], **shown.get("nodes", {})}
    text = yaml.safe_dump({**BASE, **shown, "nodes": nodes}, sort_keys=False)
    assert load_text(tmp_path, text).warnings == ()


def commands_shown(text):
    """Every `appliance …` in lines of code: the words behind it, up to what the shell takes."""
    for line in text.splitlines():
        if not line.startswith("    ") or "appliance " not in line:
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        words = None
        for token in (*lexer, ";"):
            if set(token) <= set("();<>|&"):
                if words:
                    yield words
                words = None
            elif token in ("appliance", ".venv/bin/appliance"):
                words = []
            elif words is not None:
                words.append(token)


def all_commands_shown():
    for path in DOCUMENTS:
        for words in commands_shown(path.read_text()):
            yield pytest.param(words, id=f"{name_of(path)}: {' '.join(words)[:60]}")
    for path in CONFIGS:
        text = path.read_text()
        comments = "\n".join(
            "  " + COMMENTS.sub("", line) for line in text.splitlines() if line.startswith("#   ")
        )
        for words in commands_shown(comments):
            yield pytest.param(words, id=f"{name_of(path)}: {' '.join(words)[:60]}")


def follow(words):
    """The command that words name, and the words that are left."""
    command = load_command()
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("words", list(all_commands_shown()))
def test_every_command_shown_exists_with_its_options(words):
    command, rest = follow(words)
    assert not hasattr(command, "commands") or command.invoke_without_command, words
    known = {"-h", "--help"}.union(*([*item.opts, *item.secondary_opts] for item in command.params))
    own = rest[: rest.index("--")] if "--" in rest else rest
    assert {word for word in own if re.match(r"--?[a-z]", word)} <= known, words


def test_every_command_stands_in_the_readme():
    text = (ROOT / "README.md").read_text()
    table = text[text.index("## Commands") : text.index("## Configs to learn from")]
    shown = {match.split()[0] for match in re.findall(r"`(?:appliance )?([a-z][^`]*)`", table)}
    visible = {name for name, command in load_command().commands.items() if not command.hidden}
    assert visible - shown <= {"demo", "runner"}, "demo and runner stand above"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_link_within_the_project_leads_somewhere(path):
    for target in LINK.findall(path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_path_of_the_project_that_is_named_is_there(path):
    for target in PROJECT_PATH.findall(path.read_text()):
        assert (ROOT / target).exists(), target


HEADER = re.compile(r"[\"`](appl-[a-z0-9]+)[\":`]")


def test_every_header_that_appliances_write_is_told_to_whoever_writes_a_peer():
    written = {
        name
        for path in (ROOT / "appliance").rglob("*.py")
        for name in HEADER.findall(path.read_text())
    }
    told = set(HEADER.findall((ROOT / "docs/peers.md").read_text()))
    assert written == told


def test_the_words_for_what_becomes_of_a_message_are_told():
    text = (ROOT / "docs/delivery.md").read_text()
    for word in (*DeliveryState, *WaitReason):
        assert f"`{word}`" in text or f"`{word}: …`" in text or f"`{word} since …`" in text


def test_every_state_of_the_store_and_every_reason_to_wait_and_every_result_is_told_beside_its_metric():
    text = (ROOT / "docs/metrics.md").read_text()
    results = ("repeat", *{*SUBSCRIBER_COUNTERS, *PUBLISHER_COUNTERS} - {"repeats"})
    for word in (*STORE_STATES, *map(str, WaitReason), OTHER_REASON, *ENDS, *results):
        assert f"`{word}`" in text
