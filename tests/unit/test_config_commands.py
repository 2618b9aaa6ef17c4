"""`check`, `schema`, `explain`, `init`, and the example configs, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import pytest
import typer
from typer.testing import CliRunner

from appliance.bus.inspection import is_for_all_to_read
from appliance.cli import config_commands
from appliance.cli.problem_text import crop, render_github, render_text
from appliance.config.error_codes import ERROR_CODES
from appliance.config.parse import parse_file
from appliance.core.problems import Problem, Severity
from tests.support.config_files import BATTERY, ROOT, load
from tests.support.nats_login import make_nkey

APP = typer.Typer()
config_commands.register(APP)
RUNNER = CliRunner()

BAD = """\
version: 1
broker: {embedded: true}
nodes:
  central: {subscribe: {REQHello: {}}}
  ship1:
    subscribe: {REQPing: {concurency: 4}}
    publish:
      hello: {to: centrall, method: REQHello, every: 1d}
      other: {to: central, method: REQHello, data: [no], every: 30s}
"""
REPORT = """\
bad.yaml:6:27  error  E101 unknown-key
    nodes.ship1.subscribe.REQPing.concurency: unknown key "concurency"; did you mean "concurrency"?
       6 |     subscribe: {REQPing: {concurency: 4}}
         |                           ^~~~~~~~~~
bad.yaml:8:19  error  E202 unknown-node
    nodes.ship1.publish.hello.to: node "centrall" is not declared (closest: "central", declared at bad.yaml:4:3)
       8 |       hello: {to: centrall, method: REQHello, every: 1d}
         |                   ^~~~~~~~
bad.yaml:8:54  error  E106 malformed
    nodes.ship1.publish.hello.every: "1d" is not a duration such as 250ms, 5s or 1m30s, or a number of seconds
       8 |       hello: {to: centrall, method: REQHello, every: 1d}
         |                                                      ^~
    hint: hours are the largest unit: 24h
bad.yaml:9:53  warn   W001 yaml-1.1-text
    nodes.ship1.publish.other.data[0]: "no" is text here, but the truth value false to a YAML 1.1 reader
       9 |       other: {to: central, method: REQHello, data: [no], every: 30s}
         |                                                     ^~
    hint: quote it
3 errors, 1 warning in 1 file    exit 78
"""


@pytest.fixture
def bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text(BAD)
    return "bad.yaml"


@pytest.mark.parametrize("command", ["check", "validate"])
def test_refused_config_is_reported_whole_with_carets_and_exit_78(bad: str, command: str) -> None:
    result = RUNNER.invoke(APP, [command, bad])
    assert result.exit_code == 78
    assert result.stdout == REPORT


def test_report_as_json_holds_the_same_facts(bad: str) -> None:
    result = RUNNER.invoke(APP, ["check", bad, "-o", "json"])
    assert result.exit_code == 78
    facts = json.loads(result.stdout)
    assert facts["ok"] is False
    assert [(item["code"], item["line"], item["column"]) for item in facts["problems"]] == [
        ("E101", 6, 27), ("E202", 8, 19), ("E106", 8, 54), ("W001", 9, 53),
    ]  # fmt: skip
    assert facts["problems"][0]["name"] == "unknown-key"


def test_report_for_github_is_one_annotation_per_problem(bad: str) -> None:
    result = RUNNER.invoke(APP, ["check", bad, "--format", "github"])
    lines = result.stdout.splitlines()
    assert result.exit_code == 78
    assert len(lines) == 4
    assert lines[0].startswith(
        "::error file=bad.yaml,line=6,col=27,endColumn=37,title=E101 unknown-key::nodes.ship1"
    )
    assert lines[3].startswith("::warning ")
    assert lines[3].endswith("%0Aquote it")


def test_annotations_cannot_be_broken_out_of() -> None:
    evil = Problem(code="E101", message="a\n::error::x %0A", file="a,b:c\n.yaml", line=1, column=1)
    (line,) = render_github([evil]).splitlines()
    assert "file=a%2Cb%3Ac%0A.yaml," in line
    assert line.endswith("::a%0A::error::x %250A")


def test_missing_path_is_refused_with_78(tmp_path: Path) -> None:
    result = RUNNER.invoke(APP, ["check", str(tmp_path / "nothing")])
    assert result.exit_code == 78
    assert "E001" in result.stdout


def test_good_config_says_what_it_holds(tmp_path: Path) -> None:
    result = RUNNER.invoke(APP, ["check", str(ROOT / "configs" / "demo"), "-o", "json"])
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert facts["ok"]
    assert facts["digest"].startswith("sha256:")
    assert (facts["files"], facts["nodes"], facts["problems"]) == (2, 3, [])


def test_caret_stands_under_wide_characters_and_far_along_a_long_line() -> None:
    wide = Problem(code="E101", message="", line=1, column=5, length=2, excerpt="日本: xy")
    assert crop(wide) == ("日本: xy", 6, 2)
    long = Problem(
        code="E101",
        message="",
        line=1,
        column=301,
        length=4,
        excerpt="a" * 300 + "bbbb" + "c" * 300,
    )
    shown, offset, length = crop(long)
    assert shown[offset : offset + length] == "bbbb"
    assert len(shown) < 100


def test_nothing_a_terminal_would_obey_is_printed() -> None:
    evil = "\x1b[31m\u202e"
    problem = Problem(code="E101", message=evil, file=evil, path=evil, hint=evil)
    assert "\x1b" not in render_text([problem], colour=False)
    assert "\u202e" not in render_text([problem], colour=False)
    assert "\x1b[" in render_text([Problem(code="E101", message="x")], colour=True)


@pytest.mark.parametrize("code", sorted(ERROR_CODES))
def test_every_code_is_explained(code: str) -> None:
    result = RUNNER.invoke(APP, ["explain", code.lower()])
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{code} {ERROR_CODES[code].name}\n")
    assert json.loads(RUNNER.invoke(APP, ["explain", code, "-o", "json"]).stdout)["code"] == code


def test_unknown_code_is_a_usage_error() -> None:
    result = RUNNER.invoke(APP, ["explain", "E999"])
    assert (result.exit_code, result.stdout) == (64, "")


def test_explain_lists_all_codes_takes_names_and_folds_its_prose(monkeypatch):
    listed = RUNNER.invoke(APP, ["explain"])
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(ERROR_CODES)
    monkeypatch.setenv("COLUMNS", "60")
    shown = RUNNER.invoke(APP, ["explain", "Needs-Restart"]).stdout
    assert shown == RUNNER.invoke(APP, ["explain", "E301"]).stdout
    assert max(map(len, shown.splitlines())) <= 60


def test_schema_is_printed_as_shipped() -> None:
    printed = RUNNER.invoke(APP, ["schema"]).stdout
    assert printed == (ROOT / "schemas" / "appliance.schema.json").read_text(encoding="utf-8")


def test_starter_config_is_valid_for_us_and_for_any_schema_validator(tmp_path: Path) -> None:
    target = tmp_path / "new" / "config"
    result = RUNNER.invoke(APP, ["init", str(target)])
    assert result.exit_code == 0
    loaded = load(target)
    assert loaded.warnings == ()
    assert set(loaded.desired.run_nodes) == {"central", "ship1", "ship2"}
    schema = json.loads((target / "appliance.schema.json").read_text())
    for path in target.glob("*.yaml"):
        assert jsonschema_rs.is_valid(schema, parse_file("", path.read_bytes(), {}).tree)


def test_starter_config_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "nodes.yaml").write_text("mine")
    result = RUNNER.invoke(APP, ["init", str(tmp_path)])
    assert result.exit_code == 64
    assert [path.name for path in tmp_path.iterdir()] == ["nodes.yaml"]
    assert (tmp_path / "nodes.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("minimal.yaml", 1),
        ("methods.yaml", 2),
        ("demo", 3),
        ("fleet", 50),
        ("bridge", 5),
        ("satellite", 2),
    ],
)
def test_example_configs_are_without_a_flaw(name: str, nodes: int) -> None:
    loaded = load(ROOT / "configs" / name)
    assert loaded.warnings == ()
    assert len(loaded.desired.declared_nodes) == nodes
    assert len(loaded.desired.workers) >= nodes


@pytest.mark.parametrize(
    "path",
    sorted(set((ROOT / "configs").rglob("*.yaml")) - set((ROOT / "configs/kubernetes").iterdir())),
    ids=lambda path: path.name,
)
def test_every_example_file_names_its_schema_and_fits_it_in_an_editor(path: Path) -> None:
    first, _, rest = path.read_text().partition("\n")
    schema_path = path.parent / first.partition("$schema=")[2]
    assert schema_path.resolve() == (ROOT / "schemas" / "appliance.schema.json").resolve()
    assert rest.lstrip().startswith("#")
    schema = json.loads(schema_path.read_text())
    assert jsonschema_rs.is_valid(schema, parse_file("", path.read_bytes(), AsWritten()).tree)


class AsWritten(dict[str, str]):
    """An environment that leaves every reference standing, as an editor does."""

    def get(self, name: str, _default: object = None) -> str:  # type: ignore[override]
        return f"${{{name}}}"


def test_battery_renders_in_every_form() -> None:
    for entry in sorted(BATTERY.iterdir())[::9]:
        for options in ([], ["-o", "json"], ["--format", "github"]):
            result = RUNNER.invoke(APP, ["check", str(entry), *options])
            assert result.exit_code == 78
            assert result.exception is None or isinstance(result.exception, SystemExit)


def test_severities_have_their_words() -> None:
    warning = Problem(code="W001", message="x", severity=Severity.WARNING)
    assert "warn " in render_text([warning], colour=False)


@pytest.mark.parametrize(
    ("words", "environment", "code"),
    [
        ([], {}, 0),
        (["--node", "ship1"], {}, 0),
        (["--node", "ship1,central"], {}, 0),
        (["--node", "ship9"], {}, 78),
        ([], {"APPLIANCE_NODE": "ship9"}, 78),
        (["--node", "ship1"], {"APPLIANCE_NODE": "ship9"}, 0),
        ([], {"APPLIANCE_NODE": "central,ship2"}, 0),
    ],
)
def test_check_asks_for_the_nodes_that_a_machine_would_run(
    monkeypatch: pytest.MonkeyPatch, words: list[str], environment: dict[str, str], code: int
) -> None:
    monkeypatch.delenv("APPLIANCE_NODE", raising=False)
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    result = RUNNER.invoke(APP, ["check", str(ROOT / "configs/demo"), *words, "-o", "json"])
    assert result.exit_code == code, result.output
    problems = json.loads(result.output)["problems"]
    # the demo's broker is its daemon's own: who is run elsewhere could not log in there
    codes = [problem["code"] for problem in problems if problem["code"] != "W280"]
    assert codes == (["E305"] if code else [])
    if words == ["--node", "ship1"]:
        assert [one["message"].rpartition(": ")[2] for one in problems] == ["central, ship2"]


def test_check_with_secrets_tells_what_everybody_may_read_or_change(tmp_path: Path) -> None:
    seed, config = tmp_path / "ship1.nk", tmp_path / "fleet.yaml"
    seed.write_text(make_nkey().seed)
    auth = f"auth: {{nkey_seed: {{file: {seed}}}}}"
    config.write_text(
        f"version: 1\nbroker: {{servers: [nats://n], {auth}}}\nnodes: {{a: {{subscribe: {{REQErrorLog: {{}}}}}}}}\n"
    )

    def ask() -> list[str]:
        result = RUNNER.invoke(APP, ["check", str(config), "--secrets", "-o", "json"])
        assert result.exit_code == 0, result.output
        return [problem["message"] for problem in json.loads(result.output)["problems"]]

    seed.chmod(0o600)
    config.chmod(0o644)
    assert ask() == []
    seed.chmod(0o644)
    config.chmod(0o646)
    assert ask() == [f"{seed}: everybody may read it", f"{config}: everybody may change it"]


def test_certificates_are_for_everybody_to_read_and_not_to_change_unless_a_key_lies_with_them(
    tmp_path: Path,
) -> None:
    ca, cert = tmp_path / "ca.pem", tmp_path / "cert.pem"
    ca.write_text("-----BEGIN CERTIFICATE-----\n")
    cert.write_text("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n")
    for path in (ca, cert):
        path.chmod(0o644)
    assert is_for_all_to_read("broker.tls.ca", str(ca))
    assert not is_for_all_to_read("broker.tls.cert", str(cert))
    assert not is_for_all_to_read("broker.tls.key", str(ca))
    config = tmp_path / "fleet.yaml"
    tls = f"tls: {{ca: {{file: {ca}}}, cert: {{file: {cert}}}, key: {{file: {cert}}}}}"
    nodes = "nodes: {a: {subscribe: {REQErrorLog: {}}}}"
    config.write_text(f"version: 1\nbroker: {{servers: [nats://n], {tls}}}\n{nodes}\n")
    result = RUNNER.invoke(APP, ["check", str(config), "--secrets", "-o", "json"])
    opened = [one for one in json.loads(result.output)["problems"] if one["code"] == "W282"]
    assert {one["path"] for one in opened} == {"broker.tls.cert", "broker.tls.key"}
    ca.chmod(0o646)
    result = RUNNER.invoke(APP, ["check", str(config), "--secrets", "-o", "json"])
    assert f"{ca}: everybody may change it" in result.output


def test_credentials_are_looked_at_where_the_service_has_them_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # set first, so that what the command sets is undone
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "")
    stores = tmp_path / "run", tmp_path / "credstore"
    monkeypatch.setattr(config_commands, "CREDENTIAL_STORES", tuple(map(str, stores)))
    config = tmp_path / "fleet.yaml"
    auth = "auth: {nkey_seed: {credential: appliance.nkey}}"
    nodes = "nodes: {a: {subscribe: {REQErrorLog: {}}}}"
    config.write_text(f"version: 1\nbroker: {{servers: [nats://n], {auth}}}\n{nodes}\n")
    result = RUNNER.invoke(APP, ["check", str(config), "--secrets"])
    assert result.exit_code == 78
    assert (
        f"hint: ask as root, who sees {stores[1]}, or name CREDENTIALS_DIRECTORY" in result.output
    )
    stores[1].mkdir()
    (stores[1] / "appliance.nkey").write_text(make_nkey().seed)
    result = RUNNER.invoke(APP, ["check", str(config), "--secrets"])
    assert result.exit_code == 0, result.output
    assert f"credentials: looked at in {stores[1]}" in result.output


def test_a_key_that_stands_one_section_further_down_is_told_with_its_section(
    tmp_path: Path,
) -> None:
    config = tmp_path / "fleet.yaml"
    node = "{subscribe: {REQPing: {retries: 3, ack_timeout: 5s, max_age: 1h}}}"
    config.write_text(
        f"version: 1\nbroker: {{embedded: true}}\nlisten: 127.0.0.1:1\nnodes: {{a: {node}}}\n"
    )
    result = RUNNER.invoke(APP, ["check", str(config), "-o", "json"])
    told = {
        one["path"].rpartition(".")[2]: (one["message"], one["hint"])
        for one in json.loads(result.output)["problems"]
    }
    assert told == {
        "retries": ('unknown key "retries"; did you mean ack.retries?', "write `ack: {retries: …}`"),
        "ack_timeout": ('unknown key "ack_timeout"; did you mean ack.timeout?', "write `ack: {timeout: …}`"),
        "max_age": ('unknown key "max_age"; did you mean stream.max_age?', "write `stream: {max_age: …}`"),
        "listen": ('unknown key "listen"; did you mean admin.listen?', "write `admin: {listen: …}`"),
    }  # fmt: skip
