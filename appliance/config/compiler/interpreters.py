"""Where a program takes one of its arguments, a variable or its input for a program: there no peer's text may stand.

No shell is between a method and what it runs, until the config writes one: in ``[sh, -c, "restart {args.0}"]`` the
value is read by the shell, and ``web; reboot`` is two commands. Known here are the programs that do that, wherever in
a command they are (``sudo sh -c``, ``docker exec x sh -c``), and the variables by which a loader or an interpreter runs
what they say. A list cannot be whole; it holds what people write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from appliance.core.arguments import item_schema
from appliance.core.templates import Placeholder, Source, Template


class Fault(NamedTuple):
    """An element of a command (None: what it reads from standard input), and what is wrong with it."""

    place: int | None
    reason: str


class _Language(NamedTuple):
    """How a program is given a program."""

    letters: str = ""
    """Short options with which it comes, alone or at the end of a cluster (``-ec``)."""
    words: frozenset[str] = frozenset()
    """Long ones."""
    values: str = ""
    """Short options that take a value of another kind."""
    is_operand: bool = False
    """Without such an option the first operand is the program itself, and not a file or a host."""
    joins: bool = False
    """Everything behind the first operand (with `is_operand` that one, too) is joined and given to a shell."""
    reads_stdin: bool = False
    """Without a program and an operand it takes what it reads for one."""


_SHELL = _Language("c", frozenset({"--command", "--init-file", "--rcfile"}), "oO", reads_stdin=True)
_PYTHON = _Language("cm", frozenset(), "WX", reads_stdin=True)
_PERL = _Language("eEMm", frozenset(), "IF", reads_stdin=True)
_NODE = _Language(
    "epr", frozenset({"--eval", "--print", "--require", "--import", "--loader"}), reads_stdin=True
)
_AWK = _Language("ef", frozenset({"--source", "--file", "--exec"}), "vF", is_operand=True)
_ASKED = _Language("c", frozenset({"--command"}))
_SQL = _Language("ec", frozenset({"--execute", "--command"}), reads_stdin=True)
_LANGUAGES: Mapping[str, _Language] = {
    **dict.fromkeys(
        ("sh", "bash", "rbash", "dash", "ash", "zsh", "ksh", "mksh", "yash", "fish", "csh", "tcsh"),
        _SHELL,
    ),
    **dict.fromkeys(("python", "pypy", "ipython"), _PYTHON),
    **dict.fromkeys(("perl",), _PERL),
    "ruby": _Language("er", frozenset(), "I", reads_stdin=True),
    **dict.fromkeys(("node", "nodejs", "bun", "deno"), _NODE),
    "php": _Language("rBRE", frozenset({"--run"}), "d", reads_stdin=True),
    "lua": _Language("el", frozenset(), reads_stdin=True),
    "tclsh": _Language(reads_stdin=True),
    "expect": _Language("c", reads_stdin=True),
    **dict.fromkeys(
        ("pwsh", "powershell"),
        _Language("c", frozenset({"-command", "-Command"}), reads_stdin=True),
    ),
    **dict.fromkeys(("awk", "gawk", "mawk", "nawk"), _AWK),
    "sed": _Language("ef", frozenset({"--expression", "--file"}), is_operand=True),
    "jq": _Language("f", frozenset({"--from-file"}), is_operand=True),
    **dict.fromkeys(("su", "runuser", "script", "flock", "screen"), _ASKED),
    **dict.fromkeys(("psql", "mysql", "mariadb"), _SQL),
    "sqlite3": _Language(reads_stdin=True),
    **dict.fromkeys(("vi", "vim", "nvim"), _Language("c")),
    **dict.fromkeys(
        ("ssh", "slogin"), _Language("o", frozenset(), "BbcDEeFIiJLlmOPpQRSWw", joins=True)
    ),
    "eval": _Language(is_operand=True, joins=True),
    "watch": _Language("", frozenset(), "n", is_operand=True, joins=True),
    "parallel": _Language("", frozenset(), "jaIN", is_operand=True, joins=True),
}
_DATABASES = frozenset({"sqlite3", "psql", "mysql", "mariadb"})
"""Their first operand is a database; the second of sqlite3 is a program."""
_WRAPPERS = frozenset(
    {
        *(
            "env",
            "sudo",
            "doas",
            "nice",
            "nohup",
            "timeout",
            "setsid",
            "stdbuf",
            "ionice",
            "chrt",
            "taskset",
        ),
        *(
            "setpriv",
            "unshare",
            "time",
            "strace",
            "busybox",
            "toybox",
            "xargs",
            "systemd-run",
            "command",
            "exec",
        ),
    }
)
"""Programs whose first operand is a program."""
_LAUNCHERS = _WRAPPERS | {
    *(
        "docker",
        "podman",
        "nerdctl",
        "kubectl",
        "lxc",
        "machinectl",
        "systemd-nspawn",
        "nsenter",
        "chroot",
        "find",
    ),
    *("flock", "su", "runuser", "ip", "bwrap", "firejail", "screen", "tmux", "parallel", "watch"),
}
"""Programs that start one which stands somewhere behind them."""
_VERSION = re.compile(r"[0-9.]+$")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_QUANTITY = re.compile(r"\+?[0-9.]+[smhd]?")
_LOADER = re.compile(
    r"(LD|DYLD|GIT|PYTHON|PERL5?|RUBY|NODE|BUN|DENO|LUA|TCL|PHP|BASH_FUNC|GLIBC|GCONV|OPENSSL|QT|GTK|JDK_JAVA|DOTNET)_.*"
    r"|PYTHON.*|PERL5?(LIB|OPT|DB)|PERLLIB|RUBY(OPT|LIB)|PHPRC|LUA_.*|TCLLIBPATH|_?JAVA_(TOOL_)?OPTIONS|CLASSPATH"
    r"|AWK(LIB)?PATH|BASH_ENV|ENV|ZDOTDIR|FPATH|SHELLOPTS|BASHOPTS|PS[0-4]|PROMPT_COMMAND|IFS|PATH|SHELL"
    r"|(SSH|SUDO)_ASKPASS|([A-Z]+_)?(EDITOR|PAGER|BROWSER)|VISUAL|LESS(OPEN|CLOSE)|LOCPATH|NLSPATH|HOSTALIASES|MAKEFLAGS"
)
_SAFE_CLASS = r"\[(?:a-z|A-Z|0-9|[A-Za-z0-9_.:@%,+]|\\[.\-dw]|-(?=\]))+\]"
_SAFE_PIECE = (
    rf"(?:{_SAFE_CLASS}|\\[dw]|[A-Za-z0-9_:@%,-]|\\[.-])(?:[+*?]|\{{[0-9]+(?:,[0-9]*)?\}})?"
)
_SAFE_PATTERN = re.compile(rf"\^(?:{_SAFE_PIECE})+\$")
"""A pattern that lets through letters, digits and a few signs that no language reads as anything."""


def find_faults(
    elements: Sequence[Template], stdin: Template, arguments: Mapping[str, Any] | None
) -> Iterator[Fault]:
    """Every place of a command where a peer's text would be read as a program.

    `arguments` is the schema of the method's arguments: a value that can only be one of the config's own choice, or
    letters and digits, is nobody's program.
    """
    texts = [_literal(element) for element in elements]
    free = [first_free(element, arguments) for element in elements]
    for index, element in enumerate(elements):
        variable = _ASSIGNMENT.match(_beginning(element))
        if (
            free[index] is not None
            and variable is not None
            and index
            and is_loader(variable[0][:-1])
        ):
            yield Fault(
                index,
                _reason(free[index], f"stand in {variable[0][:-1]}, by which programs are loaded"),
            )
    is_launched = _program_name(texts[0] if texts else None) in _LAUNCHERS
    for index, text in enumerate(texts):
        name = _program_name(text)
        is_program = index == 0 or is_launched
        if name in _WRAPPERS and is_program:
            yield from _find_chosen(index, elements, free)
        language = _LANGUAGES.get(name)
        if language is None or not (is_program or language in (_SHELL, _PYTHON, _PERL)):
            continue
        given = _Reading(index, name, language, texts, elements, free, first_free(stdin, arguments))
        found = list(given.faults())
        if is_program or given.has_program:
            yield from found
            return  # what follows are its arguments


def is_loader(variable: str) -> bool:
    """Whether programs run, or load, what this variable says."""
    return _LOADER.fullmatch(variable) is not None


def _find_chosen(
    start: int, elements: Sequence[Template], free: Sequence[Placeholder | None]
) -> Iterator[Fault]:
    """The program that a wrapper starts, where a value chooses it."""
    for index in range(start + 1, len(elements)):
        text = _beginning(elements[index])
        if _ASSIGNMENT.match(text) or _QUANTITY.fullmatch(_literal(elements[index]) or ""):
            continue
        if not text.startswith("-"):
            is_of_option = index > start + 1 and _beginning(elements[index - 1]).startswith("-")
            if free[index] is not None and not text and not is_of_option:
                yield Fault(index, _reason(free[index], "choose the program that is run"))
            if not is_of_option:
                return


class _Reading:
    """An interpreter at some place of a command, and what it would read as a program."""

    def __init__(
        self,
        start: int,
        name: str,
        language: _Language,
        texts: Sequence[str | None],
        elements: Sequence[Template],
        free: Sequence[Placeholder | None],
        stdin_free: Placeholder | None,
    ) -> None:
        self.has_program = False
        """Whether an option gave it one."""
        self._start = start
        self._name = name
        self._language = language
        self._texts = texts
        self._elements = elements
        self._free = free
        self._stdin_free = stdin_free

    def faults(self) -> Iterator[Fault]:
        """Whatever of it a peer could fill in."""
        language = self._language
        index = self._start + 1
        wants_program = False
        while index < len(self._elements):
            text = _beginning(self._elements[index])
            if not text.startswith(("-", "+")) or text in ("-", "+"):
                break
            index += 1
            if self._texts[index - 1] == "--":
                break
            match _kind_of(text, language, is_whole=self._texts[index - 1] is not None):
                case "program":
                    self.has_program = True
                    yield from self._judge(index - 1)
                case "program next" if language is _SHELL:
                    self.has_program = wants_program = True  # it comes behind all options
                case "program next":
                    self.has_program = True
                    yield from self._judge(index)
                    index += 1
                case "value next":
                    index += 1
        if language.joins:
            for each in range(index if language.is_operand else index + 1, len(self._elements)):
                yield from self._judge(each)
        elif wants_program or (language.is_operand and not self.has_program):
            yield from self._judge(index)
        elif not self.has_program and language.reads_stdin:
            yield from self._judge_operand(index)

    def _judge_operand(self, index: int) -> Iterator[Fault]:
        """Without a program among the options it is a file's name, or what comes from standard input."""
        has_operand = index < len(self._elements) and self._texts[index] != "-"
        if has_operand and self._name == "sqlite3":
            for each in range(index + 1, len(self._elements)):
                yield from self._judge(each)
            has_operand = index + 1 < len(self._elements)
        elif has_operand and self._name in _DATABASES:
            has_operand = False  # the database; the program comes from standard input all the same
        elif has_operand and not _beginning(self._elements[index]) and self._free[index]:
            yield Fault(
                index, _reason(self._free[index], f"choose the program that {self._name} runs")
            )
        asks_stdin = "-s" in self._texts[self._start : index] and self._language is _SHELL
        if (asks_stdin or not has_operand) and self._stdin_free is not None:
            yield Fault(None, self._words(self._stdin_free))

    def _judge(self, index: int) -> Iterator[Fault]:
        found = self._free[index] if index < len(self._free) else None
        if found is not None:
            yield Fault(index, self._words(found))

    def _words(self, found: Placeholder) -> str:
        return _reason(found, f"be read as a program by {self._name}")


def _kind_of(text: str, language: _Language, *, is_whole: bool) -> str:
    """What an option is, and where its value stands; of one that is not whole a placeholder follows."""
    word, has_value, _ = text.partition("=")
    if word in language.words:
        return "program" if has_value else "program next"
    if text.startswith("--"):
        return "plain"
    for place, letter in enumerate(text[1:], start=1):
        is_last = is_whole and place == len(text) - 1
        if letter in language.letters:
            return "program next" if is_last or language is _SHELL else "program"
        if letter in language.values:
            return "value next" if is_last else "plain"
    return "plain"


def _program_name(text: str | None) -> str:
    name = (text or "").rpartition("/")[2]
    return name if name in _LANGUAGES else _VERSION.sub("", name)


def _literal(element: Template) -> str | None:
    """The element where nobody fills anything in."""
    if not element:
        return ""
    return element[0] if len(element) == 1 and isinstance(element[0], str) else None


def _beginning(element: Template) -> str:
    return element[0] if element and isinstance(element[0], str) else ""


def first_free(template: Template, arguments: Mapping[str, Any] | None) -> Placeholder | None:
    """The first placeholder of a text for which a peer may put in any text."""
    for part in template:
        if isinstance(part, Placeholder) and not _is_settled(part, arguments):
            return part
    return None


def _is_settled(placeholder: Placeholder, arguments: Mapping[str, Any] | None) -> bool:
    if placeholder.source in (Source.ID, Source.TO):
        return True
    if placeholder.source is not Source.ARGUMENT or arguments is None:
        return False
    schema = item_schema(arguments, placeholder.number)
    if not isinstance(schema, Mapping):
        return False
    if "enum" in schema or "const" in schema:
        return True
    return _SAFE_PATTERN.fullmatch(str(schema.get("pattern", ""))) is not None


def _reason(placeholder: Placeholder | None, words: str) -> str:
    return f"{placeholder} would {words}: a peer could have anything run"
