"""What the runner's allow list covers."""

import pytest

from appliance.core.allow import is_command_allowed
from appliance.runner.allow import parse_rules
from appliance.runner.server import MAX_ALLOW_CHARACTERS, AllowListUnusable, read_allow_list

LIST = """
# services
systemctl restart nginx.service   # ours
systemctl is-active *
systemctl --no-pager status *
"/opt/my tool/run" 'a b'
journalctl -u *.service **
kill -*
rm -f /var/log/app/*
cat /srv/*/log?/today
tar --dir=.*. --into=*
"""


@pytest.mark.parametrize(
    ("command", "allowed"),
    [
        (["systemctl", "restart", "nginx.service"], True),
        (["systemctl", "restart", "ssh.service"], False),
        (["systemctl", "restart"], False),
        (["systemctl", "restart", "nginx.service", "ssh.service"], False),
        (["systemctl", "is-active", "ssh.service"], True),
        (["systemctl", "is-active", "--host=elsewhere"], False),
        (["systemctl", "--no-pager", "status", "x"], True),
        (["systemctl", "--host=a", "status", "x"], False),
        (["/opt/my tool/run", "a b"], True),
        (["journalctl", "-u", "a.service"], True),
        (["journalctl", "-u", "a.service", "--since=today", "x"], True),
        (["journalctl", "-u", "a.socket"], False),
        (["kill", "-9"], True),
        (["/usr/bin/systemctl", "restart", "nginx.service"], False),
        (["rm", "-f", "/var/log/app/old"], True),
        (["rm", "-f", "/var/log/app/..old"], True),
        (["rm", "-f", "/var/log/app/../../../etc/passwd"], False),
        (["rm", "-f", "/var/log/app/.."], False),
        (["rm", "-f", "/var/log/app/a/b"], False),
        (["rm", "-f", "/var/log/app/"], False),
        (["rm", "-f", "/var/log/../log/app/old"], False),
        (["cat", "/srv/a/log1/today"], True),
        (["cat", "/srv/../log1/today"], False),
        (["systemctl", "is-active", "a/../b"], True),
        (["tar", "--dir=.a.", "--into=b"], True),
        (["tar", "--dir=..", "--into=b"], False),
        (["tar", "--dir=.a.", "--into=.."], False),
        ([], False),
    ],
)
def test_list_covers_exactly_what_it_says(command, allowed):
    assert is_command_allowed(command, parse_rules(LIST).commands) is allowed


def test_empty_list_allows_nothing():
    assert parse_rules("\n# nothing\n").commands == ()
    assert not is_command_allowed(["true"], ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("true\necho 'open", "line 2: no closing quotation"),
        ("* status", "line 1: the program must be written out"),
        ('""', "line 1: the program must be written out"),
    ],
)
def test_line_that_cannot_be_meant_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse_rules(text)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("# harmless\u2028rm -rf /srv", "line 1: U.2028, line separator"),
        ("# harmless\u2029rm -rf /srv", "U.2029"),
        ("# harmless\x85rm -rf /srv", "U.0085"),
        ("# harmless\rrm -rf /srv", "U.000D"),
        ("# harmless\x0brm -rf /srv", "U.000B"),
        ("# harmless\x0crm -rf /srv", "U.000C"),
        ("# harmless\x1crm -rf /srv", "U.001C"),
        ("true\n# a \u202e b", "line 2: U.202E, right-to-left override"),
        ("true\ndate \u200b-u", "line 2: U.200B, zero width space"),
        ("true\ndate\u00a0-u", "line 2: U.00A0, no-break space"),
        ("true\x00", "U.0000"),
    ],
)
def test_what_a_reviewer_does_not_see_is_refused_by_name(text, named):
    with pytest.raises(ValueError, match=named):
        parse_rules(text)


def test_lines_end_as_in_editors_and_comments_may_hold_any_letters():
    rules = parse_rules("true\r\n# höflich\u00a0genug \U0001f600\r\ndate -u\n")
    assert rules.commands == (("true",), ("date", "-u"))


def test_a_list_on_disk_is_read_with_the_ends_of_lines_that_it_has(tmp_path):
    path = tmp_path / "runner.allow"
    path.write_bytes(b"# harmless\rrm -rf /srv\n")
    path.chmod(0o600)
    with pytest.raises(AllowListUnusable, match=r"U.000D"):
        read_allow_list(path)
    path.write_text("true\n" + "#" * MAX_ALLOW_CHARACTERS)
    with pytest.raises(AllowListUnusable, match="longer than"):
        read_allow_list(path)
    path.write_text("true\n")
    assert read_allow_list(path).commands == (("true",),)
