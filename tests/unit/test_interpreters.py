"""Where a peer's text would be read as a program, and where it is only data."""

import pytest

from appliance.config.compiler.interpreters import find_faults, is_loader
from appliance.core.templates import parse_template


def faults_of(*elements, stdin="", args=None):
    templates = [parse_template(element) for element in elements]
    return [fault.place for fault in find_faults(templates, parse_template(stdin), args)]


@pytest.mark.parametrize(
    "argv",
    [
        ["sh", "-c", "restart {args.0}"],
        ["/bin/bash", "-c", "{args.0}"],
        ["bash", "-ec", "x {args.0}"],
        ["bash", "-c", "-e", "x {args.0}"],
        ["bash", "-o", "pipefail", "-c", "x {args.0}"],
        ["dash", "-ce", "x {from}"],
        ["zsh", "--", "{args.0}"],
        ["fish", "--command=x {args.0}"],
        ["fish", "--command", "x {args.0}"],
        ["env", "A=b", "sh", "-c", "{args.0}"],
        ["sudo", "-u", "bob", "sh", "-c", "{args.0}"],
        ["busybox", "sh", "-c", "{args.0}"],
        ["nice", "-n", "5", "ksh", "-c", "{args.0}"],
        ["docker", "exec", "web", "sh", "-c", "{args.0}"],
        ["xargs", "-I%", "sh", "-c", "{args.0}"],
        ["python3", "-c", "print('{args.0}')"],
        ["python3.11", "-Ic", "{args.0}"],
        ["perl", "-lne", "{args.0}"],
        ["perl", "-e{args.0}"],
        ["ruby", "-e", "{args.0}"],
        ["node", "--eval={args.0}"],
        ["php", "-r", "{args.0}"],
        ["awk", "/{args.0}/ {{print}}", "/etc/hosts"],
        ["sed", "-n", "-e", "{args.0}p", "x"],
        ["sed", "s/a/{args.0}/", "x"],
        ["ssh", "-p", "22", "host", "restart {args.0}"],
        ["ssh", "host", "restart", "{args.0}"],
        ["ssh", "-oProxyCommand={args.0}", "host"],
        ["su", "-c", "x {args.0}", "bob"],
        ["watch", "-n", "1", "{args.0}"],
        ["psql", "-c", "select {args.0}"],
        ["sqlite3", "x.db", "select {args.0}"],
        ["sh", "{args.0}"],
        ["sudo", "{args.0}"],
        ["timeout", "5s", "{args.0}"],
        ["env", "LD_PRELOAD={args.0}", "true"],
        ["sh", "-c", "{args.*}"],
    ],
)
def test_a_value_that_would_be_read_as_a_program_is_found(argv):
    assert faults_of(*argv)


@pytest.mark.parametrize(
    "argv",
    [
        ["systemctl", "restart", "{args.0}"],
        ["sh", "-c", 'restart "$1"', "sh", "{args.0}"],
        ["bash", "-ec", 'restart "$@"', "bash", "{args.*}"],
        ["sh", "/opt/do.sh", "{args.0}"],
        ["python3", "-I", "/opt/do.py", "{args.0}"],
        ["python3", "-c", "import sys; print(sys.argv)", "{args.0}"],
        ["awk", "-v", "x={args.0}", "{{print x}}"],
        ["grep", "-c", "{args.0}", "/etc/hosts"],
        ["df", "-B{args.1}", "--", "{args.0}"],
        ["ssh", "{args.0}", "uptime"],
        ["sudo", "-u", "bob", "systemctl", "restart", "{args.0}"],
        ["sudo", "-u", "{args.0}", "id"],
        ["env", "COLOUR={args.0}", "show"],
        ["timeout", "5s", "ping", "{args.0}"],
        ["sh", "-c", "echo {id} {to}"],
        ["grep", "watch", "{args.0}"],
        ["grep", "sh", "{args.0}"],
        ["echo", "time", "{args.0}"],
    ],
)
def test_a_value_that_stays_data_is_let_be(argv):
    assert not faults_of(*argv)


@pytest.mark.parametrize(
    ("schema", "is_settled"),
    [
        ({"enum": ["nginx", "caddy"]}, True),
        ({"const": "nginx"}, True),
        ({"pattern": "^[a-z0-9-]+$"}, True),
        ({"pattern": "^[A-Za-z_.]{1,20}$"}, True),
        ({"pattern": "^web-\\d+$"}, True),
        ({"pattern": "[a-z]+"}, False),
        ({"pattern": "^[ -~]+$"}, False),
        ({"pattern": "^[+-~]+$"}, False),
        ({"pattern": "^.*$"}, False),
        ({"pattern": "^[^a]+$"}, False),
        ({"pattern": "^a|b$"}, False),
        ({"type": "string"}, False),
        (True, False),
    ],
)
def test_what_the_config_itself_chose_is_nobodys_program(schema, is_settled):
    args = {"type": "array", "prefixItems": [schema]}
    assert (not faults_of("sh", "-c", "restart {args.0}", args=args)) is is_settled


@pytest.mark.parametrize("argv", [["bash"], ["sh", "-s"], ["python3", "-"], ["bash", "-s", "x"]])
def test_an_interpreter_takes_no_program_from_a_peers_data(argv):
    assert faults_of(*argv, stdin="{data}") == [None]
    assert not faults_of(*argv, stdin="echo 1")
    assert not faults_of("bash", "/opt/do.sh", stdin="{data}")


LOADERS = """
LD_PRELOAD LD_LIBRARY_PATH PYTHONPATH BASH_ENV ENV PATH IFS PERL5OPT NODE_OPTIONS GIT_SSH_COMMAND JAVA_TOOL_OPTIONS
RUBYOPT PROMPT_COMMAND EDITOR GCONV_PATH
"""


@pytest.mark.parametrize("name", LOADERS.split())
def test_variables_from_which_programs_are_loaded_are_known(name):
    assert is_loader(name)


@pytest.mark.parametrize("name", ["LANG", "COLOUR", "SERVICE", "MYPATH", "NODE", "PERLE"])
def test_other_variables_are_free(name):
    assert not is_loader(name)
