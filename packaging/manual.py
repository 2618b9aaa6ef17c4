"""Write what the command line tells of itself in other forms: manual pages, completion for three shells, changelog.

    python3 manual.py ROOT VERSION CHANGELOG

Everything is read off the commands themselves and off the config's schema, so nothing here can go stale.
"""

from __future__ import annotations

import datetime
import gzip
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
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

from appliance.cli.app import make_app
from appliance.cli.options import ENVIRONMENT, PROGRAM
from appliance.config.schema import load_schema

DAY = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.UTC)
MAINTAINER = "appliance maintainers <maintainers@appliance.invalid>"
EXITS = (
    ("0", "success; for `run`, a clean stop"),
    ("1", "failed, or (`status`) degraded, or (`send`) some deliveries failed"),
    ("2", "`plan`: there are changes"),
    ("3", "`send`: some nodes stayed silent"),
    ("64", "wrong usage"),
    ("65", "bad data"),
    ("69", "no daemon, or no broker where one is required"),
    ("70", "an error of the program itself"),
    ("75", "`run`: the deadline of the stop passed with work in hand"),
    ("77", "not permitted"),
    ("78", "bad configuration, or (`reload`) the configuration was refused"),
)


def main() -> None:
    """Write all files below ROOT."""
    root, version, changelog = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    command = typer.main.get_command(make_app())
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
    return f"{title_line}\n.SH NAME\n{roff(title)} \\- {roff(what)}\n"


def paragraphs(text: str) -> str:
    """Help text as paragraphs; what is indented stays as it is."""
    shown: list[str] = []
    for block in re.split(r"\n\s*\n", text.replace("\b", "").strip("\n")):
        if all(line.startswith(("  ", "\t")) for line in block.splitlines() if line):
            shown.append(f".nf\n{roff(block)}\n.fi")
        else:
            shown.append(roff(" ".join(block.split())))
    return "\n.PP\n".join(shown) + "\n"


def option_items(command: Any) -> str:
    """Arguments and options as tagged paragraphs."""
    lines = []
    for argument in arguments_of(command):
        lines += [".TP", f"\\fI{roff(argument.metavar or argument.name.upper())}\\fR"]
        lines.append(roff(" ".join((getattr(argument, "help", "") or "").split())) or "\\&")
    for option in options_of(command):
        shown = ", ".join(f"\\fB{roff(flag)}\\fR" for flag in flags(option))
        value = f" \\fI{roff(metavar(option))}\\fR" if takes_value(option) else ""
        help_text = " ".join((option.help or "").split())
        if choices(option) and takes_value(option):
            help_text += f" One of: {', '.join(choices(option))}."
        lines += [".TP", shown + value, roff(help_text) or "\\&"]
    return "\n".join(lines) + "\n"


def synopsis(name: str, command: Any) -> str:
    """One line."""
    parts = [f"\\fB{PROGRAM} {roff(name)}\\fR"]
    if options_of(command):
        parts.append("[\\fIOPTION\\fR]...")
    for argument in arguments_of(command):
        shown = (
            f"\\fI{roff((argument.metavar or argument.name.upper()).strip('[]').rstrip('…'))}\\fR"
        )
        shown += "..." if argument.nargs == -1 else ""
        parts.append(shown if argument.required else f"[{shown}]")
    if hasattr(command, "commands"):
        parts.append("\\fICOMMAND\\fR")
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
    page += ".SH FILES\n"
    for path, meaning in (
        ("/etc/appliance/*.yaml, /etc/appliance/conf.d/*.yaml", "the configuration of the service"),
        ("/etc/default/appliance, /etc/sysconfig/appliance", "its environment"),
        ("/var/lib/appliance", "its state: outbox, inbox, history, data"),
        ("/usr/share/appliance/appliance.schema.json", "the JSON Schema of the configuration"),
    ):
        page += f".TP\n\\fI{roff(path)}\\fR\n{roff(meaning)}\n"
    pages = ",\n".join(f".BR {PROGRAM}\\-{roff(name.replace(' ', '-'))} (1)" for name in names)
    return page + f".SH SEE ALSO\n.BR {PROGRAM}.yaml (5),\n{pages}\n"


def config_page(version: str) -> str:
    """The configuration, key by key, from its schema."""
    schema = load_schema()
    page = head(f"{PROGRAM}.yaml", 5, version, f"configuration of {PROGRAM}")
    page += ".SH DESCRIPTION\n" + paragraphs(
        schema.get("description", "")
        + "\n\nA path is a file or a directory, whose `*.yaml` and `*.yml` files are merged."
        " Durations are written as `250ms`, `5s`, `1m30s`. How a change of a key takes effect stands in brackets:"
        " live inside the running worker, by a swap behind a subscription that stays, or by a restart."
    )
    page += ".SH KEYS\n"
    for path, node in walk(schema, schema, ()):
        page += f".TP\n\\fB{roff('.'.join(path))}\\fR\n{roff(describe(node))}\n"
    return page + f".SH SEE ALSO\n.BR {PROGRAM} (1),\n.BR {PROGRAM}\\-check (1)\n"


def walk(
    schema: dict[str, Any], node: dict[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every key with its schema, references followed, depth first."""
    if len(path) > 8:
        return
    node = follow(schema, node)
    for name, child in node.get("properties", {}).items():
        found = {**follow(schema, child), **{k: v for k, v in child.items() if k != "$ref"}}
        yield (*path, name), found
        yield from walk(schema, found, (*path, name))
    more = node.get("additionalProperties")
    if isinstance(more, dict):
        found = follow(schema, more)
        name = {"nodes": "NODE", "roles": "ROLE", "methods": "METHOD", "subscribe": "METHOD"}.get(
            path[-1] if path else "", "NAME"
        )
        yield from walk(schema, found, (*path, name))


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
    if "default" in node:
        text += f" Default: {json.dumps(node['default'], ensure_ascii=False)}."
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
