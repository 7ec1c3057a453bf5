"""What a test is told of its backend and can ask of it, on every worker."""

import gzip
import json
import shlex
import socket
import subprocess
import time
from pathlib import Path

import pytest
from processes import named

from bkrules.plugin.features import UnknownFeature
from bkrules.testing import released
from bkrules.testing.sandbox import CommandFailed, Sandbox
from bkrules.testing.servers import HttpServer

BUSYBOX = "FROM docker.io/library/busybox:latest\n"
LONG = 150_000


def build(sandbox: Sandbox, folder: Path, dockerfile: str, *more: str) -> subprocess.CompletedProcess[str]:
    (folder / "Dockerfile").write_text(dockerfile)
    local = ["--local", f"context={folder}", "--local", f"dockerfile={folder}"]
    return sandbox.run(["build", "--progress=plain", "--frontend=dockerfile.v0", *local, *more])


def environment_of(name: str) -> dict[str, str]:
    (process,) = named(name)
    pairs = (process / "environ").read_text().rstrip("\0").split("\0")
    return dict(pair.split("=", 1) for pair in pairs)


def test_supports_what_the_worker_says(sandbox: Sandbox) -> None:
    assert sandbox.supports("cdi")
    assert not sandbox.supports("cni_network")
    with pytest.raises(UnknownFeature, match="no feature 'merge_dif'; did you mean 'merge_diff'"):
        sandbox.supports("merge_dif")


def test_the_debug_address_has_stacks_and_metrics(sandbox: Sandbox) -> None:
    assert sandbox.debug_address.startswith("unix:///run/bk/")
    assert "main.main()" in sandbox.debug("/debug/pprof/goroutine?debug=2")
    assert "go_goroutines " in sandbox.debug("/metrics")
    with pytest.raises(OSError, match="status 404"):
        sandbox.debug("/no-such-page")


def test_a_profile_is_bytes(sandbox: Sandbox) -> None:
    profile = gzip.decompress(sandbox.debug_bytes("/debug/pprof/heap"))
    assert b"inuse_space" in profile
    with pytest.raises(ValueError, match=r"debug_bytes\('/debug/pprof/heap'\) returns its bytes"):
        sandbox.debug("/debug/pprof/heap")


def test_buildkitd_is_started_as_buildkits_own_harness_does(sandbox: Sandbox) -> None:
    own = environment_of("buildkitd")
    assert own["BUILDKIT_DEBUG_EXEC_OUTPUT"] == own["BUILDKIT_DEBUG_PANIC_ON_ERROR"] == "1"
    assert own["BUILDKITD_DEBUGADDR"] == sandbox.debug_address
    forced = own.get("BUILDKIT_DEBUG_FORCE_OVERLAY_DIFF")
    assert forced == sandbox.extra_env.get("BUILDKIT_DEBUG_FORCE_OVERLAY_DIFF")
    assert (forced == "true") == (sandbox.snapshotter in ("overlayfs", "stargz"))
    told = sandbox.run("debug workers --verbose").stdout
    assert "org.mobyproject.buildkit.worker.sandbox:" in told
    assert "GC Policy" not in told
    assert [path for path in Path("/run/bk").rglob("otel.sock") if path.is_socket()]


def test_cmd_is_a_command_that_waits_to_be_run(sandbox: Sandbox) -> None:
    command = sandbox.cmd("debug 'workers' --format '{{json .}}'")
    assert command.arguments == ("buildctl", "debug", "workers", "--format", "{{json .}}")
    assert command.environment["BUILDKIT_HOST"] == sandbox.address
    assert json.loads(command.run().stdout)
    with sandbox.cmd(["debug", "workers"]).start(stdout=subprocess.PIPE) as process:
        told, _ = process.communicate()
    assert process.returncode == 0
    assert "PLATFORMS" in told


def test_a_command_that_takes_too_long_is_killed(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"{BUSYBOX}RUN sleep 60\n")
    words = f"build --frontend=dockerfile.v0 --local context={tmp_path} --local dockerfile={tmp_path}"
    with pytest.raises(subprocess.TimeoutExpired):
        sandbox.cmd(words).run(timeout=1)
    assert f"killed after 1 s: buildctl {words}" in Path("/out/cell.log").read_text()


def test_a_command_takes_input(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="illegal wireType"):
        sandbox.cmd("debug dump-llb").run(input="no llb")


def test_there_is_time_left(sandbox: Sandbox) -> None:
    assert 0 < sandbox.remaining() < 300
    assert sandbox.deadline == pytest.approx(time.monotonic() + sandbox.remaining(), abs=1)
    assert not sandbox.done.is_set()


def test_a_long_line_of_a_log_stays_whole(sandbox: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The harness in Go stops reading a log at a line of 64 KiB."""
    (tmp_path / "long").write_text("x" * LONG)
    build(sandbox, tmp_path, f"{BUSYBOX}COPY long /\nRUN cat /long && echo && echo the end\n")
    capsys.readouterr()
    sandbox.print_logs()
    printed = capsys.readouterr().out
    for text in (sandbox.logs["buildkitd"], printed):
        assert max(map(len, text.splitlines())) >= LONG
        assert "the end" in text
    assert "--- buildkitd\n" in printed


def test_cleared_logs_begin_anew(sandbox: Sandbox, tmp_path: Path) -> None:
    assert sandbox.logs["buildkitd"]
    sandbox.clear_logs()
    assert "library/busybox" not in sandbox.logs["buildkitd"]
    build(sandbox, tmp_path, BUSYBOX)
    assert "library/busybox" in sandbox.logs["buildkitd"]
    assert "found worker" not in sandbox.logs["buildkitd"]
    assert "found worker" in Path("/out/buildkitd.log").read_text()


@pytest.mark.requires("cni_network")
def test_what_no_worker_supports_is_skipped(sandbox: Sandbox) -> None:
    raise AssertionError("this cell must not start")


@pytest.mark.requires("cdi")
def test_a_cdi_device_is_found(sandbox: Sandbox, tmp_path: Path) -> None:
    edits = {"env": ["FROM_A_DEVICE=injected"]}
    devices = [{"name": "one", "containerEdits": edits}]
    document = {"cdiVersion": "0.6.0", "kind": "bk.example/device", "devices": devices}
    (sandbox.cdi_spec_dir / "bk.json").write_text(json.dumps(document))
    dockerfile = f"{BUSYBOX}RUN --device=bk.example/device=one echo got $FROM_A_DEVICE\n"
    done = build(sandbox, tmp_path, dockerfile, "--allow", "device=bk.example/device=one")
    assert "got injected" in done.stderr


def test_each_start_and_each_command_is_in_the_cells_log(sandbox: Sandbox) -> None:
    sandbox.run("debug workers")
    said = Path("/out/cell.log").read_text()
    assert "buildkitd started as process " in said
    assert "buildkitd ready after 0." in said
    assert said.index("buildkitd ready") < said.index("$ buildctl debug workers")
    assert "exit status 0 after " in said
    assert "cell" not in sandbox.logs


def test_all_is_released(sandbox: Sandbox, tmp_path: Path) -> None:
    build(sandbox, tmp_path, f"{BUSYBOX}RUN echo hello > /hello.txt\n")
    held = released.holdings(sandbox)
    assert held["records"]
    assert held["snapshots"]
    sandbox.check_released()
    assert not any(released.holdings(sandbox).values())


def test_what_is_not_released_is_named(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(released, "_PATIENCE", 0.0)
    forgotten = Path("/var/lib/bk/forgotten/snapshots/snapshots/7")
    forgotten.mkdir(parents=True)
    with pytest.raises(AssertionError, match=r"still holds\nsnapshots: forgotten/snapshots/snapshots/7"):
        sandbox.check_released()


def test_a_mount_that_only_a_daemon_sees_is_not_released(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The harness in Go looks at its own mount namespace, so what a rootless daemon leaves mounted is not seen there."""
    place = Path("/var/lib/bk/left mounted")
    place.mkdir()
    script = "import ctypes, sys\nlibc = ctypes.CDLL(None)\nassert libc.unshare(0x20000) == 0\n"
    script += (
        f"assert libc.mount(b'x', {bytes(place)!r}, b'tmpfs', 0, None) == 0\nprint('ok', flush=True)\nsys.stdin.read()"
    )
    command = ["/usr/bin/python3", "-c", script]
    monkeypatch.setattr(released, "_PATIENCE", 0.0)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ok\n", shlex.join(command)
        assert not any("left" in line for line in Path("/proc/self/mountinfo").read_text().splitlines())
        with pytest.raises(AssertionError, match="mounts: /var/lib/bk/left"):
            sandbox.check_released()
        process.communicate()
    sandbox.check_released()


def test_a_side_server_says_what_a_build_fetched(
    sandbox: Sandbox, tmp_path: Path, http_server: HttpServer, echo_server: str
) -> None:
    http_server.files["/a.txt"] = b"from the side\n"
    dockerfile = f"FROM scratch\nADD {http_server.url('/a.txt')} /\n"
    build(sandbox, tmp_path, dockerfile, f"--output=type=local,dest={tmp_path}/out")
    assert (tmp_path / "out/a.txt").read_text() == "from the side\n"
    assert ("/a.txt", 200) in {(one.path, one.status) for one in http_server.requests}
    asked = len(http_server.requests)
    build(sandbox, tmp_path, dockerfile)
    again = http_server.requests[asked:]
    assert [(one.status, "if-none-match" in one.headers) for one in again] == [(304, True)], "asked with the tag it had"
    with pytest.raises(CommandFailed, match="404"):
        build(sandbox, tmp_path, f"FROM scratch\nADD {http_server.url('/b.txt')} /\n")

    host, port = echo_server.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"hello")
        assert connection.recv(5) == b"hello"
