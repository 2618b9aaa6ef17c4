"""What `appliance init` writes: a small fleet on one machine, commented for its first reader."""

from __future__ import annotations

_MAIN = """\
# yaml-language-server: $schema=appliance.schema.json
#
# A starter config. Check it:   appliance check .
# Run it, all nodes at once:    appliance run . --all-nodes
# Edit any file here while it runs: within a second the change is in force.
version: 1

# The lowest layer of settings; roles, nodes and entries override it, in this order.
defaults:
  ack: {mode: required, timeout: 5s, expires: 24h}   # sent again until acknowledged, for a day

# A role is a bundle of entries that many nodes share.
roles:
  managed:
    subscribe:
      REQPing: {}                      # answer pings
      REQCliCommand:                   # run commands, from central alone, and only these
        accept_from: [central]
        allow_commands:
          - [uptime]
          - [hostname]
          - [echo, "**"]               # `*` is one argument, a last `**` any rest
      # REQTailFile: {accept_from: [central], allow_paths: [/var/log/*.log]}       # appliance tail
      # REQCopyFileFrom: {accept_from: [central], allow_paths: [/var/log/**]}      # appliance cp
      # REQHttpGet: {accept_from: [central], allow_urls: ["http://127.0.0.1:8080/status"]}
    publish:
      hello:                           # say hello to central, again and again
        to: central
        method: REQHello
        every: 30s
        data: ["Hello from ${node}\\n"] # ${node} is the node's own name
"""

_NODES = """\
# yaml-language-server: $schema=appliance.schema.json
#
# The nodes of the fleet. All files of the directory are merged, so a node may as well have a file of its own.
version: 1

nodes:
  central:
    subscribe:
      REQHello: {}                     # keep what the others say
      REQErrorLog: {}                  # errors of every node arrive here
      REQToFileAppend: {}              # replies are written below the data directory
      REQPong: {}                      # answers to pings, if the sender asks for this method
      # REQCopyFileTo: {accept_from: [ship1, ship2]}   # what `appliance cp` fetches from them
    publish:
      commands: {to: [ship1, ship2], method: REQCliCommand}
      pings: {to: [ship1, ship2], method: REQPing}

  ship1: {roles: [managed]}
  ship2: {roles: [managed]}
"""

_BROKER = """\
# yaml-language-server: $schema=appliance.schema.json
#
# The way to the NATS broker, in a file of its own: it is the one part in which machines differ.
version: 1

# `embedded` starts a private broker beside the daemon, which is enough for one machine (it needs the
# extra `broker`); `secured` lets nobody do there what is not declared in these files.
# For a real fleet drop it and name the servers:
broker:
  embedded: {secured: true}
  # servers: ["tls://nats.example.com:4222"]
  # tls: {ca: {file: ca.pem}}
  # auth: {nkey_seed: {file: /etc/appliance/node.nk}}   # secrets are named, never written here
"""

STARTER_FILES = {"appliance.yaml": _MAIN, "nodes.yaml": _NODES, "broker.yaml": _BROKER}
