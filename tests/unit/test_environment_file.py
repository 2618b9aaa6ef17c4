"""Environment files mean here what systemd makes of them."""

import pytest

from appliance.config.environment_file import parse_environment_file


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A=b\n", {"A": "b"}),
        ("A='b c'\n", {"A": "b c"}),
        ('A="b c"\n', {"A": "b c"}),
        ("A=b", {"A": "b"}),
        ("A=", {"A": ""}),
        ("  A = b  \n", {"A": "b"}),
        ("A=b c\n", {"A": "b c"}),
        ("A=b # c\n", {"A": "b # c"}),
        ("# A=b\n; B=c\nC=d\n", {"C": "d"}),
        ("A=b\\\nc\n", {"A": "bc"}),
        ("A='b\nc'\n", {"A": "b\nc"}),
        ('A="b\\\nc"\n', {"A": "bc"}),
        ('A="\\$b \\"c\\" \\d"\n', {"A": '$b "c" \\d'}),
        ("A='b\\c'\n", {"A": "b\\c"}),
        ("A=\\ b\\ \n", {"A": " b "}),
        ("A='b'\"c\"d\n", {"A": "bcd"}),
        ("A=b'c'\n", {"A": "b'c'"}),
        ("A=b\nA=c\n", {"A": "c"}),
        ("export A=b\n1A=c\nA.B=d\nnothing\n", {}),
        ("A=b\r\nB=c\r\n", {"A": "b", "B": "c"}),
        ("A=$B ${C}\n", {"A": "$B ${C}"}),
    ],
)
def test_a_line_gives_what_systemd_hands_to_the_service(text, found):
    assert parse_environment_file(text) == found
