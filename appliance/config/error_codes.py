"""Every code of a problem, with the story that `appliance explain CODE` tells. Codes are stable, names may improve."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class ErrorCode(NamedTuple):
    """One code: its short name, what it means, a mistake that gives it, and how to mend that."""

    code: str
    name: str
    meaning: str
    example: str
    mend: str


_ALL = (
    # Met while reading files.
    ErrorCode(
        "E001",
        "unreadable-file",
        "A file below a directory given as config is there, but cannot be read: a dangling "
        "link, missing rights, or something that is no regular file. A config with a hole "
        "is never used in part.",
        "conf.d/10-ship.yaml -> ../gone/10-ship.yaml",
        "Mend the link or the rights, or remove the file.",
    ),
    ErrorCode(
        "E002",
        "no-files",
        "A directory was given and nothing in it counts as a config file. Files must end in"
        " .yaml or .yml; names that begin with a dot are left out, directories too.",
        "conf.d/ships.yml.disabled",
        "Give the right directory, or rename the files.",
    ),
    ErrorCode(
        "E003",
        "too-large",
        "All files together exceed 8 MB, or more than two million workers come of them. The limits keep a wrong path"
        " (a directory of data, say) or a role that sends from all to all from taking the machine's memory.",
        "appliance check /var/log",
        "Give the directory that holds the config alone. A fleet of thousands of nodes fits"
        " when entries are shared in roles.",
    ),
    ErrorCode(
        "E004",
        "not-utf8",
        "A byte in the file is no UTF-8, or the file is UTF-16.",
        'data: ["Gr\\xfcße"]     in Latin-1',
        "Save the file as UTF-8.",
    ),
    ErrorCode(
        "E005",
        "syntax",
        "The file is not YAML. The place is where the reader stumbled; the cause often "
        "stands one line above: a missing quote, colon or bracket, or an indentation that "
        "is off.",
        "data: [a: b: c]",
        "Look at the line and the one before it. Tabs may not indent.",
    ),
    ErrorCode(
        "E006",
        "several-documents",
        "A line with --- begins a second document in the file. Only one is read per file, "
        "and ignoring the rest in silence would be worse than refusing it.",
        "version: 1\n---\nnodes: {}",
        "Put the second document into a file of its own; files of a directory are merged.",
    ),
    ErrorCode(
        "E007",
        "anchor-or-alias",
        "Anchors (&name), aliases (*name) and merge keys (<<) are refused: a few lines of "
        "them can unfold to gigabytes, and a reader cannot tell what a node really gets.",
        "ship1: &ship {roles: [managed]}\nship2: *ship",
        "Put what is shared into a role or into `defaults`. A text that begins with * or & "
        'needs quotes: "*".',
    ),
    ErrorCode(
        "E008",
        "tag",
        "A tag (!name, !!type) is refused: types follow from the schema, and tags can ask a"
        " reader to build objects.",
        'retries: !!int "3"',
        "Drop the tag.",
    ),
    ErrorCode(
        "E009",
        "key-not-text",
        "A key is a number, a truth value, null, a list or a map. Keys are names here.",
        "nodes: {7: {roles: [managed]}}",
        'Quote the key: "7".',
    ),
    ErrorCode(
        "E010",
        "duplicate-key",
        "The same key stands twice in one map. YAML readers take the last one in silence; "
        "which one was meant cannot be told.",
        "ack: {retries: 3, retries: 5}",
        "Drop one of the two.",
    ),
    ErrorCode(
        "E011",
        "set-twice",
        "Two files set the same thing. Maps merge over files, key by key, but a value or a "
        "list stands in one file only, since the order of files should never decide what "
        "holds. `version` may be repeated.",
        "a.yaml  log: {level: info}\nb.yaml  log: {level: debug}",
        "Drop one of the two; the message names both places.",
    ),
    ErrorCode(
        "E012",
        "too-deep",
        "Nested deeper than 32 levels. No config of this format is.",
        "data: [[[[[[…]]]]]]",
        "Look for brackets that do not close.",
    ),
    ErrorCode(
        "E013",
        "unset-variable",
        "${NAME} names an environment variable that is not set, and gives no default. An "
        "empty value in its place would be worse than an error.",
        "listen: ${ADMIN_ADDRESS}",
        "Set the variable for the daemon (in its systemd unit, say), or give a default: "
        "${ADMIN_ADDRESS:-127.0.0.1:8090}. For a literal ${ write $${.",
    ),
    ErrorCode(
        "E014",
        "bad-reference",
        "Something begins with ${ but is no reference to a variable.",
        'data: ["costs ${5}"]',
        "Write ${NAME} or ${NAME:-default}, or $${ for a literal ${. A default cannot hold braces.",
    ),
    ErrorCode(
        "E015",
        "bad-number",
        "A number that is infinite, not a number, or beyond 64 bits.",
        "retries: .inf",
        "Write the largest number that is really meant.",
    ),
    ErrorCode(
        "E016",
        "control-character",
        "The file holds a character that no text file should: NUL, an escape, and the like."
        " Often it is a binary file, or a copy from a terminal.",
        'data: ["\\0"]',
        "Remove the character.",
    ),
    ErrorCode(
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
    ErrorCode(
        "E018",
        "not-a-map",
        "The outermost thing in the file is a list or a single value.",
        "- version: 1",
        "A config file holds a map: `version`, `nodes` and so on.",
    ),
    ErrorCode(
        "E019",
        "merge-conflict",
        "The file holds both sides of a merge that nobody has resolved.",
        "<<<<<<< HEAD",
        "Resolve the conflict: keep one side and remove the lines of the markers, then commit.",
    ),
    ErrorCode(
        "W001",
        "yaml-1.1-text",
        "An unquoted word is text here, but something else to tools that read YAML 1.1: no "
        "is false there, 22:22 a number, 2024-01-01 a date. Nothing is wrong yet.",
        "data: [no]",
        'Quote it: "no".',
    ),
    ErrorCode(
        "W002",
        "empty-file",
        "A file of the config holds nothing, or comments alone. That is allowed; it is also how a file looks "
        "whose disk ran full while it was written.",
        "truncate -s 0 fleet/ship1.yaml",
        "Restore the file, or remove it.",
    ),
    ErrorCode(
        "W003",
        "not-read",
        "A file whose name is nearly that of a config file: in capitals, with a blank at its end, or with .txt behind it. "
        "It counts for nothing.",
        "fleet/SHIP3.YAML",
        "Rename it so that it ends in .yaml or .yml.",
    ),
    # Of shape: what the JSON Schema refuses.
    ErrorCode(
        "E101",
        "unknown-key",
        "A key that means nothing at this place. Mostly a slip of the pen: then the nearest"
        " name is shown. Keys are never ignored, since a setting that silently does not "
        "hold is found out too late.",
        "ack: {retrys: 3}",
        "Write the key that was meant; `appliance schema` prints all of them.",
    ),
    ErrorCode(
        "E102",
        "wrong-type",
        "A value of another kind than the setting needs: a list for a text, a text for a number.",
        "concurrency: ten",
        "The message says what is expected. Texts that look like numbers need quotes.",
    ),
    ErrorCode(
        "E103",
        "missing-key",
        "A key that must be there is not.",
        "nodes: {}     without `version: 1`",
        "Add it. `version: 1` stands once in a config, or in each of its files.",
    ),
    ErrorCode(
        "E104",
        "not-one-of",
        "The setting takes one of a few words, and this is none of them.",
        "ack: {mode: requird}",
        "Write one of the words in the message.",
    ),
    ErrorCode(
        "E105",
        "out-of-bounds",
        "A number, duration or length beyond what makes sense for the setting.",
        "window: 0",
        "The message names the bound; `appliance schema` prints all bounds.",
    ),
    ErrorCode(
        "E106",
        "malformed",
        "A text that is not of the form its setting needs: a duration, an address, a name "
        "of a node or method.",
        "timeout: 5 seconds",
        "Durations: 250ms, 5s, 1m30s, or a number of seconds. Addresses: nats://host:4222, "
        "user and password belong into broker.auth. Percentages: 50%.",
    ),
    ErrorCode(
        "E107",
        "bad-name",
        "A name that cannot be one. Node and method names become parts of NATS subjects: "
        "letters, digits, _ and -; nodes also dots inside.",
        'nodes: {"ship 1": {}}',
        "Rename it.",
    ),
    ErrorCode(
        "E108",
        "empty",
        "A list or text that must hold something is empty.",
        "to: []",
        "Fill it, or drop the key.",
    ),
    ErrorCode(
        "E109",
        "plain-secret",
        "A secret stands in the config itself. Configs live in Git and in logs; secrets must not.",
        "auth: {token: s3cr3t}",
        "Say where it is read from: {file: token.txt}, {env: NATS_TOKEN}, or {credential: "
        "nats-token} for a systemd credential. If the secret has been committed, replace "
        "it.",
    ),
    ErrorCode(
        "E110",
        "one-reference",
        "A reference to a secret must name exactly one source.",
        "token: {file: token.txt, env: NATS_TOKEN}",
        "Keep one of `file`, `env` and `credential`.",
    ),
    ErrorCode(
        "E111",
        "unsupported-version",
        "`version` tells the format of the config, and this program reads version 1.",
        "version: 2",
        "Write `version: 1`, or use a release of the program that reads the other format.",
    ),
    # Of meaning: a config that is well-formed and cannot be.
    ErrorCode(
        "E201",
        "no-nodes",
        "The config declares no node, so there is nothing to run. A file emptied by "
        "accident looks just like that, and must not stop a fleet.",
        "nodes: {}",
        "Declare a node: nodes: {ship1: {subscribe: {REQPing: {}}}}",
    ),
    ErrorCode(
        "E202",
        "unknown-node",
        "A destination or a sender that the config does not declare. Nodes that run "
        "elsewhere are declared too: the config describes the fleet, and each daemon runs "
        "its part of it.",
        "publish: {hello: {to: centrall, method: REQHello}}",
        "Mend the name, or declare the node below `nodes`. `local` is the own node; "
        "errorCentral takes REQErrorLog alone.",
    ),
    ErrorCode(
        "E203",
        "unknown-role",
        "A node names a role that is not declared.",
        "ship1: {roles: [managd]}",
        "Mend the name, or declare the role below `roles`.",
    ),
    ErrorCode(
        "E204",
        "unknown-method",
        "No such method. Method names are part of the wire and written exactly as Steward "
        "has them.",
        "subscribe: {REQHelo: {}}",
        "Take the name that the message suggests.",
    ),
    ErrorCode(
        "E205",
        "same-subject",
        "Two publish entries of a node want the same subject: same destination, method and "
        "acknowledgement. A subject has one publisher, with one window and one order.",
        "publish:\n  a: {to: ship1, method: REQPing}\n  b: {to: [ship1, ship2], method: REQPing}",
        "Join the two entries, or let their destinations differ.",
    ),
    ErrorCode(
        "E206",
        "no-subscriber",
        "A publish entry names a destination that does not subscribe the method: every "
        "message would wait until it expires.",
        "ship1: {subscribe: {REQPing: {}}}\n"
        "central: {publish: {run: {to: ship1, method: REQCliCommand}}}",
        "Add the subscription at the destination, or drop the destination from `to`. "
        "REQErrorLog is sent `to: errorCentral`.",
    ),
    ErrorCode(
        "E207",
        "ack-mismatch",
        "Acknowledgement is part of the subject (CommandACK, CommandNACK, …). Where the "
        "publisher requires one and the subscriber gives none, or the other way round, the "
        "two stand on different subjects and never meet.",
        "ship1: {subscribe: {REQPing: {ack: {mode: none}}}}\n"
        "central: {publish: {ping: {to: ship1, method: REQPing}}}",
        "Give both sides the same `ack.mode`. REQHello is not acknowledged unless an entry "
        "itself says so.",
    ),
    ErrorCode(
        "E208",
        "sender-not-accepted",
        "The destination lists whom it accepts, and the declared publisher is not among "
        "them: it would refuse every message.",
        "ship1: {subscribe: {REQPing: {accept_from: [ops]}}}\n"
        "central: {publish: {ping: {to: ship1, method: REQPing}}}",
        "Add the publisher to `accept_from`, or drop the destination from `to`.",
    ),
    ErrorCode(
        "E209",
        "option-not-of-method",
        "An option that only certain methods know stands at another method. It would "
        "protect nothing.",
        "REQToFile: {allow_commands: [[uptime]]}",
        "Move it to the method that the message names, or drop it.",
    ),
    ErrorCode(
        "E210",
        "bad-cron",
        "The cron expression cannot be understood, or never comes due. Five fields are "
        "read: minute, hour, day of the month, month, day of the week.",
        'cron: "61 * * * *"',
        'For example "*/5 * * * *" every five minutes, "0 3 * * 1" Mondays at three. '
        "Shorter than a minute: use `every`.",
    ),
    ErrorCode(
        "E211",
        "every-and-cron",
        "An entry has two schedules. After merging, one may come from a role and one from "
        "the node.",
        'hello: {to: central, method: REQHello, every: 30s, cron: "* * * * *"}',
        "Keep one. To replace a role's schedule by another kind, give the entry another "
        "name and switch off the role's with `enabled: false`.",
    ),
    ErrorCode(
        "E212",
        "incomplete-entry",
        "A publish entry lacks its destination or its method. Often its name differs from "
        "the role's entry that it was meant to change.",
        "publish: {helo: {every: 10s}}",
        "Add `to` and `method`, or use the name of the entry that is to be changed.",
    ),
    ErrorCode(
        "E213",
        "subject-too-long",
        "Node, method and kind together exceed 255 bytes.",
        "nodes: {aaaa…: {subscribe: {REQOpProcessList: {}}}}",
        "Shorten the node's name.",
    ),
    ErrorCode(
        "E214",
        "no-broker",
        "The config does not say which NATS broker to use.",
        "version: 1\nnodes: {…}",
        'servers: ["nats://host:4222"] for a broker that runs, embedded: true for a private one.',
    ),
    ErrorCode(
        "E215",
        "two-brokers",
        "The embedded broker and addresses of other brokers exclude one another.",
        'broker: {embedded: true, servers: ["nats://host:4222"]}',
        "Drop one of the two.",
    ),
    ErrorCode(
        "E216",
        "half-certificate",
        "A client certificate needs both its chain (`cert`) and its key (`key`).",
        "tls: {cert: {file: node.pem}}",
        "Add the other half, or drop this one: `ca` alone is enough to check the broker.",
    ),
    ErrorCode(
        "E217",
        "auth-conflict",
        "Two ways to log in are given, or half of one. The broker takes one.",
        "auth: {user: ship1, token: {env: TOKEN}}",
        "Keep one of nkey_seed, credentials, token, or user together with password.",
    ),
    ErrorCode(
        "E218",
        "bad-listen",
        "`admin.listen` is no address with a port.",
        "listen: 8090",
        "127.0.0.1:8090, localhost:8090 or [::1]:8090; port 0 takes a free one.",
    ),
    ErrorCode(
        "E219",
        "listen-without-token",
        "The listener would be reachable from other machines with nothing to protect what "
        "changes the daemon.",
        "admin: {listen: 0.0.0.0:8090}",
        "Listen on loopback, or add a token: admin: {listen: 0.0.0.0:8090, token: {file: "
        "admin.token}}",
    ),
    ErrorCode(
        "E220",
        "done-without-ack",
        "The entry asks to acknowledge when the work is done, but nothing is acknowledged "
        "on its subject.",
        "REQToFile: {ack: {mode: none, on: done}}",
        "Drop `on`, or require acknowledgement in the entry.",
    ),
    ErrorCode(
        "E221",
        "wildcard-program",
        "A pattern of `allow_commands` has a wildcard in the program's name. That would be "
        '"any command" in disguise.',
        'allow_commands: [["*", "status"]]',
        "Write the program out. To allow everything, say so: allow_commands: any",
    ),
    ErrorCode(
        "E222",
        "reserved-name",
        "A node has a name with a meaning of its own: `local` is the node itself, "
        "errorCentral whoever subscribes REQErrorLog. Nor may its subjects lie below those of another, where rights at "
        "the broker would reach them.",
        "nodes: {local: {}}",
        "Rename the node.",
    ),
    ErrorCode(
        "E223",
        "listed-twice",
        "A name stands twice in a list.",
        "to: [ship1, ship1]",
        "Drop one. Perhaps another name was meant.",
    ),
    ErrorCode(
        "E225",
        "path-pattern",
        "A pattern of `allow_paths` is no absolute path, or climbs with `..`.",
        "REQTailFile: {allow_paths: [log/syslog]}",
        "Write the whole path: allow_paths: [/var/log/syslog], or /var/log/** for all below.",
    ),
    ErrorCode(
        "E226",
        "url-pattern",
        "A pattern of `allow_urls` is no URL with scheme, host and port written out. A wildcard in the "
        "host would be a way to every machine that somebody can give a name.",
        "REQHttpGet: {allow_urls: ['http://*.example.com/**']}",
        "Name each host: allow_urls: [https://a.example.com/status, http://b.example.com:8080/api/**]. "
        "`*` stands for anything within one part of the path, a last `**` for everything below.",
    ),
    ErrorCode(
        "E227",
        "relay-nowhere",
        "REQRelay is subscribed without the nodes that it may pass messages on to. Each of them "
        "has a subject of its own, so that the broker's permissions can tell them apart.",
        "gateway: {subscribe: {REQRelay: {}}}",
        "Name them: REQRelay: {relay_to: [ship1], relay_methods: [REQCliCommand]}",
    ),
    ErrorCode(
        "E228",
        "companion-declared",
        "A method that is subscribed together with another one, and with its settings, is declared "
        "by itself.",
        "ship1: {subscribe: {REQCopyFileTo: {allow_paths: [/srv/in/**]}, REQCopyFileChunk: {}}}",
        "Drop the entry: whoever takes files takes the pieces of large ones, too.",
    ),
    ErrorCode(
        "E240",
        "open-input",
        "A listener of `inputs` is reachable from other machines and asks for no token: whoever"
        " reaches it could order commands in this node's name.",
        "inputs: {tcp: {listen: 0.0.0.0:7701}}",
        "Listen on loopback, or add a token: tcp: {listen: 0.0.0.0:7701, token: {file:"
        " inputs.token}}. A TCP connection then begins with the line `Authorization: Bearer"
        " TOKEN`, an HTTP request carries the header of that name.",
    ),
    ErrorCode(
        "E241",
        "same-address",
        "Two listeners of the config want one address. Only one of them could have it.",
        "admin: {listen: 127.0.0.1:7701}\ninputs: {tcp: {listen: 127.0.0.1:7701}}",
        "Give each a port, or a socket name, of its own.",
    ),
    ErrorCode(
        "E242",
        "forgets-too-soon",
        "Ids of handled messages are forgotten before the last resend can come. A message whose "
        "acknowledgement was lost with the link is sent again for as long as `ack.expires` says, "
        "and the receiver would no longer know that it has done the work.",
        "state: {dedupe_window: 1h}\ndefaults: {ack: {expires: 168h}}",
        "Drop `dedupe_window`: it then follows the longest `ack.expires` of the config by itself. "
        "Or shorten `ack.expires` where the message names it. The config describes the fleet, so "
        "senders that run elsewhere count too.",
    ),
    ErrorCode(
        "E243",
        "unknown-timezone",
        "The name of a time zone that this machine does not know. Names are those of the IANA "
        "database, a region and a city, because only they say when the clocks change.",
        'nightly: {to: ship1, method: REQPing, cron: "0 3 * * *", timezone: Berlin}',
        "Write Europe/Berlin, or UTC for a time without summer time. Without `timezone` the "
        "system's zone counts.",
    ),
    ErrorCode(
        "E244",
        "unusable-secret",
        "A secret or certificate that the config names cannot be used: it cannot be read by this user, is empty, cut off, "
        "expired, of another kind, or the key does not belong to the certificate. `check --secrets` and a running daemon "
        "tell of it; a config that names it is not refused, since what it names may come later.",
        "admin: {listen: 0.0.0.0:8090, token: {file: token}}  # and no such file",
        "Write the file, let the daemon's user read it, or renew what has expired. It is taken as soon as it is there.",
    ),
    ErrorCode(
        "E245",
        "public-key-mistyped",
        "What `public_keys` holds has the look of a public NKEY and is none: the checksum at its end is wrong.",
        "nodes: {ship1: {public_keys: [UD…X]}}  # one letter another",
        "Copy the key again. `appliance keys show FILE` prints the public key of a seed.",
    ),
    ErrorCode(
        "E246",
        "caller-named-twice",
        "Two tokens or certificates of the listener have one name, or two entries name one certificate: the history could "
        "not tell who asked.",
        "admin: {tokens: [{name: ci, token: {env: A}, scopes: [read]}, {name: ci, token: {env: B}, scopes: [send]}]}",
        "Give each a name of its own. To renew a token, write the new one into its file: it holds from the next request on.",
    ),
    ErrorCode(
        "E247",
        "certificate-unclear",
        "A client certificate of the listener that nobody can bring, because no `tls.client_ca` says who signs them, or "
        "that nothing, or two things, tell apart from others.",
        "admin: {certificates: [{name: anna, scopes: [read]}]}",
        "Name the authority (`tls: {client_ca: {file: clients.pem}}`), and in each entry one of `cn` and `san`.",
    ),
    ErrorCode(
        "E248",
        "replay-unknown",
        "Messages of a subscription are signed, and `dedupe: false` has it forget which have come. A signature tells who "
        "made a message, not whether it comes for the first time; whoever kept a copy could have it done again.",
        "subscribe: {REQToConsole: {signatures: prefer, dedupe: false}}",
        "Drop `dedupe`, or write `signatures: off`.",
    ),
    ErrorCode(
        "E249",
        "signature-without-key",
        "With `signatures: require` nothing counts that is not signed, and a node that takes part in the subject (its own, "
        "one of `accept_from`, one that publishes to it) has no `public_keys` to check its signatures with. So it is with a "
        "Go node, which cannot sign.",
        "nodes: {ship1: {subscribe: {REQPing: {signatures: require}}}}  # and no public_keys",
        "Make a key (`appliance keys new NODE`) and write its public key into the config; or `signatures: prefer`, which "
        "lets in unsigned who has no key.",
    ),
    ErrorCode(
        "E250",
        "nothing-to-sign-with",
        "`signatures` is on somewhere, and the config names no key to sign with: neither `signing.key` nor a login by "
        "a seed.",
        "defaults: {signatures: prefer}  # and broker: {auth: {user: a, password: {env: P}}}",
        "Log in by a key (`broker: {auth: {nkey_seed: {credential: appliance.nkey}}}`), which then signs, too; or name one "
        "that only signs: `signing: {key: {file: /etc/appliance/ship1.nk}}`.",
    ),
    ErrorCode(
        "W208",
        "listen-without-tls",
        "The listener is reachable from other machines and has no TLS: whoever is on the way reads the tokens and all "
        "answers.",
        "admin: {listen: 0.0.0.0:8090, token: {file: admin.token}}",
        "Add `tls: {cert: {file: node.pem}, key: {file: node.key}}`. Where a proxy that speaks TLS stands before it on this "
        "machine, listen on loopback. Where the network is safe, as within a pod's, say so: `insecure_http: true`.",
    ),
    ErrorCode(
        "W210",
        "one-word-command",
        "A whole command line stands where the name of a program does. No shell takes it apart: a program with blanks in "
        "its name is looked for.",
        'subscribe: {REQCliCommand: {allow_commands: [["systemctl status nginx"]]}}',
        "Write program and arguments as words of their own: [systemctl, status, nginx].",
    ),
    ErrorCode(
        "W207",
        "secret-expires-soon",
        "A certificate or login that the config names ends within two weeks.",
        "broker: {tls: {cert: {file: node.pem}, key: {file: node.key}}}  # valid until next Friday",
        "Renew it. A running daemon takes the new one by itself, without losing a message.",
    ),
    ErrorCode(
        "W201",
        "unused-role",
        "A role that no node has. Nothing is wrong, but perhaps a node's list of roles is.",
        "roles: {managed: {}}\nnodes: {ship1: {}}",
        "Give the role to a node, or drop it.",
    ),
    ErrorCode(
        "W202",
        "no-effect",
        "The setting is understood but decides nothing at this place: the other side of the"
        " subject decides it, or another setting makes it pointless.",
        "subscribe: {REQPing: {window: 1}}",
        "Set it on the side that the message names, or drop it.",
    ),
    ErrorCode(
        "W203",
        "no-schedule",
        "Payload or arguments are given, but the entry produces no messages of its own.",
        "hello: {to: central, method: REQHello, data: [hi]}",
        "Add `every` or `cron`, or drop the field: messages that are sent by hand bring their own.",
    ),
    ErrorCode(
        "W204",
        "codec-mismatch",
        "The subscription names another compression or serialization than its publisher "
        "uses. No message is lost by that: each says in its headers how it is written, and "
        "receivers read them all. But the setting does not do what its reader believes.",
        "ship1: {subscribe: {REQPing: {compression: none}}}\n"
        "central: {publish: {ping: {to: ship1, method: REQPing}}}",
        "Drop it at the subscription, and set it at the publisher.",
    ),
    ErrorCode(
        "W205",
        "reply-unheard",
        "The method answers with a message of its own, and the publishing node does not "
        "subscribe the method that the answer comes as (REQToFileAppend unless "
        "`reply_method` says otherwise).",
        "central: {publish: {run: {to: ship1, method: REQCliCommand}}}",
        "Add the subscription: central: {subscribe: {REQToFileAppend: {}}}",
    ),
    ErrorCode(
        "W206",
        "errors-unheard",
        "Nodes take commands, and no node of the config subscribes REQErrorLog, the method that "
        "errorCentral stands for. What is refused, fails or is given up is then told by the log "
        "of the node itself and by its metrics; the reports expire unheard.",
        "nodes: {ship1: {subscribe: {REQCliCommand: {allow_commands: [[uptime]]}}}}",
        "Let the node from which the fleet is watched take them: central: {subscribe: {REQErrorLog: {}}}",
    ),
    # Of streams.
    ErrorCode(
        "E260",
        "no-jetstream",
        "Messages are to be kept by a stream, and the broker that starts with the daemon keeps none.",
        "broker: {embedded: true}\ndefaults: {delivery: jetstream}",
        "Start it with JetStream: broker: {embedded: {jetstream: true}}",
    ),
    ErrorCode(
        "E261",
        "stream-of-two-kinds",
        "Two subscriptions name one stream and give it different settings. Each daemon would make it "
        "what its own nodes want, over and over.",
        "ship1: {delivery: jetstream, stream: {name: fleet, max_age: 168h}}\n"
        "ship2: {delivery: jetstream, stream: {name: fleet, max_age: 24h}}",
        "Write the settings of a shared stream once, in `defaults` or in a role, or give each node its own.",
    ),
    ErrorCode(
        "E262",
        "overlapping-streams",
        "Several nodes subscribe one subject (errorCentral, mostly), and want it kept by different streams, or by "
        "one and by none. The broker lets no two streams record one subject.",
        "a: {subscribe: {REQErrorLog: {delivery: jetstream}}}\nb: {subscribe: {REQErrorLog: {}}}",
        "Give all of them one `delivery` and one `stream: {name: …}`.",
    ),
    ErrorCode(
        "E263",
        "way-of-the-other-side",
        "How messages of a subject are carried is said where it is subscribed, and holds for its senders. A publish "
        "entry says otherwise: a sender by core would wait for an acknowledgement of the node, which a stream's own "
        "is not; a sender to a stream would wait for one that is not there.",
        "ship1: {subscribe: {REQToFile: {delivery: jetstream}}}\n"
        "central: {publish: {files: {to: ship1, method: REQToFile, delivery: core}}}",
        "Drop `delivery` at the publish entry.",
    ),
    ErrorCode(
        "E264",
        "kept-without-ack",
        "A stream is to keep messages that nothing acknowledges. The stream's own word is an acknowledgement, and who "
        "sends to a subject without them waits for none.",
        "ship1: {subscribe: {REQHello: {delivery: jetstream}}}",
        "Drop `delivery`, or write `ack: {mode: required}` on both sides.",
    ),
    ErrorCode(
        "W260",
        "stream-without-a-bound",
        "A stream may grow as long as the broker's disk has room: it has neither an age nor a size. A node that "
        "never comes back would fill it, for all others too.",
        "defaults: {delivery: jetstream, stream: {max_age: 0, max_bytes: 0}}",
        "Set one of them: max_age (720h unless set), max_bytes (256 MiB unless set).",
    ),
    ErrorCode(
        "W261",
        "replicas-beyond-servers",
        "A stream is to be kept on more servers than the config names. Where the cluster is no larger, the broker "
        "refuses to make it; where it is, name its other servers, too, so that one of them is always found.",
        'broker: {servers: ["nats://a:4222"]}\ndefaults: {delivery: jetstream, stream: {replicas: 3}}',
        "Name all servers of the cluster in `broker.servers`, or lower `replicas`.",
    ),
    ErrorCode(
        "W262",
        "processes-without-work",
        "`workers` counts processes for methods that compute: handlers in Python that keep a core busy, as their `METHOD` "
        "says. No node of the config subscribes to one. Programs, requests and files are no such work: they use all cores "
        "whatever stands there.",
        "workers: 4\nnodes: {ship1: {subscribe: {REQCliCommand: {allow_commands: [[uptime]]}}}}",
        "Leave `workers` out, or subscribe to the method that it is for.",
    ),
    # Of methods that the config declares.
    ErrorCode(
        "E230",
        "reserved-method",
        "A method of the config has the name of a built-in one, or begins with REQ as all methods of the wire do. A "
        "peer would take the one for the other, now or after the next release.",
        "methods: {REQRestart: {exec: [reboot]}}",
        "Choose another name, such as Restart.",
    ),
    ErrorCode(
        "E231",
        "one-action",
        "A method does exactly one thing: `exec` runs a program, `http` makes a request, `file` writes a file. The "
        "settings `stdin`, `environment` and `allow_options` belong to `exec`.",
        "methods: {Note: {exec: [logger], file: {name: notes}}}",
        "Keep one of them, or declare two methods.",
    ),
    ErrorCode(
        "E232",
        "bad-placeholder",
        "A placeholder that is none, that names an argument which `args` does not admit, or that stands where a value "
        "of a message must not: the program itself, the name of a header, data in an address.",
        'exec: [systemctl, restart, "{args.1}"], with one argument in args',
        "Placeholders are {args.N} counted from 0, {args.*} as an element of its own in `exec`, {data}, {from}, {to}, "
        "{id}. Braces that are meant as such are doubled: {{ and }}. `args` must admit every argument that is named.",
    ),
    ErrorCode(
        "E233",
        "bad-argument-schema",
        "`args` is no JSON Schema (draft 2020-12) of a list, refers outside of itself, goes in circles, is too large, or "
        "has a pattern that only a backtracking engine could search.",
        "args: {type: arrray}",
        "Describe the list: args: {type: array, prefixItems: [{title: service, enum: [nginx]}], minItems: 1, items: "
        "false}. References are written #/$defs/NAME.",
    ),
    ErrorCode(
        "E234",
        "bad-request",
        "The address or a header of `http` cannot be used, or a value of a message could turn the request elsewhere. "
        "Scheme, host and port are the operator's: they are written out, and a slash ends them before the first "
        "placeholder.",
        'http: {url: "https://{args.0}/status"}',
        'Write the host out: "https://hooks.example.net/{args.0}". User and password do not belong into an address; '
        "send a header.",
    ),
    ErrorCode(
        "E235",
        "bad-method-file",
        "The file of a method does not lie below the data directory.",
        "file: {directory: /var/log, name: notes}",
        "Name a directory below it: directory: notes",
    ),
    ErrorCode(
        "E236",
        "arguments-refused",
        "A publish entry produces messages whose arguments the method does not take: the receiver would refuse each of "
        "them.",
        "publish: {web: {to: ship1, method: RestartWeb, every: 24h}}, without the service that RestartWeb needs",
        "Mend `method_args`; `appliance methods NAME --config PATH` shows what the method takes.",
    ),
    ErrorCode(
        "E237",
        "peers-program",
        "A value of a message would be read as a program: by a shell (`sh -c`), another interpreter (`python -c`, "
        "`perl -e`, `awk`, `ssh HOST …`), from its standard input, or by a variable from which programs are loaded "
        "(LD_PRELOAD, PATH, BASH_ENV). Who may ask for the method could have anything run. Values whose schema in "
        "`args` is an `enum`, a `const` or a `pattern` of letters and digits (`^[a-z0-9-]+$`) may stand there.",
        'methods: {Restart: {exec: [sh, -c, "restart {args.0}"]}}',
        'Hand it over as data: exec: [sh, -c, \'restart "$1"\', sh, "{args.0}"], or in `environment` or `stdin`; '
        "or say in `args` which values there are.",
    ),
    ErrorCode(
        "E280",
        "enrolment-incomplete",
        "Where new nodes may ask to be let in, one node keeps what they ask, and an invitation lets them ask.",
        "enrolment: {node: central}",
        "Make an invitation, and write its public key: appliance keys new invitation",
    ),
    ErrorCode(
        "E281",
        "invitation-is-a-nodes-key",
        "An invitation is given to machines that are not known yet. Whoever has it could log in as the node of that key.",
        "enrolment: {node: central, invitations: [UABC…]}\nnodes: {ship1: {public_keys: [UABC…]}}",
        "Make a key for the invitation alone: appliance keys new invitation",
    ),
    ErrorCode(
        "W280",
        "no-login",
        "The embedded broker is secured: it lets in its own daemon, and nodes by their `public_keys`. This node is run "
        "by another daemon and has none, so it cannot log in, and messages for it wait.",
        "broker: {embedded: {secured: true}}\nnodes: {central: {}, ship1: {}}, run as: appliance run --node central",
        "Make a key on its machine, and put the line that is printed into the config: appliance keys new ship1",
    ),
    ErrorCode(
        "W281",
        "nobody-let-in",
        "An item of `accept_from` chooses nodes by role, label or pattern, and means none of those declared.",
        "ship1: {subscribe: {REQPing: {accept_from: [site=olso]}}}",
        "Mend the name; or leave it, and nodes that come later are let in.",
    ),
    ErrorCode(
        "W282",
        "open-to-everybody",
        "`check --secrets` found that every user of this machine may read a secret that the config names, or may change "
        "a file of the config: who does decides what the node does.",
        "broker: {auth: {nkey_seed: {file: /etc/appliance/ship1.nk}}}, and ls -l says -rw-r--r--",
        "chmod o-rwx the secret, chmod o-w the config; appliance doctor goes through owners, groups and directories, too.",
    ),
    # Of a set that is valid by itself but that a running daemon refuses.
    ErrorCode(
        "E301",
        "needs-restart",
        "The setting cannot change while the daemon runs, and a set is taken whole or not at all.",
        "state: {dir: /var/lib/elsewhere}",
        "Restart the daemon to take the change, or undo it to let the rest of the set through.",
    ),
    ErrorCode(
        "E302",
        "cancels-too-much",
        "The set would cancel a larger share of the running workers than `reload.max_cancel` allows. A half-written "
        "or empty file looks like that.",
        "nodes: {central: {}}",
        "If it is meant: appliance reload --force. Else look for the missing file. `reload.max_cancel` sets the share.",
    ),
    ErrorCode(
        "E303",
        "cannot-listen",
        "The new address of `admin.listen` cannot be opened; the old listener goes on.",
        "admin: {listen: 127.0.0.1:22}",
        "Free the port or choose another; port 0 takes a free one.",
    ),
    ErrorCode(
        "E304",
        "broker-unusable",
        "No connection with the new broker settings came about; the old connection goes on.",
        "broker: {servers: [nats://no-such-host:4222]}",
        "Make the broker reachable or mend address, certificate or credentials.",
    ),
    ErrorCode(
        "E305",
        "run-nodes-unclear",
        "The set no longer says which node this daemon runs: the one it was started with is not declared any more.",
        "appliance run fleet/ --node ship1, and ship1 is removed from fleet/",
        "Declare the node again, or restart the daemon for another one.",
    ),
    ErrorCode(
        "E306",
        "look-failed",
        "Something unforeseen kept the daemon from looking at the config. The set in force goes on.",
        "internal error: OSError: …",
        "Ask again with appliance reload. If it stays, the text belongs in a bug report.",
    ),
    ErrorCode(
        "E307",
        "input-unusable",
        "An input of the new set cannot be opened: an address in use, a socket or a folder that cannot be made, a "
        "token that cannot be read. The old inputs go on.",
        "inputs: {http: {listen: 127.0.0.1:22}}",
        "Free the address or choose another; make the folder's parent, or the token, readable.",
    ),
    ErrorCode(
        "E308",
        "emptied-file",
        "A file that held a part of the set in force holds nothing now, and nodes would go with it. That is how a file "
        "looks whose disk ran full while it was written.",
        "truncate -s 0 fleet/ship1.yaml",
        "Restore the file, or remove it. If it is meant: appliance reload --force.",
    ),
    ErrorCode(
        "E310",
        "trial-failed",
        "A worker that the new set started or changed did not run when the set's trial was over "
        "(reload.trial). The daemon went back to the set before, which stays in force until the "
        "files change.",
        "ship1: {subscribe: {REQPing: {}}}   # and the broker denies ship1.>",
        "Mend the config, or what the worker needs; then save the files, or appliance reload --force.",
    ),
    ErrorCode(
        "E311",
        "no-work-tree",
        "The config asks to be read from a git work tree (config.source: git), and the paths are in none, in "
        "several, or the repository is damaged.",
        "config: {source: git}",
        "Start the daemon with a path in a clone, or below the link that git-sync moves.",
    ),
    ErrorCode(
        "E312",
        "unsigned-commit",
        "Only signed commits are taken (config.signed_by of the set in force, or run --signed-by), and "
        "this one is not signed, or not by an allowed ed25519 key.",
        "config: {source: git, signed_by: [ssh-ed25519 AAAA… anna]}",
        "Sign the commit with an allowed key: git -c gpg.format=ssh commit -S.",
    ),
    ErrorCode(
        "E313",
        "not-committed",
        "Only signed commits are taken, and files of the config are not as the commit has them.",
        "git commit -S; echo 'x: 1' >> fleet.yaml",
        "Commit the change, signed, or undo it.",
    ),
    ErrorCode(
        "E314",
        "older-commit",
        "Only signed commits are taken, and the commit came before the newest one that was in force: an old one, "
        "signed as well, may have been put there again. Older is what that one follows from; of another branch, or where "
        "a shallow clone has no history, what was committed before it.",
        "git reset --hard HEAD~3",
        "Go back with a new commit, signed (git revert), or take it as it is with appliance reload --force.",
    ),
    ErrorCode(
        "W301",
        "pinned",
        "The files are as they were when somebody rolled back, or when a trial failed: what they "
        "say stays out of force.",
        "appliance rollback; appliance reload",
        "Change the files, or take them as they are with appliance reload --force.",
    ),
    ErrorCode(
        "W302",
        "pin-not-kept",
        "An older set is in force again, and the disk does not take the pin that would keep it there over a restart: it is "
        "full, read-only or failing. Until it is written, a restart takes what the files say.",
        "appliance rollback, with a full disk",
        "Make room in the state directory (it is tried again every moment), or mend the files before the next restart.",
    ),
    ErrorCode(
        "W303",
        "commit-not-judged",
        "Only signed commits are taken (config.signed_by, or run --signed-by). A plan of other files than those that the "
        "daemon's paths hold sees their texts and no commit: whether it is signed, and not older than the one in force, "
        "is not said.",
        "appliance plan ./clone",
        "Look at the signature with git log --show-signature. Once the files are in place, appliance plan judges both.",
    ),
    ErrorCode(
        "W304",
        "pin-lost",
        "An older set was pinned by a rollback or a failed trial, and a restart could not keep it there: pin.json of the "
        "state directory cannot be read, or the set cannot be used any more (a variable that it needs is not set, its "
        "files are not in the history). What the files say is in force again.",
        "appliance rollback; unset SITE; systemctl restart appliance",
        "Have back what is missing and go back once more with appliance rollback, or mend the files.",
    ),
)

ERROR_CODES: Mapping[str, ErrorCode] = MappingProxyType({one.code: one for one in sorted(_ALL)})


def name_of(code: str) -> str:
    """The short name of a code, "" for one that is unknown."""
    found = ERROR_CODES.get(code)
    return found.name if found else ""
