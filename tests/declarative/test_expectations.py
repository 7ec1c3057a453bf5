"""What expectations may be, and which of them a build does not meet."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from bkrules.declarative.expectations import SECTIONS, BadExpectation, contents, parse, problems
from bkrules.declarative.seen import Entry, Seen, Step, read_seen

TEXT = hashlib.sha256(b"hello\n").hexdigest()
SEEN = Seen(
    rootfs={
        "/": Entry("directory", "0755", "0:0"),
        "/hello.txt": Entry("file", "0644", "0:0", 6, TEXT),
        "/run.sh": Entry("file", "0755", "1000:100", 3, "0" * 64),
        "/link": Entry("symlink", "0777", "0:0", link="hello.txt"),
    },
    contents={"/hello.txt": "hello\n"},
    config={
        "architecture": "amd64",
        "config": {"Env": ["PATH=/bin", "A=b=c"], "Labels": {"one": "1"}, "Entrypoint": ["/run.sh"], "User": "1000"},
    },
    layers=("sha256:1",),
    digest="sha256:" + "a" * 64,
    steps=(Step("COPY app /app", True), Step("RUN make", False)),
)
FAILED = Seen(failure="error: failed to solve: exit code: 3")
TRUE = {
    "files": {"/hello.txt": "hello\n", "/run.sh": True, "/link": True, "/none": False},
    "modes": {"/run.sh": "755", "/": "0755"},
    "owners": {"/run.sh": "1000:100"},
    "env": {"A": "b=c", "HOME": False},
    "labels": {"one": "1", "two": False},
    "entrypoint": ["/run.sh"],
    "cmd": [],
    "user": "1000",
    "workdir": "/",
    "digest": SEEN.digest,
    "cached": ["COPY app"],
}


def test_what_holds_is_no_problem_and_every_section_is_tried() -> None:
    assert problems(parse(TRUE), SEEN) == []
    assert {*TRUE, "fails_with"} == {*SECTIONS}


@pytest.mark.parametrize(
    ("expect", "problem"),
    [
        ({"files": {"/hello.txt": "hullo\n"}}, "/hello.txt: has 'hello\\n', but must have 'hullo\\n'"),
        ({"files": {"/run.sh": "x"}}, f"/run.sh: has 3 bytes with sha256 {'0' * 64}, but must have 'x'"),
        (
            {"files": {"/hello.txt": {"sha256": "1" * 64}}},
            "/hello.txt: has 'hello\\n', but must have {'sha256': '" + "1" * 64 + "'}",
        ),
        ({"files": {"/helo.txt": True}}, "/helo.txt: does not exist, but /hello.txt does"),
        ({"files": {"/hello.txt": False}}, "/hello.txt: exists (file), but must not"),
        ({"files": {"/link": "hello\n"}}, "/link: is a symlink, but must be a file"),
        ({"modes": {"/run.sh": "0644"}}, "/run.sh: has the mode 0755, but must have 0644"),
        ({"modes": {"/zzz": "0644"}}, "/zzz: does not exist"),
        ({"owners": {"/run.sh": "0:0"}}, "/run.sh: has the owner 1000:100, but must have 0:0"),
        ({"env": {"A": "b"}}, "variable A: is 'b=c', but must be 'b'"),
        (
            {"env": {"PATHS": "b"}},
            "variable PATHS: is not set, but must be 'b'; did you mean 'PATH'? variables: A, PATH",
        ),
        ({"env": {"A": False}}, "variable A: is 'b=c', but must not be set"),
        ({"labels": {"one": "2"}}, "label one: is '1', but must be '2'"),
        ({"entrypoint": []}, "entrypoint: is ['/run.sh'], but must be []"),
        ({"user": "root"}, "user: is '1000', but must be 'root'"),
        ({"workdir": "/app"}, "workdir: is '/', but must be '/app'"),
        ({"digest": "sha256:" + "b" * 64}, f"digest: is {SEEN.digest}, but must be sha256:{'b' * 64}"),
        ({"cached": True}, "cached: the second build ran 'RUN make' again"),
        ({"cached": ["RUN make"]}, "cached: the second build ran 'RUN make' again"),
        ({"cached": ["RUN mke"]}, "cached: no step has 'RUN mke'; the steps: COPY app /app; RUN make"),
        ({"fails_with": "no"}, "the build passed, but must fail with 'no'"),
    ],
)
def test_each_problem_has_both_values(expect: dict[str, object], problem: str) -> None:
    assert problems(parse(expect), SEEN) == [problem]


def test_a_build_that_fails() -> None:
    output = "#5 RUN exit 3\nerror: failed to solve: exit code: 3\n"
    assert problems(parse({"fails_with": r"exit code: \d"}), FAILED, output) == []
    assert problems(parse({"fails_with": "4$"}), FAILED, output) == [
        "the build failed, but its output does not match '4$': error: failed to solve: exit code: 3"
    ]
    assert problems(parse({"user": ""}), FAILED, output) == ["the build failed: error: failed to solve: exit code: 3"]


def test_a_worker_without_an_image_says_so_for_what_only_an_image_has() -> None:
    files = replace(SEEN, config={}, layers=(), digest="", unknown="unknown, since it cannot export an OCI image")
    assert problems(parse({"files": {"/hello.txt": "hello\n"}}), files) == []
    for section in ("env", "labels", "entrypoint", "cmd", "user", "workdir", "digest"):
        assert problems(parse({section: TRUE[section]}), files)[0].endswith("it cannot export an OCI image")


def test_a_dockerfile_without_steps_has_none_in_the_cache() -> None:
    assert problems(parse({"cached": True}), replace(SEEN, steps=())) == ["cached: the Dockerfile has no step but FROM"]


BAD: list[tuple[object, str]] = [
    ([], "must be a dictionary, but was []"),
    ({"file": {}}, "there is no expectation 'file'"),
    ({"files": ["/a"]}, "'files' must be a dictionary"),
    ({"files": {"a": True}}, "'a' in 'files' is no path of an image"),
    ({"files": {"/a/../b": True}}, "'/a/../b' in 'files' is no path of an image"),
    ({"files": {"/a/": True}}, "'/a/' in 'files' is no path of an image"),
    ({"files": {"/a": 3}}, "'/a' in 'files' must be its text"),
    ({"files": {"/a": {"sha1": "x"}}}, "'/a' in 'files' must be its text"),
    ({"files": {"/a": {"sha256": "x"}}}, "the sha256 of '/a' must have 64"),
    ({"files": {"/a": {"sha256": None}}}, "'/a' in 'files' has no value yet"),
    ({"files": {"/a": None}}, "'/a' in 'files' has no value yet"),
    ({"modes": {"/a": 0o755}}, "the mode of '/a' must have octal digits"),
    ({"modes": {"/a": "0888"}}, "the mode of '/a' must have octal digits"),
    ({"owners": {"/a": "root:root"}}, "the owner of '/a' must be 'UID:GID'"),
    ({"env": {"A": 1}}, "'A' in 'env' must be a string"),
    ({"env": {"A": True}}, "'A' in 'env' must be a string"),
    ({"labels": {1: "a"}}, "'labels' must be a dictionary with strings"),
    ({"entrypoint": "/bin/sh"}, "'entrypoint' must be a list of strings"),
    ({"cmd": [1]}, "'cmd' must be a list of strings"),
    ({"user": 0}, "'user' must be a string"),
    ({"digest": "a" * 64}, "'digest' must be 'sha256:'"),
    ({"digest": None}, "'digest' has no value yet"),
    ({"cached": False}, "'cached' must be True"),
    ({"cached": []}, "'cached' must be True"),
    ({"cached": [""]}, "'cached' must be True"),
    ({"fails_with": "("}, "'fails_with' is no regular expression"),
    ({"fails_with": ["a"]}, "'fails_with' must be a string"),
    ({"fails_with": "a", "user": ""}, "a build that fails has no 'user'"),
]


@pytest.mark.parametrize(("document", "message"), BAD)
def test_what_is_no_expectation(document: object, message: str) -> None:
    with pytest.raises(BadExpectation) as caught:
        parse(document)
    assert str(caught.value).startswith(message)


def test_values_may_be_missing_when_they_are_recorded() -> None:
    document = {"files": {"/a": None, "/b": {"sha256": None}, "/c": "text"}, "digest": None, "cached": None}
    assert parse(document, records=True) == document
    assert contents(document) == ["/a", "/c"]
    with pytest.raises(BadExpectation):
        parse({"files": {"/a": 3}}, records=True)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b'{"rootfs": {"/": {"kind": "file"}}}', b'{"layers": [1]}', b'{"other": 1}', b"[" * 100_000, b"\xff"],
)
def test_a_document_that_is_no_result(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_seen(data)


def test_a_result_is_read_as_it_was_written() -> None:
    assert read_seen(SEEN.text.encode()) == SEEN
