"""The code blocks of the documentation, and what runs or checks each: `python tests/examples.py` prints the list.

A test takes a block from its page and runs it (`RUN`), or compares what bk prints with the same words (`SHOWN`). bk loads what is
for build files, plugins are imported, and commands, shell and TOML are parsed. `NOT_RUN` has the reason for each other block.
"""

from __future__ import annotations

import re
import subprocess
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[1]
HERE, DOCS = "tests/test_examples.py", "tests/test_docs.py"
QUICK_STARTS = "tests/integration/test_quick_starts.py"
SESSIONS = "tests/integration/test_doc_sessions.py"
Entry = TypeVar("Entry")
Table = Mapping[tuple[str, str], Entry]
"""Entries for the blocks of a page that begin so: language, a space, first line. An empty beginning means all of them."""
RUN: Table[str] = {
    ("README.md", "python "): "tests/integration/test_examples.py",
    ("README.md", "sh "): DOCS,
    ("bkrules/README.md", "text __init__.py"): DOCS,
    ("bkrules/README.md", "text errors"): "tests/test_architecture.py",
    ("docs/bisect.md", "console $ bk bisect"): "tests/integration/test_bisect.py",
    ("docs/builds.md", "dockerfile "): "tests/integration/test_build_tests.py",
    ("docs/builds.md", "sh "): "tests/integration/test_build_tests.py",
    ("docs/builds.md", "python # hello/BUILD.py"): "tests/integration/test_build_tests.py",
    ("docs/commands.md", "text common "): HERE,
    ("docs/coverage.md", "sh "): "tests/integration/test_coverage.py",
    ("docs/debugging.md", "console $ bk shell --at_failure test_pull/worker=oci"): SESSIONS,
    ("docs/editor.md", "console "): SESSIONS,
    ("docs/editor.md", "sh "): SESSIONS,
    ("docs/editor.md", "toml "): SESSIONS,
    ("docs/first-hour.md", ""): "tests/integration/test_first_hour.py",
    ("docs/init.md", "sh "): "tests/integration/test_first_hour.py",
    ("docs/mistakes.md", ""): "tests/test_mistakes.py",
    ("docs/modules.md", "sh "): SESSIONS,
    ("docs/modules.md", "text common "): HERE,
    ("docs/modules.md", "toml "): SESSIONS,
    ("docs/override-tools.md", "sh bk test //targets:stargz_matrix --override_tool"): SESSIONS,
    ("docs/own-daemons.md", ""): QUICK_STARTS,
    ("docs/own-dockerfile.md", ""): QUICK_STARTS,
    ("docs/own-worker.md", ""): QUICK_STARTS,
    ("docs/programs.md", "sh #!/bin/sh"): "tests/integration/test_jar.py",
    ("docs/query.md", ""): DOCS,
    ("docs/releasing.md", "sh "): "tests/integration/test_first_hour.py",
    ("docs/remote-cache.md", "sh "): SESSIONS,
    ("docs/report.md", "sh "): SESSIONS,
    ("docs/remote-execution.md", "yaml "): "tests/integration/test_buildgrid.py",
    ("docs/repro.md", "console "): SESSIONS,
    ("docs/running.md", "text ____"): SESSIONS,
    ("docs/tests.md", "python # WORKSPACE.py"): "tests/integration/test_examples.py",
    ("plugins/README.md", "sh "): SESSIONS,
    ("targets/tools/README.md", "python "): "tests/integration/test_examples.py",
}
"""The test that takes such a block from its page and runs it."""
SHOWN: Table[tuple[str, str]] = {
    ("README.md", "text [1/46]"): ("tests/integration/test_stargz_matrix.py", "30 cells: 30 passed"),
    ("docs/builds.md", "text rootless/buildkitd=0.17"): ("tests/integration/test_build_tests.py", "unlike 5 others"),
    ("docs/debugging.md", "console $ bk shell --at_failure test_pull/worker=debugged"): (
        "tests/integration/test_debuggers.py",
        "dlv attach",
    ),
    ("docs/remote-execution.md", "text error: the cell test_pull"): (
        "tests/integration/test_run_cell.py",
        "kernel-release (2.6 here, ",
    ),
    ("plugins/README.md", "text error: //try:narrow: the worker 'narrow' has"): ("docs/mistakes.md", "has no setting"),
    ("plugins/README.md", "text error: //try:narrow: the worker 'narrow' is"): (
        "tests/plugin/test_manager.py",
        "is unusable: the plugin",
    ),
    ("plugins/README.md", "text error: //try:narrow: the worker 'narrow' of"): (
        "tests/plugin/test_manager.py",
        "failed in tools",
    ),
    ("plugins/README.md", "text FAILED (infrastructure)"): (
        "tests/integration/test_faults.py",
        "buildkitd died before it was ready: exit",
    ),
    ("plugins/README.md", "text 3 cells skipped"): ("tests/integration/test_machine.py", "in /etc/subuid"),
    ("plugins/README.md", "text bk-worker-narrow=="): ("tests/integration/test_launcher.py", "--hash=sha256:"),
}
"""A test of such output, on an example that it makes, and words that both contain."""
NOT_RUN: Table[str] = {
    ("CONTRIBUTING.md", "sh "): "it runs tests of this suite",
    (
        "docs/buildkit-maintainers.md",
        "console ",
    ): "BuildKit's suite takes minutes: tests/integration/test_go_harness.py",
    ("docs/buildkit-suite.md", "console "): "BuildKit's suite takes minutes: tests/integration/test_go_harness.py",
    ("docs/isolation.md", "text "): "a drawing",
    (
        "docs/remote-execution.md",
        "sh ",
    ): "it needs a cluster, or a second machine: tests/integration/test_run_action.py",
    (
        "docs/extra-workers.md",
        "sh buildctl",
    ): "lines of a program, with ... for a build: tests/integration/test_extra_workers.py",
    (
        "docs/tool-releases.md",
        "sh bk pin",
    ): "it asks the proxy of Go modules: tests/integration/test_pins.py has one on loopback",
    ("docs/override-tools.md", "sh bk test //targets:stargz_matrix --override_module"): (
        "it compiles a checkout of BuildKit: tests/integration/test_go_overrides.py has a small one"
    ),
    ("tests/bench/README.md", "sh "): "benchmarks take minutes",
}
"""The reason why nothing runs such a block; bk parses its commands all the same. A test that is named runs the like."""
CHECKED = {
    "console": f"each bk command is parsed: {DOCS}",
    "python": f"bk loads it, or Python imports it: {HERE}",
    "sh": f"a shell and bk parse it: {DOCS}",
    "toml": f"it is parsed: {DOCS}",
}
"""The check of each other block of a language."""


@dataclass(frozen=True)
class Block:
    """A code block of a page; its text is without the indentation of a list."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def entry(self, table: Table[Entry]) -> Entry | None:
        """Return the entry of a table for this block, if there is one."""
        start = f"{self.language} {self.text}"
        return next(
            (entry for (page, word), entry in table.items() if page == self.page and start.startswith(word)), None
        )


def blocks() -> list[Block]:
    """Return all code blocks of the Markdown files of this repository, in their order."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [block for page in listed.split() for block in _blocks(page)]


def _blocks(page: str) -> Iterator[Block]:
    text = (ROOT / page).read_text()
    for match in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
        yield Block(page, text.count("\n", 0, match.start()) + 1, match[2], textwrap.dedent(match[3]))


def check(block: Block) -> str:
    """Return what runs or checks a block, or why nothing does. Empty for a block that nobody thought of."""
    if run := block.entry(RUN):
        return f"run by {run}"
    if shown := block.entry(SHOWN):
        return f"shows what bk prints: {shown[0]}"
    if reason := block.entry(NOT_RUN):
        return f"not run: {reason}"
    return CHECKED.get(block.language, "")


if __name__ == "__main__":
    for each in blocks():
        print(f"{each} {each.language}: {check(each) or 'NOTHING'}")
