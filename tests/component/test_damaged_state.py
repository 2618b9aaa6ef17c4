"""Files of the state directory that are not as the daemon left them: what is a mere label never keeps it from starting."""

import json

import pytest

from appliance.errors import StoreUnusable
from appliance.reconcile.history import History
from appliance.reconcile.kept_files import KeptFile, Pin
from appliance.reconcile.overrides import OverrideBook

FIRST = f"sha256:{'a' * 64}"
DEEP = "[" * 200_000
GOOD_PIN = Pin(
    digest=FIRST, revision=None, files_digest=FIRST, reason="rollback", by="token", at=1.0
)


@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        "",
        "\0" * 100,
        "[]",
        '{"number": {"a": 1}}',
        '{"number": 9, "generation": []}',
        '{"number": 9, "at": "yesterday"}',
        '{"number": 9, "at": 1e400}',
        '{"number": 9, "result": ["applied"]}',
        '{"number": 9, "digest": 5}',
        '{"number": 9, "problems": 7}',
        '{"number": 9, "problems": [7]}',
        '{"number": 9, "actions": "none"}',
    ],
)
def test_a_record_that_is_none_counts_as_none(tmp_path, text):
    history = History(tmp_path / "history")
    history.open()
    history.append({"result": "applied", "digest": FIRST}, {"a.yaml": "a"})
    (tmp_path / "history" / "00000009.json").write_text(text)
    assert [record["number"] for record in history.newest()] == [1]
    assert history.last_applied()["digest"] == FIRST
    assert history.find_kept("1").files == {"a.yaml": "a"}


@pytest.mark.parametrize("name", ["9" * 200, "٣", "9" * 9, "-1"])
def test_a_file_of_another_name_is_no_record(tmp_path, name):
    history = History(tmp_path / "history")
    (tmp_path / "history").mkdir()
    (tmp_path / "history" / f"{name}.json").write_text('{"number": 7}')
    history.open()
    history.append({"result": "applied", "digest": FIRST}, {})
    assert [record["number"] for record in history.newest()] == [1]


@pytest.mark.parametrize("files", [[], {"a.yaml": 5}, {"a.yaml": None}])
def test_a_set_whose_files_are_no_texts_was_not_kept(tmp_path, files):
    history = History(tmp_path / "history")
    history.open()
    path = tmp_path / "history" / "sets" / f"{'a' * 64}.json"
    path.write_text(json.dumps({"digest": FIRST, "files": files}))
    assert history.files_of(FIRST) is None


def test_a_pin_is_found_again(tmp_path):
    book = KeptFile(tmp_path / "pin.json", Pin)
    book.save(GOOD_PIN)
    assert book.load() == GOOD_PIN


@pytest.mark.parametrize(
    ("name", "value"), [("at", "x"), ("at", float("inf")), ("by", 5), ("digest", None)]
)
def test_a_pin_with_a_wrong_value_counts_as_none(tmp_path, name, value):
    book = KeptFile(tmp_path / "pin.json", Pin)
    book.save(GOOD_PIN)
    found = json.loads((tmp_path / "pin.json").read_text())
    (tmp_path / "pin.json").write_text(json.dumps(found | {name: value}))
    assert book.load() is None


@pytest.mark.parametrize("text", [DEEP, "", "[]", "\0" * 100])
def test_a_damaged_pin_counts_as_none(tmp_path, text):
    (tmp_path / "pin.json").write_text(text)
    assert KeptFile(tmp_path / "pin.json", Pin).load() is None


@pytest.mark.parametrize("text", [DEEP, "", "{}", "[5]", '[{"node": 5}]', '[{"node": "a"}]'])
def test_damaged_overrides_are_told_with_their_file(tmp_path, text):
    path = tmp_path / "overrides.json"
    path.write_text(text)
    book = OverrideBook(
        path, desired=None, methods=dict, wall=lambda: 0.0, on_change=lambda: None
    )  # fmt: skip
    with pytest.raises(StoreUnusable, match=r"overrides\.json"):
        book.load()
