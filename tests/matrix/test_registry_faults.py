"""Builds from a registry that misbehaves, on an eager worker and on each that pulls lazily: how each ends, and how soon.

The image is named at the mirror itself: a reference to another registry, whose mirror fails, is looked for at that registry. Its
layers have six files of 1 MiB each, that do not compress.
"""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from bkrules.mirror.record import MirrorRequest
from bkrules.testing.command import Command, CommandFailed
from bkrules.testing.sandbox import Sandbox

FILE, LAYER = 1 << 20, 6 << 20
CUT, RATE, RETRY_AFTER = 10_000, 10 << 20, 1  # what BUILD.py says of the faults
SOON = 20.0
"""Seconds within which a fault must have had its effect. One request that nobody answers would take 30."""

PULL = """FROM {image}
RUN cat /data/03.bin > /read
FROM scratch
COPY --from=0 /read /
"""
# stdout and stderr are two streams, whose lines BuildKit may print in one: what the step waits for has to stay a line.
READS = """FROM {image}
RUN exec 2>&1; cat /data/03.bin > /first; echo > /begin; echo begin; while [ -e /begin ]; do sleep 0.02; done; \
    cat /data/03.bin > /cached; echo $? > /cached.status; cat /data/09.bin > /other; echo $? > /other.status; \
    echo > /end; echo end; while [ -e /end ]; do sleep 0.02; done; cat /data/10.bin > /healed; echo $? > /healed.status
FROM scratch
COPY --from=0 /first /cached /cached.status /other /other.status /healed /healed.status /
"""


def is_lazy(sandbox: Sandbox) -> bool:
    return sandbox.snapshotter == "stargz"


def has_snapshotter_daemon(sandbox: Sandbox) -> bool:
    return "stargz" in sandbox.logs


def build(sandbox: Sandbox, folder: Path, dockerfile: str) -> Command:
    """A build, which exports its last stage to `out` in the folder."""
    (folder / "Dockerfile").write_text(dockerfile.format(image=f"{sandbox.mirror}/library/bulk:esgz"))
    local = [f"--local={kind}={folder}" for kind in ("context", "dockerfile")]
    output = f"--output=type=local,dest={folder / 'out'}"
    return sandbox.cmd(["build", "--progress=plain", "--frontend=dockerfile.v0", *local, output])


def test_a_pull(sandbox: Sandbox, tmp_path: Path) -> None:
    fault = sandbox.choice("mirror")
    if fault != "well":
        sandbox.begin_faults()
    began = time.monotonic()
    if fault == "gone":
        with pytest.raises(CommandFailed, match="connection reset by peer"):
            build(sandbox, tmp_path, PULL).run()
    else:
        build(sandbox, tmp_path, PULL).run()
        assert (tmp_path / "out/read").stat().st_size == FILE
    seconds = time.monotonic() - began
    assert seconds < SOON

    met = sandbox.mirror_requests()
    total = sum(one.body_bytes for one in met)
    assert [one.status for one in met if one.status >= 400] == ([429] * 2 if fault == "busy" else [])
    assert len([one for one in met if one.body_bytes == CUT]) == (2 if fault == "cut" else 0)
    assert {one.status == 0 for one in met} == {fault == "gone"}
    if fault == "slow":
        assert seconds > (total - FILE) / RATE
    if fault == "cut" or (fault != "gone" and not is_lazy(sandbox)):
        assert total > 2 * LAYER  # a layer whose table of contents cannot be read is pulled whole
    else:
        assert total < LAYER


def test_reads_of_a_mounted_image(sandbox: Sandbox, tmp_path: Path) -> None:
    """A step reads a file. Then the mirror fails: the file is there, and another is read from a layer that was not read before."""
    fault = sandbox.choice("mirror")
    with build(sandbox, tmp_path, READS).start(stderr=subprocess.PIPE) as process:
        try:
            root = wait(process, "begin")
            if fault != "well":
                sandbox.begin_faults()
            before = len(sandbox.mirror_requests())
            began = time.monotonic()
            (root / "begin").unlink()
            wait(process, "end")
            seconds = time.monotonic() - began
            met = sandbox.mirror_requests()[before:]
            if fault != "well":
                sandbox.end_faults()
            (root / "end").unlink()
            print(process.communicate()[1])
        finally:
            process.kill()  # a step that waits would wait for ever
    assert process.returncode == 0
    assert seconds < SOON

    out = tmp_path / "out"
    ends = {name: (out / f"{name}.status").read_text().strip() == "0" for name in ("cached", "other", "healed")}
    assert ends == {"cached": True, "other": is_read(sandbox, fault), "healed": True}
    assert (out / "cached").read_bytes() == (out / "first").read_bytes()
    assert (out / "other").stat().st_size == (FILE if ends["other"] else 0)
    assert (out / "healed").stat().st_size == FILE
    check_requests(sandbox, fault, met, seconds)


def is_read(sandbox: Sandbox, fault: str) -> bool:
    """Whether what was not fetched before can be read. Only the snapshotter as a daemon of its own tries again after a 429."""
    return fault == "well" or not is_lazy(sandbox) or (fault == "busy" and has_snapshotter_daemon(sandbox))


def check_requests(sandbox: Sandbox, fault: str, met: list[MirrorRequest], seconds: float) -> None:
    """That the reads have met the fault, where they needed the mirror."""
    if not is_lazy(sandbox):
        assert met == []
    elif fault == "busy":
        assert [one.status for one in met][:2] == [429, 429]
        assert seconds > 2 * RETRY_AFTER or not has_snapshotter_daemon(sandbox)
    elif fault == "cut":
        assert {one.body_bytes for one in met} == {CUT}
    else:
        assert {one.status for one in met} == {0 if fault == "gone" else 206}


def wait(process: subprocess.Popen[str], word: str) -> Path:
    """Wait until a step prints the word; the root of its container, in which it has made a file of that name."""
    assert process.stderr is not None
    for line in process.stderr:
        print(line, end="")
        if re.fullmatch(rf"#\d+ [\d.]+ {word}\n", line):
            return next(path.parent for path in Path("/proc").glob(f"[0-9]*/root/{word}"))
    raise AssertionError(f"the build ended before a step printed {word!r}")
