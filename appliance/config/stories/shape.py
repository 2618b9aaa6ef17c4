"""Stories of problems of shape: what the JSON Schema refuses."""

from __future__ import annotations

from appliance.config.stories.story import Story

STORIES = (
    Story(
        "E101",
        "unknown-key",
        "A key that means nothing at this place. Mostly a slip of the pen: then the nearest"
        " name is shown. Keys are never ignored, since a setting that silently does not "
        "hold is found out too late.",
        "ack: {retrys: 3}",
        "Write the key that was meant; `appliance schema` prints all of them.",
    ),
    Story(
        "E102",
        "wrong-type",
        "A value of another kind than the setting needs: a list for a text, a text for a number.",
        "concurrency: ten",
        "The message says what is expected. Texts that look like numbers need quotes.",
    ),
    Story(
        "E103",
        "missing-key",
        "A key that must be there is not.",
        "nodes: {}     without `version: 1`",
        "Add it. `version: 1` stands once in a config, or in each of its files.",
    ),
    Story(
        "E104",
        "not-one-of",
        "The setting takes one of a few words, and this is none of them.",
        "ack: {mode: requird}",
        "Write one of the words in the message.",
    ),
    Story(
        "E105",
        "out-of-bounds",
        "A number, duration or length beyond what makes sense for the setting.",
        "window: 0",
        "The message names the bound; `appliance schema` prints all bounds.",
    ),
    Story(
        "E106",
        "malformed",
        "A text that is not of the form its setting needs: a duration, an address, a name "
        "of a node or method.",
        "timeout: 5 seconds",
        "Durations: 250ms, 5s, 1m30s, or a number of seconds. Addresses: nats://host:4222, "
        "user and password belong into broker.auth. Percentages: 50%.",
    ),
    Story(
        "E107",
        "bad-name",
        "A name that cannot be one. Node and method names become parts of NATS subjects: "
        "letters, digits, _ and -; nodes also dots inside.",
        'nodes: {"ship 1": {}}',
        "Rename it.",
    ),
    Story(
        "E108",
        "empty",
        "A list or text that must hold something is empty.",
        "to: []",
        "Fill it, or drop the key.",
    ),
    Story(
        "E109",
        "plain-secret",
        "A secret stands in the config itself. Configs live in Git and in logs; secrets must not.",
        "auth: {token: s3cr3t}",
        "Say where it is read from: {file: token.txt}, {env: NATS_TOKEN}, or {credential: "
        "nats-token} for a systemd credential. If the secret has been committed, replace "
        "it.",
    ),
    Story(
        "E110",
        "one-reference",
        "A reference to a secret must name exactly one source.",
        "token: {file: token.txt, env: NATS_TOKEN}",
        "Keep one of `file`, `env` and `credential`.",
    ),
    Story(
        "E111",
        "unsupported-version",
        "`version` tells the format of the config, and this program reads version 1.",
        "version: 2",
        "Write `version: 1`, or use a release of the program that reads the other format.",
    ),
)
