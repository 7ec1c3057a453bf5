"""The versions and hashes of bk, its plugins, its modules and all that they need, as pip finds them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import Distribution, distributions
from typing import Any

from bkrules.errors import BkError, MachineLacks
from bkrules.starter.own_plugins import GROUP, OwnPlugin, name_of, normal

GROUPS = (GROUP, "bkrules.modules")
"""The groups of entry points of plugins and modules."""
CORE = "bkrules"
BACKEND = "flit-core>=3.12"
"""The build backend of a plugin that `bk plugin new` writes: the launcher builds it without a registry."""
OLDEST = "3.11"
_UNIVERSAL = (
    "--only-binary=:all:",
    "--platform=any",
    "--implementation=py",
    "--abi=none",
    f"--python-version={OLDEST}",
)
_HEADER = """\
# What ./bk installs, by version and hash. `bk init --launcher` wrote it; all are wheels for every machine. Plugins in plugins/ are
# not in it: ./bk installs them from there, and here is what they need.
# Add a line for each other package that your tests import, and for a newer bk write the file again.
"""


def named(installed: Mapping[str, Distribution]) -> list[str]:
    """Return the distributions of bk, its plugins and its modules among these, sorted."""
    own = [name for name, one in installed.items() if any(point.group in GROUPS for point in one.entry_points)]
    return sorted({CORE, *own})


def installed() -> dict[str, Distribution]:
    """Return all installed distributions by their normalized names. The first of a name on the import path counts."""
    found: dict[str, Distribution] = {}
    for one in distributions():
        found.setdefault(normal(str(one.metadata["Name"])), one)
    return found


def requirements(find_links: Sequence[str], folder: str, own: Sequence[OwnPlugin] = ()) -> str:
    """Return the text of a requirements file with the versions that are installed here, each with its hash.

    `find_links` are folders and URLs with wheels, as pip takes them; a relative folder is one below `folder`. The file has what
    the plugins `own` need and what builds them, and not themselves. Raises BkError when pip cannot find a wheel of each, and
    MachineLacks without pip.
    """
    folders = {plugin.name for plugin in own}
    known = {name: one for name, one in installed().items() if name not in folders}
    wanted = [f"{name}=={known[name].version}" for name in named(known)]
    needed = {need for plugin in own for need in plugin.requirements if name_of(need) not in folders}
    wanted += sorted({BACKEND, *needed})
    links = [f"--find-links={place}" for place in find_links]
    with tempfile.TemporaryDirectory() as scratch:
        constraints, report = f"{scratch}/constraints", f"{scratch}/report"
        with open(constraints, "w") as file:
            file.writelines(f"{name}=={one.version}\n" for name, one in known.items())
        options = [*links, *_UNIVERSAL, f"--target={scratch}/none", f"--constraint={constraints}", f"--report={report}"]
        _pip(options, wanted, folder)
        with open(report) as file:
            found: list[dict[str, Any]] = json.load(file)["install"]
    lines = sorted(map(_line, found))
    return "\n".join([_HEADER, *links, *lines, ""])


def _pip(options: Sequence[str], wanted: Sequence[str], folder: str) -> None:
    """Ask pip what it would install. Its settings are the caller's, since they say how to reach a registry. Raises BkError."""
    command = [sys.executable, "-I", "-m", "pip", "--no-input", "--disable-pip-version-check"]
    if subprocess.run([*command, "--version"], capture_output=True, check=False).returncode != 0:
        hint = f"install pip into the environment of bk:  {sys.executable} -m ensurepip"
        raise MachineLacks(
            "no-pip", "bk init: pip finds the hashes of what a launcher installs, and is not here", hint=hint
        )
    done = subprocess.run(
        [*command, "install", "--quiet", "--dry-run", "--ignore-installed", *options, *wanted],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print(done.stderr, end="", file=sys.stderr)
        what = f"bk init: pip does not find a wheel of each package that the launcher installs: {', '.join(wanted)}"
        hint = (
            "pip's own words are above; for wheels that no registry has:  --find_links=FOLDER-or-URL, as pip takes it"
        )
        raise BkError("no-pins", what, hint=hint)


def _line(one: dict[str, Any]) -> str:
    """Return the line of a requirements file for an entry of pip's report. Raises BkError for one without a hash."""
    name, version = normal(one["metadata"]["name"]), one["metadata"]["version"]
    digest = one["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256", "")
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise BkError("no-pins", f"bk init: pip tells no SHA-256 of {name} {version}", hint="use a newer pip")
    return f"{name}=={version} --hash=sha256:{digest}"
