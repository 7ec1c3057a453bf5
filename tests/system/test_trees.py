"""Listings of folders that their owners edit."""

from __future__ import annotations

from pathlib import Path

from bkrules.system.trees import list_files


def test_version_control_is_in_no_listing(tmp_path: Path) -> None:
    """In a worktree, `.git` is a file with the place of its repository."""
    (tmp_path / "a/.git").mkdir(parents=True)
    for path in (".git", "a/x.go", "a/.git/HEAD", "a/.gitignore"):
        (tmp_path / path).write_text("")

    assert list_files(str(tmp_path), lambda _path: None).files == ("a/.gitignore", "a/x.go")
