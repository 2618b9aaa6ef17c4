"""The manifests of configs/kubernetes: whole by Kubernetes' own schemas, and in agreement with the configs inside them."""

import kubernetes_validate
import pytest

from appliance.core.run_options import choose_run_nodes
from tests.support.config_files import load
from tests.support.kubernetes import MANIFESTS, of_kind, read_manifests

FILES = sorted(path.name for path in MANIFESTS.glob("*.yaml"))
ENVIRONMENT = {"NATS_SERVER": "nats://nats.default.svc:4222", "ADMIN_TOKEN": "t"}


def pods():
    for name in FILES:
        for deployment in of_kind(read_manifests(name), "Deployment").values():
            yield pytest.param(
                read_manifests(name), deployment["spec"]["template"]["spec"], id=name
            )


def daemon_of(pod):
    (found,) = [item for item in pod["containers"] if item["image"].startswith("appliance:")]
    return found


@pytest.mark.parametrize("version", ["1.29", "1.31", "1.33"])
@pytest.mark.parametrize("name", FILES)
def test_manifests_are_what_kubernetes_takes_with_no_key_too_many(name, version):
    for item in read_manifests(name):
        kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize("name", FILES)
def test_manifests_tell_how_to_use_them(name):
    text = (MANIFESTS / name).read_text()
    assert text.startswith("# ")
    assert f"kubectl apply -f configs/kubernetes/{name}" in text


@pytest.mark.parametrize(("objects", "pod"), list(pods()))
def test_what_is_mounted_is_there_and_what_is_kept_is_on_a_claim(objects, pod):
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        for place in container["volumeMounts"]:
            assert place["name"] in volumes
            assert "subPath" not in place, "a file mounted alone does not follow its ConfigMap"
    made = {("configMap", name) for name in of_kind(objects, "ConfigMap")}
    by_hand = {("configMap", "appliance-signers"), ("secret", "appliance-nkey")}
    for volume in volumes.values():
        for kind, key in (("configMap", "name"), ("secret", "secretName")):
            if kind in volume:
                assert (kind, volume[kind][key]) in made | by_hand
    daemon = daemon_of(pod)
    (state,) = [item["value"] for item in daemon["env"] if item["name"] == "APPLIANCE_STATE_DIR"]
    (place,) = [item for item in daemon["volumeMounts"] if item["mountPath"] == state]
    claim = volumes[place["name"]]["persistentVolumeClaim"]["claimName"]
    assert claim in of_kind(objects, "PersistentVolumeClaim")
    for item in daemon["env"]:
        if "valueFrom" in item:
            reference = item["valueFrom"]["secretKeyRef"]
            secret = of_kind(objects, "Secret")[reference["name"]]
            assert reference["key"] in secret["stringData"]


@pytest.mark.parametrize(("objects", "pod"), list(pods()))
def test_probes_ask_whether_it_lives_and_never_the_broker_whether_to_start_anew(objects, pod):
    daemon = daemon_of(pod)
    ports = {port["name"]: port["containerPort"] for port in daemon["ports"]}
    paths = {name: daemon[name]["httpGet"]["path"] for name in daemon if name.endswith("Probe")}
    assert all(daemon[name]["httpGet"]["port"] in ports for name in paths)
    assert (paths["startupProbe"], paths["livenessProbe"]) == ("/livez", "/livez")
    assert paths.get("readinessProbe", "/readyz") == "/readyz"
    for item in of_kind(objects, "ConfigMap").values():
        for text in item["data"].values():
            assert "admin:" not in text or f"0.0.0.0:{ports['admin']}" in text
    assert pod["terminationGracePeriodSeconds"] >= 30


@pytest.mark.parametrize("name", [name for name in FILES if of_kind(read_manifests(name), "ConfigMap")])  # fmt: skip
def test_the_config_in_the_config_map_is_without_a_flaw_and_declares_the_pods_node(name, tmp_path):
    objects = read_manifests(name)
    ((_, config),) = of_kind(objects, "ConfigMap").items()
    for file, text in config["data"].items():
        (tmp_path / file).write_text(text)
    loaded = load(tmp_path, environ=ENVIRONMENT)
    assert loaded.warnings == ()
    ((_, deployment),) = of_kind(objects, "Deployment").items()
    pod = deployment["spec"]["template"]["spec"]
    daemon = daemon_of(pod)
    chosen = [
        word
        for flag, word in zip(daemon["args"], daemon["args"][1:], strict=False)
        if flag == "--node"
    ]
    assert choose_run_nodes(
        sorted(loaded.desired.declared_nodes), chosen, all_nodes=False, hostname="pod"
    )
    mounted = {
        place["mountPath"]: volume
        for place in daemon["volumeMounts"]
        for volume in pod["volumes"]
        if volume["name"] == place["name"]
    }
    assert mounted[daemon["args"][1]]["configMap"]["name"] == config["metadata"]["name"]
    given = {item["name"] for item in daemon["env"]}
    text = "".join(config["data"].values())
    assert all(name in given for name in ENVIRONMENT if name in text)
    # files and sockets that the config names lie below what is mounted
    for word in text.replace("}", " ").replace(",", " ").split():
        if word.startswith("/") and word.count("/") > 1:
            assert any(word.startswith(f"{path}/") for path in mounted), word
