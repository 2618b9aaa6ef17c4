"""Every setting that names a secret is known as one, by the place that names it."""

import os
from pathlib import Path

from appliance.config.loader import load_desired
from appliance.core.secret_refs import find_secret_refs, secret_variables
from appliance.core.specs import SecretRef
from appliance.methods.registry import METHOD_TABLE

CONFIG = """
version: 1
broker:
  servers: ["tls://broker.example:4222"]
  tls: {ca: {file: ca.pem}, cert: {file: /c.pem}, key: {credential: key}}
  auth: {nkey_seed: {credential: seed}}
admin: {listen: "127.0.0.1:8090", token: {file: t}}
inputs: {tcp: {listen: "127.0.0.1:1", token: {env: TCP_TOKEN}}, http: {listen: "127.0.0.1:2", token: {env: HTTP_TOKEN}}}
methods: {Look: {http: {url: "http://h/x", headers: {X-Api-Key: {env: API_KEY}, Accept: text/plain}}}}
nodes: {n: {subscribe: {REQPing: {}}}}
"""


def test_every_place_is_found(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG)
    desired = load_desired([str(path)], environ=os.environ, methods=METHOD_TABLE).desired
    assert find_secret_refs(desired) == {
        "broker.tls.ca": SecretRef(kind="file", name=str(tmp_path / "ca.pem")),
        "broker.tls.cert": SecretRef(kind="file", name="/c.pem"),
        "broker.tls.key": SecretRef(kind="credential", name="key"),
        "broker.auth.nkey_seed": SecretRef(kind="credential", name="seed"),
        "admin.token": SecretRef(kind="file", name=str(tmp_path / "t")),
        "inputs.tcp.token": SecretRef(kind="env", name="TCP_TOKEN"),
        "inputs.http.token": SecretRef(kind="env", name="HTTP_TOKEN"),
        "methods.Look.http.headers.X-Api-Key": SecretRef(kind="env", name="API_KEY"),
    }
    assert secret_variables(desired) == {"TCP_TOKEN", "HTTP_TOKEN", "API_KEY"}
