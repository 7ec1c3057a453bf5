"""`bk fmt`: one way to write a build file, which never changes what the file means."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest
from one_cell import BUILD, Cells

from bkrules import cli
from bkrules.errors import LoadError, MachineLacks
from bkrules.style import build_files
from bkrules.style.build_files import LINE, formatted

UGLY = b"""# About the file.
from bkrules import test_matrix,worker   # what it uses
worker( tags=['manual', 'exclusive'], plugin = 'oci', proxy=True, name="oci" )
def matrices( name,timeout = 60 , *, data=() ) :
  '''Declare
     matrices.   '''
  test_matrix(
    # Its workers are few.
    workers=[':oci'],
    timeout = timeout,   # seconds
    data = ['//b:z.txt', 'b.txt', ':a', '@m//c:d', "a.txt"],
    tools = [
       '//:two',  # the second
       '//:one',
    ],

    # The tests.
    # All of them.
    tests = ['b.py','a.py'], mirror='//targets:mirror',
    name=f"{name}_matrix",
    **{}
    # the end
  )
matrices(name='x',data=['b', 'a'])
"""
PRETTY = b'''# About the file.
from bkrules import test_matrix, worker  # what it uses

worker(name = "oci", plugin = "oci", proxy = True, tags = ["exclusive", "manual"])


def matrices(name, timeout = 60, *, data = ()):
    """Declare
    matrices."""
    test_matrix(
        name = f"{name}_matrix",
        # The tests.
        # All of them.
        tests = ["b.py", "a.py"],
        # Its workers are few.
        workers = [":oci"],
        mirror = "//targets:mirror",
        data = ["a.txt", "b.txt", ":a", "//b:z.txt", "@m//c:d"],
        tools = [
            "//:two",  # the second
            "//:one",
        ],
        timeout = timeout,  # seconds
        **{},
        # the end
    )


matrices(name = "x", data = ["b", "a"])
'''


def test_the_one_way() -> None:
    """Attributes in the order of their rule, and labels sorted where a list is a set, unless a comment is about its order."""
    assert formatted(UGLY, "p/BUILD.py").decode() == PRETTY.decode()
    assert formatted(PRETTY, "p/BUILD.py") == PRETTY
    assert formatted(b"\xef\xbb\xbf" + UGLY.replace(b"\n", b"\r\n"), "p/BUILD.py") == PRETTY


@pytest.mark.parametrize("end", [LINE, LINE + 1])
def test_the_spaces_count_for_the_length_of_a_line(end: int) -> None:
    """A comprehension has no comma at its end by which it would stay in several lines."""
    start, last = '[worker(name = name, plugin = "oci", tags = ["manual"]) for name in ["', '"]]'
    line = f"{start}{'x' * (end - len(start + last))}{last}\n"

    text = formatted(line.encode(), "BUILD.py").decode()

    assert (text == line) == (end == LINE)
    assert max(map(len, text.splitlines())) <= LINE
    assert formatted(text.encode(), "BUILD.py").decode() == text


def test_files_of_this_repository(repository: Path) -> None:
    for name in ("WORKSPACE.py", "targets/BUILD.py", "targets/images/BUILD.py", "tests/matrix/BUILD.py"):
        once = formatted((repository / name).read_bytes(), name)
        assert formatted(once, name) == once
        assert max(map(len, once.decode().splitlines())) <= 132


def test_it_stays_as_it_is_when_its_meaning_would_change(monkeypatch: pytest.MonkeyPatch) -> None:
    for broken in (b"x = 2\n", b"x = 1\n"):
        monkeypatch.setattr(build_files, "_laid_out", lambda _data, _file, broken=broken: broken)
        with pytest.raises(Exception, match="cannot keep its meaning or its comments"):
            formatted(b"x = 1  # one\n", "p/BUILD.py")


def test_the_key_of_a_cell_is_the_same(cells: Cells) -> None:
    text = BUILD.replace("SETTINGS", "").replace("VALUE", "'1'").replace("    timeout = 60,\n", "")
    cells.write("p/BUILD.py", text.replace("test_matrix(\n", "test_matrix(timeout=60,data=['far.py','conftest.py'],"))
    before = cells.key()
    data = (cells.root / "p/BUILD.py").read_bytes()
    after = formatted(data, "p/BUILD.py")
    assert after.index(b'data = ["conftest.py", "far.py"]') < after.index(b"timeout = 60")
    (cells.root / "p/BUILD.py").write_bytes(after)
    assert cells.key() == before


def bk(*words: str) -> int:
    return cli.main(["--norc", "fmt", *words])


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for name, data in (("WORKSPACE.py", b"x=1\n"), ("p/BUILD.py", b"x = 1\n"), ("q/BUILD.py", b"x = (\n")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "macros.py").write_bytes(b"y=2\n")
    (tmp_path / "WORKSPACE.py").chmod(0o640)
    (tmp_path / "link.py").symlink_to("macros.py")

    assert bk("--check", "WORKSPACE.py", "p") == 1
    assert capsys.readouterr().out == "would change WORKSPACE.py\n"
    assert (tmp_path / "WORKSPACE.py").read_bytes() == b"x=1\n"

    assert bk() == 1
    said = capsys.readouterr()
    assert said.out == "changed WORKSPACE.py\n"
    assert said.err.startswith("error: q/BUILD.py: ")
    assert "q/BUILD.py:1" in said.err
    assert (tmp_path / "q/BUILD.py").read_bytes() == b"x = (\n"
    assert (tmp_path / "WORKSPACE.py").read_bytes() == b"x = 1\n"
    assert stat.S_IMODE(os.stat(tmp_path / "WORKSPACE.py").st_mode) == 0o640
    assert bk("--check", "WORKSPACE.py", "p") == 0

    assert bk("link.py") == 0
    assert (tmp_path / "link.py").is_symlink()
    assert (tmp_path / "macros.py").read_bytes() == b"y = 2\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["WORKSPACE.py", "link.py", "macros.py", "p", "q"]
    capsys.readouterr()

    assert (bk("missing.py"), bk("-", "p")) == (2, 2)
    assert "missing.py is no file and no folder" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"worker(plugin='oci',name='a')\n")))
    assert bk("-") == 0
    assert capsys.readouterr().out == 'worker(name = "a", plugin = "oci")\n'


def test_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LoadError) as found:
        formatted(b"worker(\n", "p/BUILD.py")
    assert (found.value.reason, found.value.where[:12]) == ("syntax-error", "p/BUILD.py:1")
    with pytest.raises(LoadError, match="UTF-8"):
        formatted(b"x = '\xff'\n", "p/BUILD.py")
    monkeypatch.setattr(build_files, "find_spec", lambda _name: None)
    with pytest.raises(MachineLacks) as lack:
        formatted(b"x = 1\n", "p/BUILD.py")
    assert "pip install 'bkrules[fmt]'" in lack.value.hint
