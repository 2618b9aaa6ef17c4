"""Stories of problems with methods that the config declares."""

from __future__ import annotations

from appliance.config.stories.story import Story

STORIES = (
    Story(
        "E230",
        "reserved-method",
        "A method of the config has the name of a built-in one, or begins with REQ as all methods of the wire do. A "
        "peer would take the one for the other, now or after the next release.",
        "methods: {REQRestart: {exec: [reboot]}}",
        "Choose another name, such as Restart.",
    ),
    Story(
        "E231",
        "one-action",
        "A method does exactly one thing: `exec` runs a program, `http` makes a request, `file` writes a file. The "
        "settings `stdin`, `environment` and `allow_options` belong to `exec`.",
        "methods: {Note: {exec: [logger], file: {name: notes}}}",
        "Keep one of them, or declare two methods.",
    ),
    Story(
        "E232",
        "bad-placeholder",
        "A placeholder that is none, that names an argument which `args` does not admit, or that stands where a value "
        "of a message must not: the program itself, the name of a header, data in an address.",
        'exec: [systemctl, restart, "{args.1}"], with one argument in args',
        "Placeholders are {args.N} counted from 0, {args.*} as an element of its own in `exec`, {data}, {from}, {to}, "
        "{id}. Braces that are meant as such are doubled: {{ and }}. `args` must admit every argument that is named.",
    ),
    Story(
        "E233",
        "bad-argument-schema",
        "`args` is no JSON Schema (draft 2020-12) of a list, refers outside of itself, goes in circles, is too large, or "
        "has a pattern that only a backtracking engine could search.",
        "args: {type: arrray}",
        "Describe the list: args: {type: array, prefixItems: [{title: service, enum: [nginx]}], minItems: 1, items: "
        "false}. References are written #/$defs/NAME.",
    ),
    Story(
        "E234",
        "bad-request",
        "The address or a header of `http` cannot be used, or a value of a message could turn the request elsewhere. "
        "Scheme, host and port are the operator's: they are written out, and a slash ends them before the first "
        "placeholder.",
        'http: {url: "https://{args.0}/status"}',
        'Write the host out: "https://hooks.example.net/{args.0}". User and password do not belong into an address; '
        "send a header.",
    ),
    Story(
        "E235",
        "bad-method-file",
        "The file of a method does not lie below the data directory.",
        "file: {directory: /var/log, name: notes}",
        "Name a directory below it: directory: notes",
    ),
    Story(
        "E236",
        "arguments-refused",
        "A publish entry produces messages whose arguments the method does not take: the receiver would refuse each of "
        "them.",
        "publish: {web: {to: ship1, method: RestartWeb, every: 24h}}, without the service that RestartWeb needs",
        "Mend `method_args`; `appliance methods NAME --config PATH` shows what the method takes.",
    ),
)
