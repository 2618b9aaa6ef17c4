"""Codes of a set that is valid by itself but that a running daemon refuses."""

from __future__ import annotations

from appliance.config.stories.story import Story

STORIES = (
    Story(
        "E301",
        "needs-restart",
        "The setting cannot change while the daemon runs, and a set is taken whole or not at all.",
        "state: {dir: /var/lib/elsewhere}",
        "Restart the daemon to take the change, or undo it to let the rest of the set through.",
    ),
    Story(
        "E302",
        "cancels-too-much",
        "The set would cancel a larger share of the running workers than `reload.max_cancel` allows. A half-written "
        "or empty file looks like that.",
        "nodes: {central: {}}",
        "If it is meant: appliance reload --force. Else look for the missing file. `reload.max_cancel` sets the share.",
    ),
    Story(
        "E303",
        "cannot-listen",
        "The new address of `admin.listen` cannot be opened; the old listener goes on.",
        "admin: {listen: 127.0.0.1:22}",
        "Free the port or choose another; port 0 takes a free one.",
    ),
    Story(
        "E304",
        "broker-unusable",
        "No connection with the new broker settings came about; the old connection goes on.",
        "broker: {servers: [nats://no-such-host:4222]}",
        "Make the broker reachable or mend address, certificate or credentials.",
    ),
    Story(
        "E305",
        "run-nodes-unclear",
        "The set no longer says which node this daemon runs: the one it was started with is not declared any more.",
        "appliance run fleet/ --node ship1, and ship1 is removed from fleet/",
        "Declare the node again, or restart the daemon for another one.",
    ),
    Story(
        "E306",
        "look-failed",
        "Something unforeseen kept the daemon from looking at the config. The set in force goes on.",
        "internal error: OSError: …",
        "Ask again with appliance reload. If it stays, the text belongs in a bug report.",
    ),
    Story(
        "E307",
        "input-unusable",
        "An input of the new set cannot be opened: an address in use, a socket or a folder that cannot be made, a "
        "token that cannot be read. The old inputs go on.",
        "inputs: {http: {listen: 127.0.0.1:22}}",
        "Free the address or choose another; make the folder's parent, or the token, readable.",
    ),
    Story(
        "E308",
        "emptied-file",
        "A file that held a part of the set in force holds nothing now, and nodes would go with it. That is how a file "
        "looks whose disk ran full while it was written.",
        "truncate -s 0 fleet/ship1.yaml",
        "Restore the file, or remove it. If it is meant: appliance reload --force.",
    ),
    Story(
        "E310",
        "trial-failed",
        "A worker that the new set started or changed did not run when the set's trial was over "
        "(reload.trial). The daemon went back to the set before, which stays in force until the "
        "files change.",
        "ship1: {subscribe: {REQPing: {}}}   # and the broker denies ship1.>",
        "Mend the config, or what the worker needs; then save the files, or appliance reload --force.",
    ),
    Story(
        "E311",
        "no-work-tree",
        "The config asks to be read from a git work tree (config.source: git), and the paths are in none, in "
        "several, or the repository is damaged.",
        "config: {source: git}",
        "Start the daemon with a path in a clone, or below the link that git-sync moves.",
    ),
    Story(
        "E312",
        "unsigned-commit",
        "Only signed commits are taken (config.signed_by of the set in force, or run --signed-by), and "
        "this one is not signed, or not by an allowed ed25519 key.",
        "config: {source: git, signed_by: [ssh-ed25519 AAAA… anna]}",
        "Sign the commit with an allowed key: git -c gpg.format=ssh commit -S.",
    ),
    Story(
        "E313",
        "not-committed",
        "Only signed commits are taken, and files of the config are not as the commit has them.",
        "git commit -S; echo 'x: 1' >> fleet.yaml",
        "Commit the change, signed, or undo it.",
    ),
    Story(
        "W301",
        "pinned",
        "The files are as they were when somebody rolled back, or when a trial failed: what they "
        "say stays out of force.",
        "appliance rollback; appliance reload",
        "Change the files, or take them as they are with appliance reload --force.",
    ),
)
