"""bk: hermetic rules, driven by Python, that test container builds on every BuildKit worker.

A WORKSPACE.py or BUILD.py imports its rules from here. bk's own loader resolves them and evaluates those files in
isolation. Elsewhere, a rule's name gives its `Rule`, with its attributes and their documentation; for editors,
`__init__.pyi` has them as functions. The docstrings of `workspace`, `bk_dep`, `load`, `glob` and
`installed_workers` document these.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself would cost `bk --version` half of its time
if TYPE_CHECKING:
    from typing import NoReturn

    from bkrules.model.rule import Rule

__version__ = "0.1.0"


RULE_NAMES = (
    *(
        "build_agreement",
        "build_test",
        "c_toolchain",
        "debian_package",
        "estargz_image",
        "filegroup",
        "genrule",
        "go_binary",
        "go_releases",
        "go_test",
        "go_toolchain",
        "host_binary",
        "http_file",
        "image",
        "image_archive",
        "image_mirror",
        "test_matrix",
        "test_suite",
        "worker",
    ),
)
FUNCTION_NAMES = ("workspace", "bk_dep", "load", "glob", "installed_workers")


def workspace(*, name: str, noplugins: list[str] = []) -> None:  # noqa: B006 - never used
    """Name the workspace. `WORKSPACE.py` calls it once.

    `noplugins` leaves out plugins in this workspace, as `--noplugin` does for a command: names of distributions or entry
    points, written out. A name that is not installed on this machine is fine. Raises LoadError for a value of another type.
    """
    _only_in_build_files("workspace")


def bk_dep(*, name: str, path: str = "") -> None:
    """Name a module: an installed distribution with build files, or the folder `path` of the workspace, or one that
    `--override_module=NAME=PATH` names.

    Write it in `WORKSPACE.py` as a statement at the top level. Then labels and `load` reach into the module,
    `@name//pkg:target`, and `//:tool` that `WORKSPACE.py` does not declare is the tool of the first module that has it. Raises
    LoadError for arguments that are not written out, and for one that is named twice.
    """
    _only_in_build_files("bk_dep")


def load(file: str, *names: str, **renamed: str) -> None:
    """Import names from another file of the workspace: `load("//pkg:file.py", "name", other = "name")`, or `":file.py"`.
    One of a module is `"@module//pkg:file.py"`.

    Write it as a statement at the top level with string literals as arguments. The file is any `.py` of a package
    except `BUILD.py` and `WORKSPACE.py`. Names that begin with `_` are private to their file; lists and dictionaries
    are frozen. Rules and `glob` in its functions belong to the package that calls them; at its top level they are
    errors. Raises LoadError for a missing file or name, and for files that load each other.
    """
    _only_in_build_files("load")


def glob(include: list[str], exclude: list[str] = [], allow_empty: bool = False) -> list[str]:  # noqa: B006 - never used
    """Return the files of this package whose names match a pattern of `include` and none of `exclude`, sorted.

    `*` and `?` match within a name, and a leading dot only where the pattern has one; `**` matches any number of
    folders. bk does not enter a folder with a `BUILD.py` or a `WORKSPACE.py`, a symbolic link to a folder, a folder that
    begins with a dot, `__pycache__` and `bk-out`, and it ignores a link that leads out of the workspace. Raises
    LoadError for a pattern that leaves the package, and when nothing matches, unless `allow_empty`.
    """
    _only_in_build_files("glob")


def installed_workers() -> list[str]:
    """Return the names of the workers of all installed plugins, sorted; those that `--noplugin` or `noplugins` leave out are
    not among them.

    A macro can declare targets for the workers that there are. At the top level of a file that others load, it is an
    error. Raises the error of a plugin that is broken.
    """
    _only_in_build_files("installed_workers")


def _only_in_build_files(name: str) -> NoReturn:
    raise RuntimeError(f"{name} works in a WORKSPACE.py or BUILD.py that bk evaluates")


def __getattr__(name: str) -> Rule:
    if name in RULE_NAMES:
        from bkrules.rules import RULES

        return RULES[name]
    raise AttributeError(f"module 'bkrules' has no attribute {name!r}")
