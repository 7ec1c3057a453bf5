"""What the kernel says of itself, and how much of it is in keys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bkrules.system import kernel

HANDLER = """enabled
interpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P
flags: POCF
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
"""
STATUS = """Name:\tbk
Pid:\t4711
CapEff:\t000001ffffffffff
CapBnd:\t000001ffffffffff
NoNewPrivs:\t0
Seccomp:\t0
"""
LINES = {
    "v1": "25 24 0:23 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n",
    "v2": "26 24 0:24 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
}


class Fake:
    """A machine as files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/sys/user/max_user_namespaces", "1000\n")
        self.write("proc/self/mountinfo", LINES["v2"])
        self.write("proc/self/status", STATUS)
        self.write("sys/kernel/security/lsm", "capability,landlock,apparmor")
        self.write("sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n")
        self.write("sys/fs/cgroup/cgroup.subtree_control", "memory\n")

    def write(self, path: str, text: str) -> None:
        """Write a file of the machine."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def properties(self, key: str = kernel.SERIES) -> dict[str, str]:
        """What is in keys of it."""
        return kernel.properties(kernel.texts(f"{self.root}/"), key)


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


def test_this_machine() -> None:
    found = kernel.properties(kernel.texts(), kernel.RELEASE)

    assert found["kernel-release"] == f"{os.uname().release} {os.uname().version}"
    assert found["kernel-cgroup"] in ("v1", "v2", "hybrid")


def test_names_that_set_the_properties_apart(fake: Fake) -> None:
    assert fake.properties() == {
        "kernel-release": kernel.series(os.uname().release),
        "kernel-lsm": "capability,landlock,apparmor",
        "kernel-rights": "all",
        "kernel-ipv6": "no",
        "kernel-cgroup": "v2",
        "kernel-controllers": "memory pids",
        "kernel-user-namespaces": "for all",
        "kernel-ptrace-scope": "none",
    }
    assert fake.properties(kernel.NONE) == {}


@pytest.mark.parametrize(
    ("release", "series"),
    [
        ("5.4.0-150-generic", "5.4"),
        ("6.1.0-25-amd64", "6.1"),
        ("6.12.48+deb13-amd64", "6.12"),
        ("6.18", "6.18"),
        ("6.9+", "6.9"),
        ("5.10.102.1-microsoft-standard-WSL2", "5.10"),
        ("4.18.0-553.el8_10.x86_64", "4.18"),
        ("7.0-rc3", "7.0"),
    ],
)
def test_the_series_of_a_release(release: str, series: str) -> None:
    assert kernel.series(release) == series


@pytest.mark.parametrize(
    ("mounts", "mode"),
    [("v2", "v2"), ("v1", "v1"), ("v1 v2", "hybrid"), ("v2 v1", "hybrid"), ("", "none")],
)
def test_how_cgroups_are_mounted(fake: Fake, mounts: str, mode: str) -> None:
    fake.write("proc/self/mountinfo", "".join(LINES[one] for one in mounts.split()) + "1 1 0:1 / / rw - ext4 x rw\n")

    assert fake.properties()["kernel-cgroup"] == mode


def test_the_numbers_of_mounts_do_not_count(fake: Fake) -> None:
    """Each mount namespace has its own, so an answer that was kept in one would not hold in another."""
    before = kernel.texts(f"{fake.root}/")
    fake.write("proc/self/mountinfo", LINES["v2"].replace("26 24 0:24", "1026 1024 0:99"))

    assert kernel.texts(f"{fake.root}/") == before


@pytest.mark.parametrize(
    ("label", "enforce", "said"),
    [
        ("unconfined\0", "", "capability,landlock,apparmor unconfined"),
        ("docker-default (enforce)\n", "", "capability,landlock,apparmor docker-default (enforce)"),
        ("user_u:role_r:container_t:s0:c1,c2\0", "1", "capability,landlock,apparmor container_t enforcing"),
        ("user_u:role_r:container_t:s0:c1,c2\0", "0", "capability,landlock,apparmor container_t permissive"),
    ],
)
def test_how_security_modules_confine_bk(fake: Fake, label: str, enforce: str, said: str) -> None:
    fake.write("proc/self/attr/current", label)
    fake.write("sys/fs/selinux/enforce", enforce)

    assert fake.properties()["kernel-lsm"] == said


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("proc/sys/user/max_user_namespaces", "77\n", "for all"),
        ("proc/sys/user/max_user_namespaces", "0\n", "none"),
        ("proc/sys/kernel/unprivileged_userns_clone", "0\n", "for root"),
        ("proc/sys/kernel/unprivileged_userns_clone", "1\n", "for all"),
        ("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n", "restricted"),
    ],
)
def test_who_gets_user_namespaces(fake: Fake, file: str, text: str, said: str) -> None:
    fake.write(file, text)

    assert fake.properties()["kernel-user-namespaces"] == said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("4711", "4712", "all"),
        ("Seccomp:\t0", "Seccomp:\t2", "system calls filtered"),
        ("NoNewPrivs:\t0", "NoNewPrivs:\t1", "no new privileges"),
        ("CapEff:\t000001ffffffffff", "CapEff:\t0000000000000000", "all"),
    ],
)
def test_what_bk_may_do(fake: Fake, old: str, new: str, said: str) -> None:
    fake.write("proc/self/status", STATUS.replace(old, new))

    assert fake.properties()["kernel-rights"] == said


def test_limits_that_are_lower_than_those_of_cells(fake: Fake) -> None:
    limits = "Max open files  256  20000  files\nMax file size  unlimited  unlimited  bytes\nMax processes  5  5  processes\n"
    fake.write("proc/self/limits", limits)
    assert "kernel-limits" not in fake.properties()

    fake.write("proc/self/limits", limits.replace("20000", "1000"))
    assert fake.properties()["kernel-limits"] == "open files 1000"
    fake.write("proc/self/limits", limits.replace("unlimited  bytes", "4096  bytes"))
    assert fake.properties()["kernel-limits"] == "file size 4096"


def test_ipv6(fake: Fake) -> None:
    fake.write("proc/self/net/if_inet6", "")

    assert fake.properties()["kernel-ipv6"] == "yes"


BINFMT = "proc/sys/fs/binfmt_misc"


def test_binary_formats(fake: Fake) -> None:
    fake.write(f"{BINFMT}/register", "")
    fake.write(f"{BINFMT}/status", "enabled\n")
    fake.write(f"{BINFMT}/qemu-aarch64", HANDLER)
    fake.write(f"{BINFMT}/off", HANDLER.replace("enabled", "disabled"))
    fake.write(f"{BINFMT}/jar", "enabled\ninterpreter /usr/bin/jexec\nflags: \nextension .jar\n")

    found = {name: value for name, value in fake.properties().items() if "binfmt" in name}

    assert found == {
        "kernel-binfmt-qemu-aarch64": "aarch64-binfmt-P flags: POCF offset 0 "
        "magic 7f454c460201010000000000000000000200b700 mask ffffffffffffff00fffffffffffffffffeffffff",
        "kernel-binfmt-jar": "jexec flags:  extension .jar",
    }


@pytest.mark.parametrize(
    ("old", "new"), [("POCF", "POC"), ("0200b7", "0200b8"), ("aarch64-binfmt-P", "other"), ("offset 0", "offset 1")]
)
def test_a_changed_binary_format_is_another(fake: Fake, old: str, new: str) -> None:
    fake.write(f"{BINFMT}/arm", HANDLER)
    before = fake.properties()
    fake.write(f"{BINFMT}/arm", HANDLER.replace(old, new))

    assert fake.properties() != before


def test_the_place_of_an_interpreter_does_not_count(fake: Fake) -> None:
    fake.write(f"{BINFMT}/arm", HANDLER)
    before = fake.properties()
    fake.write(f"{BINFMT}/arm", HANDLER.replace("/usr/libexec/qemu-binfmt/", "/opt/"))

    assert fake.properties() == before


def test_binary_formats_that_are_all_switched_off(fake: Fake) -> None:
    fake.write(f"{BINFMT}/arm", HANDLER)
    fake.write(f"{BINFMT}/status", "disabled\n")

    assert not any("binfmt" in name for name in fake.properties())
