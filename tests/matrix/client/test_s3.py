"""Build caches in an S3 bucket, as in BuildKit's testBasicS3CacheImportExport, on a real server in the cell."""

from __future__ import annotations

import pytest
from builder import BUSYBOX, UNIQUE, Builder, exported, imported

from bkrules.testing.s3 import S3Server
from bkrules.testing.sandbox import CommandFailed, Sandbox

pytestmark = pytest.mark.requires("cache_export", "cache_import", "cache_backend_s3")


def test_cache_by_a_bucket(build: Builder, s3_server: S3Server) -> None:
    before = exported(build, s3_server.cache())
    layers = [key for key in s3_server.objects() if key.startswith("blobs/sha256:")]
    assert len(layers) == 2
    assert [key for key in s3_server.objects() if key not in layers] == ["manifests/buildkit"]
    assert imported(build, s3_server.cache())[0] == before


def test_a_bucket_under_names_and_a_prefix(build: Builder, s3_server: S3Server) -> None:
    before = exported(build, s3_server.cache(prefix="team/", name="main;branch"))
    assert {key.partition("/")[0] for key in s3_server.objects()} == {"team"}
    for name in ("main", "branch"):
        assert imported(build, s3_server.cache(prefix="team/", name=name))[0] == before
    assert imported(build, s3_server.cache(prefix="team/", name="other"))[0] != before
    assert imported(build, s3_server.cache(name="main"))[0] != before


def test_what_a_bucket_has_is_not_sent_again(build: Builder, s3_server: S3Server) -> None:
    def kept() -> dict[str, int]:
        return {key: path.stat().st_ino for key, path in s3_server.objects().items() if key.startswith("blobs/")}

    dockerfile = f"{BUSYBOX}RUN echo the same > /file\n"
    build(dockerfile, f"--export-cache={s3_server.cache()},mode=max")
    first = kept()
    build(f"{dockerfile}RUN echo more > /more\n", f"--export-cache={s3_server.cache()},mode=max")
    assert len(kept()) == len(first) + 1
    assert kept().items() > first.items()


def test_a_layer_that_the_bucket_has_lost(build: Builder, s3_server: S3Server) -> None:
    """BuildKit does not run the step instead: the build that needs the layer fails."""
    exported(build, s3_server.cache())
    for key, path in s3_server.objects().items():
        if key.startswith("blobs/"):
            path.unlink()
    with pytest.raises(CommandFailed, match="NoSuchKey: The specified key does not exist"):
        imported(build, s3_server.cache())


def test_a_wrong_key(build: Builder, s3_server: S3Server) -> None:
    """A failed export fails the build; a failed import is reported and skipped."""
    before = exported(build, s3_server.cache())
    wrong = s3_server.cache(secret_access_key="another")
    after, said = imported(build, wrong)
    assert "api error SignatureDoesNotMatch" in said
    assert after != before
    kept = list(s3_server.objects())
    with pytest.raises(CommandFailed, match=r"(?s)exporting cache to Amazon S3.*StatusCode: 403"):
        build(f"{BUSYBOX}RUN echo new > /new\n", f"--export-cache={wrong},mode=max")
    assert list(s3_server.objects()) == kept


def test_a_bucket_that_is_not_there(build: Builder, sandbox: Sandbox, s3_server: S3Server) -> None:
    with pytest.raises(CommandFailed, match="api error NoSuchBucket"):
        build(BUSYBOX + UNIQUE, f"--export-cache={s3_server.cache(bucket='nowhere')}")
    assert "| PUT | /nowhere/blobs/" in sandbox.logs["versitygw"]
