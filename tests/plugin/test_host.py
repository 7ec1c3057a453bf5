from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import strangers
from bk_worker_rootless import RootlessWorker

from bkrules.analysis.host_inputs import note_reads_of_plugins
from bkrules.incremental import dependencies
from bkrules.plugin import Mirror, host
from bkrules.plugin.host import LOOP_CONTROL, notice_reads, probe, subordinate_range
from bkrules.plugin.manager import load


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The files of /proc that are read, as a hybrid machine has them."""
    files = {
        "proc/filesystems": "nodev\ttmpfs\n\text4\nnodev\toverlay\nnodev\tfuse\n",
        "proc/sys/user/max_user_namespaces": "1000\n",
        "proc/self/uid_map": "         0          0 4294967295\n",
        "proc/self/mountinfo": "24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
        "25 24 0:23 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        "26 24 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "proc/self/ns").mkdir()
    for name in ("mnt", "pid", "net", "ipc", "uts", "user"):
        (tmp_path / "proc/self/ns" / name).touch()
    return tmp_path


def test_a_hybrid_machine(machine: Path) -> None:
    host = probe(f"{machine}/")

    assert host.cgroup == "/sys/fs/cgroup/unified"
    assert host.filesystems >= {"overlay", "fuse"}
    assert host.mapped_ids == 4294967295
    assert host.user_namespaces == 1000
    assert not host.fuse  # there is no device node
    assert host.lacks() == ()


def test_a_driver_without_a_node_is_enough_for_tap_devices(machine: Path) -> None:
    assert not probe(f"{machine}/").tun
    (machine / "proc/misc").write_text("229 fuse\n200 tun\n")
    assert probe(f"{machine}/").tun


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a device node")
def test_an_ext4_in_memory_needs_loop_devices_and_a_maker(machine: Path) -> None:
    (machine / "dev").mkdir()
    (machine / "usr/sbin").mkdir(parents=True)
    maker = machine / "usr/sbin/mke2fs"
    maker.touch(mode=0o755)
    assert probe(f"{machine}/").mke2fs == ""

    os.mknod(machine / "dev/loop-control", 0o600 | stat.S_IFCHR, LOOP_CONTROL)
    assert probe(f"{machine}/").mke2fs == "/usr/sbin/mke2fs"

    maker.chmod(0o644)
    assert probe(f"{machine}/").mke2fs == ""
    maker.chmod(0o755)
    (machine / "proc/filesystems").write_text("nodev\toverlay\n")
    assert probe(f"{machine}/").mke2fs == ""


def test_in_a_user_namespace_root_is_not_root(machine: Path) -> None:
    (machine / "proc/self/uid_map").write_text("0 0 1\n")

    assert [lack.what for lack in probe(f"{machine}/").lacks()] == ["not root"]


@pytest.mark.parametrize(
    ("file", "text", "what"),
    [
        ("proc/self/mountinfo", "", "no cgroup2"),
        ("proc/filesystems", "nodev\tfuse\n", "no overlay filesystem"),
    ],
)
def test_what_is_missing_is_said(machine: Path, file: str, text: str, what: str) -> None:
    (machine / file).write_text(text)

    (lack,) = probe(f"{machine}/").lacks()

    assert lack.what == what
    assert lack.remedy


def test_a_kernel_without_a_namespace(machine: Path) -> None:
    (machine / "proc/self/ns/ipc").unlink()

    assert [lack.what for lack in probe(f"{machine}/").lacks()] == ["no ipc namespaces"]


def test_a_mount_without_a_source_is_one_like_others(machine: Path) -> None:
    with (machine / "proc/self/mountinfo").open("a") as file:
        file.write("75 27 0:63 / /mnt rw - tmpfs  rw\n")

    assert probe(f"{machine}/").cgroup == "/sys/fs/cgroup/unified"


def test_features_do_not_tell_machines_apart_by_accident(machine: Path) -> None:
    before = probe(f"{machine}/").platform("series")
    (machine / "proc/sys/user/max_user_namespaces").write_text("77\n")

    assert probe(f"{machine}/").platform("series") == before
    assert {name for name in before if not name.startswith("kernel-")} == {
        "OSFamily",
        "ISA",
        "filesystem-fuse",
        "filesystem-overlay",
    }
    assert probe(f"{machine}/").platform("none") == probe(f"{machine}/").features


MEMORY = "28 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
PIDS = "29 24 0:27 {inner} /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"


@pytest.fixture
def cgroup2(machine: Path) -> Callable[..., None]:
    """Makes the machine one with cgroup2 alone, with these texts in the files of its topmost visible group."""

    def make(**files: str) -> None:
        (machine / "proc/self/mountinfo").write_text("24 1 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
        (machine / "proc/self/cgroup").write_text("0::/own\n")
        (machine / "sys/fs/cgroup").mkdir(parents=True)
        for name, text in files.items():
            (machine / f"sys/fs/cgroup/cgroup.{name}").write_text(text)

    return make


def test_a_controller_with_a_hierarchy_of_its_own_is_had_below_the_own_group(machine: Path) -> None:
    with (machine / "proc/self/mountinfo").open("a") as file:
        file.write(MEMORY + PIDS.format(inner="/"))
    (machine / "proc/self/cgroup").write_text("4:memory:/service/own\n3:pids:/\n1:cpu:/elsewhere\n0::/\n")
    (machine / "sys/fs/cgroup/memory/service/own").mkdir(parents=True)
    (machine / "sys/fs/cgroup/pids").mkdir()

    host = probe(f"{machine}/")

    assert host.cgroup == "/sys/fs/cgroup/unified"
    assert host.controllers == {"memory": "/sys/fs/cgroup/memory/service/own", "pids": "/sys/fs/cgroup/pids"}
    assert host.unlimited() == ()


def test_a_container_sees_its_own_group_as_the_top_of_the_hierarchy(machine: Path) -> None:
    with (machine / "proc/self/mountinfo").open("a") as file:
        file.write(PIDS.format(inner="/docker/1f"))
    (machine / "proc/self/cgroup").write_text("3:pids:/docker/1f/own\n0::/\n")
    (machine / "sys/fs/cgroup/pids/own").mkdir(parents=True)

    host = probe(f"{machine}/")

    assert host.controllers == {"pids": "/sys/fs/cgroup/pids/own"}
    assert host.unlimited() == ("memory",)


def test_an_own_group_that_cannot_be_seen_is_replaced_by_the_top(machine: Path) -> None:
    with (machine / "proc/self/mountinfo").open("a") as file:
        file.write(MEMORY)
    (machine / "proc/self/cgroup").write_text("4:memory:/hidden/own\n")

    assert probe(f"{machine}/").controllers == {"memory": "/sys/fs/cgroup/memory"}


def test_a_hierarchy_of_its_own_goes_before_cgroup2(machine: Path) -> None:
    with (machine / "proc/self/mountinfo").open("a") as file:
        file.write(MEMORY)
    (machine / "sys/fs/cgroup/unified").mkdir(parents=True)
    (machine / "sys/fs/cgroup/unified/cgroup.controllers").write_text("pids\n")

    assert probe(f"{machine}/").controllers == {
        "memory": "/sys/fs/cgroup/memory",
        "pids": "/sys/fs/cgroup/unified",
    }


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({"controllers": "cpu memory pids\n", "subtree_control": "\n"}, ()),
        ({"controllers": "cpu memory\n", "subtree_control": "memory\n"}, ("pids",)),
        ({"controllers": "cpu pids\n", "subtree_control": "\n", "type": "domain\n"}, ("memory", "pids")),
        ({"controllers": "memory pids\n", "subtree_control": "pids\n", "type": "domain\n"}, ("memory",)),
        ({"controllers": "memory pids\n", "subtree_control": "memory pids\n", "type": "domain\n"}, ()),
        ({"controllers": "memory_recursive mypids\n", "subtree_control": "\n"}, ("memory", "pids")),
        ({}, ("memory", "pids")),
    ],
    ids=["root", "root-of-some", "not-root", "not-root-handed-one", "not-root-handed-both", "other-words", "no-files"],
)
def test_cgroup2_alone_gives_what_its_group_has_or_may_hand_down(
    machine: Path, cgroup2: Callable[..., None], files: dict[str, str], missing: tuple[str, ...]
) -> None:
    cgroup2(**files)

    host = probe(f"{machine}/")

    assert host.unlimited() == missing
    assert host.controllers == {name: "/sys/fs/cgroup" for name in ("memory", "pids") if name not in missing}


def test_a_machine_without_controllers_limits_nothing(machine: Path) -> None:
    host = probe(f"{machine}/")

    assert host.controllers == {}
    assert host.unlimited() == ("memory", "pids")
    assert host.lacks() == ()  # cells run, and their results are not kept


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("alice:100000:65536\n", (100000, 65536)),
        ("bob:1:65536\nalice:200000:131072\n", (200000, 131072)),
        ("alice:100000:1000\nalice:300000:65536\n", (300000, 65536)),
        ("alice:100000:65535\n", None),
        ("alicia:100000:65536\n", None),
        ("alice\nalice:x:y\n", None),
        ("", None),
    ],
)
def test_subordinate_range(text: str, found: tuple[int, int] | None) -> None:
    assert subordinate_range(text, "alice") == found


def test_a_file_of_the_machine_is_read(machine: Path) -> None:
    (machine / "etc").mkdir()
    (machine / "etc/subuid").write_bytes(b"alice:1:65536\n\xff")
    here = probe(f"{machine}/")

    assert here.read("/etc/subuid") == host.read(f"{machine}/etc/subuid") == "alice:1:65536\n\ufffd"
    assert here.read("/etc/none") == here.read("/etc/subuid/none") == here.read("/nowhere/none") == ""


@pytest.mark.parametrize("path", ["", "etc/subuid", "../etc/subuid", "/etc/sub\0uid"])
def test_only_absolute_paths_are_read(path: str) -> None:
    with pytest.raises(ValueError, match="absolute path"):
        host.read(path)


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """Above all no FIFO, which would be waited for."""
    os.mkfifo(tmp_path / "fifo")

    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(OSError, match=r"."):
            host.read(str(path))


@pytest.fixture
def noted() -> Iterator[Callable[[], set[str]]]:
    """What was noted since the test began."""
    note_reads_of_plugins()
    with dependencies.separate() as separate:
        yield lambda: set(separate.for_all)
    notice_reads(lambda _: None)


def test_what_plugins_read_is_noted_also_when_it_is_missing(tmp_path: Path, noted: Callable[[], set[str]]) -> None:
    file = tmp_path / "file"
    assert host.read(str(file)) == ""
    file.write_text("later")
    assert host.read(str(file)) == "later"

    assert noted() == {str(file)}
    assert dependencies.current().first(str(file)) is None, "the stamp is from before the first look"


def test_what_a_plugin_reads_while_it_is_imported_is_noted(tmp_path: Path, noted: Callable[[], set[str]]) -> None:
    file = tmp_path / "file"
    text = strangers.worker(f"from bkrules.plugin import host\nFLAGS = host.read({str(file)!r})")
    with strangers.installed(tmp_path / "plugin", {"near_worker.py": text}):
        assert load().workers["near"]

    assert str(file) in noted()


def test_rootless_reads_the_ranges_of_its_user_by_it() -> None:
    seen: list[str] = []
    notice_reads(seen.append)
    worker = RootlessWorker(user="alice")

    worker.configuration(Mirror("127.0.0.1:5000", ()))
    worker.preflight(probe("/nowhere/"))

    notice_reads(lambda _: None)
    assert set(seen) == {f"{root}etc/{name}" for root in ("/", "/nowhere/") for name in ("subuid", "subgid")}


@pytest.mark.parametrize(
    ("path", "doubted"), [("/proc/meminfo", True), ("/sys/kernel/mm/none", True), ("/etc/none", False)]
)
def test_no_answer_is_kept_that_rests_on_a_file_whose_stamp_says_nothing(
    noted: Callable[[], set[str]], path: str, doubted: bool
) -> None:
    host.read(path)

    assert bool(dependencies.current().doubts) == doubted
