"""The commands of the documentation, typed into a shell, and what they print, compared with the page but for numbers."""

from __future__ import annotations

import dataclasses
import re
import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest
from examples import blocks
from pages import Typist, check_printed, commands_of, session_of, text_of
from servers import cache_server
from spaces import Space
from terminals import Terminal

MATRIX = """
from bkrules import test_matrix

test_matrix(
    name = "{name}",
    tests = ["{test}"],
    workers = [{workers}],
    mirror = "//targets:mirror",
    {more}
)
"""
HELLO = """def test_hello(sandbox, tmp_path):
    image = "docker.io/library/busybox:latest"
    (tmp_path / "Dockerfile").write_text(f"FROM {image}\\nRUN echo hello > /hello.txt\\n")
    out = tmp_path / "out"
    folders = f"--local context={tmp_path} --local dockerfile={tmp_path}"
    sandbox.run(f"build --frontend=dockerfile.v0 {folders} --output type=local,dest={out}")
    assert not (out / "tmp/hello").exists()
    assert (out / "bin/sh").is_symlink()
    assert (out / "hello.txt").read_text() == "WORD\\n"
"""
SIX = ("oci", "oci_stargz", "containerd", "containerd_stargz", "rootless", "dockerd")
COMPRESSION = 'axes = {"compression": {"gzip": "latest"}},'


def write_matrix(space: Space, package: str, name: str, test: str, *workers: str, more: str = "") -> None:
    """Write a package with one matrix."""
    labels = ", ".join(f'"//targets:{worker}"' for worker in workers)
    space.write(f"{package}/BUILD.py", MATRIX.format(name=name, test=test, workers=labels, more=more))


@pytest.fixture
def user(tools: Space, tmp_path: Path) -> Typist:
    """A user in a workspace with workers and a mirror."""
    return Typist(tools, tmp_path / "home")


def test_a_failure(user: Typist) -> None:
    """Six equal failures; a debugger in a test, and a shell next to its daemons; files for somebody else."""
    space = user.space
    write_matrix(space, "hello", "matrix", "test_hello.py", *SIX)
    space.write("hello/test_hello.py", HELLO.replace("WORD", "helo"))
    check_printed(text_of("running.md", "____"), user.type("bk test //hello:matrix", code=3))

    write_matrix(space, "hello", "hello_matrix", "test_hello.py", "oci", "rootless", more=COMPRESSION)
    ((command, shown),) = session_of("editor.md")
    with Terminal(["/bin/sh", "-c", command], space.root, user.environment) as terminal:
        terminal.until("(Pdb) ")
        terminal.type('sandbox.run("debug workers")\n')
        terminal.until("PLATFORMS")
        terminal.until("(Pdb) ")
        terminal.type("quit\n")
        assert terminal.end() == 3
    check_printed(shown.partition("(Pdb)")[0], terminal.shown)

    write_matrix(space, "t", "pull_matrix", "test_pull.py", "oci")
    space.write("t/test_pull.py", "def test_pull(sandbox):\n    assert 3 == 4\n")
    ((command, shown),) = session_of("debugging.md", "bk shell --at_failure test_pull/worker=oci\n")
    *before, prompt = shown.splitlines(keepends=True)
    start, _, typed = prompt.rstrip("\n").rpartition(" # ")
    with Terminal(["/bin/sh", "-c", command], space.root, user.environment, columns=200) as terminal:
        terminal.until(f"{start} # ")
        terminal.type(f"{typed}\n")
        terminal.until("PLATFORMS")
        terminal.type("exit\n")
        terminal.end()
    check_printed("".join(before), terminal.shown)

    write_matrix(space, "t", "push_matrix", "test_push.py", "oci")
    build = space.root / "t/BUILD.py"
    images = 'image_mirror(name = "plain", images = {"docker.io/library/busybox:latest": "//targets:busybox"})'
    text = build.read_text().replace("//targets:mirror", ":plain").replace("import", "import image_mirror,")
    build.write_text(f"{text}{images}\n")
    space.write("t/test_push.py", HELLO.replace("WORD", "good bye").replace("test_hello", "test_push"))
    for command, shown in session_of("repro.md", "bk repro"):
        check_printed(shown, user.type(command))
    space.write("app/Dockerfile", "FROM docker.io/library/busybox:latest\nRUN make\n")
    space.write("app/.npmrc", "the token\n")
    ((command, shown),) = session_of("repro.md", "bk record")
    check_printed(shown, user.type(command, folder="app"))


def test_a_pass(user: Typist, tmp_path: Path) -> None:
    """In pytest; as a page; in a remote cache; with another buildkitd."""
    space = user.space
    write_matrix(space, "hello", "hello_matrix", "test_hello.py", "oci", "rootless", more=COMPRESSION)
    space.write("hello/test_hello.py", HELLO.replace("WORD", "hello"))
    (command,) = commands_of("editor.md")
    assert "2 passed" in user.type(f"{command} -p no:xdist")
    (setting,) = (one.text for one in blocks() if one.page == "docs/editor.md" and one.language == "toml")
    space.write("pyproject.toml", setting)
    assert "1 passed" in user.type("pytest hello/ -p no:xdist")
    targets = space.root / "targets/BUILD.py"
    labels = 'tests = ["//hello:test_hello.py"], workers = [":oci"], mirror = ":mirror"'
    text = targets.read_text().replace(", worker", ", test_matrix, worker", 1)
    targets.write_text(f'{text}\ntest_matrix(name = "stargz_matrix", {labels})\n')

    (override,) = (line for line in commands_of("override-tools.md") if "--override_tool" in line)
    binary = tmp_path / "buildkit/bin/buildkitd"
    binary.parent.mkdir(parents=True)
    user.type("bk build @bk_tools//:buildkitd")
    shutil.copy(space.root / "bk-out/@bk_tools/buildkitd/buildkitd", binary)
    with binary.open("ab") as file:
        file.write(b"another one")
    assert "1 cell: 1 passed (0 cached, 1 not)" in user.type(override)

    check_report(user)
    check_remote_cache(user)


def check_report(user: Typist) -> None:
    """Type the commands of the page about reports."""
    out = user.space.root / "bk-out/targets/stargz_matrix"
    user.type("./bk test //targets:stargz_matrix --profile=trace.json")
    for name in ("monday", "tuesday", "merged"):
        (user.space.root / name).mkdir()
        shutil.copy(out / "report.json", user.space.root / name)
    user.space.write("results/test.xml", "<testsuite><testcase name='TestX/worker=oci'/></testsuite>")
    opened, browser = user.home / "opened", user.home / "bin/browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    user.variables = {"BROWSER": f"{browser} %s"}
    for command in commands_of("report.md"):
        if "--serve" not in command:
            assert "report.html" in user.type(command)
            continue
        with subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            cwd=user.space.root,
            env=user.environment,
            stdout=subprocess.PIPE,
            text=True,
        ) as bk:
            assert bk.stdout is not None
            address = next(line for line in bk.stdout if line.startswith("http://")).split()[0]
            with urllib.request.urlopen(address) as page:
                assert b"<html" in page.read()
            bk.send_signal(signal.SIGINT)
    assert opened.read_text().endswith("/bk-out/report.html\n")


def check_remote_cache(user: Typist) -> None:
    """Type the commands of the page about a remote cache: of a branch that is trusted, and of a pull request on a new machine."""
    test = user.space.root / "hello/test_hello.py"
    test.write_text(f"{test.read_text()}    assert sandbox.name\n")
    user.variables = {"CACHE_TOKEN": "of-the-branch", "CACHE_READ_TOKEN": "of-a-request"}
    (block,) = (one.text for one in blocks() if one.page == "docs/remote-cache.md" and one.language == "sh")
    comments = [line for line in block.splitlines() if line.startswith("#")]
    with cache_server() as cache:
        text = block.replace("https://cache.example.com", cache.address)
        _, trusted, request = re.split("|".join(map(re.escape, comments)), text)
        user.type(trusted)
        assert cache.count("PUT", "/bk/ac/")
        shutil.rmtree(user.space.cache / "ac")
        del cache.requests[:], cache.headers[:]
        assert "1 cell: 1 passed (1 cached, 0 not)" in user.type(request)
        assert cache.count("PUT") == 0
        assert {one["Authorization"] for one in cache.headers} == {"Bearer of-a-request"}


@pytest.mark.soak
def test_a_module_and_a_plugin(user: Typist, environment: str, tmp_path: Path) -> None:
    """They are made, installed into a copy of this environment, used, and checked."""
    space = dataclasses.replace(user.space, python=environment)
    (space.root / "bk").unlink()
    (space.root / "plugins").unlink()  # a link to those of this repository
    user = Typist(space, tmp_path / "another")
    module = {
        "WORKSPACE.py": "from bkrules import workspace\nworkspace(name = 'our_images')\n",
        "base/BUILD.py": "from bkrules import image\nimage(name = 'motd', files = {'etc/motd': 'text'})\n",
        "base/text": "hello\n",
    }
    (toml,) = (one.text for one in blocks() if one.page == "docs/modules.md" and one.language == "toml")
    for name, text in {
        "pyproject.toml": toml,
        "our_images/__init__.py": "",
        **{f"our_images/{n}": t for n, t in module.items()},
    }.items():
        file = tmp_path / "distribution" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    shutil.copytree(tmp_path / "distribution/our_images", tmp_path / "images")
    wheel = [
        environment,
        "-I",
        "-m",
        "flit_core.wheel",
        str(tmp_path / "distribution"),
        "--outdir",
        str(tmp_path / "wheels"),
    ]
    subprocess.run(wheel, capture_output=True, check=True)
    top = space.root / "WORKSPACE.py"
    top.write_text(f"{top.read_text()}bk_dep(name = 'our_images')\n")
    write_matrix(space, "app", "app_matrix", "test_app.py", "oci")
    build = space.root / "app/BUILD.py"
    images = "image_mirror(name = 'mirror', images = {'docker.io/our/motd:1': '@our_images//base:motd'})\n"
    build.write_text(
        build.read_text().replace("import ", "import image_mirror, ").replace("//targets:mirror", ":mirror") + images
    )
    space.write(
        "app/test_app.py", "def test_app(sandbox):\n    assert sandbox.manifest('docker.io/our/motd:1')['layers']\n"
    )

    install, by_folder = commands_of("modules.md")
    assert "1 cell: 1 passed (0 cached, 1 not)" in user.type(by_folder)
    user.variables = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels")}
    user.type(install)
    assert "1 cell: 1 passed (1 cached, 0 not)" in user.type("bk test //...")

    shutil.rmtree(space.root / "app")  # its mirror would be the second one for the check
    new, check = (
        line
        for one in blocks()
        if one.page == "plugins/README.md" and one.language == "sh"
        for line in one.text.splitlines()
    )
    user.type(new)
    user.type("pip install --quiet --no-deps --no-build-isolation plugins/narrow")
    assert user.type(check).startswith("//plugins/narrow:narrow: narrow, by the plugin narrow\n")
