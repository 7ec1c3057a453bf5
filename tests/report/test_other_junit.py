"""JUnit files of other tools as a page: gotestsum's, Surefire's, pytest's, and hostile ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from spaces import Space

from bkrules.errors import UsageError
from bkrules.report.other_junit import divided, page_of_junit

GO = """<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="3" failures="1">
  <testsuite name="github.com/moby/buildkit/client" tests="3">
    <testcase classname="client" name="TestIntegration/TestPull/worker=oci/frontend=gateway" time="1,001.5"/>
    <testcase classname="client" name="TestIntegration/TestPull/worker=containerd+stargz/frontend=gateway" time="2.5">
      <failure message="Failed" type="">pull_test.go:9: not &lt;lazy&gt;</failure>
    </testcase>
    <testcase classname="client" name="TestOther" time=""><skipped message="no FUSE"/></testcase>
  </testsuite>
</testsuites>
"""
SUREFIRE = """<testsuite name="S"><testcase name="a"><flakyFailure message="first"/><system-out>again</system-out></testcase>
<testcase name="b"><error type="NullPointer">at x
Authorization: Bearer abcdef</error><rerunFailure message="r"/></testcase></testsuite>
"""
BOMB = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<testsuite name="x"><testcase name="&b;"/></testsuite>
"""
OUTSIDE = (
    """<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><testsuite name="x"><testcase name="&f;"/></testsuite>"""
)


def test_names_of_buildkit_become_axes(tmp_path: Path) -> None:
    (tmp_path / "go.xml").write_text(GO)
    page, details = page_of_junit(str(tmp_path))
    assert [(cell["test"], cell["worker"], cell["axes"], cell["status"], cell["seconds"]) for cell in page.cells] == [
        ("client TestIntegration/TestPull", "oci", {"frontend": "gateway"}, "passed", 1001.5),
        ("client TestIntegration/TestPull", "containerd+stargz", {"frontend": "gateway"}, "failed", 2.5),
        ("client TestOther", "", {}, "skipped", None),
    ]
    assert details[1].logs == {"failure": "pull_test.go:9: not <lazy>"}
    assert [matrix["label"] for matrix in page.matrices] == ["github.com/moby/buildkit/client"]


def test_attempts_errors_and_output(tmp_path: Path) -> None:
    (tmp_path / "TEST-s.xml").write_text(SUREFIRE)
    page, details = page_of_junit(str(tmp_path))
    first, second = page.cells
    assert (first["status"], [one["status"] for one in first["attempts"]]) == ("flaky", ["failed", "flaky"])
    assert (second["status"], second["class"], second["reason"]) == ("failed", "infrastructure", "at x")
    assert details[0].logs == {"system-out": "again"} and "abcdef" not in details[1].logs["failure"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("TestX", ("TestX", "", {})),
        ("TestX/a/b=c/d", ("TestX/a", "", {"b": "c/d"})),
        ("x=1/y", ("x=1/y", "", {})),
        ("", ("", "", {})),
        ("T/worker=a/worker=b", ("T", "b", {})),
    ],
)
def test_any_name_can_be_divided(name: str, parts: object) -> None:
    assert divided(name) == parts


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (BOMB, "is refused"),
        (OUTSIDE, "is refused"),
        ('<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd"><testsuite/>', "is refused"),
        ("<html><testcase name='x'/></html>", "it begins with <html>"),
        ("<testsuite>" * 200, "deeper than 100"),
        ("<testsuite><testcase name='x'>", "no element found"),
        ("no xml", "syntax error"),
        ("", "no element found"),
        ("<?xml version='1.0' encoding='none'?><testsuite/>", "unknown encoding"),
        ("<testsuite name='a\0b'/>", "not well-formed"),
    ],
)
def test_a_hostile_or_broken_file_is_named(text: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "bad.xml").write_text(text)
    with pytest.raises(UsageError, match=fault) as raised:
        page_of_junit(str(tmp_path))
    assert "bad.xml" in raised.value.message


def test_a_case_without_a_name_can_be_opened(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<testsuite><testcase/></testsuite>")
    page, _ = page_of_junit(str(tmp_path))
    assert page.cells[0]["name"] == page.cells[0]["test"] == "(no name)"


def test_a_folder_without_files_is_named(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match="--junit"):
            page_of_junit(str(place))


def test_the_command_writes_the_page_next_to_the_files(space: Space) -> None:
    space.write("results/go.xml", GO)
    done = space.bk("report", "--junit", "results")
    assert (done.returncode, done.stdout) == (
        0,
        "results/report.html: results: 3 cells: 1 passed, 1 failed, 1 skipped\n",
    ), done.stderr
    assert space.bk("report", "--junit", "results", "//...").returncode == 2
    space.write("results/go.xml", "<testsuites/>")
    assert space.bk("report", "--junit", "results").returncode == 4
