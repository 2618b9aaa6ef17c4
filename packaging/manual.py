"""Write what the command line tells of itself in other forms: manual pages, completion for three shells, changelog.

    python3 manual.py ROOT VERSION CHANGELOG

Everything is read off the commands themselves and off the config's schema, so nothing here can go stale.
"""

from __future__ import annotations

import datetime
import enum
import gzip
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from commands import (
    all_commands,
    arguments_of,
    choices,
    flags,
    metavar,
    options_of,
    summary,
    takes_value,
)
from completion import bash, fish, zsh

from appliance.cli.app import load_command
from appliance.cli.options import ENVIRONMENT, PROGRAM
from appliance.config.print_schema import make_schema

DAY = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.UTC)
MAINTAINER = "appliance maintainers <maintainers@appliance.invalid>"
EXITS = (
    ("0", "success; for `run`, a clean stop"),
    ("1", "failed, or (`status`) degraded, or (commands to several nodes) some of them failed"),
    ("2", "`plan`: there are changes"),
    ("3", "commands to several nodes: some stayed silent, and none failed"),
    ("64", "wrong usage"),
    ("65", "bad data"),
    ("69", "no daemon that is reached and trusted, or no broker where one is required"),
    ("70", "an error of the program itself"),
    ("74", "what was to be written to standard output or error could not be"),
    ("75", "`run`: the deadline of the stop passed with work in hand"),
    (
        "77",
        "not permitted: by the system, or by the daemon, which does not know who asks or names the scope that is missing",
    ),
    ("78", "bad configuration, or (`reload`, `rollback`) the configuration was refused"),
    ("130", "interrupted"),
    ("141", "whoever read the output has gone, as at the other end of a pipe"),
)


def main() -> None:
    """Write all files below ROOT."""
    root, version, changelog = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    command = load_command()
    man = root / "usr/share/man"
    names = dict(all_commands(command))
    write_gz(man / f"man1/{PROGRAM}.1.gz", main_page(command, names, version))
    for name, sub in names.items():
        page = f"{PROGRAM}-{name.replace(' ', '-')}"
        write_gz(man / f"man1/{page}.1.gz", command_page(name, sub, version))
    write_gz(man / f"man5/{PROGRAM}.yaml.5.gz", config_page(version))
    write(root / f"usr/share/bash-completion/completions/{PROGRAM}", bash(names))
    write(root / f"usr/share/zsh/vendor-completions/_{PROGRAM}", zsh(names))
    write(root / f"usr/share/fish/vendor_completions.d/{PROGRAM}.fish", fish(names))
    doc = root / f"usr/share/doc/{PROGRAM}"
    write_gz(doc / "changelog.gz", changelog.read_text())
    write_gz(doc / "changelog.Debian.gz", debian_changelog(version))


# -- manual pages -----------------------------------------------------------------------------------


def roff(text: str) -> str:
    """Text as roff takes it."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    return "\n".join("\\&" + line if line[:1] in ".'" else line for line in text.split("\n"))


def head(title: str, section: int, version: str, what: str) -> str:
    """The first lines of a page."""
    date = DAY.strftime("%Y-%m-%d")
    title_line = f'.TH "{roff(title.upper())}" {section} "{date}" "{PROGRAM} {version}" "{PROGRAM}"'
    # NB: names of commands and keys must not be broken, nor lines stretched
    what = what[:1].lower() + what[1:] if what[1:2].islower() else what
    return f"{title_line}\n.nh\n.ad l\n.SH NAME\n{roff(title)} \\- {roff(what)}\n"


def paragraphs(text: str) -> str:
    """Help text as paragraphs; what is indented, or marked as the command line marks it, stays as it is."""
    shown: list[str] = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        kept = block.replace("\b", "").strip("\n")
        is_indented = all(line.startswith(("  ", "\t")) for line in kept.splitlines() if line)
        if "\b" in block or is_indented:
            shown.append(f".nf\n{roff(kept)}\n.fi")
        else:
            shown.append(roff(" ".join(block.split())))
    return "\n.PP\n".join(shown) + "\n"


def option_items(command: Any) -> str:
    """Arguments and options as tagged paragraphs."""
    lines = []
    for argument in arguments_of(command):
        lines += [".TP", f"\\fI{roff(word_of(argument))}\\fR"]
        lines.append(roff(" ".join((getattr(argument, "help", "") or "").split())) or "\\&")
    for option in options_of(command):
        shown = ", ".join(f"\\fB{roff(flag)}\\fR" for flag in flags(option))
        value = f" \\fI{roff(metavar(option))}\\fR" if takes_value(option) else ""
        help_text = " ".join((option.help or "").split())
        if choices(option) and takes_value(option) and option.metavar:
            help_text += f" One of: {', '.join(choices(option))}."
        if takes_value(option) and "efault" not in help_text and default_of(option):
            help_text += f" Default: {default_of(option)}."
        lines += [".TP", shown + value, roff(help_text) or "\\&"]
    return "\n".join(lines) + "\n"


def word_of(argument: Any) -> str:
    """What stands for an argument."""
    return (argument.metavar or argument.name.upper()).strip("[]").rstrip("…")


def default_of(option: Any) -> str:
    """The value that an option has by itself; "" for none worth a word."""
    value = option.default
    value = value.value if isinstance(value, enum.Enum) else value
    return str(value) if isinstance(value, str | int | float) and value != "" else ""


def synopsis(name: str, command: Any) -> str:
    """One line."""
    parts = [f"\\fB{PROGRAM} {roff(name)}\\fR"]
    if options_of(command):
        parts.append("[\\fIOPTION\\fR]...")
    for argument in arguments_of(command):
        shown = f"\\fI{roff(word_of(argument))}\\fR"
        shown += "..." if argument.nargs == -1 else ""
        parts.append(shown if argument.required else f"[{shown}]")
    if hasattr(command, "commands"):
        word = "\\fICOMMAND\\fR"
        parts.append(f"[{word}]" if command.invoke_without_command else word)
    return " ".join(parts) + "\n"


def command_page(name: str, command: Any, version: str) -> str:
    """The page of one command."""
    page = head(f"{PROGRAM}-{name.replace(' ', '-')}", 1, version, summary(command) or name)
    page += f".SH SYNOPSIS\n{synopsis(name, command)}"
    page += f".SH DESCRIPTION\n{paragraphs(command.help or summary(command))}"
    items = option_items(command)
    if items.strip():
        page += f".SH OPTIONS\n{items}"
    for sub_name, sub in all_commands(command) if hasattr(command, "commands") else ():
        page += f".SS {roff(sub_name)}\n{paragraphs(sub.help or '')}{option_items(sub)}"
    return page + f".SH SEE ALSO\n.BR {PROGRAM} (1),\n.BR {PROGRAM}.yaml (5)\n"


def main_page(command: Any, names: dict[str, Any], version: str) -> str:
    """The page of the program."""
    page = head(PROGRAM, 1, version, "declarative, hot-reloading message daemon for NATS")
    page += f".SH SYNOPSIS\n\\fB{PROGRAM}\\fR \\fICOMMAND\\fR [\\fIARGUMENT\\fR]...\n"
    page += f".SH DESCRIPTION\n{paragraphs(command.help or '')}.SH COMMANDS\n"
    for name, sub in names.items():
        page += f".TP\n\\fB{roff(name)}\\fR\n{roff(summary(sub))}\n"
    page += ".SH OPTIONS\n" + option_items(command) + ".SH ENVIRONMENT\n"
    for variable, meaning in ENVIRONMENT.items():
        page += f".TP\n\\fB{variable}\\fR\n{roff(meaning)}\n"
    page += ".SH EXIT STATUS\n"
    for code, meaning in EXITS:
        page += f".TP\n\\fB{code}\\fR\n{roff(meaning)}\n"
    page += ".PP\n" + paragraphs("`exec` with one node exits with the status of the program there.")
    page += ".SH FILES\n"
    for path, meaning in (
        ("/etc/appliance/*.yaml, /etc/appliance/conf.d/*.yaml", "the configuration of the service"),
        ("/etc/default/appliance, /etc/sysconfig/appliance", "its environment"),
        ("/var/lib/appliance", "its state: outbox, inbox, history, data"),
        (
            "~/.config/appliance/contexts.yaml",
            "servers by name, as `appliance context` writes them",
        ),
        ("/usr/share/appliance/appliance.schema.json", "the JSON Schema of the configuration"),
    ):
        page += f".TP\n\\fI{roff(path)}\\fR\n{roff(meaning)}\n"
    pages = ",\n".join(f".BR {PROGRAM}\\-{roff(name.replace(' ', '-'))} (1)" for name in names)
    return page + f".SH SEE ALSO\n.BR {PROGRAM}.yaml (5),\n{pages}\n"


LAYERED = ("subscribe_entry", "publish_entry")
"""What stands in roles and nodes alike: told once, not below each of them."""


def config_page(version: str) -> str:
    """The configuration, key by key, from its schema."""
    schema = make_schema()
    page = head(f"{PROGRAM}.yaml", 5, version, f"configuration of {PROGRAM}")
    page += ".SH DESCRIPTION\n" + paragraphs(
        schema.get("description", "")
        + "\n\nA path is a file or a directory, whose `*.yaml` and `*.yml` files are merged."
        " Durations are written as `250ms`, `5s`, `1m30s`. A secret is named, never written: `{file: PATH}`, relative to the"
        " config file, `{env: NAME}`, or `{credential: NAME}`, a systemd credential."
        "\n\nHow a change of a key takes effect stands in brackets:"
        " live inside the running worker, by a swap behind a subscription that stays, or by a restart."
        "\n\n`appliance init DIR` writes a commented config to begin with."
    )
    page += ".SH KEYS\n" + keys(walk(schema, schema, ()))
    layers = set(schema["properties"]["defaults"]["properties"])
    for name, title, path in zip(
        LAYERED,
        ("ENTRIES OF SUBSCRIBE", "ENTRIES OF PUBLISH"),
        ("subscribe.METHOD", "publish.NAME"),
        strict=True,
    ):
        entry = schema["$defs"][name]
        own = {key: node for key, node in entry["properties"].items() if key not in layers}
        page += f".SH {title}\n" + paragraphs(
            f"In a role or a node, as `{path}`, with these keys and all those of `defaults`."
        )
        page += keys(walk(schema, {"properties": own}, (path,)))
    return page + f".SH SEE ALSO\n.BR {PROGRAM} (1),\n.BR {PROGRAM}\\-check (1)\n"


def keys(found: Iterable[tuple[tuple[str, ...], dict[str, Any]]]) -> str:
    """Keys as tagged paragraphs."""
    return "".join(
        f".TP\n\\fB{roff('.'.join(path))}\\fR\n{roff(describe(node))}\n" for path, node in found
    )


def walk(
    schema: dict[str, Any], node: dict[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every key with its schema, references followed, depth first; what is told elsewhere is not gone into."""
    node = follow(schema, node)
    layers = set(schema["properties"]["defaults"]["properties"])
    is_layer = path[:1] in (("roles",), ("nodes",))
    for name, child in node.get("properties", {}).items():
        if is_layer and name in layers:
            continue
        found = follow(schema, child)
        yield (*path, name), found
        if "secret" not in child.get("$ref", ""):
            yield from walk(schema, found, (*path, name))
        items = found.get("items")
        if isinstance(items, dict) and "properties" in items:
            yield from walk(schema, items, (*path, f"{name}[]"))
    more = node.get("additionalProperties")
    if not isinstance(more, dict) or more.get("$ref", "").endswith((*LAYERED, "secret")):
        return
    name = {"nodes": "NODE", "roles": "ROLE", "methods": "METHOD"}.get(path[-1], "NAME")
    yield from walk(schema, follow(schema, more), (*path, name))


def follow(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """What a reference points to."""
    while "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[-1]
        node = {**schema["$defs"][name], **{k: v for k, v in node.items() if k != "$ref"}}
    return node


def describe(node: dict[str, Any]) -> str:
    """One key in a sentence or two."""
    text = node.get("description", "")
    if "enum" in node:
        text += f" One of: {', '.join(map(str, node['enum']))}."
    default = node.get("default")
    if default not in (None, "", [], {}):
        shown = default if isinstance(default, str) else json.dumps(default, ensure_ascii=False)
        text += f" Default: {shown}."
    if "x-reload" in node:
        text += f" [{node['x-reload']}]"
    return text.strip() or "A section."


# -- the rest ---------------------------------------------------------------------------------------


def debian_changelog(version: str) -> str:
    """The form that Debian's tools read; the substance is in changelog.gz."""
    date = DAY.strftime("%a, %d %b %Y %H:%M:%S +0000")
    entry = "  * Release; see changelog.gz for what is new."
    return f"{PROGRAM} ({version}) stable; urgency=medium\n\n{entry}\n\n -- {MAINTAINER}  {date}\n"


def write(path: Path, text: str) -> None:
    """Write a text file, its directory made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_gz(path: Path, text: str) -> None:
    """Write it compressed, the same bytes each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


if __name__ == "__main__":
    main()
