"""From the config to specs: layers, acknowledgement, what each field becomes, which nodes run."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.config.compiler.compile import compile_settings
from appliance.core.describe import describe_settings
from appliance.core.method import MethodInfo
from appliance.core.names import Category, MethodName, NodeName, WorkerKind
from appliance.core.plan import classify, find_changes, make_plan
from appliance.core.run_options import choose_run_nodes
from appliance.core.settings import ReloadClass
from appliance.core.specs import (
    ANY_SENDER,
    AckOn,
    AckSettings,
    CatchUp,
    Delivery,
    DesiredState,
    Embedded,
    ObservedWorker,
    Phase,
    PublisherSpec,
    Schedule,
    StreamSettings,
    SubscriberSpec,
)
from appliance.errors import ConfigInvalid, RunNodesUnclear
from appliance.methods.registry import METHOD_TABLE
from tests.support.config_files import desired_of, load_text, problems_of

HEAD = "version: 1\nbroker: {embedded: true}\n"


def subscriber(desired: DesiredState, node: str, method: str) -> SubscriberSpec:
    (found,) = [
        spec
        for spec in desired.workers.values()
        if isinstance(spec, SubscriberSpec) and (spec.node, spec.method) == (node, method)
    ]
    return found


def publishers(desired: DesiredState, node: str) -> dict[str, PublisherSpec]:
    return {
        spec.subject: spec
        for spec in desired.workers.values()
        if isinstance(spec, PublisherSpec) and spec.node == node
    }


def test_layers_override_in_order_defaults_roles_node_entry(tmp_path: Path) -> None:
    desired = desired_of(
        tmp_path,
        HEAD
        + """
defaults: {concurrency: 1, method_timeout: 1s, max_output_bytes: 1, backlog: 10, dedupe: false}
roles:
  a: {method_timeout: 2s, max_output_bytes: 2, backlog: 20, subscribe: {REQPing: {concurrency: 5, rerun: true}}}
  b: {max_output_bytes: 3, backlog: 30, subscribe: {REQPing: {rerun: false}}}
nodes:
  n: {roles: [a, b], backlog: 40, concurrency: 4, subscribe: {REQPing: {}, REQPong: {backlog: 50}}}
""",
    )
    ping, pong = subscriber(desired, "n", "REQPing"), subscriber(desired, "n", "REQPong")
    assert (ping.concurrency, ping.method_timeout_s, ping.max_output_bytes) == (5, 2.0, 3)
    assert (ping.backlog, ping.dedupe, ping.rerun) == (40, False, False)
    assert (pong.concurrency, pong.backlog) == (4, 50)


def test_maps_of_layers_merge_deep_and_lists_replace(tmp_path: Path) -> None:
    desired = desired_of(
        tmp_path,
        HEAD
        + """
defaults: {ack: {timeout: 1s, retries: 1, retry_wait: 1s, expires: 1m}}
roles:
  r:
    ack: {retries: 2}
    subscribe: {REQCliCommand: {allow_commands: [[a], [b]], accept_from: [n], ack: {on: done}}}
nodes:
  n:
    roles: [r]
    ack: {retry_wait: 3s}
    subscribe: {REQCliCommand: {allow_commands: [[c, "**"]], ack: {}}, REQToFileAppend: }
    publish: {p: {to: n, method: REQCliCommand, ack: {expires: 1h}}}
""",
    )
    command = subscriber(desired, "n", "REQCliCommand")
    assert command.allow_commands == (("c", "**"),)
    assert command.accept_from == {"n"}
    assert command.ack_on is AckOn.DONE
    (publisher,) = publishers(desired, "n").values()
    assert publisher.ack == AckSettings(timeout_s=1, retries=2, retry_wait_s=3, expires_s=3600)
    assert desired.publisher_defaults[NodeName("n")].ack.expires_s == 60


def test_node_switches_an_inherited_entry_off(tmp_path: Path) -> None:
    desired = desired_of(
        tmp_path,
        HEAD
        + "roles: {r: {subscribe: {REQPing: {}, REQPong: {}}}}\n"
        + "nodes: {a: {roles: [r]}, b: {roles: [r], subscribe: {REQPing: {enabled: false}}}}\n",
    )
    assert {spec.subject for spec in desired.workers.values()} == {
        "a.REQPing.EventACK", "a.REQPong.EventACK", "b.REQPong.EventACK",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("defaults", "entry", "hello", "ping"),
    [
        ("", "", "EventNACK", "EventACK"),
        ("ack: {mode: required}", "", "EventNACK", "EventACK"),
        ("ack: {mode: none}", "", "EventNACK", "EventNACK"),
        ("ack: {mode: none}", "ack: {mode: required}", "EventACK", "EventACK"),
        ("", "ack: {mode: none}", "EventNACK", "EventNACK"),
        ("", "ack: {mode: required}", "EventACK", "EventACK"),
    ],
)
def test_defaults_do_not_move_methods_that_the_wire_does_not_acknowledge(
    tmp_path: Path, defaults: str, entry: str, hello: str, ping: str
) -> None:
    desired = desired_of(
        tmp_path,
        HEAD
        + f"defaults: {{{defaults}}}\nnodes:\n  n:\n"
        + f"    subscribe: {{REQHello: {{{entry}}}, REQPing: {{{entry}}}, REQToFileAppend: }}\n"
        + f"    publish: {{h: {{to: n, method: REQHello, {entry}}}, p: {{to: n, method: REQPing, {entry}}}}}\n",
    )
    wanted = {f"n.REQHello.{hello}", f"n.REQPing.{ping}"}
    assert wanted <= {key.subject for key in desired.workers if key.kind is WorkerKind.SUBSCRIBER}
    assert set(publishers(desired, "n")) == wanted
    assert desired.declared_acks[NodeName("n"), MethodName("REQHello")] is (hello == "EventACK")


def test_error_log_stands_under_error_central_for_both_ends(tmp_path: Path) -> None:
    desired = desired_of(
        tmp_path,
        HEAD
        + "nodes:\n  a: {subscribe: {REQErrorLog: }}\n  b: {subscribe: {REQErrorLog: }}\n"
        + "  c: {publish: {e: {to: errorCentral, method: REQErrorLog}}}\n",
    )
    assert subscriber(desired, "a", "REQErrorLog").subject == "errorCentral.REQErrorLog.EventACK"
    assert len(desired.workers) == 3
    assert desired.declared_acks == {(NodeName("errorCentral"), MethodName("REQErrorLog")): True}


def test_publish_entry_becomes_one_publisher_per_destination_with_the_node_filled_in(
    tmp_path: Path,
) -> None:
    desired = desired_of(
        tmp_path,
        HEAD
        + r"""
nodes:
  a: {subscribe: {REQToFile: , REQPong: }}
  b.c:
    subscribe: {REQToFile: , REQCliCommand: {allow_commands: [[echo, "${node}", "$${node}"]]}}
    publish:
      p:
        to: [a, local]
        method: REQToFile
        cron: "*/5 * * * *"
        data: ["${node}-$${node}\n"]
        method_args: ["${node}"]
        reply_method: REQPong
        reply_method_args: ["${node}"]
        directory: d/${node}
        file_name: ${node}.txt
        method_timeout: 7s
        window: 2
        compression: none
""",
    )
    found = publishers(desired, "b.c")
    assert set(found) == {"a.REQToFile.EventACK", "b.c.REQToFile.EventACK"}
    spec = found["a.REQToFile.EventACK"]
    assert (spec.to_node, spec.entry, spec.window, spec.compression) == ("a", "p", 2, "none")
    assert spec.schedule == Schedule(
        cron="*/5 * * * *", data=("b.c-${node}\n",), method_args=("b.c",), reply_method="REQPong",
        reply_method_args=("b.c",), method_timeout_s=7.0, directory="d/b.c", file_name="b.c.txt",
    )  # fmt: skip
    allowed = subscriber(desired, "b.c", "REQCliCommand").allow_commands
    assert allowed == (("echo", "b.c", "${node}"),)


def test_scheduled_message_without_names_carries_those_of_its_method(tmp_path: Path) -> None:
    desired = desired_of(
        tmp_path,
        HEAD
        + "nodes: {n: {subscribe: {REQHello: }, publish: {h: {to: n, method: REQHello, every: 1.5}}}}",
    )
    (publisher,) = publishers(desired, "n").values()
    assert publisher.schedule == Schedule(
        every_s=1.5, directory="hello-messages", file_name="hello.log"
    )


def test_senders_are_any_declared_node_unless_listed(tmp_path: Path) -> None:
    desired = desired_of(
        tmp_path,
        HEAD
        + "nodes:\n  n:\n    subscribe:\n      REQPing:\n      REQPong: {accept_from: any}\n"
        + "      REQHello: {accept_from: [local, m]}\n      REQToFile: {accept_from: []}\n  m:\n",
    )
    accepted = {
        method: subscriber(desired, "n", method).accept_from
        for method in ("REQPing", "REQPong", "REQHello", "REQToFile")
    }
    assert accepted == {
        "REQPing": None, "REQPong": ANY_SENDER, "REQHello": {"n", "m"}, "REQToFile": frozenset(),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("written", "allowed"),
    [("{}", ()), ("{allow_commands: any}", None), ("{allow_commands: []}", ()), ("", ()),
     ("{allow_commands: [[ls, '*']]}", (("ls", "*"),))],
)  # fmt: skip
def test_no_command_is_allowed_unless_written_out(
    tmp_path: Path, written: str, allowed: object
) -> None:
    desired = desired_of(
        tmp_path, HEAD + f"nodes: {{n: {{subscribe: {{REQCliCommand: {written}}}}}}}"
    )
    assert subscriber(desired, "n", "REQCliCommand").allow_commands == allowed


def test_sections_become_settings(tmp_path: Path) -> None:
    desired = desired_of(
        tmp_path,
        """
version: 1
nodes: {n: }
broker:
  servers: ["nats://a:4222", "tls://[::1]:4222"]
  tls:
    ca: {file: /ca.pem}
  auth: {user: u, password: {env: P}}
  ping_interval: 1
admin: {listen: "0.0.0.0:80", token: {credential: t}}
state: {max_bytes: 2000000, dedupe_window: 48h}
reload: {max_cancel: 12.5%, watch: false, settle: 50ms}
limits: {max_depth: 8}
log: {level: debug, format: json}
""",
    )
    broker = desired.broker
    assert broker.servers == ("nats://a:4222", "tls://[::1]:4222")
    assert (bool(broker.embedded), broker.ping_interval_s) == (False, 1.0)
    assert broker.tls is not None
    assert broker.tls.ca is not None
    assert broker.auth is not None
    assert broker.auth.password is not None
    assert (broker.tls.ca.name, broker.auth.user, broker.auth.password.name) == (
        "/ca.pem",
        "u",
        "P",
    )
    assert (desired.admin.listen, desired.state.dedupe_window_s) == ("0.0.0.0:80", 172_800.0)
    assert (desired.reload.max_cancel_fraction, desired.reload.settle_s) == (0.125, 0.05)
    assert (desired.limits.max_depth, desired.log.level, desired.log.format) == (8, "debug", "json")


@pytest.mark.parametrize(
    ("written", "fraction"), [("50%", 0.5), ("0%", 0), ("100", 1), ("25", 0.25)]
)
def test_max_cancel_is_a_percentage(tmp_path: Path, written: str, fraction: float) -> None:
    desired = desired_of(tmp_path, HEAD + f"nodes: {{n: }}\nreload: {{max_cancel: {written}}}\n")
    assert desired.reload.max_cancel_fraction == fraction


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:80", '"[::1]:80"', "127.9.9.9:80"])
def test_loopback_needs_no_token(tmp_path: Path, listen: str) -> None:
    assert desired_of(
        tmp_path, HEAD + f"nodes: {{n: }}\nadmin: {{listen: {listen}}}\n"
    ).admin.listen


@pytest.mark.parametrize(
    ("listen", "code"),
    [("127.evil.example:80", "E219"), ('"[::]:80"', "E219"), (":80", "E218"), ("a b:80", "E218"),
     ('"host:"', "E218"), ('"::1:80"', "E218"), ("host:٨", "E218")],
)  # fmt: skip
def test_listeners_that_are_none_or_open_are_refused(
    tmp_path: Path, listen: str, code: str
) -> None:
    problems = problems_of(tmp_path, HEAD + f"nodes: {{n: }}\nadmin:\n  listen: {listen}\n")
    assert [problem.code for problem in problems] == [code]


def test_only_the_chosen_nodes_are_built_and_the_whole_fleet_is_known(tmp_path: Path) -> None:
    text = HEAD + "nodes: {a: {subscribe: {REQPing: }}, b: {subscribe: {REQPong: }}}\n"
    desired = load_text(tmp_path, text, run_nodes=["b"]).desired
    assert desired.run_nodes == ("b",)
    assert desired.declared_nodes == {"a", "b"}
    assert [spec.subject for spec in desired.workers.values()] == ["b.REQPong.EventACK"]
    assert set(desired.publisher_defaults) == {"b"}
    assert (NodeName("a"), MethodName("REQPing")) in desired.declared_acks


def test_a_bad_config_is_refused_for_its_own_problems_before_any_choice_of_nodes(
    tmp_path: Path,
) -> None:
    def choose(_declared: object) -> list[str]:
        raise AssertionError("asked")

    with pytest.raises(ConfigInvalid):
        load_text(tmp_path, HEAD + "nodes: {a: {subscribe: {REQPin: }}}\n", run_nodes=choose)
    with pytest.raises(AssertionError, match="asked"):
        load_text(tmp_path, HEAD + "nodes: {a: }\n", run_nodes=choose)


def test_nodes_to_run_are_those_asked_for_else_the_one_of_the_host() -> None:
    declared = ("ship1", "ship2", "north.buoy")
    choose = choose_run_nodes
    assert choose(declared, None, all_nodes=True, hostname="x") == declared
    assert choose(declared, ["ship2", "ship1"], all_nodes=False, hostname="x") == ("ship1", "ship2")
    assert choose(declared, None, all_nodes=False, hostname="ship2") == ("ship2",)
    assert choose(declared, None, all_nodes=False, hostname="ship2.example.com") == ("ship2",)
    assert choose(declared, None, all_nodes=False, hostname="north.buoy") == ("north.buoy",)
    with pytest.raises(RunNodesUnclear, match=r"ship1, ship2, north\.buoy") as caught:
        choose(declared, None, all_nodes=False, hostname="elsewhere")
    assert caught.value.nodes == declared
    with pytest.raises(RunNodesUnclear, match="did you mean ship1"):
        choose(declared, ["shipp1"], all_nodes=False, hostname="x")


def test_a_mistake_in_a_role_is_told_once_and_where_the_role_stands(tmp_path: Path) -> None:
    text = HEAD + "roles:\n  r: {publish: {p: {method: REQPing}}, subscribe: {REQPin: }}\nnodes:\n"
    text += "".join(f"  n{i}: {{roles: [r]}}\n" for i in range(50))
    problems = problems_of(tmp_path, text)
    assert [(problem.code, problem.line) for problem in problems] == [("E212", 4), ("E204", 4)]


def test_a_subject_beyond_255_bytes_is_refused() -> None:
    name = MethodName("REQ" + "x" * 90)
    methods = {**METHOD_TABLE, name: MethodInfo(name=name, summary="", category=Category.COMMAND)}
    tree = {"broker": {"embedded": True}, "nodes": {"n" * 190: {"subscribe": {name: None}}}}
    compiled = compile_settings(tree, methods, None)
    assert compiled.desired is None
    assert [finding.code for finding in compiled.findings] == ["E213"]


def test_equal_configs_give_equal_states(tmp_path: Path) -> None:
    first = desired_of(
        tmp_path, HEAD + "nodes: {a: {subscribe: {REQPing: {window: 3, dedupe: true}}}, b: }\n"
    )
    second = desired_of(
        tmp_path,
        HEAD + "nodes:\n  b:\n  a:\n    subscribe:\n      REQPing: {dedupe: true, window: 3}\n",
    )
    assert first.workers == second.workers
    assert (first.broker, first.declared_acks) == (second.broker, second.declared_acks)


USER = """
methods:
  Mine:
    kind: event
    exec: [echo, "${node}", "$${node}", "{args.0}"]
    args: {type: array}
    environment: {A: "${node}"}
    timeout: 7s
  Yours: {file: {name: "${node}"}}
"""


def test_methods_of_the_config_are_known_everywhere(tmp_path: Path) -> None:
    desired = desired_of(
        tmp_path,
        HEAD
        + USER
        + """
defaults: {method_timeout: 1s}
roles: {r: {subscribe: {Mine: }}}
nodes:
  a: {roles: [r], subscribe: {REQToFileAppend: }, publish: {p: {to: b.c, method: Mine, reply_method: Yours}}}
  b.c: {roles: [r], subscribe: {Mine: {accept_from: [a]}, Yours: {method_timeout: 3s}}}
""",
    )
    mine, yours = subscriber(desired, "b.c", "Mine"), subscriber(desired, "b.c", "Yours")
    assert (mine.subject, yours.subject) == ("b.c.Mine.EventACK", "b.c.Yours.CommandACK")
    assert mine.accept_from == {"a"}
    assert (mine.method_timeout_s, yours.method_timeout_s) == (7.0, 3.0)
    assert set(publishers(desired, "a")) == {"b.c.Mine.EventACK"}
    assert set(desired.methods) == {"Mine", "Yours"}
    definition = mine.definition
    assert definition is not None
    assert definition.exec is not None
    assert definition.exec.argv == ("echo", "b.c", "${{node}}", "{args.0}")
    assert definition.exec.environment == (("A", "b.c"),)
    assert (definition.summary, definition.timeout_s) == ("", None)
    assert hash(mine) == hash(mine)


def test_timeout_of_an_entry_stands_above_that_of_the_method(tmp_path: Path) -> None:
    text = HEAD + USER + "nodes: {n: {subscribe: {Mine: {method_timeout: 2s}}}}\n"
    assert subscriber(desired_of(tmp_path, text), "n", "Mine").method_timeout_s == 2.0


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ("timeout: 7s", "timeout: 8s", ReloadClass.LIVE),
        ("timeout: 7s", "timeout: 7s\n    summary: New", None),
        ("kind: event\n", "kind: event\n    on_crash: rerun\n", ReloadClass.SWAP),
        ("[echo,", "[printf,", ReloadClass.SWAP),
        ("args: {type: array}", "args: {type: array, maxItems: 2}", ReloadClass.SWAP),
    ],
)
def test_change_of_a_definition_touches_only_what_it_must(
    tmp_path: Path, old: str, new: str, kind: ReloadClass | None
) -> None:
    text = HEAD + USER + "nodes: {n: {subscribe: {Mine: }}}\n"
    assert old in text
    before, after = desired_of(tmp_path, text), desired_of(tmp_path, text.replace(old, new))
    assert before.methods != after.methods
    changes = find_changes(subscriber(before, "n", "Mine"), subscriber(after, "n", "Mine"))
    assert bool(changes) == (kind is not None)
    if kind is not None:
        assert classify(subscriber(after, "n", "Mine"), changes) is kind
    assert describe_settings(before, after)


def test_name_close_to_a_method_of_the_config_is_suggested(tmp_path: Path) -> None:
    text = HEAD + USER + "nodes: {n: {subscribe: {Min: }}}\n"
    (problem,) = problems_of(tmp_path, text)
    assert (problem.code, 'did you mean "Mine"?' in problem.message) == ("E204", True)


def test_method_of_the_wrong_shape_is_no_unknown_method_too(tmp_path: Path) -> None:
    text = HEAD + "methods: {Mine: 5}\nnodes: {n: {subscribe: {Mine: }}}\n"
    assert [problem.code for problem in problems_of(tmp_path, text)] == ["E102"]


def test_relative_file_of_a_header_counts_from_its_config(tmp_path: Path) -> None:
    text = HEAD + (
        "nodes: {n: }\nmethods:\n  Mine: {http: {url: 'http://h/', headers: {Authorization: {file: t}}}}\n"
    )
    http = desired_of(tmp_path, text).methods[MethodName("Mine")].http
    assert http is not None
    assert http.secret_headers == (("Authorization", "file", str(tmp_path / "t")),)


WINDOWS = """
version: 1
broker: {embedded: true}
%s
roles:
  idle: {ack: {expires: 8000h}}
  far: {ack: {expires: %s}}
nodes:
  hub: {subscribe: {REQToFile: {}, REQErrorLog: {}}}
  ship: {roles: [far], publish: {log: {to: hub, method: REQToFile, ack: {expires: %s}}}}
"""


@pytest.mark.parametrize(
    ("of_node", "of_entry", "window_s"),
    [
        ("1h", "2h", 25 * 3600.0),  # the hub's own publishers keep the default of a day
        ("48h", "2h", 49 * 3600.0),
        ("1h", "336h", 337 * 3600.0),
    ],
)
def test_ids_are_remembered_longer_than_any_publisher_of_the_fleet_resends(
    tmp_path: Path, of_node: str, of_entry: str, window_s: float
) -> None:
    text = WINDOWS % ("", of_node, of_entry)
    assert load_text(tmp_path, text, run_nodes=["hub"]).desired.state.dedupe_window_s == window_s


@pytest.mark.parametrize("written", ["24h", "86400", "8783h"])
def test_a_window_that_covers_every_resend_is_taken_as_it_is(tmp_path: Path, written: str) -> None:
    text = WINDOWS % (f"state: {{dedupe_window: {written}}}", "1h", "2h")
    expected = {"24h": 86_400.0, "86400": 86_400.0, "8783h": 8783 * 3600.0}
    assert load_text(tmp_path, text).desired.state.dedupe_window_s == expected[written]


@pytest.mark.parametrize(
    ("window", "of_node", "of_entry", "said"),
    [
        ("23h", "1h", "2h", "`ack.expires`, which nothing sets, lets messages come again for 24h"),
        ("47h", "48h", "2h", ":7:15 lets messages come again for 48h"),
        ("47h", "1h", "50h", ":10:74 lets messages come again for 50h"),
    ],
)
def test_a_window_shorter_than_a_resend_is_refused_with_both_places(
    tmp_path: Path, window: str, of_node: str, of_entry: str, said: str
) -> None:
    text = WINDOWS % (f"state: {{dedupe_window: {window}}}", of_node, of_entry)
    with pytest.raises(ConfigInvalid) as caught:
        load_text(tmp_path, text)
    (problem,) = (item for item in caught.value.problems if item.code == "E242")
    assert (problem.line, problem.column) == (4, 24)
    assert said in problem.message


def test_a_name_that_is_no_zone_is_refused_with_what_was_meant(tmp_path: Path) -> None:
    text = """
version: 1
broker: {embedded: true}
nodes:
  n: {subscribe: {REQToFile: {}}, publish: {p: {to: n, method: REQToFile, cron: "0 6 * * *", timezone: %s}}}
"""
    for wrong, meant in (("Europe/Berln", "Europe/Berlin"), ("utc", "UTC"), ("Xyzzy", None)):
        with pytest.raises(ConfigInvalid) as caught:
            load_text(tmp_path, text % wrong)
        (problem,) = caught.value.problems
        assert problem.code == "E243"
        assert (f'did you mean "{meant}"?' in problem.message) is (meant is not None)
    desired = load_text(tmp_path, text % "America/New_York, catch_up: once").desired
    (schedule,) = (
        spec.schedule for spec in desired.workers.values() if isinstance(spec, PublisherSpec)
    )
    assert schedule is not None
    assert (schedule.timezone, schedule.catch_up) == ("America/New_York", CatchUp.ONCE)


KEPT = """version: 1
broker: {embedded: {jetstream: true}}
defaults: {stream: {max_age: 48h}}
"""


def test_how_a_subscription_is_carried_holds_for_its_senders_and_for_those_on_demand(
    tmp_path: Path,
) -> None:
    text = KEPT + (
        "nodes:\n"
        "  central: {publish: {files: {to: n, method: REQToFile, data: [x], every: 5s}}}\n"
        "  n: {delivery: jetstream, stream: {name: kept}, subscribe: {REQToFile: {}, REQHello: {}}}\n"
    )
    desired = desired_of(tmp_path, text)
    receiver = subscriber(desired, "n", "REQToFile")
    (sender,) = (spec for spec in desired.workers.values() if isinstance(spec, PublisherSpec))
    assert receiver.delivery is sender.delivery is Delivery.JETSTREAM
    assert receiver.stream == sender.stream == StreamSettings(name="kept", max_age_s=48 * 3600)
    assert desired.declared_ways.keys() == {(NodeName("n"), MethodName("REQToFile"))}
    assert desired.broker.embedded == Embedded(jetstream=True)


def test_what_nothing_acknowledges_goes_by_core_whatever_the_layers_say(tmp_path: Path) -> None:
    text = KEPT + "nodes: {n: {delivery: jetstream, subscribe: {REQHello: {}}}}\n"
    desired = desired_of(tmp_path, text)
    assert subscriber(desired, "n", "REQHello").delivery is Delivery.CORE


@pytest.mark.parametrize(
    ("old", "new", "kind", "is_carried_as_before"),
    [
        ("max_age: 48h", "max_age: 24h", ReloadClass.LIVE, True),
        ("max_age: 48h", "replicas: 3", ReloadClass.LIVE, True),
        ("max_age: 48h", "name: other", ReloadClass.SWAP, False),
        ("delivery: jetstream", "delivery: core", ReloadClass.SWAP, False),
    ],
)
def test_limits_of_a_stream_are_live_and_another_stream_or_way_needs_another_worker(
    tmp_path: Path, old: str, new: str, kind: ReloadClass, is_carried_as_before: bool
) -> None:
    text = KEPT + "nodes: {n: {delivery: jetstream, subscribe: {REQToFile: {}}}}\n"
    before = subscriber(desired_of(tmp_path, text), "n", "REQToFile")
    after = subscriber(desired_of(tmp_path, text.replace(old, new)), "n", "REQToFile")
    assert classify(after, find_changes(before, after)) is kind
    observed = {before.key: ObservedWorker(spec=before, phase=Phase.RUNNING)}
    (action,) = make_plan({after.key: after}, observed, 0.0).actions
    assert action.needs_new_worker is not is_carried_as_before
