"""Docker's daemon as a worker: its API, its images, and the mirrors of all registries."""

import http.client
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from bkrules.testing.sandbox import CommandFailed, Sandbox

BUSYBOX = "FROM docker.io/library/busybox:latest\n"


class Docker(http.client.HTTPConnection):
    """Docker's API on its socket."""

    def __init__(self, address: str) -> None:
        super().__init__("docker")
        self._path = address.removeprefix("unix://")

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)

    def get(self, path: str) -> Any:
        """What it answers."""
        self.request("GET", path)
        answer = self.getresponse()
        assert answer.status == 200, answer.read()
        return json.load(answer)


def build(sandbox: Sandbox, folder: Path, dockerfile: str, *more: str) -> None:
    (folder / "Dockerfile").write_text(dockerfile)
    sandbox.run(
        ["build", "--frontend=dockerfile.v0", f"--local=context={folder}", f"--local=dockerfile={folder}", *more]
    )


def test_what_is_built_is_an_image_of_docker(sandbox: Sandbox, tmp_path: Path) -> None:
    exporter, name = ("moby", "sample:1") if sandbox.worker == "dockerd" else ("image", "docker.io/library/sample:1")
    build(sandbox, tmp_path, f"{BUSYBOX}RUN echo hello > /hello.txt\n", f"--output=type={exporter},name={name}")
    docker = Docker(sandbox.docker_address)
    assert {"sample:1"} == {name for image in docker.get("/images/json") for name in image["RepoTags"]}
    assert docker.get("/images/sample:1/json")["Architecture"]


def test_its_store_is_that_of_its_name(sandbox: Sandbox) -> None:
    driver = dict(Docker(sandbox.docker_address).get("/info")["DriverStatus"])
    assert ("driver-type" in driver) == (sandbox.worker == "dockerd-containerd")


def test_every_registry_has_its_mirror(sandbox: Sandbox, tmp_path: Path) -> None:
    """Also one that is not Docker's own, which alone daemon.json could name."""
    build(sandbox, tmp_path, "FROM other.example/team/sample:1\nRUN true\n")
    assert any(one.path == "/v2/team/sample/manifests/1" for one in sandbox.mirror_requests())


def test_an_entitlement_is_granted_as_for_buildkitd(sandbox: Sandbox, tmp_path: Path) -> None:
    dockerfile = f"{BUSYBOX}RUN --network=host true\n"
    if sandbox.choice("daemon") == "granted":
        build(sandbox, tmp_path, dockerfile, "--allow=network.host")
        return
    with pytest.raises(CommandFailed, match=r"network\.host is not allowed"):
        build(sandbox, tmp_path, dockerfile, "--allow=network.host")


def test_a_history_without_entries_keeps_no_build(sandbox: Sandbox, tmp_path: Path) -> None:
    """Also of a build that fails; the control is a daemon with the history that it has by default."""
    build(sandbox, tmp_path, f"{BUSYBOX}RUN true\n")
    with pytest.raises(CommandFailed):
        build(sandbox, tmp_path, f"{BUSYBOX}RUN false\n")
    records = sandbox.run(["debug", "histories", "--format={{json .}}"]).stdout.splitlines()
    assert len(records) == (0 if sandbox.choice("daemon") == "forgetful" else 2)


def test_all_is_released(sandbox: Sandbox, tmp_path: Path) -> None:
    build(sandbox, tmp_path, f"{BUSYBOX}RUN echo hello > /hello.txt\n")
    assert json.loads(sandbox.run(["du", "--format={{json .}}"]).stdout)
    sandbox.check_released()


def test_it_says_what_it_does(sandbox: Sandbox) -> None:
    assert "goroutine profile" in sandbox.debug("/debug/pprof/goroutine?debug=1")
