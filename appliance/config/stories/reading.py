"""Stories of problems met while reading files."""

from __future__ import annotations

from appliance.config.stories.story import Story

STORIES = (
    Story(
        "E001",
        "unreadable-file",
        "A file below a directory given as config is there, but cannot be read: a dangling "
        "link, missing rights, or something that is no regular file. A config with a hole "
        "is never used in part.",
        "conf.d/10-ship.yaml -> ../gone/10-ship.yaml",
        "Mend the link or the rights, or remove the file.",
    ),
    Story(
        "E002",
        "no-files",
        "A directory was given and nothing in it counts as a config file. Files must end in"
        " .yaml or .yml; names that begin with a dot are left out, directories too.",
        "conf.d/ships.yml.disabled",
        "Give the right directory, or rename the files.",
    ),
    Story(
        "E003",
        "too-large",
        "All files together exceed 8 MB, or more than two million workers come of them. The limits keep a wrong path"
        " (a directory of data, say) or a role that sends from all to all from taking the machine's memory.",
        "appliance check /var/log",
        "Give the directory that holds the config alone. A fleet of thousands of nodes fits"
        " when entries are shared in roles.",
    ),
    Story(
        "E004",
        "not-utf8",
        "A byte in the file is no UTF-8, or the file is UTF-16.",
        'data: ["Gr\\xfcße"]     in Latin-1',
        "Save the file as UTF-8.",
    ),
    Story(
        "E005",
        "syntax",
        "The file is not YAML. The place is where the reader stumbled; the cause often "
        "stands one line above: a missing quote, colon or bracket, or an indentation that "
        "is off.",
        "data: [a: b: c]",
        "Look at the line and the one before it. Tabs may not indent.",
    ),
    Story(
        "E006",
        "several-documents",
        "A line with --- begins a second document in the file. Only one is read per file, "
        "and ignoring the rest in silence would be worse than refusing it.",
        "version: 1\n---\nnodes: {}",
        "Put the second document into a file of its own; files of a directory are merged.",
    ),
    Story(
        "E007",
        "anchor-or-alias",
        "Anchors (&name), aliases (*name) and merge keys (<<) are refused: a few lines of "
        "them can unfold to gigabytes, and a reader cannot tell what a node really gets.",
        "ship1: &ship {roles: [managed]}\nship2: *ship",
        "Put what is shared into a role or into `defaults`. A text that begins with * or & "
        'needs quotes: "*".',
    ),
    Story(
        "E008",
        "tag",
        "A tag (!name, !!type) is refused: types follow from the schema, and tags can ask a"
        " reader to build objects.",
        'retries: !!int "3"',
        "Drop the tag.",
    ),
    Story(
        "E009",
        "key-not-text",
        "A key is a number, a truth value, null, a list or a map. Keys are names here.",
        "nodes: {7: {roles: [managed]}}",
        'Quote the key: "7".',
    ),
    Story(
        "E010",
        "duplicate-key",
        "The same key stands twice in one map. YAML readers take the last one in silence; "
        "which one was meant cannot be told.",
        "ack: {retries: 3, retries: 5}",
        "Drop one of the two.",
    ),
    Story(
        "E011",
        "set-twice",
        "Two files set the same thing. Maps merge over files, key by key, but a value or a "
        "list stands in one file only, since the order of files should never decide what "
        "holds. `version` may be repeated.",
        "a.yaml  log: {level: info}\nb.yaml  log: {level: debug}",
        "Drop one of the two; the message names both places.",
    ),
    Story(
        "E012",
        "too-deep",
        "Nested deeper than 32 levels. No config of this format is.",
        "data: [[[[[[…]]]]]]",
        "Look for brackets that do not close.",
    ),
    Story(
        "E013",
        "unset-variable",
        "${NAME} names an environment variable that is not set, and gives no default. An "
        "empty value in its place would be worse than an error.",
        "listen: ${ADMIN_ADDRESS}",
        "Set the variable for the daemon (in its systemd unit, say), or give a default: "
        "${ADMIN_ADDRESS:-127.0.0.1:8090}. For a literal ${ write $${.",
    ),
    Story(
        "E014",
        "bad-reference",
        "Something begins with ${ but is no reference to a variable.",
        'data: ["costs ${5}"]',
        "Write ${NAME} or ${NAME:-default}, or $${ for a literal ${. A default cannot hold braces.",
    ),
    Story(
        "E015",
        "bad-number",
        "A number that is infinite, not a number, or beyond 64 bits.",
        "retries: .inf",
        "Write the largest number that is really meant.",
    ),
    Story(
        "E016",
        "control-character",
        "The file holds a character that no text file should: NUL, an escape, and the like."
        " Often it is a binary file, or a copy from a terminal.",
        'data: ["\\0"]',
        "Remove the character.",
    ),
    Story(
        "E017",
        "yaml-1.1-trap",
        "An unquoted word that old and new YAML read differently stands where a number or a"
        " truth value belongs. YAML 1.2, which counts here, takes yes, no, on and off as "
        "text and 012 as twelve; YAML 1.1, which most other tools use, takes them as true "
        "and false and 012 as ten.",
        "dedupe: yes\nretries: 012",
        "Write true or false, and numbers without leading zeros. Durations are written like"
        " 1m30s, not 1:30.",
    ),
    Story(
        "E018",
        "not-a-map",
        "The outermost thing in the file is a list or a single value.",
        "- version: 1",
        "A config file holds a map: `version`, `nodes` and so on.",
    ),
    Story(
        "E019",
        "merge-conflict",
        "The file holds both sides of a merge that nobody has resolved.",
        "<<<<<<< HEAD",
        "Resolve the conflict: keep one side and remove the lines of the markers, then commit.",
    ),
    Story(
        "W001",
        "yaml-1.1-text",
        "An unquoted word is text here, but something else to tools that read YAML 1.1: no "
        "is false there, 22:22 a number, 2024-01-01 a date. Nothing is wrong yet.",
        "data: [no]",
        'Quote it: "no".',
    ),
    Story(
        "W002",
        "empty-file",
        "A file of the config holds nothing, or comments alone. That is allowed; it is also how a file looks "
        "whose disk ran full while it was written.",
        "truncate -s 0 fleet/ship1.yaml",
        "Restore the file, or remove it.",
    ),
)
