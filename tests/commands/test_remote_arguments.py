"""The options of a remote cache that cannot be met."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from spaces import Space

WITHOUT = """
import sys
sys.modules["grpc"] = None
from bkrules.__main__ import main
sys.exit(main())
"""
WITH_HTTP = """
import sys
from bkrules.__main__ import main
code = main()
assert "bkrules.cache.remote" in sys.modules
assert not [name for name in sys.modules if name.startswith(("grpc", "bkrules.cache.grpc"))]
sys.exit(code)
"""


def bk(space: Space, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    space.write("WORKSPACE.py", 'from bkrules import workspace\nworkspace(name = "w")\n')
    space.write("app/BUILD.py", 'from bkrules import image\nimage(name = "app")\n')
    command = [sys.executable, "-I", "-c", script, "--nohome_rc", "build", "//app:all", *words]
    command += ["--disk_cache", str(space.cache)]
    return subprocess.run(command, cwd=space.root, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("scheme", ["grpc", "grpcs"])
def test_without_the_extra_the_command_to_install_it_is_named(space: Space, scheme: str) -> None:
    done = bk(space, WITHOUT, f"--remote_cache={scheme}://me:s3cr3t@cache.example.com")

    assert done.returncode == 36
    assert f"error: --remote_cache={scheme}://cache.example.com needs grpcio, which is not installed" in done.stderr
    assert "pip install 'bkrules[remote]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert "s3cr3t" not in done.stderr


def test_the_option_that_needs_the_extra_is_named(space: Space) -> None:
    done = bk(space, WITHOUT, "--remote_executor=grpc://engine.example.com", "--remote_header=x-team=builds")

    assert done.returncode == 36
    assert "error: --remote_executor=grpc://engine.example.com needs grpcio" in done.stderr


def test_a_cache_of_http_needs_no_extra_and_imports_none(space: Space) -> None:
    for script in (WITHOUT, WITH_HTTP):
        done = bk(space, script, "--remote_cache=http://127.0.0.1:1")
        assert done.returncode == 0, done.stderr


def test_bad_options_are_usage_errors(space: Space, tmp_path: Path) -> None:
    url, secure = "--remote_cache=grpc://127.0.0.1:1", "--remote_cache=grpcs://127.0.0.1:1"
    file = tmp_path / "some.pem"
    file.write_text("")
    for words, said in [
        (["--remote_cache=grpc://127.0.0.1:1/name"], "--remote_instance_name"),
        (["--remote_cache=http://127.0.0.1:1", "--remote_instance_name=a"], "the path of --remote_cache"),
        (["--remote_executor=127.0.0.1:1"], "--remote_executor must be grpc://HOST:PORT"),
        ([url, "--remote_instance_name=a\nb"], "printable ASCII"),
        ([url, f"--remote_instance_name={'a' * 256}"], "at most 255 bytes"),
        ([url, "--remote_header=grpc-timeout=1S"], "'grpc-timeout' cannot be the name of a header of gRPC"),
        ([url, "--remote_header=x-bin=a"], "'x-bin' cannot be the name"),
        ([url, "--remote_header=a=b\tc"], "has a tab"),
        ([url, "--remote_header=a*b=a"], "'a*b' cannot be the name"),
        ([secure, f"--tls_client_key={file}"], "belong together"),
        ([secure, f"--tls_client_certificate={file}"], "belong together"),
        ([secure, "--tls_client_certificate=none.pem", f"--tls_client_key={file}"], "file not found"),
        ([secure, "--tls_client_key=none.pem", f"--tls_client_certificate={file}"], "file not found"),
    ]:
        done = bk(space, "import sys; from bkrules.__main__ import main; sys.exit(main())", *words)
        assert done.returncode == 2, (words, done.stderr)
        assert said in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["push"], "needs targets and --remote_cache"),
        (["push", "//..."], "needs targets and --remote_cache"),
        (["push", "--remote_cache=http://127.0.0.1:1"], "needs targets and --remote_cache"),
        (["push", "//...", "--remote_cache=http://127.0.0.1:1", "--remote_upload_local_results=no"], "forbids that"),
        (["stats", "//..."], "bk cache stats takes no targets"),
    ],
)
def test_push_needs_targets_and_a_remote_cache(space: Space, words: list[str], said: str) -> None:
    space.write("WORKSPACE.py", 'from bkrules import workspace\nworkspace(name = "w")\n')
    done = space.bk("cache", *words, "--disk_cache", str(space.cache))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
