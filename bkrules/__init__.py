"""bk: hermetic rules, driven by Python, that test container builds on every BuildKit worker.

A WORKSPACE.py or BUILD.py imports its rules from here. They are resolved by bk's own loader, which evaluates those files in
isolation; imported anywhere else, a rule's name gives its `Rule`, with its attributes and their documentation.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself would cost `bk --version` half of its time
if TYPE_CHECKING:
    from bkrules.rule import Rule

__version__ = "0.1.0"


RULE_NAMES = (
    *(
        "estargz_image",
        "filegroup",
        "genrule",
        "go_binary",
        "go_toolchain",
        "host_binary",
        "image",
        "image_mirror",
        "test_matrix",
        "worker",
    ),
)


def __getattr__(name: str) -> Rule:
    if name in RULE_NAMES:
        from bkrules.rules import RULES

        return RULES[name]
    raise AttributeError(f"module 'bkrules' has no attribute {name!r}")
