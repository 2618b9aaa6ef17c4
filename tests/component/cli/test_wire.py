"""`wire decode` and `wire encode`: golden bytes through the command, bad lines told, every encoding there and back."""

import base64
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.cli import main
from appliance.wire.codecs import guess_compression, guess_serialization
from appliance.wire.frame import encode_payload
from appliance.wire.steward_json import message_to_json
from tests.support.wire_cases import any_message

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "steward-2022.json").read_text())
WORDS = ["cbor", "gob"]
ENCODINGS = [(word, compression) for word in WORDS for compression in ("none", "zstd")]
FORMS = [f"{word}{suffix}" for word in WORDS for suffix in ("", "_zstd")]


class Streams:
    """Standard streams that hold bytes, as the real ones do."""

    def __init__(self, monkeypatch):
        self._monkeypatch = monkeypatch

    def run(self, arguments, stdin=b""):
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        err = io.StringIO()
        self._monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        self._monkeypatch.setattr("sys.stdout", out)
        self._monkeypatch.setattr("sys.stderr", err)
        code = main(["wire", *arguments])
        out.flush()
        return int(code), out.buffer.getvalue(), err.getvalue()


@pytest.fixture
def wire(monkeypatch):
    return Streams(monkeypatch).run


def expected_data(vector):
    data = vector["message"]["Data"]
    if vector["data_hex"] is None:
        return data
    return [bytes.fromhex(item) for item in vector["data_hex"]]


def shown_data(shown):
    return [
        base64.b64decode(item["base64"]) if isinstance(item, dict) else item.encode()
        for item in shown
    ]


@pytest.mark.parametrize("form", FORMS)
def test_golden_bytes_are_told_apart_and_decoded(wire, form):
    chosen = [vector for vector in VECTORS if vector.get(f"{form}_hex")]
    assert chosen
    lines = "".join(f"{vector[f'{form}_hex']}\n" for vector in chosen)
    code, out, err = wire(["decode"], lines.encode())
    assert (code, err) == (0, "")
    for vector, line in zip(chosen, out.splitlines(), strict=True):
        shown = json.loads(line)
        lowered = {key.lower(): value for key, value in vector["message"].items()}
        if form.startswith("gob"):
            lowered = {key: None if value == [] else value for key, value in lowered.items()}
        for key, value in shown.items():
            if key == "data":
                if vector["data_hex"] is not None:
                    assert shown_data(value) == expected_data(vector), vector["name"]
                else:
                    assert value == lowered["data"], vector["name"]
            elif key != "PreviousMessage":
                assert value == lowered[key.lower()], (vector["name"], key)
        assert (shown["PreviousMessage"] is None) == (vector["message"]["PreviousMessage"] is None)


def test_golden_cbor_comes_out_again_byte_for_byte(wire):
    lines = [vector["cbor_hex"] for vector in VECTORS if vector.get("cbor_hex")]
    _, out, _ = wire(["decode"], "\n".join(lines).encode())
    code, again, err = wire(["encode"], out)
    assert (code, err) == (0, "")
    assert again.decode().splitlines() == lines


@pytest.mark.parametrize(("serialization", "compression"), ENCODINGS)
@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(any_message, min_size=2, max_size=4))
def test_what_is_encoded_is_decoded_to_the_same(monkeypatch, serialization, compression, messages):
    wire = Streams(monkeypatch).run
    options = ["--serialization", serialization, "--compression", compression]
    texts = [json.dumps(message_to_json(message)) for message in messages]
    code, encoded, err = wire(["encode", *options], "\n".join(texts).encode())
    assert (code, err) == (0, "")
    expected = [_as_the_encoding_can(json.loads(text), serialization) for text in texts]
    for chosen in ([], options):
        code, decoded, err = wire(["decode", *chosen], encoded)
        assert (code, err) == (0, "")
        assert [json.loads(line) for line in decoded.splitlines()] == expected


def _as_the_encoding_can(shown, serialization):
    """Gob leaves zero values out, so an empty slice comes back as none."""
    if serialization == "gob":
        for key in ("toNodes", "data", "methodArgs", "replyMethodArgs"):
            shown[key] = shown[key] or None
        if shown["PreviousMessage"] is not None:
            _as_the_encoding_can(shown["PreviousMessage"], serialization)
    return shown


@pytest.mark.parametrize(("serialization", "compression"), ENCODINGS)
@settings(max_examples=30)
@given(message=any_message)
def test_the_first_bytes_tell_the_encoding(serialization, compression, message):
    payload = encode_payload(message, serialization, compression)
    assert guess_compression(payload) == compression
    if compression == "none":
        assert guess_serialization(payload) == serialization


def test_a_bad_line_is_told_with_its_number_and_the_next_are_read(wire):
    good = VECTORS[0]["cbor_hex"]
    spaced = " ".join(good[n : n + 4] for n in range(0, len(good), 4))
    text = f"# captured\n\n{good}\nxyz\n0x{spaced}\n123\n98\n"
    code, out, err = wire(["decode"], text.encode())
    assert code == 65
    assert len(out.splitlines()) == 2
    assert [line.split(":")[1].strip() for line in err.splitlines()] == [
        "line 4",
        "line 6",
        "line 7",
    ]
    assert "character 1 is 'x'" in err
    assert "odd number" in err


def test_a_json_line_that_is_no_message_is_told_with_its_number(wire):
    code, out, err = wire(["encode"], b'{"id": 1}\n{"metod": ""}\n\xff\n{"id": 2}\n')
    assert code == 65
    assert len(out.splitlines()) == 2
    assert 'line 2: unknown key "metod"; did you mean method?' in err
    assert "line 3: no JSON: it is not UTF-8" in err


def test_raw_is_one_message_in_bytes(wire, tmp_path):
    file = tmp_path / "message.json"
    file.write_text('{\n  "method": "REQPing"\n}\n')
    code, out, err = wire(["encode", "--raw", str(file)])
    assert (code, err) == (0, "")
    code, shown, err = wire(["decode", "--raw", "-"], out)
    assert (code, err, json.loads(shown)["method"]) == (0, "", "REQPing")
    assert wire(["decode", "--raw"], b"")[0] == 65


def test_a_file_that_is_not_there_is_a_wrong_use(wire):
    code, _, err = wire(["decode", "no/such/file"])
    assert code == 64
    assert "cannot read no/such/file" in err


def test_an_encoding_that_is_forced_and_wrong_is_bad_data(wire):
    code, _, err = wire(["decode", "--compression", "zstd"], VECTORS[0]["cbor_hex"].encode())
    assert code == 65
    assert err.startswith("appliance: line 1: ")
