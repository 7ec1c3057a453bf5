"""The rules: one file for each kind of target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from bkrules.model.rule import Rule

_MODULES = {
    "c_toolchain": "c_toolchain",
    "debian_package": "debian_package",
    "filegroup": "genrule",
    "genrule": "genrule",
    "go_toolchain": "go",
    "go_binary": "go",
    "go_releases": "go_releases",
    "go_test": "go_test",
    "host_binary": "host_binary",
    "http_file": "http_file",
    "image": "image",
    "estargz_image": "image",
    "image_archive": "image_archive",
    "image_mirror": "image_mirror",
    "worker": "worker",
    "test_matrix": "test_matrix",
    "test_suite": "test_suite",
    "build_test": "build_test",
    "build_agreement": "build_test",
}
"""The module of each rule."""


class _Rules(Mapping[str, Rule]):
    """The rules by name. The module of a rule is imported when the rule is looked up, since most builds use few of them."""

    def __getitem__(self, name: str) -> Rule:
        rule: Rule = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name.upper())
        return rule

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


RULES: Mapping[str, Rule] = _Rules()
