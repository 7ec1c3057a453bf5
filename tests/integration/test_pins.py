"""`bk go` and `bk pin`: the pinned Go, and the pins of modules that it writes, with a proxy of small modules."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import go_proxy
import pytest
from spaces import Space

WORD = "example.test/word"
LIB = "example.test/lib"
VERSIONS = ("v1.0.0", "v1.0.1", "v1.1.0", "v1.2.0-rc.1")
MAIN = (
    'package main\n\nimport "example.test/lib"\n\nvar version = "none"\n\nfunc main() { println(version, lib.Word) }\n'
)
BUILD = """from bkrules import filegroup, go_binary, go_releases
go_releases(
    name = "word",
    module = "example.test/word",
    package = "cmd/word",
    versions = ["v1.0.0"],
    ldflags = ["-X", "main.version={version}"],
)
go_binary(
    name = "one",
    module = "example.test/word",
    version = "v1.0.0",
    package = "cmd/word",
    mod = "one/go.mod",
    ldflags = ["-X", "main.version=1.0.0"],
)
"""
SUITE = 'filegroup(name = "all_words", srcs = ["//r:word_v1.0.0"])\n'


@pytest.fixture
def proxy(tmp_path: Path) -> Path:
    """The module word, which needs lib v1.0.0, and a newer lib."""
    folder = tmp_path / "proxy"
    for version in ("v1.0.0", "v1.1.0"):
        go_proxy.release(folder, LIB, version, {"lib.go": f'package lib\n\nconst Word = "lib {version}"\n'})
    for version in VERSIONS:
        files = {"cmd/word/main.go": MAIN, "unused.go": "package word\n"}
        go_proxy.release(folder, WORD, version, files, f"require {LIB} v1.0.0")
    return folder


@pytest.fixture
def pinned(space: Space, proxy: Path, repository: Path, cache_copy: Callable[[str], Path]) -> Space:
    """A workspace with the toolchain of this repository, its own cache of modules, and two targets without pins."""
    text = (repository / "targets/tools/bk_tools/WORKSPACE.py").read_text()
    start = text.index("go_toolchain(\n")
    toolchain = text[start : text.index("\n)\n", start)]
    space.write("WORKSPACE.py", f"from bkrules import go_toolchain, workspace\nworkspace(name = 't')\n{toolchain}\n)\n")
    space.write("r/BUILD.py", BUILD)
    cache = cache_copy("built")
    built = (cache / "go/build").resolve()
    (cache / "go").unlink()
    (cache / "go").mkdir()
    (cache / "go/build").symlink_to(built)
    return dataclasses.replace(space, cache=cache, environment=go_proxy.environment(proxy))


@pytest.fixture(autouse=True)
def _writable(tmp_path: Path) -> object:
    """Go's modules are read-only; pytest removes them."""
    yield
    subprocess.run(["chmod", "-R", "u+w", tmp_path], check=True)


def test_pins_are_written_checked_and_used(pinned: Space) -> None:
    missing = pinned.bk("build", "//r:word_v1.0.0")
    assert missing.returncode == 1
    assert "`bk pin //r:word_v1.0.0` writes the pins of a module" in missing.stderr
    check = pinned.bk("pin", "--check")
    assert check.returncode == 1
    assert check.stdout == "r/one/go.mod is missing\nr/word/v1.0.0/go.mod is missing\n"
    assert "2 of 2 pins are not right; `bk pin` writes them" in check.stderr

    done = pinned.bk("pin")

    assert done.returncode == 0, done.stderr
    assert f"pinned r/word/v1.0.0/go.mod: {WORD} v1.0.0, 2 modules, 4 sums\n" in done.stdout
    assert (pinned.root / "r/word/v1.0.0/go.mod").read_text() == (
        "module bk.invalid/pins\n\ngo 1.24\n\ntool example.test/word/cmd/word\n\n"
        "require (\n\texample.test/lib v1.0.0 // indirect\n\texample.test/word v1.0.0 // indirect\n)\n"
    )
    sums = (pinned.root / "r/word/v1.0.0/go.sum").read_text()
    assert sums.count("\n") == 4
    alone = dataclasses.replace(pinned, environment={"GOPROXY": "off"})
    assert alone.bk("pin", "--check").stdout == "2 pins are right\n", "what is on this machine needs no network"
    assert pinned.bk("pin").stdout == "2 were right\n"
    built = alone.bk("build", "//r:all")
    assert built.returncode == 0, built.stdout + built.stderr
    assert words(pinned, "word_v1.0.0/word") == "v1.0.0 lib v1.0.0"
    assert words(pinned, "one/one") == "1.0.0 lib v1.0.0"

    subprocess.run(["chmod", "-R", "u+w", pinned.cache / "go/mod"], check=True)
    shutil.rmtree(pinned.cache / "go/mod")
    assert alone.bk("pin", "--check").stdout == "2 pins are right\n", "what was built is proven"
    (pinned.root / "r/one/go.sum").write_text(sums.replace("h1:", "h1:x", 1))
    unknown = alone.bk("pin", "--check")
    assert unknown.returncode == 36
    assert "cannot be fetched: no answer from the module proxy" in unknown.stderr


def words(space: Space, path: str) -> str:
    return subprocess.run([space.root / "bk-out/r" / path], capture_output=True, text=True, check=True).stderr.strip()


def test_an_update_moves_versions_names_and_pins(pinned: Space) -> None:
    """A release of several moves within its series, and what a user raised stays."""
    pinned.write("s/BUILD.py", "from bkrules import filegroup\n" + SUITE)
    assert pinned.bk("pin").returncode == 0
    raised = pinned.bk(
        "go", f"--disk_cache={pinned.cache}", "-C", "r/word/v1.0.0", "mod", "edit", f"-require={LIB}@v1.1.0"
    )
    assert raised.returncode == 0, raised.stderr
    assert pinned.bk("pin", "--check").returncode == 1, "its sum is not there"
    assert pinned.bk("pin").returncode == 0

    done = pinned.bk("pin", "--update", "//r:one", "//r:word_v1.0.0")

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == [
        "moved //r:one: v1.0.0 -> v1.1.0",
        "moved //r:word_v1.0.0: v1.0.0 -> v1.0.1",
    ]
    text = (pinned.root / "r/BUILD.py").read_text()
    assert 'versions = ["v1.0.1"]' in text
    assert 'ldflags = ["-X", "main.version=1.1.0"]' in text
    assert '"//r:word_v1.0.1"' in (pinned.root / "s/BUILD.py").read_text()
    assert not (pinned.root / "r/word/v1.0.0").exists()
    assert f"{LIB} v1.1.0" in (pinned.root / "r/word/v1.0.1/go.mod").read_text()
    assert f"{LIB} v1.0.0" in (pinned.root / "r/one/go.mod").read_text()
    assert pinned.bk("pin", "--check").stdout == "2 pins are right\n"
    assert pinned.bk("pin", "--update").stdout == "2 were right\n"


def test_a_check_tells_what_differs(pinned: Space) -> None:
    assert pinned.bk("pin").returncode == 0
    sums = pinned.root / "r/one/go.sum"
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(lines[1:]))
    mod = pinned.root / "r/word/v1.0.0/go.mod"
    mod.write_text(mod.read_text().replace("word v1.0.0", "word v1.0.1"))

    done = pinned.bk("pin", "--check")

    assert done.returncode == 1
    assert f"r/one/go.sum: +{lines[0].strip()}" in done.stdout
    assert f"r/word/v1.0.0/go.mod: -\t{WORD} v1.0.1 // indirect" in done.stdout
    assert f"r/word/v1.0.0/go.mod: +\t{WORD} v1.0.0 // indirect" in done.stdout
    assert sums.read_text() == "".join(lines[1:]), "a check writes nothing"
    build = pinned.bk("build", "//r:word_v1.0.0")
    assert f"pins {WORD}" not in build.stdout
    assert "`bk pin //r:word_v1.0.0` pins it there too" in build.stderr


@pytest.mark.parametrize(
    ("old", "new", "code", "parts"),
    [
        (
            '["v1.0.0"]',
            '["v1.0.2"]',
            1,
            [
                "//r:word_v1.0.2: example.test/word v1.0.2 cannot be fetched: the module proxy has no such version",
                "r/BUILD.py:2, attribute 'version'",
                "versions: v1.0.0, v1.0.1, v1.1.0, v1.2.0-rc.1",
            ],
        ),
        (
            'example.test/word",\n    package = "cmd/word",\n    versions',
            'example.test/none",\n    package = "cmd/word",\n    versions',
            1,
            ["example.test/none v1.0.0 cannot be fetched: the module proxy has no such version"],
        ),
        (
            'cmd/word",\n    versions',
            'cmd/wort",\n    versions',
            1,
            ["example.test/word v1.0.0 lacks a package", "does not contain package example.test/word/cmd/wort"],
        ),
        (
            'mod = "one/go.mod"',
            'mod = "word/v1.0.0/go.mod"',
            1,
            [],
        ),
    ],
)
def test_what_cannot_be_pinned(pinned: Space, old: str, new: str, code: int, parts: list[str]) -> None:
    text = BUILD.replace(old, new, 1)
    if not parts:
        text = text.replace('version = "v1.0.0"', 'version = "v1.0.1"')
        parts = [
            "//r:word_v1.0.0 builds example.test/word v1.0.0, but //r:one v1.0.1, with the same r/word/v1.0.0/go.mod"
        ]
    pinned.write("r/BUILD.py", text)

    done = pinned.bk("pin")

    assert done.returncode == code, done.stdout + done.stderr
    assert [part for part in parts if part not in done.stderr] == []
    assert "Traceback" not in done.stderr


def test_a_pin_that_moved_is_told(pinned: Space, proxy: Path) -> None:
    """The same version has other bytes than before: bk neither checks nor writes pins as if it were right."""
    assert pinned.bk("pin").returncode == 0
    subprocess.run(["chmod", "-R", "u+w", pinned.cache / "go/mod"], check=True)
    shutil.rmtree(pinned.cache / "go/mod")
    go_proxy.release(proxy, LIB, "v1.0.0", {"lib.go": 'package lib\n\nconst Word = "moved"\n'})
    what = "r/one/go.sum: a module has other bytes than those that were pinned"

    check, write = pinned.bk("pin", "--check", "//r:one"), pinned.bk("pin", "//r:one")
    (pinned.root / "r/one/go.mod").write_text("module broken\n\ngo 1.24\n")
    again = pinned.bk("pin", "//r:one")

    assert (check.returncode, write.returncode, again.returncode) == (1, 1, 1)
    assert what in check.stdout
    assert what in write.stderr
    assert "if the new bytes are the right ones, remove the pinned line" in write.stderr
    assert "pinned:  example.test/lib v1.0.0 h1:" in again.stderr


def test_no_network_is_a_lack_of_the_machine(pinned: Space) -> None:
    alone = dataclasses.replace(pinned, environment={"GOPROXY": "http://127.0.0.1:1", "GOSUMDB": "off"})
    for words in (["pin"], ["pin", "--update"]):
        done = alone.bk(*words)
        assert done.returncode == 36, done.stdout + done.stderr
        assert "the variable GOPROXY names another" in done.stderr
    assert not (pinned.root / "r/one").exists()


def test_a_computed_version_is_not_edited(pinned: Space) -> None:
    text = BUILD.replace('["v1.0.0"]', "[OLD]").replace("go_releases(", 'OLD = "v1.0.0"\ngo_releases(', 1)
    pinned.write("r/BUILD.py", text)

    done = pinned.bk("pin", "--update")

    assert done.returncode == 1
    assert "//r:word_v1.0.0: v1.0.0 is not written out in its call, so bk cannot move it to v1.0.1" in done.stderr
    assert (pinned.root / "r/BUILD.py").read_text() == text, "nor is anything else"


def test_go_is_the_pinned_one_with_its_own_caches(pinned: Space, repository: Path) -> None:
    def go(*words: str) -> subprocess.CompletedProcess[str]:
        return pinned.bk("go", f"--disk_cache={pinned.cache}", *words)

    shown = go("env", "GOVERSION", "GOMODCACHE", "GOCACHE", "GOPATH", "GOENV", "GOTOOLCHAIN")
    assert shown.stdout.splitlines()[1:] == [
        *(str(pinned.cache / "go" / part) for part in ("mod", "build", "path")),
        *("", "local"),
    ]
    assert (
        shown.stdout.splitlines()[0].removeprefix("go")
        in (repository / "targets/tools/bk_tools/WORKSPACE.py").read_text()
    )
    pinned.write("m/go.mod", "module example.test/m\n\ngo 1.24\n")
    pinned.write("m/main.go", 'package main\n\nimport "os"\n\nfunc main() { os.Exit(len(os.Args)) }\n')
    assert go("-C", "m", "build", "-o", "m", ".").returncode == 0
    assert (pinned.root / "m/m").exists()
    assert go("--", "vet", "-C", "m", "./...").returncode == 0, "words after -- are Go's too"
    unknown = go("no-such-command")
    assert unknown.returncode == 2
    assert "go no-such-command: unknown command" in unknown.stderr
    assert go("--toolchain=//r:one", "version").returncode == 2
    assert "bk go [--OPTION=VALUE...] ARGUMENT..." in go("--help").stdout


def test_a_broken_go_mod_is_named(pinned: Space) -> None:
    pinned.write("r/one/go.mod", "module\n")

    for words in (["pin", "//r:one"], ["pin", "--check", "//r:one"]):
        done = pinned.bk(*words)
        assert done.returncode == 1
        assert "//r:one: r/one/go.mod is not valid" in done.stdout + done.stderr

    pinned.write("r/BUILD.py", BUILD.replace('    version = "v1.0.0",\n', ""))
    assert "//r:one: 'version' is required with module 'example.test/word'" in pinned.bk("pin").stderr


def test_a_toolchain_that_cannot_be_fetched_is_told(pinned: Space) -> None:
    text = (pinned.root / "WORKSPACE.py").read_text()
    digest = text.partition('"linux-x86_64": "')[2].partition('"')[0]
    pinned.write("WORKSPACE.py", text.replace(digest, "0" * 64))
    alone = dataclasses.replace(pinned, environment={"PIP_INDEX_URL": "http://127.0.0.1:1", "PIP_RETRIES": "0"})

    done = alone.bk("pin")

    assert done.returncode == 1
    assert "error: //:go: FetchWheel failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_patterns_without_pins_are_nothing_to_do(pinned: Space) -> None:
    pinned.write("s/BUILD.py", "")
    done = pinned.bk("pin", "//:go")
    assert done.returncode == 4
    assert "no go_binary with a 'module' is among //:go" in done.stderr
    assert pinned.bk("pin", "--check", "--update").returncode == 2
