"""Attestations, reproducible images and entitlements: testExportAnnotations, testSourceDateEpoch*, testSecurityModeErrors."""

from __future__ import annotations

from typing import Any

import pytest
from builder import BUSYBOX, Builder, Layout

from bkrules.testing.sandbox import CommandFailed, Sandbox

EPOCH = 1_700_000_000


def statement(layout: Layout) -> dict[str, Any]:
    """The in-toto statement of an image."""
    index = layout.document(layout.index["manifests"][0]["digest"])
    (attestation,) = (
        one
        for one in index["manifests"]
        if one.get("annotations", {}).get("vnd.docker.reference.type") == "attestation-manifest"
    )
    (layer,) = layout.document(attestation["digest"])["layers"]
    document: dict[str, Any] = layout.document(layer["digest"])
    return document


@pytest.mark.requires("oci_exporter", "provenance")
def test_provenance_names_what_was_built_from_what(build: Builder, sandbox: Sandbox) -> None:
    layout = build.layout(f"{BUSYBOX}RUN echo hello > /hello.txt\n", "--opt=attest:provenance=mode=max")
    found = statement(layout)
    assert found["predicateType"].startswith("https://slsa.dev/provenance/")
    (base,) = found["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert base["uri"].startswith("pkg:docker/busybox@latest")
    asked = [one.path for one in sandbox.mirror_requests()]
    assert f"/v2/library/busybox/manifests/sha256:{base['digest']['sha256']}" in asked
    assert "echo hello > /hello.txt" in str(found["predicate"])


@pytest.mark.requires("oci_exporter", "provenance")
def test_no_provenance_when_it_is_not_wanted(build: Builder) -> None:
    layout = build.layout(BUSYBOX)
    assert "layers" in layout.document(layout.index["manifests"][0]["digest"])


@pytest.mark.requires("oci_exporter")
def test_the_same_image_at_any_time(build: Builder) -> None:
    dockerfile = f"{BUSYBOX}RUN echo hello > /hello.txt\n"
    options = (f"--opt=build-arg:SOURCE_DATE_EPOCH={EPOCH}", "--no-cache")
    first = build.layout(dockerfile, *options, attributes=",rewrite-timestamp=true")
    second = build.layout(dockerfile, *options, attributes=",rewrite-timestamp=true")
    assert first.manifest() == second.manifest()
    assert first.config()["created"] == "2023-11-14T22:13:20Z"
    with first.layer(-1) as tar:
        assert max(member.mtime for member in tar) <= EPOCH


@pytest.mark.requires("oci_exporter")
def test_annotations(build: Builder) -> None:
    layout = build.layout(BUSYBOX, attributes=",annotation.org.opencontainers.image.title=hello")
    assert layout.manifest()["annotations"]["org.opencontainers.image.title"] == "hello"


@pytest.mark.parametrize("step", ["--security=insecure", "--network=host"])
def test_what_needs_an_entitlement_is_refused_without_it(build: Builder, step: str) -> None:
    with pytest.raises(CommandFailed, match="is not allowed"):
        build(f"{BUSYBOX}RUN {step} true\n")


def test_an_entitlement_that_the_daemon_does_not_grant(build: Builder) -> None:
    with pytest.raises(CommandFailed, match="is not allowed"):
        build(f"{BUSYBOX}RUN --security=insecure true\n", "--allow=security.insecure")
