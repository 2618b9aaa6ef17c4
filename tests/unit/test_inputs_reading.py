"""Texts of injectors: the shapes of the original's examples, what is refused, and with which words."""

import base64
import json
from itertools import pairwise

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from appliance.api.requests import EncodedData
from appliance.config.parse import MAX_FOREIGN_VALUES
from appliance.inputs.json_end import JsonEnd
from appliance.inputs.keys import FIELDS, IGNORED, MAX_TIME_S, REFUSED
from appliance.inputs.notes import MAX_NOTES
from appliance.inputs.reading import TextKind, read_text_of_messages

PING = {"toNode": "ship1", "method": "REQPing"}


def read(text, *, max_messages=1_000, from_node=None, kind=TextKind.ANY):
    raw = text if isinstance(text, bytes) else text.encode()
    return read_text_of_messages(raw, max_messages=max_messages, from_node=from_node, kind=kind)


def read_one(element):
    """The single request of a text without problems, whichever way it is written."""
    requests = []
    for text in (json.dumps([element]), json.dumps(element), yaml.safe_dump([element])):
        reading = read(text)
        assert reading.problems == [], text
        ((index, request),) = reading.requests
        assert index == 0
        requests.append(request)
    assert requests[0] == requests[1] == requests[2]
    return requests[0]


def problems(text, **options):
    return [(note.index, note.key, note.message) for note in read(text, **options).problems]


def warned_keys(element):
    reading = read(json.dumps([element]))
    assert reading.problems == []
    return [note.key for note in reading.warnings]


# the example messages of the original, by shape (wire facts, section 15)


def test_append_to_a_log_at_central_with_its_obsolete_key():
    element = {"directory": "syslog", "fileName": "syslog.log", "toNode": "central",
               "data": ["some line\n"], "commandOrEvent": "EventACK", "method": "REQToFileAppend"}  # fmt: skip
    assert warned_keys(element) == ["commandOrEvent"]
    request = read_one(element)
    assert (request.directory, request.file_name) == ("syslog", "syslog.log")
    assert (request.to_nodes, request.data) == (["central"], ["some line\n"])


def test_hello_with_one_empty_text():
    assert read_one({"toNode": "central", "data": [""], "method": "REQHello"}).data == [""]


def test_a_command_with_reply_method_and_all_timers():
    request = read_one(
        {
            "directory": "commands", "fileName": "out.log", "toNode": "ship1", "data": [],
            "method": "REQCliCommand", "methodArgs": ["bash", "-c", "tree ./"],
            "replyMethod": "REQToFile", "replyMethodArgs": ["a"], "ACKTimeout": 10, "retries": 3,
            "replyACKTimeout": 5, "replyRetries": 4, "methodTimeout": 7, "replyMethodTimeout": 8,
        }
    )  # fmt: skip
    assert request.method_args == ["bash", "-c", "tree ./"]
    assert (request.reply_method, request.reply_method_args) == ("REQToFile", ["a"])
    assert (request.ack_timeout, request.retries) == (10, 3)
    assert (request.reply_ack_timeout, request.reply_retries) == (5, 4)
    assert (request.method_timeout, request.reply_method_timeout) == (7, 8)


def test_a_process_command_of_old_with_its_nested_operation_and_its_capital_letter():
    element = {"directory": "ps", "fileName": "ps.log", "toNode": "ship2", "data": [],
               "method": "REQOpCommand", "ACKTimeout": 3, "retries": 3, "MethodTimeout": 7,
               "operation": {"opCmd": "stopProc", "opArg": {"method": "REQHttpGet", "kind": "subscriber",
                                                           "receivingNode": "ship2"}}}  # fmt: skip
    reading = read(json.dumps([element]))
    assert reading.problems == []  # that nobody knows the method is told where it would be sent
    assert sorted(note.key for note in reading.warnings) == ["MethodTimeout", "operation"]
    assert reading.requests[0][1].method_timeout == 7


def test_a_copy_to_several_nodes_with_six_arguments_and_the_later_retry_wait():
    element = {"toNodes": ["central", "ship1"], "method": "REQCopySrc", "retryWait": 3, "retries": 20,
               "methodArgs": ["./a", "ship2", "./b", "1000", "50", "0755"]}  # fmt: skip
    assert warned_keys(element) == ["retryWait"]
    assert read_one(element).to_nodes == ["central", "ship1"]


def test_an_empty_to_node_lets_the_list_count_and_a_filled_one_wins():
    assert read_one({"toNode": "", "toNodes": ["a", "b"], "method": "m"}).to_nodes == ["a", "b"]
    assert read_one({"toNode": "a", "toNodes": ["b", "c"], "method": "m"}).to_nodes == ["a"]
    assert warned_keys({"toNode": "a", "toNodes": ["b"], "method": "m"}) == ["toNodes"]


def test_relaying_is_passed_on_and_its_internal_fields_are_ignored_with_a_warning():
    element = PING | {"relayViaNode": "central", "relayReplyMethod": "REQToConsole",
                      "relayOriginalViaNode": "x", "relayFromNode": "y", "relayToNode": "",
                      "relayOriginalMethod": None}  # fmt: skip
    request = read_one(element)
    assert (request.relay_via_node, request.relay_reply_method) == ("central", "REQToConsole")
    assert warned_keys(element) == ["relayOriginalViaNode", "relayFromNode"]


def test_a_script_in_yaml_with_a_block_of_lines_and_numbers_without_quotes():
    (request,) = (
        request
        for _, request in read(
            """
            - toNodes: [ship1, ship2]
              method: REQCliCommand
              methodArgs:
                - bash
                - -c
                - |
                  cat << EOF > ./x
                  ${HOME} stays {{STEWARD_DATA}}
                  EOF
              replyMethod: REQToFileAppend
              retries: 120
              methodTimeout: 012
            """
        ).requests
    )
    assert request.method_args[2] == "cat << EOF > ./x\n${HOME} stays {{STEWARD_DATA}}\nEOF\n"
    assert (request.retries, request.method_timeout) == (120, 12)


def test_a_wireguard_restart_in_yaml_with_arguments_that_look_like_numbers():
    reading = read("- {toNode: ship1, method: REQCliCommand, methodArgs: [sleep, 5, no, 1e3, ~x]}")
    assert reading.requests[0][1].method_args == ["sleep", "5", "no", "1e3", "~x"]


def test_a_scheduled_message_is_refused_by_name_and_an_empty_schedule_is_not():
    ((index, key, message),) = problems(json.dumps([PING | {"schedule": [2, 5]}]))
    assert (index, key) == (0, "schedule")
    assert "every:" in message
    assert read_one(PING | {"schedule": []}).method == "REQPing"


def test_blocks_of_the_readme_with_trailing_commas_are_taken():
    reading = read('[{"toNode": "ship1", "method": "REQPing",},]')
    assert [request.method for _, request in reading.requests] == ["REQPing"]


# data


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ("text", ["text"]),
        ("", [""]),
        (["a", "b"], ["a", "b"]),
        ([], []),
        (None, None),
        ([104, 105], [EncodedData(base64="aGk=")]),
        ({"base64": "AP8="}, [EncodedData(base64="AP8=")]),
        (["a", {"base64": "AP8="}], ["a", EncodedData(base64="AP8=")]),
    ],
)
def test_data_comes_in_four_forms(data, wanted):
    assert read_one(PING | {"data": data}).data == wanted


@pytest.mark.parametrize(
    "data",
    [5, True, [1, 256], [-1], [1, "a"], [1.5], [True], [None], {"base64": "?"}, {"base64": 1},
     {"other": "x"}, {"base64": "", "x": ""}, [["a"]], {}],
)  # fmt: skip
def test_other_data_is_refused(data):
    ((index, key, _),) = problems(json.dumps([PING | {"data": data}]))
    assert (index, key) == (0, "data")


def test_unquoted_numbers_in_yaml_are_bytes_and_quoted_ones_text():
    assert read("- {toNode: a, method: m, data: [0, 255]}").requests[0][1].data == [
        EncodedData(base64="AP8=")
    ]
    assert read("- {toNode: a, method: m, data: ['1']}").requests[0][1].data == ["1"]
    assert read("- {toNode: a, method: m, data: 5}").requests[0][1].data == ["5"]


@given(st.binary(max_size=64))
def test_any_bytes_pass_as_numbers_and_as_base64(raw):
    encoded = base64.b64encode(raw).decode()
    for data in ({"base64": encoded}, *([list(raw)] if raw else [])):
        reading = read(json.dumps([PING | {"data": data}]))
        assert reading.requests[0][1].data == [EncodedData(base64=encoded)]


def test_half_a_character_is_refused_wherever_it_stands():
    for text in (
        r'[{"toNode":"a","method":"m","data":"\udcff"}]',
        r'[{"toNode":"a","method":"m","methodArgs":["\ud800"]}]',
    ):
        assert "surrogate" in problems(text)[0][2]


# keys


def test_keys_are_found_whatever_their_case_and_the_right_one_is_told():
    reading = read('[{"TONODE": "ship1", "Method": "REQPing", "acktimeout": 3}]')
    assert reading.requests[0][1].ack_timeout == 3
    assert {note.key for note in reading.warnings} == {"TONODE", "Method", "acktimeout"}


def test_an_unknown_key_refuses_its_element_and_names_the_nearest():
    ((index, key, message),) = problems(json.dumps([PING, PING | {"metodArgs": ["x"]}]))
    assert (index, key) == (1, "metodArgs")
    assert '"methodArgs"' in message


@pytest.mark.parametrize(
    "text",
    [
        '[{"toNode": "a", "toNode": "b", "method": "m"}]',
        '[{"toNode": "a", "ToNode": "b", "method": "m"}]',
        "- toNode: a\n  toNode: b\n  method: m\n",
        "- toNode: a\n  tonode: b\n  method: m\n",
    ],
)
def test_a_key_that_stands_twice_is_refused(text):
    reading = read(text)
    assert reading.requests == []
    assert "twice" in reading.problems[0].message


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_keys_that_change_nothing_are_told_when_they_hold_something(name):
    assert warned_keys(PING | {name: "x"}) == [name]
    assert warned_keys(PING | {name: None}) == []


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_keys_that_cannot_hold_refuse_their_element_unless_they_are_empty(name):
    assert problems(json.dumps([PING | {name: [1]}]))[0][1] == name
    for empty in (None, False, "", [], 0, {}):
        assert warned_keys(PING | {name: empty}) == []


def test_every_field_of_the_request_has_a_key_and_null_says_nothing():
    attrs = {attr for attr, _ in FIELDS.values()} | {"to_nodes", "from_node"}
    request = read_one(PING | dict.fromkeys(set(FIELDS) - {"method"}))
    assert set(request.__struct_fields__) - attrs <= {"expires", "for_caller"}
    assert all(
        getattr(request, attr) is None for attr in attrs - {"method", "to_nodes", "from_node"}
    )


# numbers


@pytest.mark.parametrize("value", [0, -1, -7])
def test_a_number_below_one_is_the_default_as_in_the_original(value):
    request = read_one(PING | {"ACKTimeout": value, "retries": value})
    assert (request.ack_timeout, request.retries) == (None, None)


def test_no_limit_of_the_later_generation_is_a_year_and_told():
    assert read_one(PING | {"methodTimeout": -1}).method_timeout == MAX_TIME_S
    assert warned_keys(PING | {"methodTimeout": -1}) == ["methodTimeout"]


@pytest.mark.parametrize("value", [1.5, "5", True, [5], 10**9, 2**70])
def test_what_is_no_whole_number_in_bounds_is_refused(value):
    ((_, key, _),) = problems(json.dumps([PING | {"methodTimeout": value}]))
    assert key == "methodTimeout"


def test_a_quoted_number_in_yaml_is_text_and_refused():
    assert problems("- {toNode: a, method: m, retries: '3'}")[0][1] == "retries"


# the text


def test_one_bad_element_does_not_touch_the_others_and_its_line_is_told():
    text = '[\n {"toNode": "a", "method": "m"},\n {"toNode": "a",\n  "methodd": "m"},\n 5\n]'
    reading = read(text)
    assert [index for index, _ in reading.requests] == [0]
    assert [(note.index, note.key, note.line) for note in reading.problems] == [
        (1, "methodd", 4),
        (2, None, 5),
    ]


def test_what_yaml_refuses_in_one_element_leaves_the_others_at_their_index():
    reading = read(
        "- *a\n- {toNode: a, method: m}\n- {toNode: !!str a, method: m}\n- {toNode: b, method: m}\n"
    )
    assert [(index, request.to_nodes) for index, request in reading.requests] == [
        (1, ["a"]),
        (3, ["b"]),
    ]
    assert [(note.index, note.line) for note in reading.problems] == [(0, 1), (2, 3)]


@pytest.mark.parametrize(
    "text",
    ["", "  \n", "\0\0", "[", "[{]", '[{"toNode":"a","method":"m"}] x', '[{"toNode":"a"}][]',
     "- a: b\n---\n- c: d\n", b"\xff\xfe", "\t- a: b", "a: [b", "[NaN]", "~",
     "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n"],
)  # fmt: skip
def test_a_broken_text_is_refused_whole(text):
    reading = read(text)
    assert reading.requests == []
    assert reading.problems


def test_a_list_without_messages_is_no_error_and_told():
    reading = read("[]")
    assert reading.problems == []
    assert len(reading.warnings) == 1


def test_zeros_at_the_end_and_a_byte_order_mark_are_dropped():
    raw = b"\xef\xbb\xbf" + json.dumps([PING]).encode() + b"\0" * 1_000
    assert len(read(raw).requests) == 1


def test_json_alone_is_taken_where_the_injector_says_json():
    text = "- {toNode: a, method: m}"
    assert read(text).requests
    assert not read(text, kind=TextKind.JSON).is_whole


def test_the_sender_of_the_settings_sends():
    assert read(json.dumps([PING]), from_node="central").requests[0][1].from_node == "central"
    assert warned_keys(PING | {"FromNode": "ship9"}) == ["FromNode"]


def test_a_message_to_nobody_or_of_no_method_is_refused():
    assert problems('[{"method": "m"}]')[0][1] == "toNode"
    assert problems('[{"toNode": "a"}]')[0][1] == "method"
    assert problems('[{"toNodes": ["a", ""], "method": "m"}]')[0][1] == "toNodes"


def test_a_node_named_twice_gets_one_message():
    reading = read(json.dumps([{"toNodes": ["a", "b", "a"], "method": "m"}]))
    assert reading.requests[0][1].to_nodes == ["a", "b"]
    assert [note.key for note in reading.warnings] == ["toNodes"]


# bounds


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([PING] * 4),
        json.dumps(
            [{"toNodes": ["a", "b"], "method": "m"}, {"toNodes": ["a", "b"], "method": "m"}]
        ),
        "- {toNode: a, method: m}\n" * 4,
    ],
)
def test_messages_are_counted_with_their_destinations_and_bounded(text):
    assert read(text, max_messages=4).is_whole
    reading = read(text, max_messages=3)
    assert reading.is_too_large
    assert reading.requests == []


def test_data_times_destinations_is_bounded():
    nodes = [f"n{number}" for number in range(300)]
    text = json.dumps([{"toNodes": nodes, "method": "m", "data": "x" * 1_000_000}])
    assert read(text).is_too_large


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '{"a":' * 200_000,
        "- " * 100_000,
        "{a: " * 10_000,
        "[" + "{}," * 200_000 + "{}]",
        "- a\n" * (MAX_FOREIGN_VALUES + 1),
        json.dumps([{f"k{number}": 1 for number in range(50_000)}]),
        json.dumps([{"x" * 100_000 + str(number): 1 for number in range(20)}]),
        '[{"retries": ' + "9" * 100_000 + "}]",
        "- {retries: " + "9" * 100_000 + "}",
        "&a [" * 1_000,
    ],
    ids=range(11),
)
def test_hostile_texts_end_soon_with_a_bounded_answer(text):
    reading = read(text)
    assert reading.requests == []
    assert 0 < len(reading.problems) <= MAX_NOTES
    assert all(len(note.message) < 500 and len(note.key or "") <= 80 for note in reading.problems)


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_text_gets_an_answer(text):
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    reading = read(raw)
    assert reading.problems or reading.warnings or reading.requests


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["toNode", "method", "data", "retries", "x"]), inner)
        ),
        max_leaves=12,
    )
)
def test_any_json_gets_an_answer_and_the_same_from_yaml_unless_its_types_say_more(value):
    for element in (value, [value]):
        reading = read(json.dumps(element))
        assert reading.problems or reading.warnings or reading.requests


# the end of a text that still arrives


@pytest.mark.parametrize(
    ("text", "is_complete"),
    [
        ("[]", True), ("[] \n\0", True), ("{}", True), (' [{"a": "]"}]', True), ("[", False),
        ('["\\"]', False), ('["\\\\"]', True), ("[] x", False), ("[][]", False), ("- a", False),
        ("", False), ("[{}", False), ("[[[]]]", True), ('["[', False), ("\ufeff[]", True),
    ],
)  # fmt: skip
def test_the_end_of_a_json_text_is_seen_however_it_is_cut(text, is_complete):
    raw = text.encode()
    whole = JsonEnd()
    whole.feed(raw)
    assert whole.is_complete is is_complete
    for size in (1, 2, 3):
        if raw.startswith(b"\xef\xbb\xbf") and size < 3:
            continue
        pieces = JsonEnd()
        for first in range(0, len(raw), size):
            pieces.feed(raw[first : first + size])
        assert pieces.is_complete is is_complete


@given(
    st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner), max_leaves=20), st.data()
)
def test_no_prefix_of_a_json_list_counts_as_its_end(value, data):
    raw = json.dumps([value], ensure_ascii=data.draw(st.booleans())).encode(
        "utf-8", "surrogatepass"
    )
    cuts = sorted({0, len(raw), *data.draw(st.lists(st.integers(0, len(raw)), max_size=5))})
    end = JsonEnd()
    for first, last in pairwise(cuts):
        assert not end.is_complete
        end.feed(raw[first:last])
    assert end.is_complete
