"""The runner of each mnemonic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module

from bkrules.errors import BkError
from bkrules.execution.context import RunContext, Runner
from bkrules.execution.result import Outcome
from bkrules.model.action import Action, Node
from bkrules.model.rule import Rule
from bkrules.plugin.installed import Plugins
from bkrules.plugin.spec import hookimpl
from bkrules.rules import RULES
from bkrules.runners.plugin_action import run_plugin_action


def _runner(module: str, name: str) -> Runner:
    """Return the runner `name` of a module in this folder, which is imported when the first such action runs."""

    def run(action: Action, inputs: Mapping[str, Node], context: RunContext) -> Outcome:
        runner: Runner = getattr(import_module(f"bkrules.runners.{module}"), name)
        return runner(action, inputs, context)

    return run


_OWN = {
    "build_agreement": {"CompareBuilds": _runner("compare_builds", "compare_builds")},
    "debian_package": {"FetchDeb": _runner("debian", "fetch_deb")},
    "estargz_image": {"EstargzImage": _runner("image", "convert_to_estargz")},
    "genrule": {"Genrule": _runner("genrule", "run_genrule")},
    "go_binary": {"GoBuild": _runner("go", "go_build")},
    "go_test": {"ListGoTests": _runner("go_tests", "list_go_tests")},
    "go_toolchain": {"FetchWheel": _runner("go", "fetch_wheel")},
    "http_file": {"FetchFile": _runner("fetch_file", "fetch_file")},
    "image": {
        "Image": _runner("image", "make_image"),
        "ImportImage": _runner("pull_image", "import_image"),
        "PullImage": _runner("pull_image", "pull_image"),
    },
    "image_archive": {"ImageArchive": _runner("image_archive", "archive_image")},
    "test_matrix": {
        "CollectTests": _runner("collect_tests", "collect_tests"),
        "TestCell": _runner("test_cell", "run_test_cell"),
    },
}


@hookimpl
def bk_register_rules(register: Callable[[Rule, dict[str, Runner]], None]) -> None:
    """Register bk's own rules."""
    for name, rule in RULES.items():
        register(rule, _OWN.get(name, {}))


RUNNERS = {mnemonic: runner for runners in _OWN.values() for mnemonic, runner in runners.items()}
"""bk's own runners by mnemonic."""


def runners_of(plugins: Plugins) -> Mapping[str, Runner]:
    """Return the runner of each mnemonic. Raises BkError when a plugin has one of bk's own."""
    runners = dict(RUNNERS)
    for mnemonic, (runner, plugin) in plugins.runners.items():
        if mnemonic in runners:
            message = f"the plugin {plugin.title} has a runner of {mnemonic!r}, which is bk's own"
            raise BkError("duplicate-name", message, hint=f"leave it out with --noplugin={plugin.distribution}")
        runners[mnemonic] = partial(run_plugin_action, runner, plugin)
    return runners
