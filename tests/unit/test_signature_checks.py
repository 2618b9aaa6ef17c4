"""Which configs can have messages signed, and what follows for what is remembered."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.bus.node_keys import make_seed, public_key_of
from appliance.core.problems import Severity
from appliance.core.specs import DesiredState, PublisherSpec, SignaturePolicy, SubscriberSpec
from appliance.errors import ConfigInvalid
from tests.support.config_files import load_text

KEYS = {name: public_key_of(make_seed()) for name in ("hub", "ship1", "ship2")}
HEAD = """
version: 1
broker: {servers: ["nats://127.0.0.1:4222"], auth: {nkey_seed: {file: seed.nk}}}
"""


def compiled(tmp_path: Path, text: str) -> DesiredState:
    return load_text(tmp_path, HEAD + text).desired


def problems(tmp_path: Path, text: str) -> list[tuple[str, str]]:
    with pytest.raises(ConfigInvalid) as caught:
        compiled(tmp_path, text)
    return [(p.code, p.message) for p in caught.value.problems if p.severity is Severity.ERROR]


def policies(desired: DesiredState) -> dict[str, SignaturePolicy]:
    return {key.name: spec.signatures for key, spec in desired.workers.items()}


def test_what_the_receiver_says_of_signatures_holds_for_who_sends_there(tmp_path: Path) -> None:
    desired = compiled(
        tmp_path,
        f"""
nodes:
  hub:
    public_keys: [{KEYS["hub"]}]
    publish:
      ping: {{to: ship1, method: REQPing, every: 1m}}
      hello: {{to: ship1, method: REQHello, every: 1m}}
  ship1:
    public_keys: [{KEYS["ship1"]}]
    subscribe:
      REQPing: {{signatures: require}}
      REQHello: {{signatures: prefer}}
""",
    )
    found = {key.subject: spec for key, spec in desired.workers.items()}
    assert {spec.signatures for spec in desired.workers.values()} == {
        SignaturePolicy.REQUIRE,
        SignaturePolicy.PREFER,
    }
    for spec in found.values():
        is_ping = spec.method == "REQPing"
        wanted = SignaturePolicy.REQUIRE if is_ping else SignaturePolicy.PREFER
        assert spec.signatures is wanted
    kinds = {type(spec) for spec in desired.workers.values()}
    assert kinds == {PublisherSpec, SubscriberSpec}


def test_off_is_a_word_that_needs_no_quotes(tmp_path: Path) -> None:
    loaded = load_text(tmp_path, HEAD + "nodes: {hub: {subscribe: {REQPing: {signatures: off}}}}\n")
    assert loaded.warnings == ()
    assert set(policies(loaded.desired).values()) == {SignaturePolicy.OFF}


@pytest.mark.parametrize(
    ("nodes", "names"),
    [
        ("hub: {subscribe: {REQPing: {signatures: require}}}", ['"hub" has']),
        (
            (
                "hub: {public_keys: [%(hub)s], subscribe: {REQPing: {signatures: require, accept_from: [ship1, ship2]}}}\n"
                "  ship1: {public_keys: [%(ship1)s]}\n  ship2: {}"
            ),
            ['"ship2" has'],
        ),
        (
            (
                "hub: {public_keys: [%(hub)s], subscribe: {REQPing: {signatures: require}}}\n"
                "  ship1: {publish: {p: {to: hub, method: REQPing, every: 1h}}}\n  ship2: {}"
            ),
            ['"ship1" has'],
        ),
    ],
    ids=["the receiver", "somebody it accepts", "somebody who sends there"],
)
def test_require_is_refused_where_somebody_who_takes_part_has_no_key(
    tmp_path: Path, nodes: str, names: list[str]
) -> None:
    found = problems(tmp_path, f"nodes:\n  {nodes % KEYS}\n")
    assert [code for code, _ in found] == ["E249"]
    assert all(name in found[0][1] for name in names)


def test_prefer_asks_for_no_key_of_anybody(tmp_path: Path) -> None:
    text = "defaults: {signatures: prefer}\nnodes: {hub: {subscribe: {REQPing: {}}}, goboat: {}}\n"
    assert set(policies(compiled(tmp_path, text)).values()) == {SignaturePolicy.PREFER}


def test_ids_of_signed_messages_are_remembered_for_as_long_as_a_stream_keeps_them(
    tmp_path: Path,
) -> None:
    text = """
defaults: {delivery: jetstream, stream: {max_age: 240h}, signatures: %s}
nodes: {hub: {subscribe: {REQPing: {}}}}
"""
    signed = compiled(tmp_path, text % "prefer").state.dedupe_window_s
    assert signed == 241 * 3600
    assert compiled(tmp_path, text % "off").state.dedupe_window_s == 25 * 3600
    plain = text.replace(", stream: {max_age: 240h}", "") % "require"
    keyed = plain.replace("{subscribe", f"{{public_keys: [{KEYS['hub']}], subscribe")
    assert compiled(tmp_path, keyed).state.dedupe_window_s == (30 * 24 + 1) * 3600
    found = problems(tmp_path, "state: {dedupe_window: 48h}\n" + text % "prefer")
    assert [code for code, _ in found] == ["E242"]
    assert "stream.max_age" in found[0][1]
