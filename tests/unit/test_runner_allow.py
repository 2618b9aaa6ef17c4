"""What the runner's allow list covers."""

import pytest

from appliance.core.allow import is_command_allowed
from appliance.runner.allow import parse_rules

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
