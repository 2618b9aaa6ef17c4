"""Values from the environment are shown as they are written, wherever they went."""

import pytest

from appliance.config.loader import load_given
from appliance.core.describe import describe_plan, describe_settings
from appliance.core.hidden import Hidden, Hiding
from appliance.core.plan import apply_to_model, make_plan
from appliance.methods.registry import METHOD_TABLE

TEXT = """
version: 1
broker: {embedded: true}
log:
  level: LEVEL
nodes:
  n1:
    subscribe: {REQPing: {}}
    publish:
      p:
        to: n1
        method: REQPing
        every: 1h
        data: [DATA]
        window: WINDOW
"""
ENVIRON = {"PASS": "hunter", "SHORT": "x7", "NUMBER": "47", "NODE": "n1", "LEVEL": "debug"}


def load(**words):
    text = TEXT
    for name, value in {"DATA": "nothing", "WINDOW": "5", "LEVEL": "info", **words}.items():
        text = text.replace(name, value)
    return load_given({"/x.yaml": text.encode()}, "", environ=ENVIRON, methods=METHOD_TABLE).desired


def describe(new):
    old = load()
    plan = make_plan(new.workers, apply_to_model(make_plan(old.workers, {}, 0.0), {}), 0.0)
    [action] = describe_plan(plan, new.hidden.joined(old.hidden))
    return action["fields"]


@pytest.mark.parametrize(
    "data", ["${PASS}", "a ${PASS} b", "${SHORT}", "u${SHORT}u", "${UNSET:-hunter3}"]
)
def test_a_text_is_shown_as_it_is_written(data):
    fields = describe(load(DATA=f'"{data}"'))
    assert [data] in [new for _, new in fields.values()] or data in str(fields)


def test_a_number_is_shown_as_it_is_written_and_others_of_that_value_are_not_touched():
    assert describe(load(WINDOW="${NUMBER}"))["window"] == [5, "${NUMBER}"]
    assert Hidden(settings={("window", 47): "${NUMBER}"}).value({"backlog": 47}) == {"backlog": 47}


def test_what_stands_in_the_config_anyway_is_shown():
    fields = describe(load(DATA='"${NODE}"', WINDOW="6"))
    assert fields["window"] == [5, 6]
    assert "${NODE}" in str(fields)  # written so here
    assert Hidden({"other": "${O}"}).text("n1") == "n1"


def test_a_setting_beside_the_workers_is_shown_as_it_is_written():
    old, new = load(), load(LEVEL="${LEVEL}")
    assert describe_settings(old, new) == {"log.level": ["info", "${LEVEL}"]}


def test_the_same_value_written_otherwise_is_no_change():
    assert load(WINDOW="${NUMBER}") == load(WINDOW="47")
    assert describe_settings(load(LEVEL="debug"), load(LEVEL="${LEVEL}")) == {}


def test_within_a_text_a_short_value_is_hidden_as_a_word_only():
    hidden = Hidden({"abc": "${A}", "longer": "${L}", "x": "${X}"})
    assert hidden.text("abc abcd (abc) x") == "${A} abcd (${A}) x"
    assert hidden.text("alongerb") == "a${L}b"
    assert hidden.text("x") == "${X}"
    assert hidden.text("abc") == "${A}"


def test_a_value_is_hidden_in_json_and_over_lines():
    hidden = Hidden({'se"cret\\': "${S}", "first line\nsecond line": "${L}"})
    assert "cret" not in str(hidden.value({"a": ['{"b": "se\\"cret\\\\"}']}))
    assert hidden.text("on second line there") == "on ${L} there"


@pytest.mark.parametrize("length", [5, 9, 16, 17, 30, 41])
@pytest.mark.parametrize("end", ["…", "…'", "' is no node", ""])
def test_what_a_cut_left_of_a_value_is_hidden(length, end):
    secret = "correct-horse-battery-staple-and-so-forth"
    shown = Hidden({secret: "${S}"}).text(f"no method {secret[:length]}{end}")
    if "…" in end or length > 15:
        assert shown == f"no method ${{S}}{end}"


def test_another_address_that_begins_alike_is_shown():
    hidden = Hidden({"https://example.org/private": "${URL}"})
    for text in ("see https://example.com/", "https://example.organic"):
        assert hidden.text(text) == text
    assert hidden.text("GET https://example.org/priv") == "GET ${URL}"


def test_a_value_is_hidden_as_addresses_and_shells_write_it():
    hidden = Hidden({"Se cret/ü": "${S}", "it's one": "${Q}"})
    assert hidden.text("https://h/Se%20cret/%C3%BC?x=Se%20cret%2F%C3%BC") == "https://h/${S}?x=${S}"
    assert hidden.text("""run 'it'"'"'s one'""") == "run '${Q}'"
    assert Hidden({"Host.Example": "${H}"}).text("http://host.example/") == "http://${H}/"


def test_texts_full_of_ellipses_cost_little():
    hidden = Hidden({f"{number:040}": "${S}" for number in range(1_000)})
    text = "0000…" * 2_000
    assert hidden.text(text) == "${S}…" * 2_000


def test_what_a_set_before_hid_stays_hidden_and_secrets_do_for_one_change_more():
    hiding = Hiding(Hidden({"older-set": "${A}"}))
    hiding.add_set(Hidden({"newer-set": "${B}"}))
    for secret in ("first-one", "second-one", "third-one"):
        hiding.put_secrets({secret: "{file: x}"})
    text = "older-set newer-set first-one second-one third-one"
    assert hiding.text(text) == "${A} ${B} first-one {file: x} {file: x}"


def test_names_in_facts_are_left_alone():
    hiding = Hiding(Hidden({"ship-one": "${NODE}"}))
    fields = {"node": "ship-one", "error": "nothing for ship-one", "why": ["ship-one"], "count": 3}
    hidden = {"node": "ship-one", "error": "nothing for ${NODE}", "why": ["${NODE}"], "count": 3}
    assert hiding.fields(fields) == hidden
