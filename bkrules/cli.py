"""The command line: arguments become a call, a result becomes an exit code."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bkrules import __version__, errors, report
from bkrules.action import Action
from bkrules.build import Analysis, Execution, Options, analyze_patterns, execute, open_workspace
from bkrules.errors import BkError, UsageError
from bkrules.label import parse_pattern

EPILOG = """exit codes:
  0 success   1 build failed   2 wrong usage   3 tests failed   4 nothing ran
  8 interrupted   36 this machine lacks something   37 a bug of bk"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError("usage", f"{self.prog}: {message}", hint=f"see `{self.prog} --help`")


def main(argv: Sequence[str]) -> int:
    """Run one command; its exit code. Prints errors that a user can act on, and a traceback for a bug."""
    try:
        # argparse would take `-//x` for an option; with a space in front it is a positional argument.
        arguments = _parser().parse_args([f" {word}" if word.startswith("-//") else word for word in argv])
        command: Callable[[argparse.Namespace], int] = arguments.command
        return command(arguments)
    except BkError as error:
        print(report.error_text(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return errors.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.SUCCESS
    except Exception as error:
        lack = errors.of_machine(error) if isinstance(error, OSError) else None
        if lack is not None:
            print(report.error_text(lack), file=sys.stderr)
            return lack.exit_code
        traceback.print_exc()
        print("error: this is a bug of bk; please report the lines above", file=sys.stderr)
        return errors.BUG


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="bk",
        description="Tests container builds on every BuildKit worker.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bk {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    build = _command(commands, "build", _build, "build targets; a matrix runs the cells that have no proven answer")
    _add_patterns(build)
    _add_execution(build)
    test = _command(commands, "test", _test, "the same for the matrices among the targets")
    _add_patterns(test)
    _add_execution(test)
    query = _command(commands, "query", _query, "print labels: of patterns, or of deps(PATTERN)")
    query.add_argument("expression", metavar="EXPRESSION", help="a target pattern, or deps(PATTERN)")
    query.add_argument("--json", action="store_true", help="print JSON: label, rule, location")
    aquery = _command(commands, "aquery", _aquery, "print actions: arguments, environment, inputs, outputs, key")
    _add_patterns(aquery)
    aquery.add_argument("--json", action="store_true", help="print JSON")
    _add_cache(aquery)
    workers = _command(
        commands, "workers", _workers, "print the installed workers, their settings, and what they lack here"
    )
    workers.add_argument("--json", action="store_true", help="print JSON")
    reap = _command(commands, "reap", _reap, "remove what a killed run left, and nothing else")
    _add_cache(reap)
    return parser


def _command(
    commands: argparse._SubParsersAction[_Parser], name: str, run: Callable[[argparse.Namespace], int], text: str
) -> _Parser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=run)
    return parser


def _add_patterns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("patterns", nargs="+", metavar="PATTERN", help="//pkg:name, //pkg:all, //pkg/..., -//pkg:name")


def _add_cache(parser: argparse.ArgumentParser) -> None:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "bk")
    parser.add_argument(
        "--disk_cache",
        "--disk-cache",
        default=str(home),
        metavar="DIR",
        help="where results are kept (default: %(default)s)",
    )


def _add_execution(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-j",
        "--jobs",
        type=_jobs,
        default=os.cpu_count() or 1,
        metavar="N",
        help="how many actions run at once (default: the cores)",
    )
    parser.add_argument(
        "-k", "--keep_going", "--keep-going", action="store_true", help="go on with what does not depend on a failure"
    )
    _add_cache(parser)


def _jobs(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive number, but was {text!r}")
    return int(text)


def _options(arguments: argparse.Namespace) -> Options:
    return Options(arguments.jobs, os.path.abspath(arguments.disk_cache), arguments.keep_going)


def _patterns(arguments: argparse.Namespace) -> list[str]:
    return [text.strip() for text in arguments.patterns]


def _build(arguments: argparse.Namespace) -> int:
    return _finish(analyze_patterns(".", _patterns(arguments)), arguments)


def _test(arguments: argparse.Namespace) -> int:
    analysis = analyze_patterns(".", _patterns(arguments), kind="test_matrix")
    if not analysis.targets.wanted:
        raise _nothing(f"no test_matrix among {' '.join(arguments.patterns)}", "see `bk query //...`")
    return _finish(analysis, arguments)


def _finish(analysis: Analysis, arguments: argparse.Namespace) -> int:
    result = execute(analysis, _options(arguments))
    print(report.summary(result, analysis.out), flush=True)
    return result.exit_code


def _nothing(message: str, hint: str) -> BkError:
    error = BkError("nothing-ran", message, hint=hint)
    error.exit_code = errors.NOTHING_RAN
    return error


def _query(arguments: argparse.Namespace) -> int:
    expression: str = arguments.expression.strip()
    deep = expression.startswith("deps(") and expression.endswith(")")
    pattern = expression[5:-1].strip() if deep else expression
    if deep:
        targets = analyze_patterns(".", [pattern]).targets.targets
    else:
        workspace = open_workspace(".")
        package = os.path.relpath(os.getcwd(), workspace.root)
        targets = tuple(workspace.match([parse_pattern(pattern, "" if package == "." else package)]))
        workspace.save()
    ordered = sorted(targets, key=lambda target: target.label)
    if arguments.json:
        print(
            json.dumps(
                [{"label": str(one.label), "rule": one.rule.name, "location": str(one.location)} for one in ordered],
                indent=1,
            )
        )
    else:
        for target in ordered:
            print(target.label)
    return errors.SUCCESS


def _aquery(arguments: argparse.Namespace) -> int:
    analysis = analyze_patterns(".", _patterns(arguments))
    execution = Execution(analysis, Options(1, os.path.abspath(arguments.disk_cache)))
    documents = []
    for action in analysis.wanted().values():
        documents.append(_describe(action, execution))
    execution.digests.save()
    if arguments.json:
        print(json.dumps(documents, indent=1))
    else:
        print("\n".join(_text(document) for document in documents))
    return errors.SUCCESS


def _describe(action: Action, execution: Execution) -> dict[str, object]:
    """An action as aquery shows it. Its key is known only when the results of what it depends on are in the cache."""
    executor = execution.executor
    key = None
    leaves: dict[str, str] = {}
    if all(name in executor.results for name in action.dependencies):
        found = executor.look_up(action)
        if found is not None and found.status == "passed":
            executor.results[action.id] = found
        try:
            whole = executor.key(action)
            key, leaves = whole.digest.hash, dict(whole.leaves)
        except BkError as error:
            leaves = {"error": error.message}
    return {
        "label": str(action.label),
        "mnemonic": action.mnemonic,
        "cell": action.cell.name if action.cell else None,
        "arguments": list(action.arguments),
        "environment": dict(action.environment),
        "platform": dict(action.platform),
        "timeout": action.timeout,
        "inputs": {path: leaves.get(f"input/{path}") for path, _ in action.inputs},
        "outputs": list(action.outputs),
        "key": key,
    }


def _text(document: dict[str, object]) -> str:
    lines = [f"action {document['mnemonic']} {document['cell'] or document['label']}"]
    for name, value in document.items():
        if name in ("mnemonic", "cell") or value in (None, {}, [], 0):
            continue
        if isinstance(value, dict):
            lines.append(f"  {name}:")
            lines += [f"    {key}: {item or 'not known until it is built'}" for key, item in value.items()]
        else:
            lines.append(f"  {name}: {' '.join(value) if isinstance(value, list) else value}")
    return "\n".join([*lines, ""])


def _workers(arguments: argparse.Namespace) -> int:
    from bkrules.plugin.host import probe
    from bkrules.plugin.manager import load

    plugins = load()
    host = probe()
    documents: list[dict[str, Any]] = []
    for name, kind in sorted(plugins.workers.items()):
        worker = kind.from_settings({})
        documents.append(
            {
                "worker": name,
                "distribution": plugins.distributions[name],
                "settings": kind.describe_settings(),
                "lacks": [str(lack) for lack in (*host.lacks(), *worker.preflight(host))],
            }
        )
    if arguments.json:
        print(json.dumps(documents, indent=1))
        return errors.SUCCESS
    for document in documents:
        print(f"{document['worker']}  ({document['distribution']})")
        for setting, description in document["settings"].items():
            print(f"  {setting} = {description['default']!r}: {description['help']}")
        for lack in document["lacks"]:
            print(f"  cannot run here: {lack}")
    return errors.SUCCESS


def _reap(arguments: argparse.Namespace) -> int:
    from bkrules.execution.run_folder import sweep

    for path in sweep(os.path.abspath(arguments.disk_cache)):
        print(f"removed {path}")
    return errors.SUCCESS
