"""Completion for bash, zsh and fish, from the commands themselves."""

from __future__ import annotations

import re
from typing import Any

from commands import arguments_of, choices, flags, options_of, summary, takes_value

from appliance.cli.completing import NAME, Words
from appliance.cli.options import PROGRAM

_BY_METAVAR = {
    "TARGET": Words.TARGETS,
    "NODE": Words.NODES,
    "N": Words.NODES,
    "M": Words.METHODS,
    "METHOD": Words.METHODS,
    "JOB": Words.JOBS,
    "CONTEXT": Words.CONTEXTS,
}
"""What a running daemon, or the config, knows the words for."""
_DAEMON = ("--state-dir", "-c", "--context", "--server", "--token-file", "--ca", "--cert", "--key")
"""Options that say which daemon is meant, each with a value: handed on."""
_BEFORE = _DAEMON[1:]
"""Those of them that may stand before the command, too."""
_CONTEXT = ("-c", "--context")


def kind_of_option(option: Any) -> Words | None:
    """Which words an option takes, beside those that are few and known."""
    return _BY_METAVAR.get(option.metavar or "") if takes_value(option) else None


def kinds_of_arguments(name: str, command: Any) -> list[Words]:
    """Which words may stand among the arguments of a command."""
    if name == "methods":
        return [Words.METHODS]
    takes_targets = any(kind_of_option(option) is Words.TARGETS for option in options_of(command))
    found = []
    for argument in arguments_of(command):
        kind = _BY_METAVAR.get((argument.metavar or "").strip("[]"))
        if argument.metavar == "NODE" and takes_targets:
            found.append(Words.TARGETS)
        elif kind is not None and argument.metavar != "TARGET":
            found.append(kind)
    return found


def words_of(command: Any) -> str:
    """What may follow a command: its options and sub-commands."""
    words = [flag for option in options_of(command) for flag in flags(option)]
    return " ".join([*getattr(command, "commands", {}), *words, "--help"])


def bash(names: dict[str, Any]) -> str:
    """Completion for bash."""
    cases = []
    values = set()
    arguments = []
    for name, command in names.items():
        cases.append(f"        '{name}') words='{words_of(command)}' ;;")
        if kinds := kinds_of_arguments(name, command):
            arguments.append(f"        '{name}') kinds='{' '.join(kinds)}' ;;")
        for option in options_of(command):
            kind = kind_of_option(option)
            if choices(option) and takes_value(option):
                shown = " ".join(choices(option))
                reply = f"COMPREPLY=($(compgen -W '{shown}' -- \"$cur\")); return ;;"
                values |= {f"        '{name}:{flag}') {reply}" for flag in flags(option)}
            elif kind is not None:
                reply = f"_{PROGRAM}_words {kind}; return ;;"
                values |= {f"        '{name}:{flag}') {reply}" for flag in flags(option)}
    top = " ".join(name for name in names if " " not in name)
    groups = (
        "|".join(name for name, command in names.items() if hasattr(command, "commands")) or "-"
    )
    return f"""# bash completion for {PROGRAM}
_{PROGRAM}_words() {{
    # of the word as it was typed: bash splits it at = and, keeping that, at @
    local given=("${{before[@]}}") i word begun typed=${{line[${{#line[@]}}-1]}}
    for ((i = 1; i < ${{#line[@]}} - 1; i++)); do
        case ${{line[i]}} in {"|".join(_DAEMON)}) given+=("${{line[i]}}" "${{line[i+1]}}") ;; esac
    done
    local list=${{typed%"${{typed##*,}}"}} last=${{typed##*,}}
    local kept=${{typed%"${{typed##*[$COMP_WORDBREAKS]}}"}}
    kept=${{kept%@}}
    compopt +o filenames 2>/dev/null
    while read -r word; do
        begun=$list$word
        case $word in "$last"*) COMPREPLY+=("${{begun#"$kept"}}") ;; esac
    done < <("${{line[0]}}" {NAME} "$@" "${{given[@]}}" 2>/dev/null)
}}
_{PROGRAM}() {{
    local line
    if [ -n "$COMP_LINE" ]; then
        read -ra line <<<"${{COMP_LINE:0:COMP_POINT}}"
        case ${{COMP_LINE:0:COMP_POINT}} in *[[:space:]]) line+=("") ;; esac
    else
        line=("${{COMP_WORDS[@]:0:COMP_CWORD+1}}")
    fi
    local before=()
    while [ "${{#line[@]}}" -gt 2 ]; do
        case ${{line[1]}} in
            {"|".join(_BEFORE)})
                if [ "${{#line[@]}}" -eq 3 ]; then
                    case ${{line[1]}} in
                        {"|".join(_CONTEXT)}) _{PROGRAM}_words {Words.CONTEXTS} ;;
                        *) COMPREPLY=($(compgen -f -- "${{line[2]}}")) ;;
                    esac
                    return
                fi
                before+=("${{line[1]}}" "${{line[2]}}")
                line=("${{line[0]}}" "${{line[@]:3}}") ;;
            *) break ;;
        esac
    done
    local at=$((${{#line[@]}} - 1)) kinds=
    local cur=${{line[at]}} prev=${{line[at-1]}} command=${{line[1]}} words=
    if [ "$at" -eq 1 ]; then
        COMPREPLY=($(compgen -W '{top} {" ".join(_BEFORE)} --help --version --debug' -- "$cur"))
        return
    fi
    case $command in {groups}) [ "$at" -gt 2 ] && command="$command ${{line[2]}}" ;; esac
    case $command:$prev in
{chr(10).join(sorted(values))}
    esac
    case " ${{line[*]:0:at}} " in
        *" -- "*) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    esac
    case $command in
{chr(10).join(cases)}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    case $cur in -*) return ;; esac
    case $command in
{chr(10).join(arguments)}
    esac
    if [ -n "$kinds" ]; then
        _{PROGRAM}_words $kinds
        [ "${{#COMPREPLY[@]}}" -gt 0 ] && return
        compopt -o filenames 2>/dev/null
    fi
    COMPREPLY+=($(compgen -f -- "$cur"))
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
            kind = kind_of_option(option)
            # NB: a space before a function, or it is handed options of compadd
            other = f":value: _{PROGRAM}_words {kind}" if kind else ":value:_files"
            value = f":value:({' '.join(shown)})" if shown else other
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
        kinds = kinds_of_arguments(name, command)
        action = f" _{PROGRAM}_words {' '.join(kinds)}" if kinds else "_files"
        rest = f"            '*:word:{action}'"
        cases.append(" \\\n".join([f"        {quote(name)}) _arguments", *specs, rest]) + " ;;")
    return f"""#compdef {PROGRAM}
_{PROGRAM}_words() {{
    local -a found given
    local -i i
    given=($before)
    (( ${{words[(I)--]}} && ${{words[(I)--]}} < CURRENT )) && {{ _files; return }}
    for (( i = 1; i < CURRENT; i++ )); do
        case $words[i] in {"|".join(_DAEMON)}) given+=($words[i] $words[i+1]) ;; esac
    done
    found=(${{(f)"$({PROGRAM} {NAME} "$@" $given 2>/dev/null)"}})
    compset -P '*,'
    compadd -a found || _files
}}
_{PROGRAM}() {{
    local -a commands before
    commands=(
{described("", " " * 8)}
    )
    while (( CURRENT > 3 )) && [[ $words[2] == ({"|".join(_BEFORE)}) ]]; do
        before+=($words[2,3])
        words[2,3]=()
        (( CURRENT -= 2 ))
    done
    if (( CURRENT == 3 )); then
        case $words[2] in
            {"|".join(_CONTEXT)}) _{PROGRAM}_words {Words.CONTEXTS}; return ;;
            {"|".join(_BEFORE[2:])}) _files; return ;;
        esac
    fi
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
        f"function __{PROGRAM}_words",
        "    set -l line (commandline -opc)",
        "    contains -- -- $line; and return",
        "    set -l given",
        "    for at in (seq 2 (math (count $line) - 1))",
        f"        contains -- $line[$at] {' '.join(_DAEMON)}; and set -a given $line[$at] $line[(math $at + 1)]",
        "    end",
        f"    {PROGRAM} {NAME} $argv $given 2>/dev/null",
        "end",
        f"function __{PROGRAM}_begins",
        "    set -l line (commandline -opc)",
        "    set -e line[1]",
        "    while set -q line[1]",
        f"        contains -- $line[1] {' '.join(_BEFORE)}; or return 1",
        "        set -e line[1]",
        "        set -q line[1]; and set -e line[1]",
        "    end",
        "    return 0",
        "end",
        f"complete -c {PROGRAM} -n __{PROGRAM}_begins -f",
        (
            f"complete -c {PROGRAM} -n __{PROGRAM}_begins -s c -l context -x"
            f" -a '(__{PROGRAM}_words {Words.CONTEXTS})'"
        ),
        *(
            f"complete -c {PROGRAM} -n __{PROGRAM}_begins -l {flag[2:]} -r"
            for flag in _BEFORE
            if flag not in _CONTEXT
        ),
    ]
    for name, command in names.items():
        first, _, second = name.partition(" ")
        here = f"__fish_seen_subcommand_from {first}"
        if hasattr(command, "commands"):
            lines.append(f"complete -c {PROGRAM} -n '{here}' -f")
        condition = here if second else f"__{PROGRAM}_begins"
        shown = quote(summary(command))
        lines.append(f"complete -c {PROGRAM} -n '{condition}' -a {second or first} -d {shown}")
        if second:
            here += f"; and __fish_seen_subcommand_from {second}"
        if kinds := kinds_of_arguments(name, command):
            words = f"(__{PROGRAM}_words {' '.join(kinds)})"
            lines.append(f"complete -c {PROGRAM} -n '{here}' -a '{words}'")
        for option in options_of(command):
            parts = [
                f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
                for flag in flags(option)
            ]
            if takes_value(option):
                kind = kind_of_option(option)
                asked = f"(__{PROGRAM}_words {kind})" if kind else ""
                shown = " ".join(choices(option)) or asked
                parts.append(f"-x -a '{shown}'" if shown else "-r")
            text = quote(option.help or "")
            lines.append(f"complete -c {PROGRAM} -n '{here}' {' '.join(parts)} -d {text}")
    return "\n".join(lines) + "\n"
