from __future__ import annotations

from pathlib import Path

import pytest

from bkrules.plugin.host import probe, subordinate_range


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


def test_features_do_not_tell_machines_apart_by_accident(machine: Path) -> None:
    before = probe(f"{machine}/").features
    (machine / "proc/sys/user/max_user_namespaces").write_text("77\n")

    assert probe(f"{machine}/").features == before
    assert set(before) == {"OSFamily", "ISA", "cgroup", "filesystem-fuse", "filesystem-overlay"}


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
