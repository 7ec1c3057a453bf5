"""Ordinary actions: they see what was declared, reach nothing, and make what they said."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from spaces import Space

Leftovers = Callable[[Path], dict[str, list[str]]]

HEAD = """from bkrules import filegroup, genrule, host_binary, workspace
workspace(name = "test")
host_binary(name = "sh")
host_binary(name = "cat")
host_binary(name = "python", binary = "/usr/bin/env")
"""
SHELL = 'tools = [":sh", ":cat"], cmd = ["$(location :sh)", "-c", {!r}],'


def rule(name: str, script: str, outs: str = '["out"]', srcs: str = "[]") -> str:
    return f'genrule(name = "{name}", srcs = {srcs}, outs = {outs}, {SHELL.format(script)})\n'


def test_files_flow_from_rule_to_rule(space: Space, leftovers: Leftovers) -> None:
    before = leftovers(space.cache)
    space.write("p/one.txt", "one\n")
    space.write("p/two.txt", "two\n")
    space.write(
        "p/BUILD.py", 'from bkrules import filegroup\nfilegroup(name = "texts", srcs = ["two.txt", "one.txt"])\n'
    )
    text = HEAD + rule("all", "cat $(SRCS) > $@", srcs='["//p:texts"]')
    text += rule("more", "cat $< - > out/a/b.txt < $<; echo end > out/c", '["a/b.txt", "c"]', '[":all"]')
    text += rule("last", "cat $(SRCS) > $@", srcs='[":more"]')
    space.write("WORKSPACE.py", text)

    first, second = (space.bk("build", "//:last") for _ in range(2))

    assert first.returncode == 0, first.stdout + first.stderr
    made = space.root / "bk-out/last/out"
    assert made.read_text() == "one\ntwo\n" * 2 + "end\n"
    assert not os.access(made, os.W_OK) or made.stat().st_mode & 0o222 == 0
    assert "3 actions: 0 ran, 3 cached" in second.stdout
    space.write("p/one.txt", "three\n")
    assert space.bk("build", "//:last").returncode == 0
    assert made.read_text() == "three\ntwo\n" * 2 + "end\n"
    assert leftovers(space.cache) == before


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("cat /etc/hostname > $@", "/etc/hostname: No such file or directory"),
        ("cat src/p/other.txt > $@", "src/p/other.txt: No such file or directory"),
        ("echo x > src/p/one.txt", "src/p/one.txt: Read-only file system"),
        ("echo x > /bin/new", "cannot create /bin/new"),
        ("exit 7", "failed with exit status 7"),
        ("kill -9 $$$$", "failed with exit status 137"),
        ("true", "did not make the file 'out'"),
        ("cat /proc/net/dev | while read a b; do echo $$a; done; exit 1", "lo:\n"),
    ],
)
def test_what_was_not_declared_is_not_there(space: Space, script: str, said: str) -> None:
    space.write("p/one.txt", "one\n")
    space.write("p/other.txt", "other\n")
    space.write("p/BUILD.py", 'from bkrules import filegroup\nfilegroup(name = "one", srcs = ["one.txt"])\n')
    space.write("WORKSPACE.py", HEAD + rule("bad", script, srcs='["//p:one"]'))

    done = space.bk("build", "//:bad")

    assert done.returncode == 1, done.stdout + done.stderr
    assert said in done.stdout
    assert "it sees nothing but: src/p/one.txt, tools/cat, tools/sh" in done.stdout
    assert (space.root / "p/one.txt").read_text() == "one\n"


def test_no_network_and_a_fixed_environment(space: Space) -> None:
    script = "set > $@; cat /proc/net/dev >> $@; cat /proc/sys/kernel/hostname >> $@"
    space.write("WORKSPACE.py", HEAD + rule("seen", script))

    done = space.bk("build", "//:seen")

    assert done.returncode == 0, done.stdout
    seen = (space.root / "bk-out/seen/out").read_text()
    assert [line.split(":")[0].strip() for line in seen.splitlines() if ": " in line and "|" not in line] == ["lo"]
    assert "sandbox" in seen.splitlines()
    for line in ("HOME='/tmp'", "PATH='/work/tools'", "PWD='/work'"):
        assert line in seen


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (rule("r", "$(location :none) x"), "$(location :none) is no tool and no single file of 'srcs'"),
        (rule("r", "$(NOPE)"), "unknown variable '$(NOPE)'"),
        (rule("r", "cat $< > $@"), "$< needs exactly one file, but there are 0"),
        (rule("r", "true", '["../up"]'), "'../up' cannot be an output"),
        (rule("r", "true", '["a", "a"]'), "'a' cannot be an output"),
        (rule("r", "true", "[]"), "'outs' names no file"),
        ('genrule(name = "r", outs = ["a"], cmd = [])', "'cmd' has no words"),
        ('genrule(name = "r", outs = ["a"], cmd = ["x"], srcs = [":sh"])', "a file, a filegroup or a genrule"),
    ],
)
def test_a_rule_that_makes_no_sense(space: Space, text: str, reason: str) -> None:
    space.write("WORKSPACE.py", HEAD + text)

    done = space.bk("build", "//:r")

    assert done.returncode == 1
    assert reason in done.stderr
    assert "WORKSPACE.py:" in done.stderr


def test_a_tool_that_changes_is_seen_by_each_package_that_uses_it(space: Space, tmp_path: Path) -> None:
    """Both packages are settled, and the second one finds the tool's digest remembered."""
    tool = tmp_path / "tool"
    shutil.copy("/bin/cat", tool)
    files = [
        tool,
        space.write("WORKSPACE.py", HEAD + f'host_binary(name = "tool", binary = "{tool}")\n'),
        space.write("a/text", "text\n"),
        space.write("b/text", "text\n"),
    ]
    for name in ("a", "b"):
        rule = 'genrule(name = "out", srcs = ["text"], outs = ["out"], tools = ["//:tool", "//:sh"], cmd = {})\n'
        command = '["$(location //:sh)", "-c", "$(location //:tool) $< > $@"]'
        files.append(space.write(f"{name}/BUILD.py", "from bkrules import genrule\n" + rule.format(command)))
    for path in [*files, space.root / "a", space.root / "b", space.root]:
        os.utime(path, (1, 1))
    for _ in range(2):
        assert space.bk("build", "//...").returncode == 0
    space.write("a/text", "other\n")
    os.utime(space.root / "a/text", (2, 2))
    assert "2 actions: 1 ran, 1 cached" in space.bk("build", "//...").stdout

    shutil.copy("/bin/tac", tool)

    assert "2 actions: 2 ran, 0 cached" in space.bk("build", "//...").stdout
