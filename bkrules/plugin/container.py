"""The container in which bk runs, if it runs in one, and how a container gets what cells need."""

from __future__ import annotations

import os

from bkrules.system.files import text_or_nothing

_FILES = {"run/.containerenv": "podman", "var/run/secrets/kubernetes.io": "kubernetes", ".dockerenv": "docker"}
_GROUPS = {"kubepods": "kubernetes", "docker": "docker", "libpod": "podman", "lxc": "lxc"}
_INITIAL = {"pid": 0xEFFFFFFC, "uts": 0xEFFFFFFE, "ipc": 0xEFFFFFFF, "cgroup": 0xEFFFFFFB}
"""The numbers of the kernel's first namespaces. A virtual machine made of an image has a container's files, and these."""
_NONE = ("", "wsl")
"""Names in the place of a container's that name none: bk may do there what it may do on a machine."""
_SERVICES = {
    "GITHUB_ACTIONS": "write `container: {{options: {options}}}` in the job of the workflow",
    "GITLAB_CI": "write `{setting}` below [runners.docker] in the config.toml of the runner",
}
_ALL = {
    "docker": "start this container with `docker run --privileged`",
    "podman": "start this container as root: `sudo podman run --privileged`",
    "kubernetes": "give this container `securityContext: {privileged: true}` in the spec of its pod",
    "lxc": "on its machine: `lxc config set NAME security.privileged=true security.nesting=true`",
}
_MAPPED = {
    "docker": "start this container with `docker run --privileged --userns=host`, by a Docker that runs as root",
    "podman": _ALL["podman"],
    "kubernetes": f"{_ALL['kubernetes']}, and no `hostUsers: false`",
}
_DEVICE = {
    "docker": "start this container with `--device {device}`, or with `--privileged`",
    "podman": "start this container with `--device {device}`, or with `--privileged`",
    "kubernetes": "give this container `securityContext: {{privileged: true}}`, or a device plugin for {device}",
    "lxc": "on its machine: `lxc config device add NAME {name} unix-char source={device}`",
}


def container(root: str = "/") -> str:
    """Return who made the container with the files below `root`: docker, podman, kubernetes, lxc, another name.

    Empty outside of a container.
    """
    namespaces = {name: _link(f"{root}proc/self/ns/{name}") for name in _INITIAL}
    if namespaces == {name: f"{name}:[{number}]" for name, number in _INITIAL.items()}:
        return ""
    for path, name in _FILES.items():
        if os.path.exists(f"{root}{path}"):
            return name
    told = text_or_nothing(f"{root}run/systemd/container").strip() or _variable(
        text_or_nothing(f"{root}proc/1/environ"), "container"
    )
    if told in _NONE:
        groups = text_or_nothing(f"{root}proc/1/cgroup")
        told = next((name for word, name in _GROUPS.items() if f"/{word}" in groups), "")
    return told


def all_privileges(kind: str, *, in_user_namespace: bool = False) -> str:
    """Return how a container of that kind gets what cells need; `in_user_namespace`: its root is no root of the machine."""
    if in_user_namespace:
        return _MAPPED.get(kind, f"start this {kind} container with all privileges, and without a user namespace")
    served = _served("--privileged", "privileged = true")
    return served or _ALL.get(kind, f"start this {kind} container with all privileges")


def device(kind: str, path: str) -> str:
    """Return how a container of that kind gets a device of its machine."""
    served = _served(f"--device {path}", f'devices = ["{path}"]')
    general = f"let this {kind} container use {path} of its machine"
    return served or _DEVICE.get(kind, general).format(device=path, name=os.path.basename(path))


def _served(options: str, setting: str) -> str:
    """Return the remedy in the words of the CI service that started this container, if one did."""
    found = [text for variable, text in _SERVICES.items() if os.environ.get(variable)]
    return found[0].format(options=options, setting=setting) if found else ""


def _variable(environment: str, name: str) -> str:
    return next((word.partition("=")[2] for word in environment.split("\0") if word.startswith(f"{name}=")), "")


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
