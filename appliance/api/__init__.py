"""The HTTP API on the unix socket and, if wanted, on TCP. It sees the daemon through `Operations`."""
