"""Actions read from a CAS: whatever is not what bk would write is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from servers import CacheServer, cache_server

from bkrules.cache.cas import Cas
from bkrules.cache.file_digests import FileDigests
from bkrules.cache.remote import Remote
from bkrules.cache.remote_options import RemoteOptions
from bkrules.errors import RemoteFailed
from bkrules.execution.portable import Portable, Reader, send
from bkrules.model import digest, reapi
from bkrules.model.action import SALT, Action, DirectoryNode, FileNode, Node, key_of, merkle, to_message
from bkrules.model.digest import Digest
from bkrules.model.label import Label

ACTION = Action(
    id="//p:one Genrule",
    label=Label("p", "one"),
    mnemonic="Genrule",
    arguments=("tools/cat", "src/p/one.txt"),
    inputs=(),
    outputs=("one", "a/two"),
    environment=(("HOME", "/tmp"), ("PATH", "/work/tools")),
    platform=(("ISA", "x86-64"),),
    timeout=60,
    made_in="out",
)


class Shared:
    """A server, and machines that share it."""

    def __init__(self, server: CacheServer, folder: Path) -> None:
        self.server, self.folder = server, folder

    def machine(self, name: str) -> tuple[Cas, Remote]:
        """A machine with its own disk cache."""
        cas = Cas(str(self.folder / name), FileDigests(""))
        return cas, Remote(RemoteOptions(self.server.address), cas, lambda _fault: None)

    def put(self, data: bytes) -> Digest:
        """Store a blob on the server."""
        name = digest.of_bytes(data)
        self.server.held[f"/cas/{name.hash}"] = data
        return name

    def read(self, key: Digest) -> Portable:
        """Read an action on a machine that has nothing."""
        return Reader(*self.machine(f"reads-{len(list(self.folder.iterdir()))}")).read(key)

    def refused(self, key: Digest) -> RemoteFailed:
        """The error of an action that a machine refuses."""
        with pytest.raises(RemoteFailed) as error:
            self.read(key)
        return error.value


@pytest.fixture
def shared(tmp_path: Path) -> Any:
    with cache_server() as server:
        yield Shared(server, tmp_path)


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for path, text, executable in (("tools/cat", "a program", True), ("src/p/one.txt", "one", False)):
        (tmp_path / path.replace("/", "-")).write_text(text)
        place = str(tmp_path / path.replace("/", "-"))
        found[path] = FileNode(digest.of_file(place), place, executable)
    return found


def test_an_action_is_read_as_it_was_sent(shared: Shared, inputs: dict[str, Node]) -> None:
    sender, remote = shared.machine("sender")
    key = send(ACTION, inputs, sender, remote)
    assert key == key_of(ACTION, inputs).digest

    cas, other = shared.machine("other")
    reader = Reader(cas, other)
    found = reader.read(key)
    assert (found.arguments, found.environment, found.platform) == (
        ACTION.arguments,
        ACTION.environment,
        ACTION.platform,
    )
    assert sorted(found.outputs) == sorted(ACTION.outputs)
    assert (found.timeout, found.cached) == (60, True)
    assert merkle(found.inputs) == merkle(inputs)
    reader.fetch(found)
    assert Path(found.inputs["src/p/one.txt"].path).read_text() == "one"


def test_what_is_there_is_not_sent_again(shared: Shared, inputs: dict[str, Node]) -> None:
    sender, remote = shared.machine("sender")
    send(ACTION, inputs, sender, remote)
    before = shared.server.count("PUT")
    send(ACTION, inputs, sender, remote)
    assert shared.server.count("PUT") == before


def test_a_server_that_takes_nothing_is_an_error(shared: Shared, inputs: dict[str, Node]) -> None:
    shared.server.answer = lambda handler: handler.command == "PUT" and handler.reply(507)
    with pytest.raises(RemoteFailed, match=r"//p:one: cannot send the action: .*507") as raised:
        send(ACTION, inputs, *shared.machine("sender"))
    assert "is the address of --remote_cache right" in raised.value.hint


def test_every_absent_blob_is_an_error(shared: Shared, inputs: dict[str, Node]) -> None:
    key = send(ACTION, inputs, *shared.machine("sender"))
    assert len(shared.server.held) == 2 + 4 + 2  # the messages, the folders, the files
    for path, data in list(shared.server.held.items()):
        del shared.server.held[path]
        reader = Reader(*shared.machine(f"lacks-{path[5:]}"))
        with pytest.raises(RemoteFailed, match="it lacks this blob") as error:
            reader.fetch(reader.read(key))
        assert error.value.reason == "absent-blob"
        assert error.value.exit_code == 34
        shared.server.held[path] = data


def test_every_wrong_blob_is_an_error(shared: Shared, inputs: dict[str, Node]) -> None:
    key = send(ACTION, inputs, *shared.machine("sender"))
    for path, data in list(shared.server.held.items()):
        shared.server.held[path] = data[:-1] + bytes([data[-1] ^ 1])
        reader = Reader(*shared.machine(f"wrong-{path[5:]}"))
        with pytest.raises(RemoteFailed) as error:
            reader.fetch(reader.read(key))
        assert error.value.reason == "absent-blob"
        shared.server.held[path] = data


def command(**fields: Any) -> reapi.Message:
    return {"arguments": ["tools/cat"], "output_paths": ["out/one"], **fields}


def tree(shared: Shared, **fields: Any) -> Digest:
    """The digest of an input root with the file tools/cat."""
    file = {"name": "cat", "digest": to_message(shared.put(b"x")), "is_executable": True}
    tools = shared.put(reapi.encode("Directory", {"files": [file]}))
    root = {"directories": [{"name": "tools", "digest": to_message(tools)}], **fields}
    return shared.put(reapi.encode("Directory", root))


def action(shared: Shared, command: bytes, root: Digest, **fields: Any) -> Digest:
    message = {
        "command_digest": to_message(shared.put(command)),
        "input_root_digest": to_message(root),
        "salt": SALT,
        **fields,
    }
    return shared.put(reapi.encode("Action", message))


def test_the_smallest_action_is_read(shared: Shared) -> None:
    found = shared.read(action(shared, reapi.encode("Command", command()), tree(shared)))
    assert (found.outputs, list(found.inputs)) == (("one",), ["tools/cat"])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"arguments": []}, "its first argument is no file of its inputs"),
        ({"arguments": ["/bin/sh"]}, "its first argument is no file of its inputs"),
        ({"output_paths": []}, "an output is not below out/"),
        ({"output_paths": ["other/one"]}, "an output is not below out/"),
        ({"output_paths": ["out/../../etc/passwd"]}, "leads out of its folder"),
        ({"output_paths": ["out//etc/passwd"]}, "leads out of its folder"),
        ({"output_paths": ["out/"]}, "leads out of its folder"),
        ({"output_paths": ["out/a\0b"]}, "leads out of its folder"),
        ({"working_directory": "tools"}, "a working directory"),
        ({"platform": {}}, "a platform"),
    ],
)
def test_a_command_that_bk_does_not_run(shared: Shared, fields: dict[str, Any], said: str) -> None:
    key = action(shared, reapi.encode("Command", command(**fields)), tree(shared))
    error = shared.refused(key)
    assert error.reason == "not-portable"
    assert said in error.message


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"salt": b""}, "of another program, or of another version of bk"),
        ({"salt": b"bk/0"}, "of another program, or of another version of bk"),
        ({"timeout": {"seconds": 1, "nanos": 5}}, "its timeout"),
        ({"timeout": {"seconds": -1}}, "its timeout"),
        ({"input_root_digest": None}, "a digest is missing"),
    ],
)
def test_an_action_that_bk_does_not_run(shared: Shared, fields: dict[str, Any], said: str) -> None:
    error = shared.refused(action(shared, reapi.encode("Command", command()), tree(shared), **fields))
    assert error.reason == "not-portable"
    assert said in error.message


def test_a_field_that_bk_does_not_know_is_refused(shared: Shared) -> None:
    """A link in a folder, a property of a node, a field of the command of a later version."""
    whole = reapi.encode("Command", command())
    unknown = bytes([12 << 3 | 2, 1, 65])
    assert "no Command as bk writes it" in shared.refused(action(shared, whole + unknown, tree(shared))).message
    data = shared.server.held[f"/cas/{tree(shared).hash}"]
    for more in (bytes([3 << 3 | 2, 2, 10, 0]), unknown):
        root = shared.put(data + more)
        assert "is no Directory as bk writes it" in shared.refused(action(shared, whole, root)).message


def test_a_file_is_no_action(shared: Shared) -> None:
    assert shared.refused(shared.put(b"\xffhello")).reason == "not-portable"
    assert shared.refused(shared.put(b"")).reason == "not-portable"


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "a\0b"])
def test_a_folder_with_a_name_that_leads_elsewhere(shared: Shared, name: str) -> None:
    file = {"name": name, "digest": to_message(shared.put(b"x"))}
    key = action(shared, reapi.encode("Command", command()), tree(shared, files=[file]))
    error = shared.refused(key)
    assert "a name that leads out of its folder" in error.message


def test_few_messages_that_describe_many_files_are_refused(shared: Shared) -> None:
    """Each of 40 folders has the next one twice: 2 to the power of 40 folders."""
    inner = shared.put(reapi.encode("Directory", {}))
    for _ in range(40):
        both = [{"name": name, "digest": to_message(inner)} for name in "ab"]
        inner = shared.put(reapi.encode("Directory", {"directories": both}))
    key = action(shared, reapi.encode("Command", command()), inner)
    assert "too large" in shared.refused(key).message


def test_a_message_that_is_too_large_is_not_fetched(shared: Shared) -> None:
    error = shared.refused(Digest("0" * 64, 1 << 30))
    assert error.reason == "not-portable"
    assert shared.server.count("GET") == 0


def test_a_folder_of_another_action_is_sent_too(shared: Shared, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    file = FileNode(digest.of_file(tmp_path / "file"), str(tmp_path / "file"))
    nodes: dict[str, Node] = {"tools/cat": file, "src/folder": DirectoryNode({"a/b": file})}
    found = shared.read(send(ACTION, nodes, *shared.machine("sender")))
    assert sorted(found.inputs) == ["src/folder/a/b", "tools/cat"]
