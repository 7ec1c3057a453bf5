"""The commands that plugins register, and `bk hooks`."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from bkrules import errors
from bkrules.commands.parser import Parser, command
from bkrules.errors import BkError, error_text
from bkrules.loading.plugins import load_plugins
from bkrules.loading.root import root_of
from bkrules.plugin import manager, spec
from bkrules.plugin.installed import Plugin, Plugins
from bkrules.plugin.registered import Command

if TYPE_CHECKING:
    from bkrules.commands.parser import Commands

NOPLUGIN = "--noplugin"


def add_commands(commands: Commands, wanted: str, words: Sequence[str]) -> None:
    """Add the commands of all plugins to the parser.

    A fault is an error when the line names a command, `wanted`, and otherwise a warning. Raises BkError.
    """
    blocked = Parser(prog="bk", add_help=False)
    blocked.add_argument(NOPLUGIN, action="append", default=[])
    manager.block(blocked.parse_known_args(list(words))[0].noplugin)
    plugins = load_plugins(root_of("."))
    try:
        bk_register_commands(lambda *fields: _add(commands, plugins, Command(*fields), None))
        registered = plugins.registered(Command)
        for name, (declared, plugin) in registered.items():
            if name in commands.choices:
                hint = f"leave it out with {NOPLUGIN}={plugin.distribution}"
                message = f"the plugin {plugin.title} has a command {name!r}, and so has bk"
                raise BkError("duplicate-name", message, hint=hint)
            _add(commands, plugins, declared, plugin)
    except BkError as error:
        if wanted:
            raise
        print(f"warning: {error_text(error).removeprefix('error: ')}", file=sys.stderr)


def _add(commands: Commands, plugins: Plugins, declared: Command, plugin: Plugin | None) -> None:
    whose = f" (plugin {plugin.distribution})" if plugin else ""
    parser = command(commands, declared.name, partial(_run, plugins, declared, plugin), f"{declared.help}{whose}")
    title = plugin.title if plugin else "bk"
    plugins.hooks.guarded(title, f"configure of the command {declared.name!r}", partial(declared.configure, parser))


def _run(plugins: Plugins, declared: Command, plugin: Plugin | None, arguments: argparse.Namespace) -> int:
    code: object = declared.run(arguments)  # what it raises, the command line says
    if type(code) is not int or not 0 <= code < 256:
        title = plugin.title if plugin else "bk"
        raise plugins.hooks.fault(
            title, f"returned {code!r} from the command {declared.name!r}", hint="return an exit code"
        )
    return code


@spec.hookimpl
def bk_register_commands(register: Callable[..., None]) -> None:
    """Register `bk hooks`."""
    register("hooks", "list the hooks of plugins, and who implements each", _list_hooks)


def _list_hooks(_arguments: argparse.Namespace) -> int:
    hooks = load_plugins(root_of(".")).installed
    for name in spec.HOOKS:
        function = getattr(spec, name)
        summary = (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")
        print(f"{name}({', '.join(inspect.signature(function).parameters)})\n  {summary}")
        with_it = [plugin.title for plugin in hooks if name in (*plugin.hooks, *plugin.worker_hooks)]
        print(f"  implemented by: {', '.join(['bk', *with_it])}")
    return errors.SUCCESS
