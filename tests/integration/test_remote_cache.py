"""bk with a real remote cache, bazel-remote, which bk builds as a separate target."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from bazel_remotes import IMAGES, NOISE, Machine, Start, build, shown, warnings
from grpc_servers import grpc_server
from servers import cache_server, silent_server
from spaces import Space, interruptible, matrix

from bkrules.model import reapi

SECRET = "s3cr3t-of-the-cache"
TEST = """import pytest

def test_one(sandbox):
    assert sandbox.worker

def test_two(sandbox):
    pytest.skip("not for " + sandbox.worker)
"""
SMALL = "//targets:small"
Report = Callable[[Path, str], dict[str, Any]]


LISTED = """
go_binary(name = "g_test", srcs = ["//g:a_test.go"], mod = "//g:go.mod", test = True)
go_test(name = "suite", binary = ":g_test")
test_matrix(name = "lists", tests = [":suite", "//g:test_some.py"], workers = [":oci"], mirror = ":mirror")
"""


COLLECTED = """
test_matrix(name = "lists", tests = ["//g:test_some.py"], workers = [":oci"], mirror = ":mirror")
"""


def test_what_the_analysis_runs_is_in_the_cache_too(start: Start, machine: Machine) -> None:
    """The lists of tests, of pytest and of a Go binary: another machine runs neither, nor builds the binary."""
    server = start()
    said = []
    for name in ("one", "other"):
        space = machine(name)
        text = (space.root / "targets/BUILD.py").read_text()
        space.write(
            "targets/BUILD.py", text.replace(", worker", ", go_binary, go_test, test_matrix, worker", 1) + LISTED
        )
        space.write("g/BUILD.py", "")
        space.write("g/go.mod", "module example.com/g\n\ngo 1.25\n")
        space.write("g/a_test.go", 'package g\n\nimport "testing"\n\nfunc TestA(t *testing.T) {}\n')
        space.write("g/test_some.py", "if 1:\n    def test_some(): pass\n")
        done = space.bk("test", "//targets:lists", f"--remote_cache={server.url}", "--test_filter=nothing")
        assert "matches none of 2 cells" in done.stderr
        said.append([word for word in ("CollectTests", "ListGoTests", "GoBuild", "FetchWheel") if word in done.stderr])

    assert said == [["CollectTests", "ListGoTests", "GoBuild", "FetchWheel"], []]


def everything(folders: Sequence[Path]) -> bytes:
    """The bytes and names of all files below some folders."""
    parts = []
    for folder in folders:
        for path in folder.rglob("*"):
            parts.append(str(path).encode())
            if path.is_file() and not path.is_symlink():
                parts.append(path.read_bytes())
    return b"\n".join(parts)


def test_a_second_machine_runs_nothing(machine: Machine, start: Start, report: Report) -> None:
    server = start()
    first, second = machine("first"), machine("second")
    for space in (first, second):
        matrix(space, TEST, "oci")

    done = build(first, server.url, target=SMALL)
    assert warnings(done) == []
    assert "(0 cached, 2 not)" in done.stdout
    why = second.bk(
        "why", f"{SMALL}[test_two/worker=oci]", f"--remote_cache={server.url}", "--disk_cache", str(second.cache)
    )
    assert why.stdout == "test_two/worker=oci: skipped (cached in the remote cache): not for oci\n", why.stderr
    again = build(second, server.url, target=SMALL)

    assert warnings(again) == []
    assert "2 cells: 1 passed, 1 skipped (2 cached, 0 not)" in again.stdout
    assert "1 cell skipped: not for oci" in again.stdout
    assert "\nhit local 0, " in again.stdout
    assert ", ran 0, skipped 0; " in again.stdout
    cells = report(second.root, "small")["cells"]
    assert [(cell["cached"], cell["cache"]) for cell in cells] == [(True, "remote")] * 2
    assert all((second.root / cell["log"]).exists() for cell in cells)
    size = sum(path.stat().st_size for path in (second.cache / "cas").rglob("*") if path.is_file())
    assert size < 1 << 20, "tools and images came although nothing had to run"
    assert not (second.cache / "run").exists()

    third = build(second, server.url, target=SMALL)
    assert "\nhit local 2, hit remote 11, ran 0, skipped 0; " in third.stdout  # the tools' bytes are still not here
    assert [cell["cache"] for cell in report(second.root, "small")["cells"]] == ["disk"] * 2

    second.write("t/test_small.py", TEST.replace("assert sandbox.worker", "assert sandbox.address"))
    edited = build(second, server.url, target=SMALL)

    assert warnings(edited) == []
    assert "2 cells: 1 passed, 1 skipped (1 cached, 1 not)" in edited.stdout
    assert "actions: 0 ran" in edited.stdout, "a tool was built although its bytes are in the remote cache"
    assert (second.cache / "cas").is_dir()


def test_a_build_of_hits_in_the_disk_cache_asks_nobody(machine: Machine) -> None:
    one = machine("one")
    with cache_server() as server:
        build(one, server.address)
        before = len(server.requests)
        assert before > 0
        done = build(one, server.address)
        assert len(server.requests) == before
    assert "hit local 3, hit remote 0, ran 0, " in done.stdout


def test_a_warm_machine_seeds_a_new_cache(machine: Machine, start: Start) -> None:
    server = start()
    first, address = machine("first"), f"--remote_cache={server.url}"
    cold = first.bk("cache", "push", "//images:third", address, "--disk_cache", str(first.cache))
    assert cold.returncode == 0, cold.stderr
    assert cold.stdout == ("0 results sent, 0 were in the remote cache already, 3 are not in the disk cache\n")
    assert first.bk("build", "//images:third").returncode == 0
    said = [
        first.bk("cache", "push", "//images:third", address, "--disk_cache", str(first.cache), "--json")
        for _ in range(2)
    ]

    assert [json.loads(done.stdout) for done in said] == [
        {"sent": 3, "there": 0, "absent": 0},
        {"sent": 0, "there": 3, "absent": 0},
    ]
    second = machine("second")
    done = build(second, server.url)
    assert warnings(done) == []
    assert "hit local 0, hit remote 3, ran 0, " in done.stdout
    assert shown(second) == shown(first)

    server.kill()
    failed = first.bk("cache", "push", "//images:third", address, "--disk_cache", str(first.cache))
    assert failed.returncode == 34
    assert f"error: remote cache {server.url}" in failed.stderr
    assert "connection refused" in failed.stderr


def test_the_list_of_tests_is_pushed_too(machine: Machine) -> None:
    """It comes from an action that runs while targets are analysed."""
    with cache_server() as server:
        for name in ("one", "other"):
            space = machine(name)
            text = (space.root / "targets/BUILD.py").read_text()
            space.write("targets/BUILD.py", text.replace(", worker", ", test_matrix, worker", 1) + COLLECTED)
            space.write("g/BUILD.py", "")
            space.write("g/test_some.py", "if 1:\n    def test_some(): pass\n")
            address = f"--remote_cache={server.address}"
            words = ("test", "//targets:lists", "--test_filter=nothing")
            done = space.bk(*words, *([address] if name == "other" else []))
            assert ("CollectTests" in done.stderr) == (name == "one"), done.stderr
            if name == "one":
                pushed = space.bk("cache", "push", "//targets:lists", address, "--disk_cache", str(space.cache))
                assert pushed.stdout.startswith("1 results sent"), pushed.stdout + pushed.stderr


def test_why_knows_of_results_in_the_remote_cache(machine: Machine, start: Start) -> None:
    server = start()
    first, second = machine("first"), machine("second")
    build(first, server.url)
    other = str(first.root / "bk-out")

    said = [
        second.bk("why", "//images:third", *words, "--disk_cache", str(second.cache))
        for words in ((), (f"--remote_cache={server.url}",), (f"--remote_cache={server.url}", "--against", other))
    ]

    assert [done.stdout for done in said] == [
        "//images:third: would run: //images:second Image would run first\n",
        "//images:third: cached in the remote cache\n",
        "//images:third: the same key\n",
    ]


@pytest.mark.parametrize("mode", ["zstd", "uncompressed"])
@pytest.mark.parametrize("damage", ["deleted", "truncated", "altered"])
def test_a_blob_that_the_server_lost_is_noticed_and_healed(
    machine: Machine, start: Start, mode: str, damage: str
) -> None:
    server = start("--storage_mode", mode)
    first = machine("first")
    build(first, server.url)
    right = shown(first)
    victim = server.blob(max(right.values(), key=len))
    data = victim.read_bytes()
    if damage == "deleted":
        victim.unlink()
    elif damage == "truncated":
        victim.write_bytes(data[: len(data) // 2])
    else:
        middle = len(data) // 2
        victim.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])

    second = machine("second")
    done = build(second, server.url)

    assert shown(second) == right
    assert len(warnings(done)) == 1, done.stderr
    assert server.url in warnings(done)[0]
    assert "the build continues" in warnings(done)[0]
    healed = build(machine("third"), server.url)
    assert warnings(healed) == []
    assert "hit local 0, hit remote 3, ran 0, " in healed.stdout


def test_what_a_later_action_reads_is_made_again_when_the_server_lost_it(machine: Machine, start: Start) -> None:
    """`second` is a hit by its digests alone; that its bytes are gone is found when `third` has to run."""
    server = start()
    first, second = machine("first"), machine("second")
    build(first, server.url)
    for path in server.blobs():
        if path.stat().st_size > NOISE // 2:
            path.unlink()
    text = IMAGES.format(size=NOISE).replace('"c"', '"other"')
    for space in (first, second):
        space.write("images/BUILD.py", "from bkrules import image\n" + text)
    expected = first.bk("build", "//images:third")
    assert expected.returncode == 0

    done = build(second, server.url)

    assert shown(second) == shown(first)
    assert len(warnings(done)) == 1
    assert "once more: the remote cache lost what it made" in done.stderr
    assert "3 actions: 3 ran" in done.stdout


def test_a_result_with_other_outputs_is_a_miss(machine: Machine) -> None:
    first, second = machine("first"), machine("second")
    with cache_server() as server:
        build(first, server.address)
        for path in [path for path in server.held if path.startswith("/ac/")]:
            message = reapi.decode("ActionResult", server.held[path])
            for output in message["output_directories"]:
                output["path"] = "../../outside"
            server.held[path] = reapi.encode("ActionResult", message)
        done = build(second, server.address)

    assert "3 actions: 3 ran" in done.stdout
    assert "not a valid result of that action" in warnings(done)[0]
    assert shown(second) == shown(first)
    assert [str(path) for path in second.root.parent.rglob("outside*")] == []


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_a_server_that_is_killed_changes_no_result(machine: Machine, start: Start, when: str) -> None:
    server = start()
    plain, one = machine("plain"), machine("one")
    images = "from bkrules import image\n" + IMAGES.format(size=NOISE)
    images += "".join(
        f'image(name = "more{number}", base = ":{f"more{number - 1}" if number else "third"}", noise = {{"m": {NOISE}}})\n'
        for number in range(20)
    )
    for space in (plain, one):
        space.write("images/BUILD.py", images)
    assert plain.bk("build", "//images:more19").returncode == 0
    words = [*one.command("build", "//images:more19"), f"--remote_cache={server.url}"]
    if when == "before":
        server.kill()
    run = subprocess.Popen(
        words,
        cwd=one.root,
        env={**os.environ, **one.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    assert run.stderr is not None
    said = ""
    for line in run.stderr:
        said += line
        if when == "during" and line.startswith("[3/23]"):
            server.kill()
    out = run.stdout.read()
    assert run.wait() == 0, said
    server.kill()
    run.stdout.close()
    run.stderr.close()

    assert shown(one, "images/more19") == shown(plain, "images/more19")
    assert "23 actions: 23 ran" in out
    assert said.count("warning") == (0 if when == "after" else 1), said
    later = build(one, server.url, target="//images:more19")
    assert warnings(later) == []
    assert "23 actions: 0 ran" in later.stdout


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_silent_server_costs_a_few_seconds(machine: Machine, protocol: str) -> None:
    one = machine("one")
    with silent_server() as url:
        done = build(one, url.replace("http", protocol))
    assert len(warnings(done)) == 1
    seconds = float(done.stdout.rpartition(", ")[2].split()[0])
    assert seconds < 10


def test_a_reader_changes_nothing_on_the_server(machine: Machine, start: Start) -> None:
    server = start()
    first, second = machine("first"), machine("second")
    done = build(first, server.url, "--remote_upload_local_results=no")
    assert "3 actions: 3 ran" in done.stdout
    assert server.blobs() == []

    build(second, server.url, "--remote-upload-local-results", "yes")
    assert server.blobs() != []
    third = build(machine("third"), server.url, "--remote_upload_local_results=no")
    assert "hit local 0, hit remote 3, ran 0, " in third.stdout


@pytest.mark.parametrize("way", ["header", "environment", "url", "netrc"])
def test_credentials_are_used_and_are_nowhere(machine: Machine, start: Start, way: str, tmp_path: Path) -> None:
    users = tmp_path / "htpasswd"
    hashed = subprocess.run(
        ["openssl", "passwd", "-apr1", SECRET], capture_output=True, text=True, check=True
    ).stdout.strip()
    users.write_text(f"me:{hashed}\n")
    server = start("--htpasswd_file", str(users))
    header = f"Authorization=Basic {base64.b64encode(f'me:{SECRET}'.encode()).decode()}"
    said: list[subprocess.CompletedProcess[str]] = []
    spaces = [machine("first"), machine("second"), machine("stranger")]
    for space in spaces[:2]:
        url, words, environment = server.url, [], dict(space.environment)
        if way == "header":
            words = ["--remote_header", header]
        elif way == "environment":
            environment["BK_REMOTE_HEADER"] = header
        elif way == "url":
            url = url.replace("//", f"//me:{SECRET}@")
        else:
            Path(environment["HOME"], ".netrc").write_text(f"machine 127.0.0.1 login me password {SECRET}\n")
        said.append(build(dataclasses.replace(space, environment=environment), url, *words))
    assert "hit local 0, hit remote 3, ran 0, " in said[1].stdout
    assert [warnings(done) for done in said] == [[], []]

    said.append(build(spaces[2], server.url.replace("//", f"//me:not-{SECRET}@")))
    assert "it requires other credentials" in warnings(said[2])[0]
    assert len(warnings(said[2])) == 1
    server.kill()
    said.append(build(machine("late"), server.url.replace("//", f"//me:{SECRET}@")))
    assert len(warnings(said[3])) == 1

    written = everything([folder for space in spaces for folder in (space.root, space.cache)])
    printed = "".join(done.stdout + done.stderr for done in said).encode()
    for secret in (SECRET, header.rpartition(" ")[2]):
        assert secret.encode() not in written
        assert secret.encode() not in printed


@pytest.mark.parametrize(
    "words",
    [
        [f"--remote_header={SECRET}"],
        [f"--remote_header=A={SECRET}\n"],
        [f"--remote_heade={SECRET}", f"--remote_headers=A={SECRET}"],
        ["--remote_headers", f"A={SECRET}"],
        [f"--remote_cache=me:{SECRET}@host"],
        [f"--remote_cache=ftp://me:{SECRET}@host"],
    ],
)
def test_a_usage_error_shows_no_secret(space: Space, words: list[str]) -> None:
    done = space.bk("build", "//...", "--remote_cache=http://127.0.0.1:1", *words)
    assert done.returncode == 2
    assert SECRET not in done.stdout + done.stderr


def test_tls_with_an_authority_of_ones_own(machine: Machine, start: Start, authority: Path) -> None:
    files = ("--tls_cert_file", f"{authority}/server.pem", "--tls_key_file", f"{authority}/server.key")
    server = start(*files, tls=True)
    trust = f"--tls_certificate={authority}/ca.pem"

    stranger = build(machine("stranger"), server.url)
    assert len(warnings(stranger)) == 1
    assert "its certificate is not trusted" in warnings(stranger)[0]
    assert server.blobs() == []
    assert warnings(build(machine("first"), server.url, trust)) == []
    second = build(machine("second"), server.url, trust)
    assert "hit local 0, hit remote 3, ran 0, " in second.stdout
    plain = build(machine("plain"), server.url.replace("s://", "://"))
    assert len(warnings(plain)) == 1


def test_the_certificate_of_a_client(machine: Machine, start: Start, authority: Path) -> None:
    files = ("--tls_cert_file", f"{authority}/server.pem", "--tls_key_file", f"{authority}/server.key")
    server = start(*files, "--tls_ca_file", f"{authority}/ca.pem", tls=True)
    trust = f"--tls_certificate={authority}/ca.pem"
    client = (f"--tls_client_certificate={authority}/server.pem", f"--tls_client_key={authority}/server.key")

    assert len(warnings(build(machine("stranger"), server.url, trust))) == 1
    assert server.blobs() == []
    assert warnings(build(machine("first"), server.url, trust, *client)) == []
    second = build(machine("second"), server.url, trust, *client)
    assert "hit local 0, hit remote 3, ran 0, " in second.stdout


def test_both_protocols_share_the_entries(machine: Machine, start: Start) -> None:
    server = start()
    other = server.address("http" if server.protocol == "grpc" else "grpc")
    first = machine("first")

    assert warnings(build(first, server.url)) == []
    second = machine("second")
    done = build(second, other)

    assert warnings(done) == []
    assert "hit local 0, hit remote 3, ran 0, " in done.stdout
    assert shown(second) == shown(first)


def test_a_required_cache_that_fails_fails_the_build(machine: Machine, start: Start) -> None:
    one = machine("one")
    server = start()
    server.kill()
    done = one.bk("build", "//images:third", f"--remote_cache={server.url}", "--remote_required")
    assert done.returncode == 34
    assert f"remote cache {server.url}" in done.stderr
    assert "connection refused" in done.stderr
    assert one.bk("build", "//images:third").returncode == 0


def test_a_required_cache_that_cannot_be_written_fails_the_build(machine: Machine) -> None:
    with cache_server() as server:
        server.answer = lambda handler: handler.command == "PUT" and handler.reply(507)
        done = machine("one").bk("build", "//images:third", f"--remote_cache={server.address}", "--remote_required")
    assert done.returncode == 34
    assert "status 507" in done.stdout
    assert "3 actions: 3 ran" in done.stdout


def test_aquery_knows_keys_from_the_remote_cache(machine: Machine, start: Start) -> None:
    server = start()
    build(machine("first"), server.url)
    second = machine("second")
    known = second.bk("aquery", "//images:third", f"--remote_cache={server.url}")
    assert known.stdout.count("  key: ") == 3
    assert second.bk("aquery", "//images:third").stdout.count("  key: ") == 1
    assert sum(path.stat().st_size for path in (second.cache / "cas").rglob("*") if path.is_file()) < NOISE


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_interrupted_upload_is_abandoned(machine: Machine, stop: signal.Signals, protocol: str) -> None:
    one = machine("one")
    stalled, ended = threading.Event(), threading.Event()

    def stall(is_upload: bool) -> bool:
        if is_upload:
            stalled.set()
            ended.wait(60)
        return False

    with cache_server() as server, grpc_server() as far:
        server.answer = lambda handler: stall(handler.command == "PUT")
        far.answer = lambda method, _message, _context: stall(method == "Write") or None
        address = server.address if protocol == "http" else far.address
        run = subprocess.Popen(
            interruptible([*one.command("build", "//images:third"), f"--remote_cache={address}"]),
            cwd=one.root,
            env={**os.environ, **one.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert stalled.wait(60)
        run.send_signal(stop)
        try:
            _, errors = run.communicate(timeout=10)
        finally:
            run.kill()
            ended.set()
    assert run.returncode == 8
    assert "Traceback" not in errors
