"""Stories of problems of meaning: a config that is well-formed and cannot be."""

from __future__ import annotations

from appliance.config.stories.story import Story

STORIES = (
    Story(
        "E201",
        "no-nodes",
        "The config declares no node, so there is nothing to run. A file emptied by "
        "accident looks just like that, and must not stop a fleet.",
        "nodes: {}",
        "Declare a node: nodes: {ship1: {subscribe: {REQPing: {}}}}",
    ),
    Story(
        "E202",
        "unknown-node",
        "A destination or a sender that the config does not declare. Nodes that run "
        "elsewhere are declared too: the config describes the fleet, and each daemon runs "
        "its part of it.",
        "publish: {hello: {to: centrall, method: REQHello}}",
        "Mend the name, or declare the node below `nodes`. `local` is the own node; "
        "errorCentral takes REQErrorLog alone.",
    ),
    Story(
        "E203",
        "unknown-role",
        "A node names a role that is not declared.",
        "ship1: {roles: [managd]}",
        "Mend the name, or declare the role below `roles`.",
    ),
    Story(
        "E204",
        "unknown-method",
        "No such method. Method names are part of the wire and written exactly as Steward "
        "has them.",
        "subscribe: {REQHelo: {}}",
        "Take the name that the message suggests.",
    ),
    Story(
        "E205",
        "same-subject",
        "Two publish entries of a node want the same subject: same destination, method and "
        "acknowledgement. A subject has one publisher, with one window and one order.",
        "publish:\n  a: {to: ship1, method: REQPing}\n  b: {to: [ship1, ship2], method: REQPing}",
        "Join the two entries, or let their destinations differ.",
    ),
    Story(
        "E206",
        "no-subscriber",
        "A publish entry names a destination that does not subscribe the method: every "
        "message would wait until it expires.",
        "ship1: {subscribe: {REQPing: {}}}\n"
        "central: {publish: {run: {to: ship1, method: REQCliCommand}}}",
        "Add the subscription at the destination, or drop the destination from `to`. "
        "REQErrorLog is sent `to: errorCentral`.",
    ),
    Story(
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
    Story(
        "E208",
        "sender-not-accepted",
        "The destination lists whom it accepts, and the declared publisher is not among "
        "them: it would refuse every message.",
        "ship1: {subscribe: {REQPing: {accept_from: [ops]}}}\n"
        "central: {publish: {ping: {to: ship1, method: REQPing}}}",
        "Add the publisher to `accept_from`, or drop the destination from `to`.",
    ),
    Story(
        "E209",
        "option-not-of-method",
        "An option that only certain methods know stands at another method. It would "
        "protect nothing.",
        "REQToFile: {allow_commands: [[uptime]]}",
        "Move it to the method that the message names, or drop it.",
    ),
    Story(
        "E210",
        "bad-cron",
        "The cron expression cannot be understood, or never comes due. Five fields are "
        "read: minute, hour, day of the month, month, day of the week.",
        'cron: "61 * * * *"',
        'For example "*/5 * * * *" every five minutes, "0 3 * * 1" Mondays at three. '
        "Shorter than a minute: use `every`.",
    ),
    Story(
        "E211",
        "every-and-cron",
        "An entry has two schedules. After merging, one may come from a role and one from "
        "the node.",
        'hello: {to: central, method: REQHello, every: 30s, cron: "* * * * *"}',
        "Keep one. To replace a role's schedule by another kind, give the entry another "
        "name and switch off the role's with `enabled: false`.",
    ),
    Story(
        "E212",
        "incomplete-entry",
        "A publish entry lacks its destination or its method. Often its name differs from "
        "the role's entry that it was meant to change.",
        "publish: {helo: {every: 10s}}",
        "Add `to` and `method`, or use the name of the entry that is to be changed.",
    ),
    Story(
        "E213",
        "subject-too-long",
        "Node, method and kind together exceed 255 bytes.",
        "nodes: {aaaa…: {subscribe: {REQOpProcessList: {}}}}",
        "Shorten the node's name.",
    ),
    Story(
        "E214",
        "no-broker",
        "The config does not say which NATS broker to use.",
        "version: 1\nnodes: {…}",
        'servers: ["nats://host:4222"] for a broker that runs, embedded: true for a private one.',
    ),
    Story(
        "E215",
        "two-brokers",
        "The embedded broker and addresses of other brokers exclude one another.",
        'broker: {embedded: true, servers: ["nats://host:4222"]}',
        "Drop one of the two.",
    ),
    Story(
        "E216",
        "half-certificate",
        "A client certificate needs both its chain (`cert`) and its key (`key`).",
        "tls: {cert: {file: node.pem}}",
        "Add the other half, or drop this one: `ca` alone is enough to check the broker.",
    ),
    Story(
        "E217",
        "auth-conflict",
        "Two ways to log in are given, or half of one. The broker takes one.",
        "auth: {user: ship1, token: {env: TOKEN}}",
        "Keep one of nkey_seed, credentials, token, or user together with password.",
    ),
    Story(
        "E218",
        "bad-listen",
        "`admin.listen` is no address with a port.",
        "listen: 8090",
        "127.0.0.1:8090, localhost:8090 or [::1]:8090; port 0 takes a free one.",
    ),
    Story(
        "E219",
        "listen-without-token",
        "The listener would be reachable from other machines with nothing to protect what "
        "changes the daemon.",
        "admin: {listen: 0.0.0.0:8090}",
        "Listen on loopback, or add a token: admin: {listen: 0.0.0.0:8090, token: {file: "
        "admin.token}}",
    ),
    Story(
        "E220",
        "done-without-ack",
        "The entry asks to acknowledge when the work is done, but nothing is acknowledged "
        "on its subject.",
        "REQToFile: {ack: {mode: none, on: done}}",
        "Drop `on`, or require acknowledgement in the entry.",
    ),
    Story(
        "E221",
        "wildcard-program",
        "A pattern of `allow_commands` has a wildcard in the program's name. That would be "
        '"any command" in disguise.',
        'allow_commands: [["*", "status"]]',
        "Write the program out. To allow everything, say so: allow_commands: any",
    ),
    Story(
        "E222",
        "reserved-name",
        "A node has a name with a meaning of its own: `local` is the node itself, "
        "errorCentral whoever subscribes REQErrorLog.",
        "nodes: {local: {}}",
        "Rename the node.",
    ),
    Story(
        "E223",
        "listed-twice",
        "A name stands twice in a list.",
        "to: [ship1, ship1]",
        "Drop one. Perhaps another name was meant.",
    ),
    Story(
        "E225",
        "path-pattern",
        "A pattern of `allow_paths` is no absolute path, or climbs with `..`.",
        "REQTailFile: {allow_paths: [log/syslog]}",
        "Write the whole path: allow_paths: [/var/log/syslog], or /var/log/** for all below.",
    ),
    Story(
        "E226",
        "url-pattern",
        "A pattern of `allow_urls` is no URL with scheme, host and port written out. A wildcard in the "
        "host would be a way to every machine that somebody can give a name.",
        "REQHttpGet: {allow_urls: ['http://*.example.com/**']}",
        "Name each host: allow_urls: [https://a.example.com/status, http://b.example.com:8080/api/**]. "
        "`*` stands for anything within one part of the path, a last `**` for everything below.",
    ),
    Story(
        "E227",
        "relay-nowhere",
        "REQRelay is subscribed without the nodes that it may pass messages on to. Each of them "
        "has a subject of its own, so that the broker's permissions can tell them apart.",
        "gateway: {subscribe: {REQRelay: {}}}",
        "Name them: REQRelay: {relay_to: [ship1], relay_methods: [REQCliCommand]}",
    ),
    Story(
        "E228",
        "companion-declared",
        "A method that is subscribed together with another one, and with its settings, is declared "
        "by itself.",
        "ship1: {subscribe: {REQCopyFileTo: {allow_paths: [/srv/in/**]}, REQCopyFileChunk: {}}}",
        "Drop the entry: whoever takes files takes the pieces of large ones, too.",
    ),
    Story(
        "E240",
        "open-input",
        "A listener of `inputs` is reachable from other machines and asks for no token: whoever"
        " reaches it could order commands in this node's name.",
        "inputs: {tcp: {listen: 0.0.0.0:7701}}",
        "Listen on loopback, or add a token: tcp: {listen: 0.0.0.0:7701, token: {file:"
        " inputs.token}}. A TCP connection then begins with the line `Authorization: Bearer"
        " TOKEN`, an HTTP request carries the header of that name.",
    ),
    Story(
        "E241",
        "same-address",
        "Two listeners of the config want one address. Only one of them could have it.",
        "admin: {listen: 127.0.0.1:7701}\ninputs: {tcp: {listen: 127.0.0.1:7701}}",
        "Give each a port, or a socket name, of its own.",
    ),
    Story(
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
    Story(
        "E243",
        "unknown-timezone",
        "The name of a time zone that this machine does not know. Names are those of the IANA "
        "database, a region and a city, because only they say when the clocks change.",
        'nightly: {to: ship1, method: REQPing, cron: "0 3 * * *", timezone: Berlin}',
        "Write Europe/Berlin, or UTC for a time without summer time. Without `timezone` the "
        "system's zone counts.",
    ),
    Story(
        "W201",
        "unused-role",
        "A role that no node has. Nothing is wrong, but perhaps a node's list of roles is.",
        "roles: {managed: {}}\nnodes: {ship1: {}}",
        "Give the role to a node, or drop it.",
    ),
    Story(
        "W202",
        "no-effect",
        "The setting is understood but decides nothing at this place: the other side of the"
        " subject decides it, or another setting makes it pointless.",
        "subscribe: {REQPing: {window: 1}}",
        "Set it on the side that the message names, or drop it.",
    ),
    Story(
        "W203",
        "no-schedule",
        "Payload or arguments are given, but the entry produces no messages of its own.",
        "hello: {to: central, method: REQHello, data: [hi]}",
        "Add `every` or `cron`, or drop the field: messages that are sent by hand bring their own.",
    ),
    Story(
        "W204",
        "codec-mismatch",
        "The subscription names another compression or serialization than its publisher "
        "uses. No message is lost by that: each says in its headers how it is written, and "
        "receivers read them all. But the setting does not do what its reader believes.",
        "ship1: {subscribe: {REQPing: {compression: none}}}\n"
        "central: {publish: {ping: {to: ship1, method: REQPing}}}",
        "Drop it at the subscription, and set it at the publisher.",
    ),
    Story(
        "W205",
        "reply-unheard",
        "The method answers with a message of its own, and the publishing node does not "
        "subscribe the method that the answer comes as (REQToFileAppend unless "
        "`reply_method` says otherwise).",
        "central: {publish: {run: {to: ship1, method: REQCliCommand}}}",
        "Add the subscription: central: {subscribe: {REQToFileAppend: {}}}",
    ),
    Story(
        "W206",
        "errors-unheard",
        "Nodes take commands, and no node of the config subscribes REQErrorLog, the method that "
        "errorCentral stands for. What is refused, fails or is given up is then told by the log "
        "of the node itself and by its metrics; the reports expire unheard.",
        "nodes: {ship1: {subscribe: {REQCliCommand: {allow_commands: [[uptime]]}}}}",
        "Let the node from which the fleet is watched take them: central: {subscribe: {REQErrorLog: {}}}",
    ),
)
