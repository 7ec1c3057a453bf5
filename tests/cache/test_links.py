"""Folders of links to blobs, kept between builds, and never with another content than a build asks for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bkrules.cache.cas import Cas
from bkrules.cache.links import FOLDER, LinkFolders, remove_links
from bkrules.cache.maintenance import Maintenance


class Build:
    """A build with two tools, one of them in a folder, and one more file."""

    def __init__(self, cache: Path, cas: Cas, name: str) -> None:
        self.links = LinkFolders(str(cache))
        self.blobs = {tool: Path(cas.path(cas.put(tool.encode()))) for tool in ("bin/runc", "buildkitd")}
        self.files: dict[str, str | bytes] = {
            **{tool: str(blob) for tool, blob in self.blobs.items()},
            "tag/link": b"sha256:1",
        }
        self.made = cache / name

    def make(self) -> Path:
        for name, file in self.files.items():
            target = self.made / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(file, str):
                os.link(file, target)
            else:
                target.write_bytes(file)
        return self.made

    def get(self) -> Path:
        return Path(self.links.get(self.files, self.make))


@pytest.fixture
def build(tmp_path: Path, cas: Cas) -> Callable[[str], Build]:
    return lambda name: Build(tmp_path, cas, name)


def test_a_later_build_links_nothing(build: Callable[[str], Build]) -> None:
    first, second = build("first"), build("second")
    folder = first.get()
    first.links.close()
    before = [blob.stat().st_ctime_ns for blob in first.blobs.values()]

    assert second.get() == folder

    assert [blob.stat().st_ctime_ns for blob in second.blobs.values()] == before, "bk would read the tools again"
    assert not second.made.exists()
    assert (folder / "bin/runc").read_bytes() == b"bin/runc"
    assert (folder / "tag/link").read_bytes() == b"sha256:1"


def test_other_files_have_another_folder(build: Callable[[str], Build]) -> None:
    first, second, third = build("first"), build("second"), build("third")
    second.files["tag/link"] = b"sha256:2"
    third.files["runc"] = third.files.pop("bin/runc")

    assert len({first.get(), second.get(), third.get()}) == 3


def add(folder: Path, blob: Path) -> None:
    (folder / "bin/ld").write_bytes(b"foreign")


def remove(folder: Path, blob: Path) -> None:
    (folder / "buildkitd").unlink()


def replace(folder: Path, blob: Path) -> None:
    (folder / "buildkitd").unlink()
    (folder / "buildkitd").write_bytes(b"buildkitd")


def change(folder: Path, blob: Path) -> None:
    (folder / "tag/link").write_bytes(b"sha256:10")


def turn_into_link(folder: Path, blob: Path) -> None:
    (folder / "buildkitd").unlink()
    (folder / "buildkitd").symlink_to(blob)


def turn_folder_into_link(folder: Path, blob: Path) -> None:
    (folder / "bin").rename(folder.parent / "elsewhere")
    (folder / "bin").symlink_to(folder.parent / "elsewhere")


def add_empty(folder: Path, blob: Path) -> None:
    (folder / "bin/empty").mkdir()


def shut(folder: Path, blob: Path) -> None:
    (folder / "bin").chmod(0o700)


def nest(folder: Path, blob: Path) -> None:
    """Too deep for a function that calls itself."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def make_blob_again(folder: Path, blob: Path) -> None:
    data = blob.read_bytes()
    blob.unlink()
    blob.write_bytes(data)


@pytest.mark.parametrize(
    "damage", [add, remove, replace, change, turn_into_link, turn_folder_into_link, add_empty, shut, make_blob_again]
)
def test_a_folder_with_other_files_is_not_used(
    build: Callable[[str], Build], damage: Callable[[Path, Path], None]
) -> None:
    first, second, third = build("first"), build("second"), build("third")
    folder = first.get()
    damage(folder, first.blobs["buildkitd"])

    assert second.get() == second.made, "the first build still uses its folder"
    first.links.close()
    assert third.get() == folder, "it was not made again"

    assert not third.made.exists()
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["buildkitd", "link", "runc"]
    assert (folder / "buildkitd").samefile(third.blobs["buildkitd"])
    assert not (folder / "buildkitd").is_symlink()
    assert (folder / "tag/link").read_bytes() == b"sha256:1"


def test_a_link_in_the_place_of_the_folder_is_not_followed(build: Callable[[str], Build], tmp_path: Path) -> None:
    first, second = build("first"), build("second")
    folder = first.get()
    first.links.close()
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")

    assert second.get() == second.made


def test_copies_are_not_kept(build: Callable[[str], Build], tmp_path: Path) -> None:
    first = build("first")
    copied = tmp_path / "copied"

    def copy() -> Path:
        for name, file in first.files.items():
            (copied / name).parent.mkdir(parents=True, exist_ok=True)
            (copied / name).write_bytes(Path(file).read_bytes() if isinstance(file, str) else file)
        return copied

    assert Path(first.links.get(first.files, copy)) == copied
    assert not (tmp_path / FOLDER).exists()


def test_a_collection_removes_what_no_build_uses(build: Callable[[str], Build], tmp_path: Path, cas: Cas) -> None:
    """The blobs are in no result, so only the links would keep their bytes on the disk."""
    first = build("first")
    folder = first.get()
    foreign = tmp_path / FOLDER / "foreign"
    foreign.mkdir()
    (tmp_path / FOLDER / ("0" * 64)).write_text("foreign too")
    remove_links(str(tmp_path))
    assert folder.is_dir(), "the build uses it"
    first.links.close()

    Maintenance(str(tmp_path), cas).collect()

    assert not folder.exists()
    assert not any(blob.exists() for blob in first.blobs.values())
    assert foreign.is_dir()
    remove_links(str(tmp_path / "nothing"))


def test_a_collection_follows_no_link(build: Callable[[str], Build], tmp_path: Path) -> None:
    first = build("first")
    folder = first.get()
    first.links.close()
    (tmp_path / FOLDER).rename(tmp_path / "elsewhere")
    (tmp_path / FOLDER).symlink_to(tmp_path / "elsewhere")

    remove_links(str(tmp_path))

    assert (tmp_path / "elsewhere" / folder.name).is_dir()


@pytest.fixture
def recursion() -> Iterator[None]:
    """Python's usual limit of recursion, which a loaded workspace raises for the whole process."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("recursion")
def test_a_folder_that_is_too_deep_is_neither_used_nor_removed(build: Callable[[str], Build], tmp_path: Path) -> None:
    first, second = build("first"), build("second")
    folder = first.get()
    first.links.close()
    nest(folder, folder)

    assert second.get() == second.made
    remove_links(str(tmp_path))
    subprocess.run(["rm", "-r", folder], check=True)  # pytest could not either


def test_everyone_may_enter_the_folders(build: Callable[[str], Build]) -> None:
    """Whatever the umask of the build that made them."""
    first = build("first")
    before = os.umask(0o077)
    try:
        folder = first.get()
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in [folder, *folder.rglob("*")] if path.is_dir()} == {0o755}


def test_a_folder_that_cannot_be_kept_is_used_all_the_same(build: Callable[[str], Build], tmp_path: Path) -> None:
    first = build("first")
    (tmp_path / FOLDER).write_text("in the place of the folder")

    assert first.get() == first.made
