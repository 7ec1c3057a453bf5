"""`bk report`: the page of a build, made from what `bk-out` keeps. It needs no loadable workspace."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bkrules import errors
from bkrules.cache import atomic
from bkrules.commands.parser import command, nothing, patterns_of
from bkrules.errors import UsageError
from bkrules.loading.glob import OUTPUT
from bkrules.loading.root import find_root, root_of
from bkrules.model.label import Pattern, parse_pattern

if TYPE_CHECKING:
    from bkrules.commands.parser import Commands
    from bkrules.report.kept_reports import Kept
    from bkrules.report.page import Page
    from bkrules.report.page_cells import Details


def add(commands: Commands) -> None:
    """Add the command of this module to the parser."""
    report = command(commands, "report", _report, "write the page of a build: one HTML file, for a browser")
    report.add_argument(
        "patterns",
        nargs="*",
        metavar="PATTERN-or-REPORT",
        help="//pkg:matrix and the like, or the report.json of `bk ci merge` (default: all matrices that have run)",
    )
    report.add_argument("--out", default="", metavar="FILE", help="where the page of all is written")
    report.add_argument(
        "--earlier",
        action="append",
        default=[],
        metavar="FILE",
        help="the report.json of an earlier build, the oldest first",
    )
    report.add_argument("--profile", default="", metavar="FILE", help="the --profile of the build, for its trace")
    report.add_argument(
        "--junit", default="", metavar="DIR", help="the page of the JUnit XML files of other tools there"
    )
    report.add_argument("--open", action="store_true", help="open the page in a browser of this machine")
    report.add_argument("--serve", action="store_true", help="serve the page on 127.0.0.1 until Ctrl-C")


def _report(arguments: argparse.Namespace) -> int:
    path = _of_junit(arguments) if arguments.junit else _of_builds(arguments)
    if arguments.open:
        import webbrowser

        webbrowser.open(path.absolute().as_uri())
    if arguments.serve:
        from bkrules.report.serving import serve

        serve(path, lambda address: print(f"{address} (Ctrl-C ends this)", flush=True))
    return errors.SUCCESS


def _of_builds(arguments: argparse.Namespace) -> Path:
    """Write a page for each matrix, and one for all of them. Return the path of the last. Raises BkError."""
    from bkrules.build.analysis import history
    from bkrules.report.kept_reports import add_earlier, details_of, page_of, read
    from bkrules.report.page import PAGE
    from bkrules.report.trace import read_spans

    spans = read_spans(arguments.profile) if arguments.profile else []
    kept, out = _kept(patterns_of(arguments))
    seconds = history(out).seconds
    earlier = [read(Path(file), out) for file in arguments.earlier]
    if len(kept) > 1:
        for one in kept:
            page = page_of([one], str(one.label), seconds)
            add_earlier(page, earlier)
            _write([one.path.with_name(PAGE)], page, details_of([one]))
    page = page_of(kept, str(kept[0].label) if len(kept) == 1 else f"{len(kept)} matrices", seconds)
    page.spans = spans
    add_earlier(page, earlier)
    paths = [Path(arguments.out) if arguments.out else out / PAGE]
    if len(kept) == 1 and not arguments.out:
        paths.insert(0, kept[0].path.with_name(PAGE))
    _write(paths, page, details_of(kept))
    for matrix in page.matrices:
        for remark in matrix["remarks"]:
            print(f"{matrix['label']}: {remark}")
    return paths[-1]


def _of_junit(arguments: argparse.Namespace) -> Path:
    """Write the page of JUnit files of other tools. Return its path. Raises BkError."""
    from bkrules.report.other_junit import page_of_junit
    from bkrules.report.page import PAGE

    if arguments.patterns or arguments.profile or arguments.earlier:
        raise UsageError("usage", "bk report: --junit stands alone, with --out", hint="see `bk report --help`")
    page, details = page_of_junit(arguments.junit)
    given = Path(arguments.junit)
    path = Path(arguments.out) if arguments.out else (given if given.is_dir() else given.parent) / PAGE
    if not page.cells:
        raise nothing(f"the JUnit files in {arguments.junit} have no case", "run the tests first")
    _write([path], page, details)
    return path


def _kept(words: Sequence[str]) -> tuple[list[Kept], Path]:
    """Return the reports that the words of the command line name, and the `bk-out` of this workspace. Raises BkError."""
    from bkrules.report.kept_reports import all_kept, read

    root = root_of(".")
    files = [word for word in words if word.endswith(".json")]
    texts = [word for word in words if word not in files]
    out = Path(find_root(".") if texts or not files else root or ".", OUTPUT)
    found = [read(Path(file), out) for file in files]
    if texts or not files:
        known = list(all_kept(out))
        package = os.path.relpath(os.path.realpath("."), out.parent)
        patterns = [parse_pattern(text, "" if package == "." else package) for text in texts]
        found += [one for one in known if not patterns or _is_named(one, patterns)]
        for pattern in patterns:
            if not pattern.negative and not any(pattern.matches(one.label) for one in known):
                labels = ", ".join(str(one.label) for one in known)
                hint = f"there are reports of {labels}" if labels else "run `bk test` first"
                raise nothing(f"{OUTPUT} has no report of {pattern.text}", hint)
    if not found:
        raise nothing(f"{OUTPUT} has no report of a matrix", "run `bk test` first")
    return found, out


def _is_named(kept: Kept, patterns: Sequence[Pattern]) -> bool:
    """Return whether the patterns name the matrix of a report: as in Bazel, the last that matches decides."""
    matching = [pattern for pattern in patterns if pattern.matches(kept.label)]
    return not matching[-1].negative if matching else all(pattern.negative for pattern in patterns)


def _write(paths: Sequence[Path], page: Page, details: Iterable[Details]) -> None:
    """Write a page and print its paths and its counts. Raises UsageError where it cannot be written."""
    from bkrules.report.page import render

    data = render(page, details).encode(errors="replace")
    counts = Counter(cell["status"] for cell in page.cells)
    words = ", ".join(f"{count} {status}" for status, count in counts.items())
    for path in paths:
        try:
            atomic.write(str(path), data)
        except OSError as error:
            message = f"cannot write {path}: {error.strerror}"
            raise UsageError("usage", message, hint="name a file in an existing folder with --out") from error
        print(f"{os.path.relpath(path)}: {page.title}: {len(page.cells)} cells: {words}")
    for remark in page.remarks:
        print(f"warning: {remark}", file=sys.stderr)
