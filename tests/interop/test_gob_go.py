"""Gob against Go itself: what it writes we read, what we write it reads, and both write alike."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from appliance.core.message import Message, bytes_to_text, text_to_bytes
from appliance.errors import DecodeError
from appliance.wire.gob import decode_gob, encode_gob
from appliance.wire.gob.numbers import read_int, read_uint
from appliance.wire.gob.types import read_types
from tests.support.wire_cases import GO_NAMES, any_message, as_gob_can, load_vectors

SOURCE = Path(__file__).parent / "gobpeer"
GO = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")

pytestmark = [
    pytest.mark.skipif(GO is None, reason="no Go toolchain: gob is not compared with Go's own"),
    pytest.mark.xdist_group("go"),
]


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built with Go's own build cache: without it, it takes half a minute."""
    binary = tmp_path_factory.mktemp("gobpeer") / "gobpeer"
    environment = os.environ | {"GOPROXY": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    environment.setdefault("HOME", str(binary.parent))
    subprocess.run(
        [str(GO), "build", "-o", str(binary), "."], cwd=SOURCE, env=environment, check=True
    )
    return binary


def ask(peer: Path, orders: list[str]) -> list[str]:
    done = subprocess.run(
        [str(peer)],
        input="".join(f"{order}\n" for order in orders),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    answers = done.stdout.splitlines()
    assert len(answers) == len(orders)
    return answers


def to_json(value: Any) -> Any:
    if isinstance(value, Message):
        return {name: to_json(item) for name, item in zip(GO_NAMES, value, strict=True)}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    if isinstance(value, str):
        return base64.b64encode(text_to_bytes(value)).decode()
    return value


def from_json(fields: dict[str, Any]) -> Message:
    values: list[Any] = []
    for name in GO_NAMES:
        value = fields[name]
        if isinstance(value, dict):
            value = from_json(value)
        elif isinstance(value, list):
            value = tuple(bytes_to_text(base64.b64decode(item)) for item in value)
        elif isinstance(value, str):
            value = bytes_to_text(base64.b64decode(value))
        values.append(value)
    return Message._make(values)


def make_messages() -> list[Message]:
    """Any messages, all of one run of the peer."""
    made: list[Message] = [vector.message for vector in load_vectors()]

    @settings(
        max_examples=300,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(any_message)
    def collect(message: Message) -> None:
        made.append(message)

    collect()
    return made


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    return make_messages()


def test_go_reads_what_we_write(peer: Path, messages: list[Message]):
    answers = ask(peer, [f"decode {encode_gob(message).hex()}" for message in messages])
    for message, answer in zip(messages, answers, strict=True):
        assert not answer.startswith("error"), answer
        assert from_json(json.loads(answer)) == as_gob_can(message)


def split_stream(raw: bytes) -> tuple[list[Any], bytes]:
    """The definitions, with types numbered in their order, and the content of the value.

    Which ids a Go program gives its types depends on its version and on what it encoded before.
    """
    start = pos = 0
    while True:
        start = pos
        size, pos = read_uint(raw, pos)
        type_id, content = read_int(raw, pos)
        pos += size
        if type_id > 0:
            assert pos == len(raw)
            break
    types = read_types(raw[:start])
    numbers = {type_id: -number for number, type_id in enumerate(types)}
    assert next(iter(types)) == type_id

    def renumber(item: Any) -> Any:
        if isinstance(item, tuple):
            return [type(item).__name__, *map(renumber, item)]
        return numbers.get(item, item)

    return [renumber(definition) for definition in types.values()], raw[content:]


def test_go_writes_what_we_write_and_we_read_it(peer: Path, messages: list[Message]):
    answers = ask(peer, [f"encode {json.dumps(to_json(message))}" for message in messages])
    for message, answer in zip(messages, answers, strict=True):
        assert split_stream(bytes.fromhex(answer)) == split_stream(encode_gob(message))
        assert decode_gob(bytes.fromhex(answer)) == as_gob_can(message)


EXTENDED_FIELDS = (
    *("to_node", "to_nodes", "id", "data", "method", "method_args", "is_reply", "from_node"),
    "previous_message",
)


def test_fields_that_only_go_knows_are_passed_over(peer: Path, messages: list[Message]):
    answers = ask(peer, [f"extended {json.dumps(to_json(message))}" for message in messages])
    for message, answer in zip(messages, answers, strict=True):
        kept = {name: getattr(message, name) for name in EXTENDED_FIELDS}
        raw = bytes.fromhex(answer)
        assert decode_gob(raw) == as_gob_can(Message(**kept))
    for size in range(len(raw)):
        with pytest.raises(DecodeError):
            decode_gob(raw[:size])
