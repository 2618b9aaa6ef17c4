"""The configs of configs/kubernetes as in a pod: mounted as a kubelet does, at a real broker, with the pod's variables."""

import os
import shutil
import signal
import subprocess

import pytest

from tests.support.appliance import Appliance
from tests.support.kubernetes import mount, of_kind, read_manifests
from tests.support.nats_login import make_nkey
from tests.support.nats_server import NatsServer
from tests.support.programs import ended


def config_of(name, **changed):
    """The ConfigMap's files, its mount paths and addresses changed for this machine."""
    ((_, item),) = of_kind(read_manifests(name), "ConfigMap").items()
    found = {}
    for file, text in item["data"].items():
        for old, new in changed.items():
            text = text.replace(old, new)
        found[file] = text
    return found


def pod(directory, *nodes, url):
    found = Appliance(None, directory, config_path=directory / "config")
    found.environment = {"NATS_SERVER": url, "ADMIN_TOKEN": "t"}
    found.only_named = True
    found.args = [word for node in nodes for word in ("--node", node)]
    return found


def test_a_changed_config_map_is_in_force_without_a_new_pod(tmp_path):
    key = make_nkey()
    (tmp_path / "shore1.seed").write_text(key.seed)
    files = config_of(
        "node.yaml", **{"/etc/appliance-nkey": str(tmp_path), "0.0.0.0:8090": "127.0.0.1:0"}
    )
    mount(tmp_path / "config", files)
    rules = f"authorization {{ users: [{{nkey: {key.public}}}] }}"
    with NatsServer(rules) as broker, pod(tmp_path, "shore1", url=broker.url) as daemon:
        before = daemon.status()
        assert before["generation"] == 1
        files["nodes.yaml"] = files["nodes.yaml"].replace(
            "REQToFile:", "REQPong: {}\n      REQToFile:"
        )
        mount(tmp_path / "config", files)
        added = "shore1.REQPong.EventACK_subscriber"
        daemon.wait_until(lambda _: (daemon.worker(added) or {}).get("phase") == "running")
        # a mistake changes nothing, and is no reason to take the pod out of service
        files["nodes.yaml"] = files["nodes.yaml"].replace("REQPong", "REQPnog")
        mount(tmp_path / "config", files)
        daemon.wait_until(lambda status: status["config"]["last_attempt"]["result"] == "refused")
        assert daemon.request("GET", "/readyz")[0] == 200
        assert daemon.worker(added)["phase"] == "running"


def test_the_application_beside_it_hands_over_what_is_delivered(tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("no curl: the application of the sidecar's manifest is not run")
    (deployment,) = of_kind(read_manifests("sidecar.yaml"), "Deployment").values()
    shop = deployment["spec"]["template"]["spec"]["containers"][0]
    run = tmp_path / "run"
    run.mkdir()
    changed = {
        "/run/appliance": str(run),
        "0.0.0.0:8090": "127.0.0.1:0",
        "127.0.0.1:7702": "127.0.0.1:0",
    }
    mount(tmp_path / "config", config_of("sidecar.yaml", **changed))
    with NatsServer() as broker, pod(tmp_path, "shop", "central", url=broker.url) as daemon:
        opened = daemon.status()["inputs"]
        script = shop["args"][0].replace("127.0.0.1:7702", opened["http"]["listen"])
        filed = daemon.data("orders", "central", "orders.log")
        command = [*shop["command"], script]
        with ended(
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        ) as process:
            try:
                daemon.wait_until(lambda _: filed.exists() and filed.read_text())
                assert '"accepted"' in process.stdout.readline()
            finally:
                os.killpg(process.pid, signal.SIGKILL)
        assert filed.read_text().startswith("order at ")
        assert (run / "steward.sock").is_socket()
        assert (run / "steward.sock").stat().st_mode & 0o777 == 0o660
