"""The pod of ``packaging/kubernetes``: what it starts, in folders that are mounted as there."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.cli.support import free_ports, run, running

MANIFEST: Final = Path(__file__).parents[2] / "packaging/kubernetes/stratum0.yaml"


@pytest.fixture
def documents() -> dict[str, Any]:
    return {document["kind"]: document["spec"] for document in yaml.safe_load_all(MANIFEST.read_text())}


@pytest.fixture
def container(documents: dict[str, Any]) -> Any:
    (container,) = documents["Deployment"]["template"]["spec"]["containers"]
    return container


def secret(tmp_path: Path, fqrn: str) -> tuple[Path, str]:
    """What the comment at the head of the file says to make, as the pod sees it; and the token for the jobs."""
    made, mounted = tmp_path / "new", tmp_path / "keys"
    assert run("cvmfs-gw", "--root", made, "mkfs", fqrn).returncode == 0
    token = run("cvmfs-gw", "--root", made, "token", "create", f"{fqrn}/builds").stdout.strip()
    data = mounted / "..data"
    data.mkdir(parents=True)
    for file in (*(made / "etc/cvmfs/keys").iterdir(), made / "etc/cvmfs/gateway/uploads.json"):
        (data / file.name).write_bytes(file.read_bytes())
        (data / file.name).chmod(0o440)
        (mounted / file.name).symlink_to(f"..data/{file.name}")
    return mounted, token


def fetch(url: str, token: str, data: bytes | None = None) -> bytes:
    method = "GET" if data is None else "PUT"
    request = urllib.request.Request(url, data, {"Authorization": f"Bearer {token}"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as reply:
        body: bytes = reply.read()
        return body


def test_the_pod_serves_what_jobs_upload(tmp_path: Path, container: Any) -> None:
    # on loopback, with the keys where this test has them
    arguments = [each.replace("=/keys", f"={tmp_path}/keys") for each in container["args"] if "--host" not in each]
    (fqrn,) = (each.removeprefix("--init=") for each in arguments if each.startswith("--init="))
    keys, token = secret(tmp_path, fqrn)
    gateway, web = free_ports(2)
    ports = {"gateway": gateway, "web": web}
    given = (*arguments, f"--port={gateway}", f"--web-port={web}")
    with running("cvmfs-gw", *given, root=tmp_path / "pod") as server:
        server.wait_for("repositories http")
        for probe in ("readinessProbe", "livenessProbe"):
            asked = container[probe]["httpGet"]
            fetch(f"http://127.0.0.1:{ports[asked['port']]}{asked['path']}", "")
        file = f"http://127.0.0.1:{gateway}/api/v1/repos/{fqrn}/files/builds/1"
        fetch(file, token, b"hello")
        assert fetch(file, token) == b"hello"
        published = fetch(f"http://127.0.0.1:{web}/cvmfs-meta/{fqrn}.pub", "")
        assert published == (keys / f"{fqrn}.pub").read_bytes()
        assert server.stop() == 0
    configuration = (tmp_path / f"pod/etc/cvmfs/repositories.d/{fqrn}/server.conf").read_text()
    assert 'CVMFS_AUTO_GC_TIMESPAN="1 hour ago"' in configuration
    assert "CVMFS_COMPRESSION_ALGORITHM=none" in configuration


def test_everything_that_is_written_is_a_volume(documents: dict[str, Any], container: Any) -> None:
    volumes = {volume["name"]: volume for volume in documents["Deployment"]["template"]["spec"]["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    written = {path for path, volume in mounts.items() if "emptyDir" in volume}
    dockerfile = (MANIFEST.parents[2] / "Dockerfile").read_text()
    (declared,) = (line for line in dockerfile.splitlines() if line.startswith("VOLUME "))
    assert written == {*yaml.safe_load(declared.removeprefix("VOLUME ")), "/tmp"}
    assert container["securityContext"]["readOnlyRootFilesystem"]


def test_its_user_and_ports_are_those_of_the_image(documents: dict[str, Any], container: Any) -> None:
    dockerfile = (MANIFEST.parents[2] / "Dockerfile").read_text()
    context = documents["Deployment"]["template"]["spec"]["securityContext"]
    assert f"--uid {context['runAsUser']} --gid {context['runAsGroup']}" in dockerfile
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert f"EXPOSE {ports['gateway']} {ports['web']}" in dockerfile
    assert {port["name"]: port["port"] for port in documents["Service"]["ports"]} == ports
