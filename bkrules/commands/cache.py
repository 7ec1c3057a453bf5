"""`bk cache`, `bk clean` and `bk reap`: maintenance of folders."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bkrules import errors
from bkrules.commands.build_arguments import add_cells
from bkrules.commands.harness import add_overrides, add_selection
from bkrules.commands.parser import add_cache, command
from bkrules.commands.remote_arguments import add_remote
from bkrules.errors import UsageError
from bkrules.loading.glob import OUTPUT
from bkrules.loading.root import find_root

if TYPE_CHECKING:
    from bkrules.commands.parser import Commands

_MOVES = ("push", "pack", "unpack")
"""The work that moves results between the disk cache and other places."""


def add(commands: Commands) -> None:
    """Add the commands of this module to the parser."""
    cache = command(commands, "cache", _cache, "maintain the disk cache: stats, verify, gc, push, pack, unpack")
    cache.add_argument(
        "what",
        choices=("stats", "verify", "gc", *_MOVES),
        help="print its size; check every byte; remove old results; send results to a remote cache; write results into a file; "
        "read such files",
    )
    help_text = "for push and pack: the targets whose results are sent or written; for unpack: the files"
    cache.add_argument("patterns", nargs="*", metavar="PATTERN-or-FILE", help=help_text)
    cache.add_argument(
        "--actions",
        action="store_true",
        help="for push: send the actions without a result instead, with their inputs, and print their digests for bk run-action",
    )
    cache.add_argument("--out", metavar="FILE", help="for pack: the file that is written")
    cache.add_argument("--max_size", type=_measure("size"), metavar="SIZE", help="for gc: 500M, 10G")
    cache.add_argument("--max_age", type=_measure("span"), metavar="SPAN", help="for gc: 12h, 30d")
    cache.add_argument("--json", action="store_true", help="print JSON")
    add_selection(cache)
    add_overrides(cache)
    add_cells(cache)
    add_cache(cache)
    add_remote(cache)
    clean = command(commands, "clean", _clean, "remove bk-out; the next build restores it from the disk cache")
    clean.add_argument("--expunge", action="store_true", help="remove the disk cache too")
    add_cache(clean)
    reap = command(commands, "reap", _reap, "remove the leftovers of killed runs, and nothing else")
    add_cache(reap)


def _measure(kind: str) -> Callable[[str], float]:
    """Return an option's value as a number; the module that parses it is imported only for a given value."""

    def read(text: str) -> float:
        from bkrules.cache import maintenance

        try:
            return maintenance.size(text) if kind == "size" else maintenance.span(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _reap(arguments: argparse.Namespace) -> int:
    from bkrules.sandbox.run_folder import sweep, sweep_orphans

    for path in [*sweep(os.path.abspath(arguments.disk_cache)), *sweep_orphans()]:
        print(f"removed {path}")
    return errors.SUCCESS


def _cache(arguments: argparse.Namespace) -> int:
    if arguments.actions and arguments.what != "push":
        raise UsageError("usage", f"bk cache {arguments.what} sends no actions; bk cache push --actions does")
    if arguments.out and arguments.what != "pack":
        raise UsageError("usage", f"bk cache {arguments.what} writes no file; bk cache pack --out does")
    if arguments.what in _MOVES:
        from bkrules.commands import push as moves

        run: Callable[[argparse.Namespace], int] = getattr(
            moves, "push_actions" if arguments.actions else arguments.what
        )
        return run(arguments)
    if arguments.patterns:
        raise UsageError("usage", f"bk cache {arguments.what} takes no targets: it works on the whole disk cache")
    from bkrules.cache.cas import Cas
    from bkrules.cache.file_digests import FileDigests
    from bkrules.cache.maintenance import Maintenance, shown

    folder = os.path.abspath(arguments.disk_cache)
    work = Maintenance(folder, Cas(f"{folder}/cas", FileDigests("")))
    if arguments.what == "stats":
        stats = work.stats()
        text = (
            f"{stats.results} results and {stats.blobs} blobs, {shown(stats.size)}; "
            f"of these {stats.loose} blobs, {shown(stats.loose_size)}, that no result needs"
        )
        print(json.dumps(vars(stats)) if arguments.json else text)
        return errors.SUCCESS
    if arguments.what == "verify":
        removed = work.verify()
        text = f"removed {removed.blobs} damaged blobs and {removed.results} results that needed a missing blob"
        damaged = bool(removed.blobs or removed.results)
        print(
            json.dumps(vars(removed)) if arguments.json else text if damaged else "every blob and every result is whole"
        )
        return errors.BUILD_FAILED if damaged else errors.SUCCESS
    if arguments.max_size is None and arguments.max_age is None:
        raise UsageError("usage", "bk cache gc: name a limit", hint="--max_size 10G, --max_age 30d, or both")
    removed = work.collect(max_size=arguments.max_size, max_age=arguments.max_age)
    text = f"removed {removed.results} results and {removed.blobs} blobs, {shown(removed.size)}"
    print(json.dumps(vars(removed)) if arguments.json else text)
    return errors.SUCCESS


def _removed(out: Path) -> str:
    """Remove `bk-out`, and print what was done. When it is a link, its target is emptied, and the link stays.

    Raises OSError, or MachineLacks when it is not a folder and so not bk's.
    """
    from bkrules.build.analysis import check_output

    if not os.path.lexists(out):
        return f"there is no {out}"
    check_output(out)
    if not out.is_symlink():
        shutil.rmtree(out)
        return f"removed {out}"
    for entry in os.scandir(out):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
    return f"emptied {out.resolve()}, to which {out} leads"


def _clean(arguments: argparse.Namespace) -> int:
    print(_removed(Path(find_root("."), OUTPUT)))
    if arguments.expunge:
        from bkrules.cache.maintenance import expunge

        folder = os.path.abspath(arguments.disk_cache)
        expunge(folder)
        print(f"removed {folder}")
    return errors.SUCCESS
