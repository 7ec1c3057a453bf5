"""bazel-remote, which bk builds as a separate target, and machines that share it: clean clones without a result."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from servers import free_port
from spaces import Space, wait_for

NOISE = 1 << 20
# A chain of images, which need no tool: each one is an action that reads what the one before it made.
IMAGES = """
image(name = "first", noise = {{"a": {size}}})
image(name = "second", base = ":first", noise = {{"b": {size}}})
image(name = "third", base = ":second", noise = {{"c": {size}}})
"""


@dataclass
class Server:
    """A bazel-remote that runs."""

    process: subprocess.Popen[bytes]
    folder: Path
    ports: dict[str, int]
    protocol: str
    tls: bool = False

    @property
    def url(self) -> str:
        """Where it answers."""
        return self.address(self.protocol)

    def address(self, protocol: str) -> str:
        """Where it answers in a protocol."""
        return f"{protocol}{'s' if self.tls else ''}://127.0.0.1:{self.ports[protocol]}"

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def blobs(self) -> list[Path]:
        """The files of the blobs that it holds."""
        return sorted(path for path in (self.folder / "data/cas.v2").rglob("*") if path.is_file())

    def blob(self, data: bytes) -> Path:
        """The file of a blob."""
        [found] = [path for path in self.blobs() if hashlib.sha256(data).hexdigest() in path.name]
        return found


Start = Callable[..., Server]
Machine = Callable[[str], Space]


@contextlib.contextmanager
def starter(binary: Path, parent: Path, protocol: str) -> Iterator[Start]:
    """A function that starts servers with flags, which bk asks by that protocol. Each ends with the context."""
    with contextlib.ExitStack() as stack:

        def begin(*flags: str, folder: str = "server", tls: bool = False) -> Server:
            place, ports = parent / folder, {"http": free_port(), "grpc": free_port()}
            place.mkdir(exist_ok=True)
            log = stack.enter_context(open(parent / f"{folder}.log", "ab"))
            addresses = [f"--{name}_address=127.0.0.1:{port}" for name, port in ports.items()]
            words = [f"--dir={place}/data", "--max_size=8", *addresses]
            process = subprocess.Popen([str(binary), *words, *flags], stdout=log, stderr=log)
            server = Server(process, place, ports, protocol, tls)
            stack.callback(server.kill)

            def listens() -> bool:
                assert process.poll() is None, (parent / f"{folder}.log").read_text()
                with contextlib.suppress(OSError):
                    for port in ports.values():
                        socket.create_connection(("127.0.0.1", port), 1).close()
                    return True
                return False

            wait_for(listens)
            return server

        yield begin


def clean_clone(repository: Path, built: Path, folder: Path) -> Space:
    """A clean clone: other folder, other home, an empty disk cache next to Go's own caches."""
    root, cache = folder / "workspace", folder / "cache"
    for name in ("targets", "cache", "home"):
        (folder / name).mkdir(parents=True)
    for part in ("go", "toolchains"):
        (cache / part).symlink_to(built / part)
    (root / "targets").mkdir(parents=True)
    (root / "targets/tools").symlink_to(repository / "targets/tools")
    (root / "plugins").symlink_to(repository / "plugins")
    space = Space(root, cache, environment={"HOME": str(folder / "home")})
    space.write("WORKSPACE.py", (repository / "WORKSPACE.py").read_text())
    text = (repository / "targets/BUILD.py").read_text()
    space.write("targets/BUILD.py", text[: text.index("test_matrix(\n")])
    space.write("images/BUILD.py", "from bkrules import image\n" + IMAGES.format(size=NOISE))
    return space


def build(space: Space, server: str, *words: str, target: str = "//images:third") -> subprocess.CompletedProcess[str]:
    """Build with a remote cache."""
    done = space.bk("build", target, f"--remote_cache={server}", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def warnings(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in (done.stdout + done.stderr).splitlines() if "warning" in line]


def shown(space: Space, target: str = "images/third") -> dict[str, bytes]:
    """The outputs of a target, as a user finds them."""
    folder = space.root / "bk-out" / target
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
