from __future__ import annotations

import pytest

from bkrules.model.reference import Reference, parse_reference


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("docker.io/library/busybox:latest", Reference("docker.io", "library/busybox", "latest")),
        ("127.0.0.1:5000/a:1", Reference("127.0.0.1:5000", "a", "1")),
        ("registry:5000/a/b/c:v1.2_3-rc", Reference("registry:5000", "a/b/c", "v1.2_3-rc")),
        ("localhost/a:latest", Reference("localhost", "a", "latest")),
        ("ghcr.io/a-b/c_d/e__f/g.h/i--j:_", Reference("ghcr.io", "a-b/c_d/e__f/g.h/i--j", "_")),
        ("ghcr.io/a:" + "t" * 128, Reference("ghcr.io", "a", "t" * 128)),
    ],
)
def test_a_full_reference_is_taken_apart_and_printed_as_it_was(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference
    assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "busybox", "busybox:latest", "library/busybox:latest", "docker.io/library/busybox", "docker.io/:latest"),
        *(
            "docker.io/library/busybox:",
            "docker.io/Library/busybox:latest",
            "docker.io/a//b:latest",
            "docker.io:latest",
        ),
        *("docker.io/a/:latest", "docker.io/-a:latest", "docker.io/a-:latest", "docker.io/a___b:latest"),
        *("docker.io/a:-x", "docker.io/a:x y", "docker.io/a:latest\n", " docker.io/a:latest", "docker.io/../a:latest"),
        *("https://docker.io/a:latest", "docker.io/a@sha256:00", "host:port/a:latest", "docker.io/a:" + "t" * 129),
    ],
)
def test_nothing_is_guessed(text: str) -> None:
    with pytest.raises(ValueError, match="is not a full reference"):
        parse_reference(text)


def test_references_sort_as_their_parts_do() -> None:
    texts = ["b.io/a:1", "a.io/b:1", "a.io/a:2", "a.io/a:1"]
    assert [str(one) for one in sorted(map(parse_reference, texts))] == sorted(texts)


def test_a_repository_is_only_so_long() -> None:
    assert parse_reference("a.example/" + "a" * 255 + ":1")
    with pytest.raises(ValueError, match="a repository of more than 255 characters"):
        parse_reference("a.example/" + "a/" * 3000 + "a:1")
