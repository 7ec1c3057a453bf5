"""Commits of a tool's source as the revisions of a bisection, in a worktree that is removed at the end."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bkrules.build.worker_overrides import WorkerOverrides
from bkrules.errors import MachineLacks, UsageError
from bkrules.rules.go_tree import module_of
from bkrules.system.files import read_text


@dataclass(frozen=True)
class Commits:
    """Commits of a Git repository, in a worktree in a temporary folder; `folder` is the module's, `module` its path."""

    module: str
    folder: Path
    commits: tuple[tuple[str, str], ...]
    base: WorkerOverrides

    @property
    def names(self) -> list[str]:
        """The abbreviated commits with their subjects."""
        return [f"{commit[:12]} {subject}" for commit, subject in self.commits]

    def overrides(self, place: int) -> WorkerOverrides:
        """Check the commit out, and return the overrides that build the module from it."""
        _git(self.folder, "checkout", "--quiet", "--force", "--detach", self.commits[place][0])
        _git(self.folder, "clean", "--quiet", "--force", "-d", "-x", ":/")
        modules = {**dict(self.base.modules), self.module: str(self.folder)}
        return replace(self.base, modules=tuple(sorted(modules.items())))


@contextmanager
def commits(source: str, good: str, bad: str, module: str, base: WorkerOverrides) -> Iterator[Commits]:
    """Yield the commits after `good` up to `bad`, `good` first; of merges, those of the first parent. Raises UsageError.

    `module` is the tool's, for a folder without a go.mod. The checkout stays as it is; the worktree is removed at the end.
    """
    top, prefix = _repository(source)
    first, last = (_commit(source, option, text) for option, text in (("good", good), ("bad", bad)))
    if first == last or _run(source, "merge-base", "--is-ancestor", first, last).returncode:
        what = f"--good={good} is not an ancestor of --bad={bad}"
        raise UsageError("wrong-order", what, hint="bisect looks for the first commit that is bad, from a good one on")
    row = _git(source, "log", "--first-parent", "--reverse", "--format=%H %s", last, f"^{first}").splitlines()
    row.insert(0, _git(source, "log", "-1", "--format=%H %s", first).strip())
    listed = tuple((line.partition(" ")[0], line.partition(" ")[2]) for line in row)
    with tempfile.TemporaryDirectory(prefix="bk-bisect-") as folder:
        tree = Path(folder, "tree")
        _git(top, "worktree", "add", "--quiet", "--force", "--detach", str(tree), last)
        try:
            yield Commits(_module(tree / prefix) or module, tree / prefix, listed, base)
        finally:
            _git(top, "worktree", "remove", "--force", str(tree))


def _repository(source: str) -> tuple[str, str]:
    """Return the top folder of the repository with a folder, and the way from there to the folder. Raises UsageError."""
    if not os.path.isdir(source):
        raise UsageError("no-source", f"--source={source} is not a folder")
    done = _run(source, "rev-parse", "--show-toplevel", "--show-prefix")
    if done.returncode:
        hint = f"{done.stderr.strip()}\nwithout --source, bisect looks among the declared releases"
        raise UsageError("no-source", f"--source={source} is not in a Git repository", hint=hint)
    top, prefix = done.stdout.split("\n")[:2]
    return top, prefix


def _commit(source: str, option: str, text: str) -> str:
    done = _run(source, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{text}^{{commit}}")
    if done.returncode:
        hint = "name a commit, a tag or a branch; a shallow clone lacks older commits:  git fetch --unshallow"
        raise UsageError("unknown-commit", f"--{option}={text}: {source} has no such commit", hint=hint)
    return done.stdout.strip()


def _module(folder: Path) -> str:
    """Return the path of the module in a folder; empty when it has no go.mod."""
    mod = folder / "go.mod"
    return module_of(read_text(mod)) if mod.is_file() else ""


def _run(folder: str | Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment: Mapping[str, str] = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "LC_ALL": "C",
    }
    command = ["git", "-c", "core.hooksPath=/dev/null", "-C", str(folder), *words]
    try:
        return subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:
        raise MachineLacks("no-git", "there is no git, which --source needs", hint="apt-get install git") from None


def _git(folder: str | Path, *words: str) -> str:
    done = _run(folder, *words)
    if done.returncode:
        raise UsageError("git", f"`git {words[0]}` failed", hint=done.stderr.strip())
    return done.stdout
