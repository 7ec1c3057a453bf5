"""A client, a worker, and BuildGrid with its cache on three hosts, which trust each other by certificates alone."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import buildgrid
import hosts
import pytest
import schedulers
from hosts import SERVER, Host
from spaces import Space, check, wait_for

pytestmark = pytest.mark.soak
SCHEDULER, CACHE = f"grpcs://{SERVER}:50051", f"grpcs://{SERVER}:9092"
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"


@dataclass
class Hosts:
    """The hosts of the client and the worker, and the options by which they trust the first host, and it them."""

    client: Host
    worker: Host
    trust: list[str]
    identity: list[str]


@pytest.fixture
def cluster(
    bgd: Path, bazel_remote: Path, authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hosts]:
    """BuildGrid with TLS, and bazel-remote, which asks for certificates of clients, on the first of three hosts."""
    if reason := hosts.why_not():
        pytest.skip(reason)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "*")
    ca, key, certificate = (f"{authority}/{name}" for name in ("ca.pem", "server.key", "server.pem"))
    served = f"credentials: {{tls-server-key: {key}, tls-server-cert: {certificate}}}"
    asked = f"credentials: {{tls-client-key: {key}, tls-client-cert: {certificate}, tls-server-cert: {ca}}}"
    with ExitStack() as stack:
        first, client, worker = stack.enter_context(hosts.hosts(3))

        def begin(name: str, port: int, *words: str) -> None:
            log = tmp_path / f"{name}.log"
            with log.open("wb") as output:
                process = stack.enter_context(
                    subprocess.Popen([*first.prefix, *words], stdout=output, stderr=output, cwd=tmp_path)
                )
            stack.callback(process.kill)
            connect = [*client.prefix, sys.executable, "-I", "-c", CONNECT, SERVER, str(port)]

            def listens() -> bool:
                assert process.poll() is None, log.read_text()
                return not subprocess.run(connect, capture_output=True, check=False).returncode

            wait_for(listens)

        flags = (f"--tls_cert_file={certificate}", f"--tls_key_file={key}", f"--tls_ca_file={ca}")
        addresses = ("--grpc_address=:9092", "--http_address=:8080")
        begin("cache", 9092, str(bazel_remote), f"--dir={tmp_path}/data", "--max_size=1", *addresses, *flags)
        database = stack.enter_context(buildgrid.database(bgd))
        file = tmp_path / "buildgrid.yml"
        file.write_text(
            buildgrid.configuration(
                {
                    "postgresql+psycopg://buildgrid@db.example.com/buildgrid": buildgrid.url(database),
                    "insecure-mode: true": f"insecure-mode: false\n    {served}",
                    '"http://cache.example.com:9092", instance-name: ""': f'"https://{SERVER}:9092", instance-name: "", {asked}',
                    buildgrid.AUTHORIZATION: "",
                }
            )
        )
        begin("buildgrid", 50051, str(bgd), "server", "start", str(file))
        identity = [f"--tls_client_certificate={certificate}", f"--tls_client_key={key}"]
        yield Hosts(client, worker, [f"--tls_certificate={ca}"], identity)


def build(space: Space, found: Hosts, *words: str, scheduler: str = SCHEDULER) -> subprocess.CompletedProcess[str]:
    where = (f"--remote_executor={scheduler}", f"--remote_cache={CACHE}")
    return space.bk("build", "//:all", *where, *words, prefix=found.client.prefix)


def test_three_hosts(space: Space, cluster: Hosts, authority: Path, tmp_path: Path) -> None:
    schedulers.write(space, {"good": "echo good > $@"})
    usage = ("-addext", "basicConstraints=critical,CA:TRUE")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=stranger", *usage]
    subprocess.run([*made, "-keyout", "other.key", "-out", "other.pem"], cwd=authority, capture_output=True, check=True)
    other = [f"--tls_certificate={authority}/other.pem"]

    def begin(name: str, *words: str) -> schedulers.Worker:
        prefix = cluster.worker.prefix
        return stack.enter_context(schedulers.worker(tmp_path, words, SCHEDULER, CACHE, name=name, prefix=prefix))

    with ExitStack() as stack:
        stranger = begin("stranger", *other, *cluster.identity)
        assert stranger.process.wait(300) == 34, stranger.log.read_text()
        said = stranger.log.read_text()
        assert f"the worker stranger cannot use its remote cache {CACHE}: " in said, said
        assert "its certificate is not trusted" in said, said
        worker = begin("worker", *cluster.trust, *cluster.identity)
        wait_for(lambda: worker.says("session "))
        done = build(space, cluster, *cluster.trust, *cluster.identity)
        said = check(done.returncode, done.stdout + done.stderr)
        assert "1 action: 1 ran" in said, said
        assert (space.root / "bk-out/good/out").read_text() == "good\n"
        assert re.search(r"^[0-9a-f]{64}: [0-9.]+s$", worker.log.read_text(), re.MULTILINE), worker.log.read_text()

    schedulers.write(space, {"good": "echo better > $@"})

    def refused(*words: str, scheduler: str = SCHEDULER) -> str:
        done = build(space, cluster, *words, scheduler=scheduler)
        said = check(done.returncode, done.stdout + done.stderr, 34)
        assert "Traceback" not in said, said
        return said

    said = refused(*other, *cluster.identity)
    assert f"remote cache {CACHE}: " in said, said
    assert "its certificate is not trusted" in said, said
    elsewhere = SCHEDULER.replace(SERVER, "10.0.1.1")
    said = refused(*cluster.trust, *cluster.identity, scheduler=elsewhere)
    assert f"{elsewhere}: its certificate is for another name" in said, said
    said = refused(*cluster.trust)
    assert f"remote cache {CACHE}: " in said, said
    assert "status UNAUTHENTICATED: it requires other credentials" in said, said
