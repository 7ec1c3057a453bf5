"""The command line: arguments become a call, a result becomes an exit code."""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import shutil
import sys
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from bkrules import __version__, errors, observed, report, unchanged
from bkrules.action import Action
from bkrules.build import (
    Analysis,
    Execution,
    Options,
    analyze_patterns,
    analyze_targets,
    execute,
    open_workspace,
    package_of,
)
from bkrules.cache.remote_options import RemoteOptions
from bkrules.errors import BkError, UsageError
from bkrules.loading.glob import OUTPUT
from bkrules.loading.workspace import find_root
from bkrules.report import BuildResult

EPILOG = """exit codes:
  0 success   1 build failed   2 wrong usage   3 tests failed   4 nothing ran
  8 interrupted   36 this machine lacks something   37 a bug of bk"""

HEADERS = "BK_REMOTE_HEADER"


MANUAL_HINT = "targets with the tag 'manual' are taken when they are named, and not by //... or :all"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        message = re.sub(
            r"(--?remote[^=\s]*[= ]).*", r"\1...", message
        )  # what is misspelt may be a secret all the same
        raise UsageError("usage", f"{self.prog}: {message}", hint=f"see `{self.prog} --help`")


def main(argv: Sequence[str]) -> int:
    """Run one command; its exit code. Prints errors that a user can act on, and a traceback for a bug."""
    try:
        # argparse would take `-//x` for an option; with a space in front it is a positional argument.
        arguments = _parser().parse_args([f" {word}" if word.startswith("-//") else word for word in argv])
        arguments.argv = list(argv)
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
    _add_query(_command(commands, "query", _query, "print the targets that an expression names"))
    aquery = _command(commands, "aquery", _aquery, "print actions: arguments, environment, inputs, outputs, key")
    aquery.add_argument(
        "expressions",
        nargs="+",
        metavar="EXPRESSION",
        help="a pattern or a query, -PATTERN; mnemonic(REGEX, x), inputs(REGEX, x), outputs(REGEX, x)",
    )
    aquery.add_argument("--json", action="store_true", help="print JSON")
    _add_cache(aquery)
    _add_remote(aquery)
    workers = _command(
        commands, "workers", _workers, "print the installed workers, their settings, and what they lack here"
    )
    workers.add_argument("--json", action="store_true", help="print JSON")
    reap = _command(commands, "reap", _reap, "remove what a killed run left, and nothing else")
    _add_cache(reap)
    why = _command(commands, "why", _why, "say in one line why an action would run, or ran")
    why.add_argument(
        "patterns", nargs="+", metavar="CELL-or-PATTERN", help="test_x/worker=oci, //pkg:matrix[CELL], //pkg:name"
    )
    why.add_argument(
        "--against", metavar="RUN", help="compare with the keys of another run: a bk-out folder, or its URL"
    )
    why.add_argument("--json", action="store_true", help="print JSON")
    _add_cache(why)
    _add_remote(why)
    cache = _command(commands, "cache", _cache, "look after the disk cache: stats, verify, gc")
    cache.add_argument("what", choices=("stats", "verify", "gc"), help="count it; check every byte; remove what is old")
    cache.add_argument("--max_size", "--max-size", type=_measure("size"), metavar="SIZE", help="for gc: 500M, 10G")
    cache.add_argument("--max_age", "--max-age", type=_measure("span"), metavar="SPAN", help="for gc: 12h, 30d")
    cache.add_argument("--json", action="store_true", help="print JSON")
    _add_cache(cache)
    clean = _command(commands, "clean", _clean, "remove bk-out; the next build takes all from the disk cache")
    clean.add_argument("--expunge", action="store_true", help="remove the disk cache too")
    _add_cache(clean)
    return parser


def _measure(kind: str) -> Callable[[str], float]:
    """An option's value as a number; the module that reads it is imported when there is one."""

    def read(text: str) -> float:
        from bkrules.cache import maintenance

        try:
            return maintenance.size(text) if kind == "size" else maintenance.span(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _command(
    commands: argparse._SubParsersAction[_Parser], name: str, run: Callable[[argparse.Namespace], int], text: str
) -> _Parser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=run)
    return parser


def _add_query(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "expression",
        nargs="+",
        metavar="EXPRESSION",
        help="target patterns; deps(x), rdeps(universe, x), somepath(a, b), allpaths(a, b), kind(REGEX, x), "
        "attr(NAME, REGEX, x), tag(REGEX, x), filter(REGEX, x), labels(NAME, x), set(a b), let v = a in b, + - ^",
    )
    parser.add_argument(
        "--output",
        choices=("label", "label_kind", "location", "json", "graph", "build", "minrank"),
        default="label",
        help="the format (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_const", const="json", dest="output", help="the same as --output=json")
    parser.add_argument(
        "--noimplicit_deps",
        "--noimplicit-deps",
        dest="implicit_deps",
        action="store_false",
        help="leave out the tools that a worker needs by name",
    )


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
    _add_remote(parser)


def _add_remote(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("remote cache", "Bazel's HTTP cache protocol; any fault of it is a miss")

    def add(name: str, **settings: Any) -> None:
        group.add_argument(f"--{name}", *([f"--{name.replace('_', '-')}"]), **settings)

    add("remote_cache", default="", metavar="URL", help="http://HOST:PORT or https://HOST:PORT, perhaps with a path")
    add(
        "remote_header",
        action="append",
        default=[],
        type=_header,
        metavar="NAME=VALUE",
        help=f"a header of each request; also one a line in {HEADERS}, where `ps` does not show it",
    )
    add("remote_upload_local_results", type=_yes, default=True, metavar="yes|no", help="send what ran here")
    add("remote_required", action="store_true", help="fail, with exit code 36, when the remote cache does")
    add("remote_timeout", type=_seconds, default=60.0, metavar="SECONDS", help="for one request (default: 60)")
    add("tls_certificate", default="", metavar="FILE", help="the certificate of the authority to trust, in PEM")


def _header(text: str) -> tuple[str, str]:
    """A header; what is wrong with it is said without it, since it may be a secret."""
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
        raise argparse.ArgumentTypeError("must be NAME=VALUE")
    if value != value.strip() or not re.fullmatch(r"[\t\x20-\x7e]*", value):
        raise argparse.ArgumentTypeError(f"the value of {name} must be printable ASCII, without spaces around it")
    return name, value


def _yes(text: str) -> bool:
    words = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if text not in words:
        raise argparse.ArgumentTypeError(f"must be yes or no, but was {text!r}")
    return words[text]


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text) or float(text) <= 0:
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds, but was {text!r}")
    return float(text)


def _remote(arguments: argparse.Namespace) -> RemoteOptions | None:
    """The remote cache that the command line and the environment name. Raises UsageError."""
    if not arguments.remote_cache:
        return None
    try:
        more = [_header(line) for line in os.environ.get(HEADERS, "").splitlines() if line]
    except argparse.ArgumentTypeError as error:
        raise UsageError("usage", f"{HEADERS}: {error}") from None
    certificate = arguments.tls_certificate and os.path.abspath(arguments.tls_certificate)
    if certificate and not os.path.isfile(certificate):
        raise UsageError("usage", f"--tls_certificate: there is no file {certificate}")
    options = RemoteOptions(
        arguments.remote_cache,
        (*more, *arguments.remote_header),
        arguments.remote_upload_local_results,
        arguments.remote_required,
        arguments.remote_timeout,
        certificate,
    )
    assert options.address  # or it raises
    return options


def _jobs(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive number, but was {text!r}")
    return int(text)


def _options(arguments: argparse.Namespace) -> Options:
    return Options(
        arguments.jobs, os.path.abspath(arguments.disk_cache), arguments.keep_going, remote=_remote(arguments)
    )


def _patterns(arguments: argparse.Namespace) -> list[str]:
    return [text.strip() for text in arguments.patterns]


def _build(arguments: argparse.Namespace) -> int:
    options = _options(arguments)
    analysis = analyze_patterns(".", _patterns(arguments))
    if not analysis.targets.wanted:
        raise _nothing(f"no target is left of {' '.join(_patterns(arguments))}", MANUAL_HINT)
    return _finish(analysis, options, arguments.argv)


def _test(arguments: argparse.Namespace) -> int:
    options = _options(arguments)
    analysis = analyze_patterns(".", _patterns(arguments), kind="test_matrix")
    if not analysis.targets.wanted:
        raise _nothing(f"no test_matrix among {' '.join(_patterns(arguments))}", f"see `bk query //...`; {MANUAL_HINT}")
    return _finish(analysis, options, arguments.argv)


def _finish(analysis: Analysis, options: Options, argv: list[str]) -> int:
    result = execute(analysis, options)
    text = report.summary(result, analysis.out)
    print(text, flush=True)
    if result.exit_code == errors.SUCCESS and all(one.cached for one in result.results) and options.remote is None:
        _keep(text, analysis, result, argv)
    return result.exit_code


def _keep(text: str, analysis: Analysis, result: BuildResult, argv: list[str]) -> None:
    """Keep the answer of a build that found everything cached, with all that it rests on."""
    if observed.is_in_doubt():
        return
    modules = [module.__file__ for module in sys.modules.values() if getattr(module, "__file__", None)]
    others = [
        sysconfig.get_path("purelib"),
        "/dev/fuse",
        *filter(None, modules),
        *report.outputs(result, analysis.targets.wanted, analysis.out),
    ]
    before, after = text.rsplit(f"{result.seconds:.2f}", 1)
    with suppress(OSError):  # where it cannot be kept, the next build works it out again
        unchanged.keep(
            argv, analysis.workspace.root, [*observed.noted(), *others], f"{before}{unchanged.SECONDS}{after}\n"
        )


def _nothing(message: str, hint: str) -> BkError:
    error = BkError("nothing-ran", message, hint=hint)
    error.exit_code = errors.NOTHING_RAN
    return error


def _query(arguments: argparse.Namespace) -> int:
    from bkrules.query.evaluate import evaluate
    from bkrules.query.language import parse
    from bkrules.query.output import show
    from bkrules.query.targets import WorkspaceGraph

    expression = parse(" ".join(arguments.expression).strip())
    workspace = open_workspace(".")
    graph = WorkspaceGraph(workspace, package_of(workspace, "."), implicit=arguments.implicit_deps)
    sys.stdout.write(show(evaluate(expression, graph), graph, arguments.output))
    workspace.save()
    return errors.SUCCESS


def _aquery(arguments: argparse.Namespace) -> int:
    from bkrules.query.evaluate import evaluate
    from bkrules.query.language import chosen, parse_actions
    from bkrules.query.targets import WorkspaceGraph

    options = Options(1, os.path.abspath(arguments.disk_cache), remote=_remote(arguments))
    filters, expression = parse_actions([text.strip() for text in arguments.expressions])
    workspace = open_workspace(".")
    graph = WorkspaceGraph(workspace, package_of(workspace, "."), files=False)
    analysis = analyze_targets(workspace, graph.targets(evaluate(expression, graph)))
    execution = Execution(analysis, options, lambda line: print(line, file=sys.stderr), show=False)
    documents = [_describe(action, execution) for action in analysis.wanted().values()]
    execution.digests.save()
    documents = [document for document in documents if chosen(document, filters)]
    if arguments.json:
        print(json.dumps(documents, indent=1))
    elif documents:
        print("\n".join(_text(document) for document in documents))
    return errors.SUCCESS


def _look_up(action: Action, execution: Execution) -> tuple[str | None, dict[str, str], bool]:
    """The key of an action, its leaves, and whether its result is in the cache. No key when what it depends on has no result."""
    executor = execution.executor
    if not all(name in executor.results for name in action.dependencies):
        return None, {}, False
    try:
        whole = executor.key(action)
    except BkError as error:
        return None, {"error": error.message}, False
    found = executor.look_up(action)
    if found is None and execution.remote is not None:
        found = executor.ask(action)
    if found is not None and found.status == "passed":
        executor.results[action.id] = found
    return whole.digest.hash, dict(whole.leaves), action.id in executor.results


def _describe(action: Action, execution: Execution) -> dict[str, object]:
    """An action as aquery shows it. Its key is known only when the results of what it depends on are in the cache."""
    key, leaves, _ = _look_up(action, execution)
    return {
        "label": str(action.label),
        "mnemonic": action.mnemonic,
        "cell": action.cell.name if action.cell else None,
        "arguments": list(action.arguments),
        "parameters": _parameters(action),
        "environment": dict(action.environment),
        "platform": dict(action.platform),
        "timeout": action.timeout,
        "inputs": {path: leaves.get(f"input/{path}") for path, _ in action.inputs},
        "outputs": list(action.outputs),
        "key": key,
    }


def _why(arguments: argparse.Namespace) -> int:
    from bkrules.why import compare, explain, read_key

    named = [text for text in _patterns(arguments) if "[" in text or "/worker=" in text]
    cells = {text.partition("[")[2].rstrip("]") or text for text in named}
    patterns = [text.partition("[")[0] if "[" in text else "//..." for text in named]
    analysis = analyze_patterns(".", [text for text in _patterns(arguments) if text not in named] + patterns)
    options = Options(1, os.path.abspath(arguments.disk_cache), remote=_remote(arguments))
    execution = Execution(analysis, options, lambda line: print(line, file=sys.stderr), show=False)
    against = (arguments.against or str(analysis.out)).rstrip("/")
    documents = []
    for action in analysis.wanted().values():
        key, leaves, cached = _look_up(action, execution)
        if not _is_asked_for(action, analysis, cells if len(named) == len(arguments.patterns) else set()):
            continue
        waits = next((name for name in action.dependencies if name not in execution.executor.results), "")
        folder = os.path.relpath(report.action_folder(action, analysis.out), analysis.out)
        read = functools.partial(read_key, f"{against}/{folder}")
        if "error" in leaves:
            why = leaves["error"]
        elif arguments.against:
            why = compare(key, leaves, read, waits_for=waits)
        else:
            why = explain(key, leaves, read, cached=cached, waits_for=waits)
        documents.append({"action": action.id, "name": action.title, "cached": cached, "key": key, "why": why})
    execution.digests.save()
    if not documents:
        raise _nothing(f"no cell or action is called {' or '.join(arguments.patterns)}", "see `bk aquery //...`")
    for document in documents:
        if not arguments.json:
            print(f"{document['name']}: {document['why']}")
    if arguments.json:
        print(json.dumps(documents, indent=1))
    return errors.SUCCESS


def _is_asked_for(action: Action, analysis: Analysis, cells: set[str]) -> bool:
    if cells:
        return action.cell is not None and action.cell.name in cells
    return action.label in analysis.targets.wanted


def _parameters(action: Action) -> object:
    """The action's parameters; None for a command, which has none."""
    try:
        return action.parameters
    except (ValueError, IndexError):
        return None


def _text(document: dict[str, object]) -> str:
    lines = [f"action {document['mnemonic']} {document['cell'] or document['label']}"]
    for name, value in document.items():
        if name in ("mnemonic", "cell", "parameters") or value in (None, {}, [], 0):
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


def _cache(arguments: argparse.Namespace) -> int:
    from bkrules.cache.cas import Cas
    from bkrules.cache.file_digests import FileDigests
    from bkrules.cache.maintenance import Maintenance, shown

    folder = os.path.abspath(arguments.disk_cache)
    work = Maintenance(folder, Cas(f"{folder}/cas", FileDigests("")))
    if arguments.what == "stats":
        stats = work.stats()
        text = (
            f"{stats.results} results and {stats.blobs} blobs, {shown(stats.size)}; "
            f"of these {stats.loose} blobs, {shown(stats.loose_size)}, that no result needs"
        )
        print(json.dumps(vars(stats)) if arguments.json else text)
        return errors.SUCCESS
    if arguments.what == "verify":
        removed = work.verify()
        text = f"removed {removed.blobs} damaged blobs and {removed.results} results that needed what is not there"
        damaged = bool(removed.blobs or removed.results)
        print(
            json.dumps(vars(removed)) if arguments.json else text if damaged else "every blob and every result is whole"
        )
        return errors.BUILD_FAILED if damaged else errors.SUCCESS
    if arguments.max_size is None and arguments.max_age is None:
        raise UsageError("usage", "bk cache gc: say what may go", hint="--max_size 10G, --max_age 30d, or both")
    removed = work.collect(max_size=arguments.max_size, max_age=arguments.max_age)
    text = f"removed {removed.results} results and {removed.blobs} blobs, {shown(removed.size)}"
    print(json.dumps(vars(removed)) if arguments.json else text)
    return errors.SUCCESS


def _clean(arguments: argparse.Namespace) -> int:
    out = Path(find_root("."), OUTPUT)
    shutil.rmtree(out, ignore_errors=True)
    print(f"removed {out}")
    if arguments.expunge:
        from bkrules.cache.maintenance import expunge

        folder = os.path.abspath(arguments.disk_cache)
        expunge(folder)
        print(f"removed {folder}")
    return errors.SUCCESS
