"""An S3 server for a backend, in the same cell: versitygw, on a folder of the cell."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bkrules.testing.started import running

TOOL = "versitygw"


@dataclass(frozen=True)
class S3Server:
    """A server at `address` with one empty bucket, and the keys for it."""

    address: str
    folder: Path
    bucket: str = "cache"
    region: str = "us-east-1"
    access_key_id: str = "bk"
    secret_access_key: str = "a-secret-of-this-cell"

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"http://{self.address}"

    def cache(self, **more: str) -> str:
        """Return a cache in the bucket, for `--export-cache` and `--import-cache`; `more` adds or replaces attributes."""
        attributes = {
            "type": "s3",
            "endpoint_url": self.url,
            "use_path_style": "true",
            "bucket": self.bucket,
            "region": self.region,
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
            **more,
        }
        return ",".join(f"{name}={value}" for name, value in attributes.items())

    def objects(self) -> dict[str, Path]:
        """Return the objects of the bucket by their keys, as files that a test may read, change or delete.

        Folders that the server deletes meanwhile are passed over.
        """
        bucket = self.folder / self.bucket
        paths = sorted(Path(folder, name) for folder, _, names in os.walk(bucket) for name in names)
        return {str(path.relative_to(bucket)): path for path in paths if path.is_file()}


@contextmanager
def s3_server(log_folder: Path) -> Iterator[S3Server]:
    """Run an S3 server in this cell for as long as the context lasts; its log is in `log_folder`.

    Raises RuntimeError when the cell has no versitygw, and when it does not start.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    folder = Path(tempfile.mkdtemp(prefix="s3-"))
    served = S3Server(address, folder / "buckets")
    (served.folder / served.bucket).mkdir(parents=True)
    (folder / "metadata").mkdir()
    keys = ["--access", served.access_key_id, "--secret", served.secret_access_key, "--region", served.region]
    # Metadata goes to a separate folder: not every file system of a cell has extended attributes.
    backend = ["posix", "--sidecar", str(folder / "metadata"), str(served.folder)]
    log = log_folder / f"{TOOL}.log"
    with running([TOOL, "--port", address, *keys, *backend], log, lambda: _answers(address)):
        yield served


def _answers(address: str) -> bool:
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port))).close()
    except ConnectionRefusedError:
        return False
    return True
