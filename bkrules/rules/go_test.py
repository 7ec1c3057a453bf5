"""`go_test`: the tests of a Go package, each of which becomes a cell of a matrix."""

from __future__ import annotations

from bkrules.analysis.context import Context
from bkrules.analysis.runs import ENVIRONMENT
from bkrules.model.go_tests import LISTED
from bkrules.model.parameters import ListGoTests
from bkrules.model.providers import GoTestInfo
from bkrules.model.rule import Attr, Rule
from bkrules.rules.genrule import files_at

_PREFIXES = ("BK_", "TEST_", "TESTBRIDGE_")
RACE = "GORACE"
_OF_BK = ("BUILDKIT_HOST", "BUILDKIT_REGISTRY_MIRROR_DIR", "HOME", "PATH", "TMPDIR")


def _analyze(context: Context) -> tuple[object, ...]:
    label = context.attribute("binary")
    binary = context.binary("binary", label, "a go_binary with test = True")
    name = label.name.rpartition("/")[2]
    parameters = ListGoTests(name, tuple(context.attribute("subtests")))
    inputs = {f"tools/{name}": binary.file}
    for tool in context.attribute("tools"):
        inputs[f"tools/{tool.name.rpartition('/')[2]}"] = context.binary("tools", tool).file
    environment = _environment(context)
    listing = context.declare("ListGoTests", parameters, inputs, [LISTED], environment=environment)
    data = {
        path: file for label in context.attribute("data") for path, file in files_at(context, "data", label).items()
    }
    harness = context.attribute("harness") or None
    return (GoTestInfo(binary.file, name, listing, harness, environment, data, binary.reached),)


def _environment(context: Context) -> dict[str, str]:
    """Return the variables of the tests. Raises LoadError for a value that is no text, and for a variable that bk sets.

    Options of the race detector are additions to bk's: the last of two counts.
    """
    environment: dict[str, object] = context.attribute("env")
    for name, value in environment.items():
        if not isinstance(value, str):
            raise context.error("bad-attribute", f"the variable {name!r} must be a string, but is {value!r}", "env")
        if name in _OF_BK or name.startswith(_PREFIXES):
            raise context.error("bad-attribute", f"{name!r} is a variable that bk sets", "env")
    texts = {name: str(value) for name, value in environment.items()}
    return texts | ({RACE: f"{ENVIRONMENT[RACE]} {texts[RACE]}"} if RACE in texts else {})


GO_TEST = Rule(
    "go_test",
    "The tests of a Go package, for the attribute 'tests' of a matrix: each test function is a test there, with Go's name for it.",
    {
        "binary": Attr("label", "The test binary: a go_binary with test = True.", required=True),
        "subtests": Attr(
            "strings",
            "Test functions whose subtests are cells instead, as 'TestIntegration'. A run of the binary without any daemon lists "
            "them, so they must not depend on one.",
            default=(),
        ),
        "tools": Attr(
            "labels",
            "Static binaries on PATH while the test binary lists its tests, for one that needs them.",
            default=(),
        ),
        "env": Attr("dict", "Variables of the tests, also while the binary lists them: name to text.", default={}),
        "data": Attr(
            "labels",
            "Files that the tests read, of the workspace or of targets, below /src at their paths in the workspace.",
            default=(),
        ),
        "harness": Attr(
            "dict",
            "For tests that start their daemons themselves, on BuildKit's integration harness: the harness's workers by the names "
            "of bk's, {'oci+stargz': 'oci-snapshotter-stargz'}. Cells have the worker's tools and the mirror's storage, and boot "
            "nothing.",
            default={},
        ),
    },
    _analyze,
)
