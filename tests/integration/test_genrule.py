"""Ordinary actions: they see what was declared, reach nothing, and make what they said."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from leftovers import Leftovers
from spaces import Space

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


def test_an_engine_finds_all_that_the_command_needs(space: Space) -> None:
    """In the input root: the command, and the files of the machine at their absolute paths."""
    space.write("WORKSPACE.py", HEAD + rule("made", "cat - > $@ < /dev/null"))
    done = space.bk("aquery", "//:made", "--json")
    [action] = json.loads(done.stdout)
    assert action["arguments"][0] in action["inputs"]
    of_machine = {path: file for path, file in action["host"].items() if not path.startswith("tools/")}
    assert of_machine == {path: os.path.realpath(path.removeprefix("host")) for path in of_machine}
    assert any("/ld-linux" in path for path in of_machine)
    assert all(leaf.startswith("executable ") for leaf in action["inputs"].values())


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
        (rule("r", "$(location :none) x"), "$(location :none) is neither a tool nor a single file of 'srcs'"),
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


@pytest.mark.parametrize(
    ("script", "outs", "said"),
    [
        (
            "cat /proc/version > out/other; ln -s /etc/passwd $@",
            '["out"]',
            "did not make the file 'out': out is a symbolic link",
        ),
        ("ln -s other $@; echo x > out/other", '["out"]', "did not make the file 'out': out is a symbolic link"),
        ("rmdir out/a; ln -s {host} out/a", '["a/secret"]', "a/secret is behind a, a symbolic link"),
        ("cd /work; mv out other; ln -s {host} out", '["secret"]', "did not make the file 'secret'"),
        ("mkfifo $@", '["out"]', "did not make the file 'out': out is a FIFO"),
        ("mkdir $@", '["out"]', "did not make the file 'out': out is a folder, not a file"),
        ("rmdir out/a; echo x > out/a", '["a/b"]', "did not make the file 'a/b'"),
        ("truncate -s 6T $@", '["out"]', "its outputs are larger than its disk of 4096 MiB: out has 6291456 MiB"),
    ],
)
def test_an_output_is_a_file_that_the_command_made(
    space: Space, tmp_path: Path, script: str, outs: str, said: str
) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host/secret").write_text("a secret of the host")
    names = ("ln", "mkfifo", "mkdir", "rmdir", "mv", "truncate")
    more = "".join(f'host_binary(name = "{name}")\n' for name in names)
    tools = ", ".join(f'":{name}"' for name in ("sh", "cat", *names))
    words = script.format(host=tmp_path / "host")
    text = f'genrule(name = "bad", outs = {outs}, tools = [{tools}], cmd = ["$(location :sh)", "-c", {words!r}])\n'
    space.write("WORKSPACE.py", HEAD + more + text)

    done = space.bk("build", "//:bad")

    assert done.returncode == 1, done.stdout + done.stderr
    assert said in done.stdout
    stored = [path.read_bytes() for path in space.cache.glob("cas/*/*")]
    assert not any(b"a secret of the host" in data for data in stored)


def test_odd_files_are_made_and_read(space: Space) -> None:
    """Of any mode, with long names and in folders that nobody may look into."""
    name = "n" * 255
    script = f"echo one > out/{name}; chmod 0 out/{name}; echo two > out/a/b; chmod 0 out/a; echo > out/undeclared"
    text = 'host_binary(name = "chmod")\n' + rule("odd", script, f'["{name}", "a/b"]').replace(
        '":cat"', '":cat", ":chmod"'
    )
    space.write("WORKSPACE.py", HEAD + text)

    done = space.bk("build", "//:odd")

    assert done.returncode == 0, done.stdout + done.stderr
    assert (space.root / "bk-out/odd" / name).read_text() == "one\n"
    assert (space.root / "bk-out/odd/a/b").read_text() == "two\n"
    assert not (space.root / "bk-out/odd/undeclared").exists()


def test_a_source_that_only_its_owner_may_read(space: Space) -> None:
    """The command is user 0 without a capability, and the file another user's."""
    secret = space.write("private", "of somebody\n")
    secret.chmod(0o600)
    os.chown(secret, 12345, 12345)
    space.write("WORKSPACE.py", HEAD + rule("shown", "cat $< > $@", srcs='["private"]'))

    done = space.bk("build", "//:shown")

    assert done.returncode == 0, done.stdout + done.stderr
    assert (space.root / "bk-out/shown/out").read_text() == "of somebody\n"


@pytest.mark.parametrize(
    ("script", "limit", "said", "remedy"),
    [
        ("trap '' 15 2 1; while true; do :; done", "timeout = 2", "took more than 2 s", "attribute 'timeout'"),
        ("cat /dev/zero > $@", "disk = 5", "filled its disk of 5 MiB", "attribute 'disk'"),
        ("cat /dev/zero > /tmp/file || true; exit 3", "disk = 5", "filled its disk of 5 MiB", "attribute 'disk'"),
        (
            "f() { f | f & }; f; while true; do :; done",
            "pids = 30, timeout = 3",
            "took more than 3 s",
            "attribute 'timeout'",
        ),
        ("cat /dev/zero", "disk = 5", "printed more than 64 MiB", "let it print less"),
        (
            "x=$$(cat /dev/urandom); echo $$x > $@",
            "memory = 64",
            "met its limit of 64 MiB of memory",
            "attribute 'memory'",
        ),
    ],
)
def test_a_runaway_command_is_a_matter_of_resources(
    space: Space, script: str, limit: str, said: str, remedy: str
) -> None:
    text = rule("runs", script).replace("outs =", f"{limit}, outs =") + rule("after", "echo well > $@")
    space.write("WORKSPACE.py", HEAD + text)

    done = space.bk("build", "-k", "//:all")

    assert done.returncode == 1, done.stdout + done.stderr
    assert f"//:runs: the command {said}" in done.stdout
    assert remedy in done.stdout
    assert (space.root / "bk-out/after/out").read_text() == "well\n"


def test_a_log_has_the_output_of_its_own_command(space: Space) -> None:
    """One file after the other, and each command after that of another, which has printed too."""
    texts = [rule(f"a{number}", f"echo words of a{number}; echo > $@") for number in range(3)]
    texts += [rule(f"b{number}", f"echo words of b{number}; exit 3") for number in range(3)]
    space.write("WORKSPACE.py", HEAD + "".join(texts))

    done = space.bk("build", "-k", "--jobs=1", "//:all")

    assert done.returncode == 1, done.stdout + done.stderr
    logs = {path.parent.name: path.read_text() for path in space.root.glob("bk-out/*/Genrule.log")}
    assert logs == {f"b{number}": f"words of b{number}\n" for number in range(3)}


def test_limits_are_in_no_key(space: Space) -> None:
    """They end a command, and change nothing of what it makes."""
    text = rule("out", "echo x > $@")
    space.write("WORKSPACE.py", HEAD + text)
    assert space.bk("build", "//:out").returncode == 0
    space.write(
        "WORKSPACE.py", HEAD + text.replace("outs =", "memory = 100, pids = 50, disk = 7, timeout = 20, outs =")
    )

    assert "1 action: 0 ran, 1 cached" in space.bk("build", "//:out").stdout


@pytest.mark.parametrize("way", ["remount", "descriptor", "own namespace"])
def test_a_command_cannot_change_its_sources_or_tools(space: Space, way: str) -> None:
    """What it sees are the workspace's own files, and blobs of the cache."""
    space.write("source", "as it was\n")
    script = {
        "remount": "mount -o remount,bind,rw src/source; umount src/source; umount -l src; ",
        "descriptor": "exec 3< src/source; echo x > /proc/self/fd/3; ",
        "own namespace": "unshare -Urm --propagation private sh -c 'mount -o remount,bind,rw src/source; echo x > src/source'; ",
    }[way]
    names = ("mount", "umount", "unshare")
    more = "".join(f'host_binary(name = "{name}")\n' for name in names)
    script += "echo x > src/source; echo x > tools/made; cat src/source > $@"
    tools = ", ".join(f'":{name}"' for name in names)
    text = rule("made", "echo a tool > $@") + rule("tries", script, srcs='["source", ":made"]').replace(
        '":cat"', f'":cat", {tools}'
    )
    space.write("WORKSPACE.py", HEAD + more + text)

    done = space.bk("build", "//:tries")

    assert done.returncode == 0, done.stdout + done.stderr
    assert (space.root / "source").read_text() == "as it was\n"
    assert (space.root / "bk-out/tries/out").read_text() == "as it was\n"
