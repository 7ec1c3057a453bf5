"""Tests that try to leave their cell, as root with a worker's capabilities: no byte of the machine that a cell sees changes."""

from __future__ import annotations

import os
import socket
import textwrap
from pathlib import Path

import pytest
from bare_cells import BareCells
from escapes import TRY, shown

from bkrules.cell import confine
from bkrules.sandbox import shield


@pytest.fixture
def cells(cells: BareCells) -> BareCells:
    """Cells that see a tool."""
    tools = cells.folder / "tools"
    tools.mkdir()
    (tools / "buildctl").write_text("a tool")
    (tools / "buildctl").chmod(0o755)
    return cells


ATTEMPTS = {
    "write": "for path in SHOWN: write(path)\nwrite('/opt/bk/bin/buildctl')",
    "remount": """
        for path in SHOWN:
            with refused(errno.EPERM if JAIL else errno.EROFS):
                mount(None, path, None, REMOUNT)
            loosen(path)
            write(path)
    """,
    "another bind": """
        os.mkdir("/x")
        open("/y", "w").close()
        for path in SHOWN:
            place = "/x" if os.path.isdir(path) else "/y"
            mount(path, place, None, BIND | REC)
            loosen(place)
            write(place)
            check(libc.umount2(place.encode(), 2))
    """,
    "move and uncover": """
        os.mkdir("/x")
        with refused(errno.EINVAL) if JAIL else contextlib.nullcontext():
            mount("/opt/bk/bin", "/x", None, MOVE)
        write("/opt/bk/bin/buildctl" if JAIL else "/x/buildctl")
        assert os.listdir("/opt/bk/bin") == (["buildctl"] if JAIL else [])
        for path in reversed(SHOWN):
            with refused() if JAIL else contextlib.suppress(OSError):
                check(libc.umount2(path.encode(), 2))
        assert os.path.getsize("/usr/lib/x86_64-linux-gnu/libc.so.6") == 0 or True
    """,
    "another namespace": """
        check(libc.unshare(0x20000))
        mount(None, "/", None, REC | 1 << 19)
        for path in SHOWN:
            loosen(path)
            write(path)
    """,
    "an upper folder": """
        for folder in ("/x", "/up", "/work-of-it", "/both"):
            os.mkdir(folder)
        mount("o", "/both", "overlay", 0, "lowerdir=/opt/bk/bin,upperdir=/up,workdir=/work-of-it")
        with refused(errno.EACCES) if JAIL else contextlib.nullcontext():  # in a jail it is another owner's
            open("/both/buildctl", "w").write("mine alone")
        assert open("/opt/bk/bin/buildctl").read() == "a tool"
        with refused():
            mount("o", "/x", "overlay", 0, "lowerdir=/up,upperdir=/opt/bk/bin,workdir=/opt/bk/bin")
    """,
    "mapped files": """
        seen = 0
        for process in ("self", "1"):
            for name in os.listdir(f"/proc/{process}/map_files"):
                path = f"/proc/{process}/map_files/{name}"
                if not JAIL and (not os.readlink(path).startswith("/") or "deleted" in os.readlink(path)):
                    continue
                seen += 1
                with refused(errno.EROFS, errno.ETXTBSY, errno.EPERM, errno.EACCES):
                    os.open(path, os.O_RDWR)
        assert seen > 10
    """,
    "programs of processes": """
        for process in filter(str.isdigit, os.listdir("/proc")):
            with refused(errno.EROFS, errno.ETXTBSY, errno.EACCES):
                os.open(f"/proc/{process}/exe", os.O_RDWR)
    """,
    "descriptors of processes": """
        own = {os.stat(path).st_dev for path in ("/", "/out", "/proc", "/dev/pts", "/sys", "/dev/null")}
        for process in filter(str.isdigit, os.listdir("/proc")):
            for name in os.listdir(f"/proc/{process}/fd"):
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(f"/proc/{process}/fd/{name}")
                    is_file = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
                    link = os.readlink(f"/proc/{process}/fd/{name}")
                    assert not is_file or status.st_dev in own or link.startswith("/memfd:"), link
            for name in ("root", "cwd"):
                assert os.stat(f"/proc/{process}/{name}").st_dev in own
    """,
    "file handles": """
        # name_to_handle_at works on a tmpfs; to open a handle is refused, whatever it is of
        for path in ("/out", "/", "/opt/bk/bin"):
            folder = os.open(path, os.O_RDONLY)
            handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0) + bytes(128))
            mount_id = ctypes.c_int()
            with contextlib.suppress(OSError):
                call(303, folder, b"", handle, ctypes.byref(mount_id), 0x1000)
            with refused(errno.EPERM):
                call(304, folder, handle, os.O_RDWR)
            # inode 2 is the root of an ext4 file system
            handle = ctypes.create_string_buffer(struct.pack("=IiIII", 8, 1, 2, 0, 0))
            with refused(errno.EPERM):
                call(304, folder, handle, os.O_RDONLY)
        # the initial mount namespace by its handle
        namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        with refused(errno.EPERM):
            call(304, namespace, ctypes.create_string_buffer(struct.pack("=IiQII", 16, 0xF1, 0, 0, 0)), os.O_RDONLY)
    """,
    "devices": """
        if JAIL:  # see test_jail.py
            return
        os.mkdir("/d")
        mount("d", "/d", "devtmpfs")
        nodes = [f"/d/{name}" for name in os.listdir("/d")]
        for major, minor, kind in ((1, 1, 0o020600), (1, 4, 0o020600), (7, 0, 0o060600), (10, 237, 0o020600), (10, 232, 0o020600)):
            nodes.append(f"/made-{major}-{minor}")
            os.mknod(nodes[-1], kind, os.makedev(major, minor))
        harmless = {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (10, 200), (10, 229)}
        for node in nodes:
            status = os.lstat(node)
            number = os.major(status.st_rdev), os.minor(status.st_rdev)
            if stat.S_ISBLK(status.st_mode) or (stat.S_ISCHR(status.st_mode) and number not in harmless):
                for flags in (os.O_RDONLY, os.O_RDWR):
                    with refused():
                        os.open(node, flags | os.O_NONBLOCK)
    """,
    "settings of the kernel": """
        for path in ("kernel/core_pattern", "kernel/modprobe", "fs/suid_dumpable", "vm/panic_on_oom"):
            if os.path.exists(f"/proc/sys/{path}"):
                with refused(errno.EACCES if JAIL else errno.EROFS):
                    open(f"/proc/sys/{path}", "r+")
        for path in ("/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/sys/power/state", "/sys/kernel/mm/ksm/run"):
            if os.path.exists(path):
                with refused(errno.EROFS, errno.EACCES):
                    open(path, "w")
        open("/proc/sys/net/ipv4/ip_forward", "w").write("1")  # the cell's own
    """,
    "the kernel itself": """
        with refused(errno.EPERM):
            call(246, 0, 0, None, 0)  # kexec_load
        with refused(errno.EPERM):
            call(320, -1, -1, 0, None, 0)  # kexec_file_load
        with refused(errno.EPERM):
            call(313, -1, b"", 0)  # finit_module
        with refused(errno.EPERM):
            call(175, None, 0, b"")  # init_module
        with refused(errno.EPERM):
            call(172, 3)  # iopl
        with refused(errno.EPERM):
            call(227, 0, ctypes.create_string_buffer(16))  # clock_settime
        with refused(errno.EPERM):
            call(167, b"/swap", 0)  # swapon
        with refused(errno.EPERM):
            call(304 | 0x40000000, 0, None, 0)  # by another ABI
        with refused(errno.EPERM, errno.ENOENT, errno.EACCES):
            os.open("/proc/kcore", os.O_RDONLY)
        with refused(errno.EPERM, errno.EACCES):
            os.open("/dev/kmsg" if os.path.exists("/dev/kmsg") else "/proc/kmsg", os.O_RDONLY)
    """,
    "other processes": """
        with refused(errno.ESRCH, errno.EPERM):
            os.kill(HOST, 0)
        assert not os.path.exists(f"/proc/{HOST}")
    """.replace("HOST", "4000000"),
}


@pytest.mark.parametrize("isolation", ["cell", "jail"])
@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS.keys())
def test_an_attempt(cells: BareCells, attempt: str, isolation: str) -> None:
    before = shown()
    body = textwrap.indent(textwrap.dedent(attempt).strip(), "    ")
    test = textwrap.dedent(TRY) + "\ndef test_it(sandbox):\n" + body + "\n"

    result = cells.run(test, isolation=isolation)

    assert result["status"] == "passed", (result["out"] / "test.log").read_text()
    assert shown() == before
    assert (cells.folder / "tools/buildctl").read_text() == "a tool"
    assert sorted(os.listdir(cells.folder / "tools")) == ["buildctl"]
    later = cells.run("def test_it(sandbox):\n    assert open('/opt/bk/bin/buildctl').read() == 'a tool'\n")
    assert later["status"] == "passed"


def test_a_usual_cell_lacks_the_capabilities_that_no_worker_needs(cells: BareCells) -> None:
    body = """
        line = next(line for line in open("/proc/self/status") if line.startswith("CapBnd"))
        assert not int(line.split()[1], 16) & DROPPED
    """.replace("DROPPED", hex(sum(1 << number for number in confine.DROPPED.values())))

    result = cells.run(f"def test_it(sandbox):{body}")

    assert result["status"] == "passed", (result["out"] / "test.log").read_text()


def test_a_link_to_a_tool_is_shown_and_not_written_through(cells: BareCells, tmp_path: Path) -> None:
    """Tools are hard links into the CAS."""
    (tmp_path / "cas").write_text("the bytes of the CAS")
    os.link(tmp_path / "cas", tmp_path / "tools/linked")
    again = "    write('/opt/bk/bin/linked')\n"
    body = f"{again}    loosen('/opt/bk/bin')\n{again}"

    result = cells.run(textwrap.dedent(TRY) + "\ndef test_it(sandbox):\n" + body)

    assert result["status"] == "passed", (result["out"] / "test.log").read_text()
    assert (tmp_path / "cas").read_text() == "the bytes of the CAS"


def test_bks_own_output_is_not_reached(cells: BareCells, tmp_path: Path) -> None:
    """bk's standard error may be a file, which its children inherit."""
    cells.processes.close()
    log = tmp_path / "build.log"
    kept = os.dup(2)
    with log.open("w") as file:
        os.dup2(file.fileno(), 2)
    try:
        cells.processes.begin()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    test = """
        import os
        def test_it(sandbox):
            for process in filter(str.isdigit, os.listdir("/proc")):
                for name in os.listdir(f"/proc/{process}/fd"):
                    try:
                        assert "build.log" not in os.readlink(f"/proc/{process}/fd/{name}")
                    except FileNotFoundError:
                        pass
    """
    assert cells.run(test)["status"] == "passed"


@pytest.mark.parametrize("isolation", ["cell", "jail"])
def test_a_user_namespace_in_a_cell_may_mount_its_own_proc(cells: BareCells, isolation: str) -> None:
    """Which the kernel refuses where it sees a /proc that is covered only: rootless workers need it."""
    test = """
        import ctypes, os
        def test_it(sandbox):
            libc = ctypes.CDLL(None, use_errno=True)
            child = os.fork()
            if child == 0:
                os.mkdir("/tmp/p")
                bad = libc.unshare(0x10000000 | 0x20000 | 0x20000000)
                inner = os.fork()
                if inner == 0:
                    bad |= libc.mount(b"p", b"/tmp/p", b"proc", ctypes.c_ulong(14), None)
                    os._exit(1 if bad else 0)
                os._exit(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """
    assert cells.run(test, isolation=isolation)["status"] == "passed"


def test_the_zygotes_libraries_are_shielded_whatever_it_imports(cells: BareCells) -> None:
    cells.processes.begin()
    folders = shield.mapped_folders()
    mapped = {
        line.split(maxsplit=5)[5].strip() for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line
    }

    assert {path for path in mapped if not any(path.startswith(f"{folder}/") for folder in folders)} == set()


def test_a_socket_of_the_machine_is_not_reached(cells: BareCells, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")  # to an abstract name that the kernel chooses
        listener.listen()
        test = f"""
            import pytest, socket
            def test_it(sandbox):
                with socket.socket(socket.AF_UNIX) as out, pytest.raises(ConnectionRefusedError):
                    out.connect({listener.getsockname()!r})
        """
        assert cells.run(test)["status"] == "passed"
