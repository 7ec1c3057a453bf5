"""Which container bk runs in, by the files that its maker leaves, and the remedies for its users."""

from __future__ import annotations

from pathlib import Path

import pytest

from bkrules.plugin import container


@pytest.fixture(autouse=True)
def no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests may run in CI."""
    for name in ("GITHUB_ACTIONS", "GITLAB_CI"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("path", "text", "maker"),
    [
        (".dockerenv", "", "docker"),
        ("run/.containerenv", 'engine="podman-4.9"\n', "podman"),
        ("var/run/secrets/kubernetes.io/token", "", "kubernetes"),
        ("run/systemd/container", "lxc\n", "lxc"),
        ("run/systemd/container", "wsl\n", ""),
        ("proc/1/environ", "PATH=/bin\0container=systemd-nspawn\0", "systemd-nspawn"),
        ("proc/1/cgroup", "0::/kubepods.slice/pod1\n", "kubernetes"),
        ("proc/1/cgroup", "0::/init.scope\n", ""),
        ("etc/hostname", "here\n", ""),
    ],
)
def test_the_maker_is_told_by_its_files(tmp_path: Path, path: str, text: str, maker: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(text)

    assert container.container(f"{tmp_path}/") == maker


def test_a_machine_made_of_an_image_is_no_container(tmp_path: Path) -> None:
    """Its processes are in the kernel's first namespaces."""
    folder = tmp_path / "proc/self/ns"
    folder.mkdir(parents=True)
    (tmp_path / ".dockerenv").touch()
    for name, number in container._INITIAL.items():
        (folder / name).symlink_to(f"{name}:[{number}]")
    assert container.container(f"{tmp_path}/") == ""

    (folder / "pid").unlink()
    (folder / "pid").symlink_to("pid:[4026532201]")
    assert container.container(f"{tmp_path}/") == "docker"


def test_a_remedy_is_in_the_words_of_who_starts_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "docker run --privileged`" in container.all_privileges("docker")
    assert "--userns=host" in container.all_privileges("docker", in_user_namespace=True)
    assert "sudo podman run --privileged" in container.all_privileges("podman", in_user_namespace=True)
    assert "this odd container" in container.all_privileges("odd")
    assert "this odd container" in container.all_privileges("odd", in_user_namespace=True)
    assert "`--device /dev/fuse`" in container.device("docker", "/dev/fuse")
    assert "{privileged: true}" in container.device("kubernetes", "/dev/fuse")
    assert "add NAME fuse unix-char source=/dev/fuse" in container.device("lxc", "/dev/fuse")
    assert "/dev/fuse" in container.device("odd", "/dev/fuse")

    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert "container: {options: --privileged}" in container.all_privileges("docker")
    assert "container: {options: --device /dev/fuse}" in container.device("docker", "/dev/fuse")
    monkeypatch.delenv("GITHUB_ACTIONS")
    monkeypatch.setenv("GITLAB_CI", "true")
    assert "`privileged = true` below [runners.docker]" in container.all_privileges("docker")
    assert '`devices = ["/dev/fuse"]`' in container.device("docker", "/dev/fuse")
