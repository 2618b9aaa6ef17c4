"""Completion for bash, zsh and fish, from the commands themselves."""

from __future__ import annotations

import re
from typing import Any

from commands import choices, flags, options_of, summary, takes_value

from appliance.cli.options import PROGRAM


def words_of(command: Any) -> str:
    """What may follow a command: its options and sub-commands."""
    words = [flag for option in options_of(command) for flag in flags(option)]
    return " ".join([*getattr(command, "commands", {}), *words, "--help"])


def bash(names: dict[str, Any]) -> str:
    """Completion for bash."""
    cases = []
    values = set()
    for name, command in names.items():
        cases.append(f"        '{name}') words='{words_of(command)}' ;;")
        for option in options_of(command):
            if choices(option) and takes_value(option):
                shown = " ".join(choices(option))
                reply = f"COMPREPLY=($(compgen -W '{shown}' -- \"$cur\")); return ;;"
                values |= {f"        '{name}:{flag}') {reply}" for flag in flags(option)}
    top = " ".join(name for name in names if " " not in name)
    groups = (
        "|".join(name for name, command in names.items() if hasattr(command, "commands")) or "-"
    )
    return f"""# bash completion for {PROGRAM}
_{PROGRAM}() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command=${{COMP_WORDS[1]}} words=
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W '{top} --help --version --debug' -- "$cur"))
        return
    fi
    case $command in {groups}) [ "$COMP_CWORD" -gt 2 ] && command="$command ${{COMP_WORDS[2]}}" ;; esac
    case $command:$prev in
{chr(10).join(sorted(values))}
    esac
    case $command in
{chr(10).join(cases)}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    case $cur in -*) ;; *) COMPREPLY+=($(compgen -f -- "$cur")) ;; esac
}}
complete -o filenames -F _{PROGRAM} {PROGRAM}
"""


def quote(text: str) -> str:
    """In single quotes, for zsh and fish alike."""
    return "'" + " ".join(text.split()).replace("\\", "\\\\").replace("'", "’") + "'"


def zsh(names: dict[str, Any]) -> str:
    """Completion for zsh."""

    def spec(option: Any) -> list[str]:
        text = re.sub(r"[\[\]:]", " ", option.help or "")
        value = ""
        if takes_value(option):
            shown = choices(option)
            value = f":value:({' '.join(shown)})" if shown else ":value:_files"
        return [f"            {quote(f'*{flag}[{text}]{value}')}" for flag in flags(option)]

    def described(prefix: str, indent: str) -> str:
        below = {
            name.removeprefix(prefix): command
            for name, command in names.items()
            if name.startswith(prefix) and " " not in name.removeprefix(prefix)
        }
        return "\n".join(
            f"{indent}{quote(f'{name}:{summary(command)}')}" for name, command in below.items()
        )

    groups, cases = [], []
    for name, command in names.items():
        if words := "|".join(getattr(command, "commands", {})):
            groups.append(f"""        {name})
            if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
                commands=(
{described(f"{name} ", " " * 20)}
                )
                _describe command commands
                return
            fi
            case $words[2] in {words})
                command+=" $words[2]"
                shift words
                (( CURRENT-- )) ;;
            esac ;;""")
        specs = [line for option in options_of(command) for line in spec(option)]
        rest = "            '*:file:_files'"
        cases.append(" \\\n".join([f"        {quote(name)}) _arguments", *specs, rest]) + " ;;")
    return f"""#compdef {PROGRAM}
_{PROGRAM}() {{
    local -a commands
    commands=(
{described("", " " * 8)}
    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    local command=$words[2]
    shift words
    (( CURRENT-- ))
    case $command in
{chr(10).join(groups)}
    esac
    case $command in
{chr(10).join(cases)}
    esac
}}
_{PROGRAM} "$@"
"""


def fish(names: dict[str, Any]) -> str:
    """Completion for fish."""
    lines = [
        f"# fish completion for {PROGRAM}",
        f"complete -c {PROGRAM} -n __fish_use_subcommand -f",
    ]
    for name, command in names.items():
        first, _, second = name.partition(" ")
        here = f"__fish_seen_subcommand_from {first}"
        if hasattr(command, "commands"):
            lines.append(f"complete -c {PROGRAM} -n '{here}' -f")
        condition = here if second else "__fish_use_subcommand"
        shown = quote(summary(command))
        lines.append(f"complete -c {PROGRAM} -n '{condition}' -a {second or first} -d {shown}")
        if second:
            here += f"; and __fish_seen_subcommand_from {second}"
        for option in options_of(command):
            parts = [
                f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
                for flag in flags(option)
            ]
            if takes_value(option):
                parts.append(f"-x -a '{' '.join(choices(option))}'" if choices(option) else "-r")
            text = quote(option.help or "")
            lines.append(f"complete -c {PROGRAM} -n '{here}' {' '.join(parts)} -d {text}")
    return "\n".join(lines) + "\n"
