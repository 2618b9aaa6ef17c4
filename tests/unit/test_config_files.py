"""Which files count, how they are merged, and where things are said to stand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.config.files import MAX_TOTAL_BYTES, fingerprint, read_files
from appliance.config.merge import read_config
from appliance.errors import ConfigInvalid, ConfigUnreadable
from tests.support.config_files import load, problems_of

GOOD = "version: 1\nbroker: {embedded: true}\nnodes: {ship1: {subscribe: {REQPing: {}}}}\n"


def write(root: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = root / name.replace("__", "/").replace("_yaml", ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(root: Path) -> list[str]:
    return [os.path.relpath(name, root) for name in read_files([root]).contents]


def test_files_below_a_directory_count_in_lexical_order(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "nodes/z.yaml", "nodes/deep/a.yaml", "c.json", "d.txt", "yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert names(tmp_path) == ["a.yml", "b.yaml", "nodes/deep/a.yaml", "nodes/z.yaml"]


def test_leftovers_of_editors_and_hidden_directories_do_not_count(tmp_path: Path) -> None:
    leftovers = (".a.yaml", ".a.yaml.swp", "a.yaml~", "#a.yaml#", ".#a.yaml", "a.yaml.bak", "4913",
                 "a.yaml.orig", "#a.yaml", ".git/b.yaml", "..2024/c.yaml")  # fmt: skip
    for name in leftovers:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("}{")
    (tmp_path / "a.yaml").write_text("")
    assert names(tmp_path) == ["a.yaml"]


def test_a_mounted_config_map_is_read_through_its_links_and_its_swap_seen(tmp_path: Path) -> None:
    for generation, level in (("..1", "info"), ("..2", "debug")):
        (tmp_path / generation / "nodes").mkdir(parents=True)
        (tmp_path / generation / "a.yaml").write_text(f"log: {{level: {level}}}")
        (tmp_path / generation / "nodes" / "n.yaml").write_text("version: 1")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    (tmp_path / "nodes").symlink_to("..data/nodes")
    assert names(tmp_path) == ["a.yaml", "nodes/n.yaml"]
    before = fingerprint([tmp_path])
    (tmp_path / "..tmp").symlink_to("..2")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    assert fingerprint([tmp_path]) != before
    assert read_config([tmp_path], {}).tree["log"] == {"level": "debug"}


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "sub" / "a.yaml").write_text("version: 1")
    assert names(tmp_path) == ["sub/a.yaml"]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    assert load(tmp_path, tmp_path / "a.yaml").desired.run_nodes == ("ship1",)


def test_digest_follows_content_and_names_and_not_the_place(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, a_yaml="version: 1", b_yaml="log: {}")
    assert fingerprint([tmp_path / "one"]) == fingerprint([tmp_path / "two"])
    assert fingerprint([tmp_path / "one"]).startswith("sha256:")
    assert read_config([tmp_path / "one"], {}).digest == fingerprint([tmp_path / "one"])
    write(tmp_path / "two", b_yaml="log: { }")
    assert fingerprint([tmp_path / "one"]) != fingerprint([tmp_path / "two"])


@pytest.mark.parametrize("name", ["missing", "missing.yaml", "nul\0"])
def test_a_path_that_is_not_there_is_unreadable(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigUnreadable):
        read_files([tmp_path / name])


@pytest.mark.timeout(60)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    assert [problem.code for problem in read_files([tmp_path]).problems] == ["E001"]
    with pytest.raises(ConfigUnreadable, match="regular file"):
        read_files([tmp_path / "a.yaml"])


def test_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_bytes(b"#" * MAX_TOTAL_BYTES)
    with pytest.raises(ConfigInvalid) as caught:
        load(tmp_path)
    assert [(p.code, Path(p.file).name) for p in caught.value.problems] == [("E003", "b.yaml")]


@pytest.mark.timeout(60)
def test_a_few_lines_that_make_too_many_workers_are_refused_before_they_are_made(
    tmp_path: Path,
) -> None:
    names = [f"n{i}" for i in range(3_000)]
    (tmp_path / "a.yaml").write_text(
        "version: 1\nbroker: {servers: [nats://127.0.0.1:1]}\nroles: {all: {subscribe: {REQPing: {}},"
        f" publish: {{p: {{to: [{', '.join(names)}], method: REQPing}}}}}}}}\n"
        "nodes:\n" + "".join(f"  {name}: {{roles: [all]}}\n" for name in names)
    )
    with pytest.raises(ConfigInvalid) as caught:
        load(tmp_path)
    assert [(problem.code, problem.line) for problem in caught.value.problems] == [("E003", 4)]


def test_maps_merge_by_key_over_files_and_paths(tmp_path: Path) -> None:
    write(
        tmp_path,
        a_yaml="version: 1\nbroker: {embedded: true}\nnodes:\n  ship1:\n    subscribe: {REQPing: {}}\n",
        nodes__b_yaml="version: 1\nnodes:\n  ship1:\n    subscribe: {REQPong: {window: 4}}\n  ship2:\n",
    )
    (tmp_path / "other.yml").write_text(
        "nodes: {ship1: {subscribe: {REQPong: {concurrency: 2}}}}\nroles:\n"
    )
    tree = read_config([tmp_path], {}).tree
    assert tree["nodes"] == {
        "ship1": {"subscribe": {"REQPing": {}, "REQPong": {"window": 4, "concurrency": 2}}},
        "ship2": None,
    }


def test_order_of_files_does_not_matter(tmp_path: Path) -> None:
    texts = ["version: 1\nbroker: {embedded: true}\n", "nodes: {b: {}, a: {}}\n", "nodes: {c: {}}\nlog:\n",
             "log: {level: debug}\n"]  # fmt: skip
    for directory, order in (("x", texts), ("y", texts[::-1])):
        write(tmp_path / directory, **{f"f{i}_yaml": text for i, text in enumerate(order)})
    first, second = (load(tmp_path / name).desired for name in ("x", "y"))
    assert first.declared_nodes == second.declared_nodes
    assert first.log == second.log


def test_same_leaf_in_two_files_names_both_places(tmp_path: Path) -> None:
    write(tmp_path, a_yaml=GOOD + "defaults:\n  ack: {retries: 3}\n")
    write(tmp_path, b_yaml="defaults:\n  ack:\n    timeout: 5s\n    retries: 3\n")
    with pytest.raises(ConfigInvalid) as caught:
        load(tmp_path)
    (problem,) = caught.value.problems
    assert (problem.code, problem.line, problem.column) == ("E011", 4, 5)
    assert f"{tmp_path / 'a.yaml'}:5:9" in problem.message


def test_paths_in_a_config_count_from_the_file_they_stand_in(tmp_path: Path) -> None:
    write(
        tmp_path,
        a_yaml="version: 1\nnodes: {n: {}}\nstate: {dir: ../state}\n",
        tls__b_yaml="broker: {servers: ['tls://a:4222'], tls: {ca: {file: ca.pem}}, auth: {token: {env: T}}}\n",
    )
    desired = load(tmp_path).desired
    assert desired.state.dir == str(tmp_path.parent / "state")
    assert desired.broker.tls is not None
    assert desired.broker.tls.ca is not None
    assert desired.broker.tls.ca.name == str(tmp_path / "tls" / "ca.pem")
    assert desired.broker.auth is not None
    assert desired.broker.auth.token is not None
    assert (desired.broker.auth.token.kind, desired.broker.auth.token.name) == ("env", "T")


def test_every_problem_of_all_files_and_all_stages_is_told_in_one_go(tmp_path: Path) -> None:
    write(tmp_path, a_yaml=GOOD.replace("ship1:", "ship1: &x") + "log: {level: loud}\n")
    write(tmp_path, b_yaml="defaults: {retrys: 1, window: 0}\nadmin: {listen: here}\n")
    write(tmp_path, c_yaml="roles: {r: {subscribe: {REQPin: {}}}}\nnodes: {ship2: {roles: [q]}}\n")
    with pytest.raises(ConfigInvalid) as caught:
        load(tmp_path)
    found = [(Path(p.file).name, p.code) for p in caught.value.problems]
    assert found == [
        ("a.yaml", "E007"), ("a.yaml", "E104"), ("b.yaml", "E101"), ("b.yaml", "E105"), ("b.yaml", "E218"),
        ("c.yaml", "E204"), ("c.yaml", "E203"),
    ]  # fmt: skip


def test_a_role_that_was_taken_away_is_one_mistake(tmp_path: Path) -> None:
    nodes = "".join(f"  s{n}: {{roles: [ship], subscribe: {{REQPing: {{}}}}}}\n" for n in range(44))
    write(tmp_path, a_yaml=f"version: 1\nbroker: {{embedded: true}}\nnodes:\n{nodes}")
    with pytest.raises(ConfigInvalid) as caught:
        load(tmp_path)
    (problem,) = caught.value.problems
    assert (problem.code, problem.line) == ("E203", 4)
    assert problem.message == 'role "ship" is not declared, here and in 43 more places'


NAMED = {
    "node": (
        "E202",
        "inputs: {socket: {}, from: gone}\n",
        "publish: {p: {to: gone, method: REQPing}}, subscribe: {REQPing: {accept_from: [gone, s1]}}",
        'node "gone" is not declared, here and in 24 more places',
    ),
    "method": (
        "E204",
        "methods: {Kept: {exec: [uptime]}}\n",
        "publish: {p: {to: s0, method: Gone}}, subscribe: {Gone: {}}",
        '"Gone" is no method, here and in 23 more places',
    ),
}


@pytest.mark.parametrize("what", sorted(NAMED))
def test_a_node_or_a_method_that_was_taken_away_is_one_mistake(tmp_path: Path, what: str) -> None:
    code, more, entries, told = NAMED[what]
    nodes = "".join(f"  s{n}: {{{entries}}}\n" for n in range(12))
    write(tmp_path, a_yaml=f"version: 1\nbroker: {{embedded: true}}\n{more}nodes:\n{nodes}")
    with pytest.raises(ConfigInvalid) as caught:
        load(tmp_path)
    (problem,) = caught.value.problems
    assert problem.code == code
    assert problem.message.startswith(told)


def test_a_broken_file_does_not_make_the_others_look_broken(tmp_path: Path) -> None:
    write(tmp_path, a_yaml="version: 1\nnodes: {a: {publish: {p: {to: b, method: REQPing}}}}\n")
    write(
        tmp_path,
        b_yaml="version: 1\nbroker: {embedded: true}\nnodes: {b: {subscribe: {REQPing: {}\n",
    )
    with pytest.raises(ConfigInvalid) as caught:
        load(tmp_path)
    assert [(Path(p.file).name, p.code) for p in caught.value.problems] == [("b.yaml", "E005")]


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nbroker: {servers: ['nats://u:hunter2@a:1']}\nnodes: {n: {}}\n",
        "version: 1\nbroker: {servers: ['nats://a:1'], auth: {token: hunter2}}\nnodes: {n: {}}\n",
        "version: 1\nbroker:\n  servers: ['nats://a:1']\n  auth:\n    password: hunter2\nnodes: {n: {}}\n",
        "version: 1\nbroker:\n  auth:\n    password: {file: [hunter2]}\nnodes: {n: {}}\n",
        "version: 1\nbroker:\n  auth:\n    pasword: hunter2\n    user: 7\nnodes: {n: {}}\n",
        "version: 1\nadmin:\n  token: hunter2\nnodes: {n: {}}\n",
        "version: 1\nadmin: {token: {env: hunter2!}, listen: here}\nnodes: {n: {}}\n",
        "version: 1\npassword: 'hunter2\n",
        "version: 1\npassword: hunter2: x\n",
        "version: 1\nlog: {level: '${SECRET}'}\nnodes: {n: {}}\n",
        "version: 1\nnodes: {n: {}}\ndefaults:\n  ack: {timeout: 'x${SECRET}'}\n  concurrency: ${SECRET}\n",
        "version: 1\nadmin:\n  token: hunter2\n  token: hunter2\n",
        "version: 1\nadmin:\n  token: *hunter2\n",
        "version: 1\nadmin:\n  token: !hunter2 x\n",
    ],
)  # fmt: skip
def test_secrets_are_never_shown(tmp_path: Path, text: str) -> None:
    problems = problems_of(tmp_path, text, environ={"SECRET": "hunter2"})
    assert problems
    for problem in problems:
        assert "hunter2" not in f"{problem}"


def test_characters_that_cannot_be_seen_are_named_and_shown_as_escapes(tmp_path: Path) -> None:
    text = "version: 1\nbroker: {embedded: true}\nnodes: {n: {subscribe: {\u200bREQPing: {}}}}\n"
    (problem,) = problems_of(tmp_path, text)
    assert "U+200B, zero width space" in problem.message
    quoted = text.replace("\u200bREQPing", '"REQPing\u00a0"')
    (problem,) = problems_of(tmp_path, quoted)
    assert (problem.code, "REQPing\\u00a0" in problem.message) == ("E107", True)


def test_what_was_a_tools_reading_of_our_key_is_advised_to_be_ours(tmp_path: Path) -> None:
    text = GOOD.replace("REQPing: {}", "REQPing: {ack: {true: done}}")
    assert [problem.hint for problem in problems_of(tmp_path, text)] == [
        "is it `on`? a tool for YAML 1.1 turns that key into true"
    ]


def test_a_number_from_the_environment_is_led_out_of_its_quotes(tmp_path: Path) -> None:
    text = GOOD + 'defaults: {window: "${WINDOW:-5}"}\n'
    (problem,) = problems_of(tmp_path, text)
    assert problem.hint.startswith("in quotes it is text: write window: ${WINDOW:-5} on a line")
    assert load_text(tmp_path, GOOD + "defaults:\n  window: ${WINDOW:-5}\n")


def load_text(tmp_path: Path, text: str) -> object:
    path = tmp_path / "good.yaml"
    path.write_text(text)
    return load(path).desired


def test_a_directory_that_may_not_be_entered_is_named_and_a_circle_of_links_is_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, a_yaml=GOOD, site__data__b_yaml="")
    (tmp_path / "site" / "latest").symlink_to("latest")
    assert names(tmp_path) == ["a.yaml", "site/data/b.yaml"]
    real = os.scandir

    def scandir(path: str | int) -> object:
        if str(path).endswith("data"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ConfigInvalid) as caught:
        load(tmp_path)
    assert [(one.code, os.path.relpath(one.file, tmp_path)) for one in caught.value.problems] == [
        ("E001", "site/data")
    ]


@pytest.mark.parametrize(
    "line",
    [
        "admin: {token: hunter2-plain, listen: '127.0.0.1:1'}",
        "admin:\n  token: >\n    hunter2-plain\n    hunter2-plain",
        "broker2: {pasword: hunter2-plain}",
        "# the password: hunter2-plain",
        "broker: {auth: {user: u, passwd: [hunter2-plain]}}",
        "methods: {N: {kind: comand, http: {url: 'http://h/', headers: {Authorization: 'B hunter2-plain'}}}}",
        "x: 'nats://u:hunter2-plain@h:1'",
        "x: {y: hunter2-plain, api_key: hunter2-plain}",
        "token: hunter2-plain: x",
    ],
)  # fmt: skip
def test_texts_that_leave_are_without_the_secrets_somebody_wrote_into_them(
    tmp_path: Path, line: str
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"{GOOD}{line}\n")
    raw = read_config([path], {})
    for shown in (raw.shown_files(), raw.shown_files(keep_columns=True)):
        (text,) = shown.values()
        assert "hunter2" not in text
        assert text.count("\n") == path.read_text().count("\n")
        assert "nodes: {ship1:" in text


@pytest.mark.parametrize("name", ["B.YAML", "b.Yml", "b.yaml ", "b.yaml.txt", "sub/B.YML"])
def test_a_file_that_is_nearly_named_as_a_config_is_told_and_not_read(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.yaml").write_text("version: 1\n")
    before = read_files([tmp_path]).digest
    (tmp_path / name).write_text("nodes: {}\n")
    found = read_files([tmp_path])
    assert found.overlooked == [str(tmp_path / name)]
    assert found.digest == before
    # one that is named is meant
    assert read_files([tmp_path / name]).overlooked == []


@pytest.mark.parametrize(
    "name", ["b.yaml~", "b.yaml.bak", ".B.YAML", "b.json", "b.yaml.orig", "#b.YAML"]
)
def test_what_editors_leave_and_other_files_are_passed_over_without_a_word(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "a.yaml").write_text("version: 1\n")
    (tmp_path / name).write_text("nodes: {}\n")
    found = read_files([tmp_path])
    assert (found.overlooked, len(found.contents)) == ([], 1)
