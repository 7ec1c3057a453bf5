"""Networks of steps: the cell's own, or one for each step, joined by a bridge."""

import re
from pathlib import Path

import pytest

from bkrules.testing.sandbox import Sandbox

DOCKERFILE = """FROM docker.io/library/busybox:latest AS seen
RUN {flag} cat /proc/net/dev > /interfaces && cat /proc/net/fib_trie > /addresses
FROM scratch
COPY --from=seen /interfaces /addresses /
"""


def network(sandbox: Sandbox, folder: Path, flag: str = "", *more: str) -> tuple[set[str], set[str]]:
    """The interfaces and the addresses of the bridge that a step has."""
    (folder / "Dockerfile").write_text(DOCKERFILE.format(flag=flag))
    local = [f"--local=context={folder}", f"--local=dockerfile={folder}", f"--output=type=local,dest={folder}/out"]
    sandbox.run(["build", "--no-cache", "--frontend=dockerfile.v0", *local, *more])
    interfaces = re.findall(r"^ *(\w+):", (folder / "out/interfaces").read_text(), re.MULTILINE)
    return set(interfaces), set(re.findall(r"10\.10\.\d+\.\d+", (folder / "out/addresses").read_text()))


def test_a_step_has_the_network_of_its_worker(sandbox: Sandbox, tmp_path: Path) -> None:
    interfaces, addresses = network(sandbox, tmp_path)
    assert any(name.startswith("eth") for name in interfaces) == sandbox.supports("cni_network")
    assert bool(addresses) == sandbox.supports("cni_network")
    assert "buildkit0" not in interfaces


@pytest.mark.requires("cni_network")
def test_a_step_may_have_none(sandbox: Sandbox, tmp_path: Path) -> None:
    interfaces, addresses = network(sandbox, tmp_path, "--network=none")
    assert not any(name.startswith("eth") for name in interfaces)
    assert not addresses


@pytest.mark.requires("cni_network")
def test_a_step_with_the_network_of_the_host_sees_the_bridge(sandbox: Sandbox, tmp_path: Path) -> None:
    assert "buildkit0" in network(sandbox, tmp_path, "--network=host", "--allow=network.host")[0]
