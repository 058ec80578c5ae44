"""The manifests of several servers: that they name each other rightly, and that the image starts with what they say."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from container import ROOT, Container
from proxies import DEPLOY

KUBERNETES = DEPLOY / "kubernetes"
IMAGE_FOLDERS = re.compile(r"install --directory --owner=moss --group=moss (.*)")

pytestmark = pytest.mark.wide


def resources(name: str) -> dict[tuple[str, str], dict[str, Any]]:
    found = yaml.safe_load_all((KUBERNETES / name).read_text())
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def servers() -> dict[str, Any]:
    return resources("servers.yaml")["StatefulSet", "moss-ttsd"]["spec"]


def pod() -> dict[str, Any]:
    return servers()["template"]["spec"]


def test_every_pod_has_a_service_of_its_own_that_the_proxies_name():
    names = [f"moss-ttsd-{i}" for i in range(servers()["replicas"])]
    services = resources("servers.yaml")
    selected = [services["Service", name]["spec"]["selector"] for name in names]
    assert selected == [{"statefulset.kubernetes.io/pod-name": name} for name in names]
    lines = (KUBERNETES / "moss-ttsd-servers.inc").read_text().splitlines()
    assert [line.split()[1] for line in lines] == [f"{name}:30000" for name in names]
    envoy = (DEPLOY / "envoy" / "envoy.yaml").read_text()
    assert re.findall(r"address: (moss-\S+),", envoy) == names


def test_servers_are_reached_by_nginx_with_the_options_that_are_tested():
    options = {
        line.partition("max_fails")[2]
        for folder in ("nginx", "kubernetes")
        for line in (DEPLOY / folder / "moss-ttsd-servers.inc").read_text().splitlines()
        if line.startswith("server ")
    }
    assert len(options) == 1


def test_the_image_keeps_things_where_volumes_are_mounted():
    (container,) = pod()["containers"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    [folders] = IMAGE_FOLDERS.findall((ROOT / "docker" / "Dockerfile").read_text())
    assert mounts == {*folders.split(), "/dev/shm"}
    named = {volume["name"] for volume in pod()["volumes"]}
    named |= {claim["metadata"]["name"] for claim in servers()["volumeClaimTemplates"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == named


def test_the_entry_point_takes_its_arguments(tmp_path: Path):
    (found,) = pod()["containers"]
    container = Container(tmp_path)
    container.mount_checkpoints()
    container.replace_command("sglang", 'printf "%s\\n" "$@"')
    status, printed = container.run(*found["args"])
    assert status == 0
    words = printed.splitlines()
    assert words[words.index("--voices-dir") + 1] == f"{container.data}/voices"  # which all of them share
    assert words[-len(found["args"]) :] == found["args"]
    assert pod()["terminationGracePeriodSeconds"] > int(words[words.index("--shutdown-seconds") + 1])


def test_kustomize_finds_its_files():
    found = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())
    files = [line.partition("=")[2] for maker in found["configMapGenerator"] for line in maker["files"]]
    assert all((DEPLOY / name).is_file() for name in [*found["resources"], *files])
    mounted = {volume.get("configMap", {}).get("name") for volume in proxy_pod()["volumes"]}
    assert mounted == {maker["name"] for maker in found["configMapGenerator"]}


def proxy_pod() -> dict[str, Any]:
    return resources("proxy.yaml")["Deployment", "moss-ttsd-proxy"]["spec"]["template"]["spec"]
