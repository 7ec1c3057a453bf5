"""The trial of a machine, in processes with other rights than this one's. `bk build` and `bk doctor` say the same."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fresh import in_fresh_process
from spaces import Space

from bkrules.plugin.host import probe
from bkrules.sandbox import trial

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives rights away")

TOOLS = ("buildctl", "buildkitd", "registry", "runc", "containerd-stargz-grpc")
BUILD = """from bkrules import image, image_mirror, test_matrix, worker
image(name = "empty", files = {"bin/box": "box"})
image_mirror(name = "mirror", images = {"docker.io/library/empty:latest": ":empty"})
worker(name = "oci", plugin = "oci")
worker(name = "oci_stargz", plugin = "oci", snapshotter = "stargz")
test_matrix(name = "m", tests = ["test_it.py"], workers = [WORKERS], mirror = ":mirror")
"""
IN_PODMAN = "mount -t tmpfs none /run && touch /run/.containerenv && "
CONTAINER = ("unshare", "--uts", "--ipc", "--pid", "--fork", "--mount", "--mount-proc", "sh", "-c")
HIDE_FUSE = "if [ -e /dev/fuse ]; then mount --bind /dev/null /dev/fuse; fi && "
WITHOUT_ADMIN = ("setpriv", "--bounding-set", "-sys_admin")


@pytest.fixture
def declared(space: Space) -> Space:
    """A workspace with a matrix whose tools are not what they are called: no cell of it can run anywhere."""
    binaries = "".join(f"host_binary(name = {name!r}, binary = {shutil.which('true')!r})\n" for name in TOOLS)
    space.write("WORKSPACE.py", f"from bkrules import host_binary, workspace\nworkspace(name = 'w')\n{binaries}")
    space.write("p/BUILD.py", BUILD.replace("WORKERS", "':oci'"))
    space.write("p/box", "")
    space.write("p/test_it.py", "def test_it(sandbox):\n    pass\n")
    return dataclasses.replace(space, environment={"GITHUB_ACTIONS": "", "GITLAB_CI": ""})


MACHINES = {
    "a user": (("unshare", "--user"), "not root: bk cannot make a network", "run bk as root, for instance with sudo"),
    "root without a capability": (
        WITHOUT_ADMIN,
        "root without CAP_SYS_ADMIN: bk cannot make a network (Operation not permitted)",
        "start bk with all capabilities",
    ),
    "root of a user namespace": (
        ("unshare", "--user", "--map-root-user"),
        "root of a user namespace only: bk cannot make a device",
        "run bk outside of it, as root of the machine",
    ),
    "an ordinary container": (
        (*CONTAINER, f'{IN_PODMAN} exec {" ".join(WITHOUT_ADMIN)} "$@"', "sh"),
        "root without CAP_SYS_ADMIN",
        "start this container as root: `sudo podman run --privileged`",
    ),
    "a container of a user": (
        (*CONTAINER, f'{IN_PODMAN} exec unshare --user --map-root-user "$@"', "sh"),
        "root of a user namespace only",
        "start this container as root: `sudo podman run --privileged`",
    ),
    "a container with cgroups to read": (
        (*CONTAINER, f'{IN_PODMAN} mount -o remount,bind,ro {probe().cgroup} && exec "$@"', "sh"),
        f"a read-only cgroup2: bk cannot make a group in {probe().cgroup} (Read-only file system)",
        "start this container as root: `sudo podman run --privileged`",
    ),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_a_machine_without_privileges(declared: Space, machine: str) -> None:
    prefix, what, remedy = MACHINES[machine]

    built, doctor = declared.bk("test", "//p:m", prefix=prefix), declared.bk("doctor", prefix=prefix)

    assert built.returncode == doctor.returncode == 36, built.stdout + built.stderr + doctor.stdout
    assert f"1 cell skipped: this machine cannot run cells: {what}" in built.stdout
    assert f"  {remedy}" in built.stdout
    assert "0 ran" in built.stdout  # not even the image of its mirror was made
    assert f"cells: {what}" in doctor.stdout
    assert f"  {remedy}" in doctor.stdout


COLLECTED = """import pytest
BROKEN
@pytest.mark.parametrize("number", list(range(2)))
def test_it(sandbox, number):
    pass
"""
SUITE = """from bkrules import genrule, go_test
go_test(name = "suite", binary = "//:runc")
go_test(name = "built_suite", binary = ":built")
genrule(name = "built", outs = ["built"], tools = ["//:runc"], cmd = ["$(location //:runc)"])
test_matrix(name = "g", tests = [":suite"], workers = [":oci"], mirror = ":mirror")
test_matrix(name = "b", tests = [":built_suite"], workers = [":oci"], mirror = ":mirror")
"""


@pytest.mark.parametrize("machine", ["a user", "root without a capability", "root of a user namespace"])
def test_tests_that_only_an_action_can_list(declared: Space, machine: str) -> None:
    """Whether that action can run there or not, and whatever comes of it: what the machine lacks is the error."""
    prefix, what, remedy = MACHINES[machine]
    build = declared.root / "p/BUILD.py"
    build.write_text(build.read_text() + SUITE)
    declared.write("p/test_it.py", COLLECTED.replace("BROKEN", ""))
    listed = declared.bk("test", "//p:m", prefix=prefix)
    declared.write("p/test_it.py", COLLECTED.replace("BROKEN", "import no_such_module"))

    broken, suite = (declared.bk("test", name, prefix=prefix) for name in ("//p:m", "//p:g"))
    built, going_on = declared.bk("test", "//p:b", prefix=prefix), declared.bk("test", "-k", "//p:all", prefix=prefix)

    for done in (listed, broken, suite, built, going_on):
        said = done.stdout + done.stderr
        assert done.returncode == 36, said
        assert f"this machine cannot run cells: {what}" in said
        assert f"  {remedy}" in said
        assert "no_such_module" not in said
        assert "go_binary" not in said
    assert "CollectTests p/test_it.py" in listed.stderr
    assert "ListGoTests //p:suite" in suite.stderr
    assert "Genrule" not in built.stderr, "a tool was built for cells that cannot run"
    assert "no_such_module" in declared.bk("test", "//p:m").stderr
    assert "go_binary with test = True" in declared.bk("test", "//p:g").stderr


def test_a_container_without_fuse(declared: Space) -> None:
    """Only workers that need it cannot run there, and the remedy is not that of a machine."""
    declared.write("p/BUILD.py", BUILD.replace("WORKERS", "':oci_stargz'"))
    prefix = (*CONTAINER, f'{IN_PODMAN} {HIDE_FUSE} exec "$@"', "sh")

    built, doctor = declared.bk("test", "//p:m", prefix=prefix), declared.bk("doctor", prefix=prefix)

    assert built.returncode == doctor.returncode == 36, built.stdout + built.stderr + doctor.stdout
    assert "1 cell skipped: oci+stargz cannot run here: no /dev/fuse" in built.stdout
    for told in (built.stdout, doctor.stdout):
        assert "  start this container with `--device /dev/fuse`" in told
        assert "modprobe" not in told
    assert "0 ran" in built.stdout
    assert "cells: ok" in doctor.stdout


def test_an_interpreter_that_cells_do_not_see(declared: Space) -> None:
    place = "/dev/pts/env"
    script = f'mount -t tmpfs none /dev/pts && mkdir {place} && mount --bind {sys.prefix} {place} && exec "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", script, "sh")
    declared = dataclasses.replace(declared, python=f"{place}/bin/python")

    built, doctor = declared.bk("test", "//p:m", prefix=prefix), declared.bk("doctor", prefix=prefix)

    assert built.returncode == doctor.returncode == 36, built.stdout + built.stderr + doctor.stdout
    for told in (built.stdout, doctor.stdout):
        assert (
            f"an interpreter that cells cannot see: {place}: a cell runs this Python, and has its own /dev/pts" in told
        )
        assert "make the environment elsewhere" in told


@pytest.mark.skipif(platform.machine() != "x86_64", reason="plays a machine of 32 bits")
def test_another_architecture(declared: Space) -> None:
    prefix = ("setarch", "i686")

    built, doctor = declared.bk("test", "//p:m", prefix=prefix), declared.bk("doctor", prefix=prefix)

    assert built.returncode == doctor.returncode == 36, built.stdout + built.stderr + doctor.stdout
    for told in (built.stdout, doctor.stdout):
        assert "the architecture i686: bk knows the system calls of aarch64 and x86_64" in told


def test_a_toolchain_that_is_pinned_for_other_machines(space: Space) -> None:
    head = "from bkrules import go_toolchain, workspace\nworkspace(name = 'w')\n"
    pin = f"{{'linux-odd': '{'0' * 64}'}}"
    space.write("WORKSPACE.py", f"{head}go_toolchain(name = 'go', version = '1.0.0', sha256 = {pin})\n")

    done = space.bk("build", "//:go")

    assert done.returncode == 36, done.stderr
    assert f"//:go has no pin for this machine, 'linux-{platform.machine()}', only for 'linux-odd'" in done.stderr
    assert "WORKSPACE.py:3, attribute 'sha256'" in done.stderr


def test_an_action_that_a_user_cannot_run_is_the_machine_s_fault(declared: Space) -> None:
    declared.write("p/BUILD.py", 'from bkrules import genrule\ngenrule(name = "g", outs = ["x"], cmd = ["true"])\n')

    done = declared.bk("build", "//p:g", prefix=("unshare", "--user"))

    assert done.returncode == 36, done.stdout + done.stderr
    assert "Operation not permitted; not root" in done.stdout + done.stderr
    assert "run bk as root" in done.stdout + done.stderr


def the_trial_leaves_nothing() -> None:
    mounts, descriptors = Path("/proc/self/mountinfo").read_text(), os.listdir("/proc/self/fd")

    first = trial.tried(probe())

    assert first.tried == ()
    assert trial.tried(probe()) == first
    assert trial._answers.cache_info().misses == 1
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert os.listdir("/proc/self/fd") == descriptors
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_this_machine_can() -> None:
    """The trial leaves nothing, and takes place once."""
    in_fresh_process(the_trial_leaves_nothing)


@pytest.mark.parametrize(
    ("number", "what"),
    [(28, "no more namespaces"), (38, "an old kernel, or a filter of system calls"), (1, "a machine that refuses it")],
)
def test_other_faults_have_their_own_remedies(number: int, what: str) -> None:
    lack = trial._diagnosis("fly", number, "")

    assert lack.what == what
    assert "cannot fly" in lack.why
    assert lack.remedy
    assert not lack.command


def test_a_limit_of_namespaces(declared: Space) -> None:
    limit = (
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        'echo 0 > /proc/sys/user/max_net_namespaces; exec "$@"',
        "sh",
    )
    code = "from bkrules.plugin.host import probe; from bkrules.sandbox.trial import tried; print(tried(probe()).tried)"

    done = subprocess.run([*limit, sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "no more namespaces" in done.stdout
