"""Manual pages and completion, as they are made from the commands."""

import gzip
import os
import pty
import re
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from appliance.cli.app import load_command
from appliance.cli.app import main as run_command_line
from tests.packaging.conftest import PACKAGING, needs
from tests.support import forked
from tests.support.waiting import LONG_S

pytestmark = pytest.mark.xdist_group("manual")  # they read what is written once


def _page(root: Path, name: str) -> str:
    return gzip.decompress((root / f"usr/share/man/{name}.gz").read_bytes()).decode()


def test_every_command_has_a_page_and_every_key_a_paragraph(written):
    pages = {path.name for path in (written / "usr/share/man/man1").iterdir()}
    assert {"appliance.1.gz", "appliance-run.1.gz", "appliance-reload.1.gz"} <= pages
    assert ".SH EXIT STATUS" in _page(written, "man1/appliance.1")
    assert "\\-\\-all\\-nodes" in _page(written, "man1/appliance-run.1")
    config = _page(written, "man5/appliance.yaml.5")
    keys = ("broker.embedded", "nodes.NODE.subscribe", "state.dir", "reload.max_cancel")
    for key in (*keys, "admin.tls.client_ca", "admin.tokens[].scopes"):
        assert f"\\fB{key}\\fR" in config.replace("\\-", "-")


def test_pages_are_roff_without_a_complaint(written):
    groff = needs("groff")
    for page in sorted((written / "usr/share/man").rglob("*.gz")):
        command = [groff, "-man", "-Kutf8", "-Tutf8", "-ww", "-z"]  # as man(1) does
        done = subprocess.run(
            command, input=gzip.decompress(page.read_bytes()), capture_output=True
        )
        assert done.stderr == b"", page.name


def test_pages_are_what_mandoc_reads_too(written, tmp_path):
    mandoc = needs("mandoc")
    for page in sorted((written / "usr/share/man").rglob("*.gz")):
        plain = tmp_path / page.stem
        plain.write_bytes(gzip.decompress(page.read_bytes()))
        done = subprocess.run(
            [mandoc, "-T", "lint", "-W", "warning", str(plain)], capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (0, ""), page.name


def test_completion_is_shell_that_parses(written):
    share = written / "usr/share"
    files = {
        "bash": share / "bash-completion/completions/appliance",
        "zsh": share / "zsh/vendor-completions/_appliance",
        "fish": share / "fish/vendor_completions.d/appliance.fish",
    }
    for shell, file in files.items():
        assert "rollback" in file.read_text()
        if shutil.which(shell):
            done = subprocess.run([shell, "-n", str(file)], capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, "")


def test_bash_completes_commands_options_and_values(written):
    file = written / "usr/share/bash-completion/completions/appliance"
    script = f"""
        source {file}
        try() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _appliance; echo "${{COMPREPLY[*]}}"; }}
        try appliance rel
        try appliance run --all
        try appliance run --log-level w
        try appliance outbox dr
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["reload", "--all-nodes", "warning", "drop"]


def test_fish_completes_commands_options_and_values(written):
    fish = needs("fish")
    file = written / "usr/share/fish/vendor_completions.d/appliance.fish"
    asked = ["rel", "run --all", "run --log-level w", "outbox dr", "outbox retry --al"]
    script = f"source {file}\n" + "".join(f"complete -C 'appliance {text}'\n" for text in asked)
    done = subprocess.run(
        [fish, "--no-config", "-c", script], capture_output=True, text=True, check=True
    )
    found = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert found == ["reload", "--all-nodes", "warning", "drop", "--all"]


def test_zsh_completes_commands_options_and_values(written):
    zsh = needs("zsh")
    with _Terminal([zsh, "-f", "-i"]) as terminal:
        functions = written / "usr/share/zsh/vendor-completions"
        terminal.say(
            f"PS1=; fpath=({functions} $fpath); autoload -Uz compinit; compinit -u -D;"
            ' show() { print -r -- "<$BUFFER>"; BUFFER=; zle accept-line }; zle -N show;'
            " bindkey '^X' show; bindkey '^I' complete-word; print RE''ADY\n"
        )
        terminal.until(r"READY\r\n")
        for begun, completed in {
            "rel": "reload",
            "run --all": "run --all-nodes",
            "run --log-level w": "run --log-level warning",
            "outbox dr": "outbox drop",
            "outbox retry --al": "outbox retry --all",
            "wire enc": "wire encode",
        }.items():
            terminal.say(f"appliance {begun}\t\x18")
            assert terminal.until(r"<(.*)>\r\n").strip() == f"appliance {completed}"


FLEET = """
version: 1
broker: {embedded: true}
roles: {edge: {subscribe: {REQPing: {}}}}
methods: {RestartWeb: {exec: [true]}}
nodes:
  central: {subscribe: {REQErrorLog: {}}}
  ship1: {roles: [edge], labels: {site: oslo}}
  ship22: {roles: [edge], labels: {tier: edge}}
"""
COMPLETED = {
    "exec cen": "exec central",
    "exec site=o": "exec site=oslo",
    "exec ship1,@ed": "exec ship1,@edge",
    "exec ship1 -x tie": "exec ship1 -x tier=edge",
    "send --to @e": "send --to @edge",
    "send --from cent": "send --from central",
    "send Rest": "send RestartWeb",
    "tail --state-dir /nowhere @ed": "tail --state-dir /nowhere @edge",
    "context use har": "context use harbour",
    "-c har": "-c harbour",
    "-c harbour rel": "-c harbour reload",
    "--server https://127.0.0.1:1 exec @ed": "--server https://127.0.0.1:1 exec @edge",
}
"""What is begun, and what the key makes of it."""


@pytest.fixture
def knowing(tmp_path, monkeypatch):
    """An environment in which the config names a fleet, no daemon answers, and `appliance` is ours."""
    (tmp_path / "fleet.yaml").write_text(FLEET)
    program = tmp_path / "bin/appliance"
    program.parent.mkdir()
    # NB: a slow machine is no defect, and whoever presses no key can wait
    patient = "from appliance.cli import completing; completing.PATIENCE_S = 60"
    forked.program(program, before=patient)
    monkeypatch.setenv("APPLIANCE_CONFIG", str(tmp_path / "fleet.yaml"))
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    contexts = tmp_path / "appliance/contexts.yaml"
    contexts.parent.mkdir()
    contexts.write_text("contexts: {harbour: {server: https://127.0.0.1:1}}\n")
    contexts.chmod(0o600)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def test_bash_completes_nodes_roles_labels_methods_and_contexts(written, knowing):
    with _Terminal(["/bin/bash", "--norc", "--noprofile", "-i"]) as terminal:
        file = written / "usr/share/bash-completion/completions/appliance"
        terminal.say(
            f"PS1=; bind 'set enable-bracketed-paste off'; source {file};"
            """ show() { echo "<$READLINE_LINE>"; READLINE_LINE=; };"""
            """ bind -x '"\\C-t": show'; echo RE''ADY\n"""
        )
        terminal.until(r"READY\r\n")
        for begun, completed in COMPLETED.items():
            terminal.say(f"appliance {begun}\t\x14")
            assert terminal.until(r"<(.*)>\r\n").strip() == f"appliance {completed}"


def test_zsh_completes_nodes_roles_labels_methods_and_contexts(written, knowing):
    zsh = needs("zsh")
    with _Terminal([zsh, "-f", "-i"]) as terminal:
        functions = written / "usr/share/zsh/vendor-completions"
        terminal.say(
            f"PS1=; fpath=({functions} $fpath); autoload -Uz compinit; compinit -u -D;"
            ' show() { print -r -- "<$BUFFER>"; BUFFER=; zle accept-line }; zle -N show;'
            " bindkey '^X' show; bindkey '^I' complete-word; print RE''ADY\n"
        )
        terminal.until(r"READY\r\n")
        for begun, completed in COMPLETED.items():
            terminal.say(f"appliance {begun}\t\x18")
            assert terminal.until(r"<(.*)>\r\n").strip() == f"appliance {completed}"


def test_fish_completes_nodes_roles_labels_methods_and_contexts(written, knowing):
    fish = needs("fish")
    file = written / "usr/share/fish/vendor_completions.d/appliance.fish"
    # fish offers words, and takes a list with commas for one
    asked = {begun: done.split()[-1] for begun, done in COMPLETED.items() if "," not in begun}
    words = "".join(f"echo; complete -C 'appliance {begun}'\n" for begun in asked)
    done = subprocess.run(
        [fish, "--no-config", "-c", f"source {file}\n{words}"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = done.stdout.split("\n\n")
    for word, offered in zip(asked.values(), found, strict=True):
        assert word in [line.split("\t")[0] for line in offered.strip().splitlines()]


def test_commands_about_a_job_complete_with_jobs(written):
    share = written / "usr/share"
    bash = (share / "bash-completion/completions/appliance").read_text()
    zsh = (share / "zsh/vendor-completions/_appliance").read_text()
    fish = (share / "fish/vendor_completions.d/appliance.fish").read_text()
    for word in ("show", "watch", "output", "cancel", "retry"):
        assert f"'jobs {word}') kinds='jobs' ;;" in bash
        assert re.search(rf"'jobs {word}'\) _arguments(?:.*\\\n)+.*_appliance_words jobs' ;;", zsh)
        assert f"from {word}' -a '(__appliance_words jobs)'" in fish


def test_words_for_a_shell_are_of_the_daemon_or_the_config_and_none_where_there_is_neither(
    knowing, tmp_path, monkeypatch, capsys
):
    def words(*arguments):
        return run_command_line(["complete-words", *arguments]), capsys.readouterr()

    code, said = words("targets", "--state-dir", str(tmp_path / "nowhere"))
    assert (code, said.err) == (0, "")
    assert said.out.split() == [
        *("central", "ship1", "ship22", "@edge", "site=oslo", "tier=edge", "all", "local"),
    ]
    monkeypatch.setenv("APPLIANCE_CONFIG", str(tmp_path / "none.yaml"))
    assert words("contexts")[1].out.split() == ["harbour", "local"]
    for arguments in (["targets"], ["nodes", "-c", "nobody"], ["jobs", "-c", "harbour"]):
        code, said = words(*arguments)
        assert (code, said.out.strip(), said.err) == (0, "", "")


class _Terminal:
    """A program at a terminal of its own."""

    def __init__(self, command: list[str]) -> None:
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            environment = {**os.environ, "TERM": "dumb", "HOME": "/nonexistent", "COLUMNS": "200"}
            os.execve(command[0], command, environment)
        self._heard = ""

    def __enter__(self) -> "_Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)  # a hang-up: an interactive shell ends
        os.waitpid(self._pid, 0)

    def say(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def until(self, pattern: str) -> str:
        """Read until it comes; its group, if it has one."""
        deadline = time.monotonic() + LONG_S
        while (found := re.search(pattern, self._heard)) is None:
            assert time.monotonic() < deadline, self._heard
            if select.select([self._fd], [], [], 1.0)[0]:
                self._heard += os.read(self._fd, 65_536).decode(errors="replace")
        self._heard = self._heard[found.end() :]
        return found[1] if found.re.groups else found[0]


@pytest.mark.parametrize(
    ("words", "option", "shown"),
    [
        ("send", "--retries", "NUMBER"),  # with a least value
        ("history", "--limit", "NUMBER"),
        ("status", "--state-dir", "DIR"),
        ("status", "--output", "text|json"),
        ("fleet wait", "--rev", "R"),
    ],
)
def test_an_option_says_what_it_takes(monkeypatch, words, option, shown):
    monkeypatch.syspath_prepend(PACKAGING)
    import commands as told

    command = dict(told.all_commands(load_command()))[words]
    found = next(item for item in told.options_of(command) if option in item.opts)
    assert told.metavar(found) == shown
