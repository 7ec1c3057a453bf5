"""`genrule` and `filegroup`: files made by a command, and files under one name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace

from bkrules.analysis.context import Context
from bkrules.errors import did_you_mean
from bkrules.model.action import Artifact, HostFile
from bkrules.model.label import Label, LabelError, parse_label
from bkrules.model.providers import BinaryInfo, FilesInfo
from bkrules.model.resources import Limits
from bkrules.model.rule import Attr, Rule

TOOLS, OUT, HOST = "tools", "out", "host"
LIMITS = ("memory", "pids", "disk", "timeout")
_DEFAULT = Limits()
_VARIABLE = re.compile(r"\$(?:\((\w+)(?: ([^)]+))?\)|([@<$]))")
_ENVIRONMENT = {"HOME": "/tmp", "LANG": "C.UTF-8", "PATH": f"/work/{TOOLS}", "TMPDIR": "/tmp", "TZ": "UTC"}


def _analyze_filegroup(context: Context) -> tuple[object, ...]:
    return (FilesInfo(_files(context, "srcs")),)


def _analyze_genrule(context: Context) -> tuple[object, ...]:
    outs: list[str] = context.attribute("outs")
    for out in outs:
        if out != os.path.normpath(out) or out.startswith(("/", "..")) or outs.count(out) > 1:
            raise context.error("bad-path", f"{out!r} cannot be an output", "outs", "name each once, below the package")
    if not outs:
        raise context.error("bad-attribute", "'outs' names no file", "outs")
    sources = _files(context, "srcs")
    places = {f"src/{path}": file for path, file in sources.items()}
    inputs: dict[str, Artifact] = dict(places)
    tools: dict[str, str] = {}
    for label in context.attribute("tools"):
        tools[str(label)] = _add_tool(context, label, inputs)
    words = {"SRCS": list(places), "OUTS": [f"{OUT}/{out}" for out in outs]}
    own = {str(label): _place(context, label, places) for label in context.attribute("srcs")}
    arguments = [word for text in context.attribute("cmd") for word in _expand(context, text, words, {**own, **tools})]
    if not arguments:
        raise context.error("bad-attribute", "'cmd' has no words", "cmd", 'cmd = ["$(location //:box)", ...]')
    limits = Limits(**{name: context.attribute(name) for name in LIMITS})
    action = context.declare(
        "Genrule",
        arguments,
        inputs,
        outs,
        environment=_ENVIRONMENT,
        platform=context.attribute("exec_properties"),
        limits=limits,
        made_in=OUT,
    )
    made = {f"{context.label.package}/{out}".lstrip("/"): context.output(action, out) for out in outs}
    providers: list[object] = [FilesInfo(made)]
    if len(outs) == 1:
        providers.append(BinaryInfo(context.output(action, outs[0])))
    return tuple(providers)


def _files(context: Context, attribute: str) -> dict[str, Artifact]:
    """Return the files of an attribute by their paths: source files, and those of targets."""
    found: dict[str, Artifact] = {}
    for label in context.attribute(attribute):
        found |= files_at(context, attribute, label)
    return dict(sorted(found.items()))


def files_at(context: Context, attribute: str, label: Label) -> Mapping[str, Artifact]:
    """Return the files of a label by their paths: a source file, or those of a target. Raises LoadError."""
    if context.workspace.target(label) is None:
        source = context.source(attribute, label)
        return {source.path: source}
    return context.provider(attribute, label, FilesInfo, "a file, a filegroup or a genrule").files


def _place(context: Context, label: Label, places: Mapping[str, Artifact]) -> str:
    """Return the path of a source in the sandbox; empty when the label stands for several files."""
    files = [f"src/{path}" for path in files_at(context, "srcs", label)]
    return files[0] if len(files) == 1 and files[0] in places else ""


def _add_tool(context: Context, label: Label, inputs: dict[str, Artifact]) -> str:
    """Add a binary to the inputs, with the files of this machine that it needs. Return its path in the sandbox.

    Those files are at `host` and their absolute path, where the command finds them on any machine.
    """
    binary = context.binary("tools", label)
    path = f"{TOOLS}/{label.name.rpartition('/')[2]}"
    if path in inputs:
        raise context.error("duplicate-name", f"two tools are called {path.rpartition('/')[2]!r}", "tools")
    inputs[path] = binary.file
    if isinstance(binary.file, HostFile):
        inputs[path] = replace(binary.file, executable=True)
        inputs |= {f"{HOST}{file}": HostFile(file, True) for file in context.machine.libraries_of(binary.file.path)}
    for also in binary.also:
        assert isinstance(also, HostFile)
        inputs[f"{HOST}{also.path}"] = also
    return path


def _expand(context: Context, text: str, words: Mapping[str, list[str]], places: Mapping[str, str]) -> list[str]:
    """Return a word of `cmd` with its variables replaced. A word that is just a list of files becomes a word for each file."""
    alone = _VARIABLE.fullmatch(text)
    if alone and alone[1] in words:
        return words[alone[1]]

    def replace(match: re.Match[str]) -> str:
        name, argument, sign = match[1], match[2], match[3]
        if sign == "$":
            return "$"
        if sign:
            files = words["OUTS" if sign == "@" else "SRCS"]
            if len(files) != 1:
                raise context.error(
                    "bad-variable",
                    f"${sign} needs exactly one file, but there are {len(files)}",
                    "cmd",
                    "use $(SRCS) or $(OUTS)",
                )
            return files[0]
        if name in words and argument is None:
            return " ".join(words[name])
        if name == "location" and argument is not None:
            return _location(context, argument, places)
        raise context.error(
            "bad-variable",
            f"unknown variable {match[0]!r}",
            "cmd",
            "known: $@, $<, $(SRCS), $(OUTS), $(location LABEL), $$",
        )

    return [_VARIABLE.sub(replace, text)]


def _location(context: Context, text: str, places: Mapping[str, str]) -> str:
    try:
        label = str(parse_label(text, context.label.package))
    except LabelError:
        label = text
    if not places.get(label):
        hint = did_you_mean(label, [name for name, place in places.items() if place], "labels with one file")
        raise context.error(
            "bad-variable", f"$(location {text}) is neither a tool nor a single file of 'srcs'", "cmd", hint
        )
    return places[label]


FILEGROUP = Rule(
    "filegroup",
    "Files under one name.",
    {"srcs": Attr("labels", "Files, filegroups and genrules.", required=True)},
    _analyze_filegroup,
)

GENRULE = Rule(
    "genrule",
    "Files made by a command, which sees its `srcs` and `tools`, nothing else of the machine, and no network.",
    {
        "srcs": Attr("labels", "Files, filegroups and genrules to read; read-only, at src/PATH.", default=()),
        "outs": Attr("strings", "The files that the command makes, by their paths below the package.", required=True),
        "cmd": Attr(
            "strings",
            "The command, a string for each word; no shell reads it. $(location LABEL) is a tool or a file, $(SRCS) and $(OUTS) "
            "all files, $< and $@ the only one, $$ a dollar sign.",
            required=True,
            text="no shell reads it; for a shell, write tools = ['@bk_tools//:box'], and "
            "cmd = ['$(location @bk_tools//:box)', 'sh', '-c', 'echo hello > $@']",
        ),
        "tools": Attr("labels", "Binaries that the command runs: of go_binary, host_binary or genrule.", default=()),
        "exec_properties": Attr(
            "dict",
            "Properties that another machine must have to run the command, by their names. They are in the key.",
            default={},
        ),
        "memory": Attr("count", "MiB of memory that the command may use, its disk included.", default=_DEFAULT.memory),
        "pids": Attr("count", "Processes and threads that the command may have.", default=_DEFAULT.pids),
        "disk": Attr("count", "MiB that its outputs and /tmp may have together.", default=_DEFAULT.disk),
        "timeout": Attr("count", "Seconds that the command may take.", default=_DEFAULT.timeout),
    },
    _analyze_genrule,
)
