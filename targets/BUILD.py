"""The package //targets: images, their mirror, the workers, and the matrices that cross tests with them."""

from bkrules import estargz_image, image, image_mirror, load, test_matrix, worker

load("@bk_tools//:macros.py", "box_image")


def noise(numbers):
    return {f"data/{number:02}.bin": 1 << 20 for number in numbers}


box_image(name = "busybox")

# Two layers of 6 MiB that do not compress, in files of which a build reads few: what lazy pulling is measured on.
box_image(name = "bulk_base", noise = noise(range(6)))
image(name = "bulk", base = ":bulk_base", noise = noise(range(6, 12)))

worker(name = "oci", plugin = "oci")
worker(name = "oci_stargz", plugin = "oci", snapshotter = "stargz")
worker(name = "oci_stargz_proxy", plugin = "oci", snapshotter = "stargz", proxy = True)
worker(name = "containerd", plugin = "containerd")
worker(name = "containerd_stargz", plugin = "containerd+stargz")
worker(name = "rootless", plugin = "rootless")
worker(name = "dockerd", plugin = "dockerd")
worker(name = "dockerd_graphdriver", plugin = "dockerd", store = "graphdriver")
worker(name = "rootless_stargz", plugin = "rootless", snapshotter = "stargz")

# The same plugins with other settings, and with other releases of their tools.
worker(name = "oci_native", plugin = "oci", snapshotter = "native")
worker(name = "containerd_native", plugin = "containerd", snapshotter = "native")
worker(name = "rootless_native", plugin = "rootless", snapshotter = "native")
worker(name = "containerd_rootless", plugin = "rootless", containerd = True)
worker(
    name = "oci_buildkit_0_17",
    plugin = "oci",
    id = "oci-buildkit-0.17",
    tools = {"buildkitd": "//targets/tools/releases:buildkitd_v0.17.3"},
)
worker(
    name = "containerd_1_7",
    plugin = "containerd",
    id = "containerd-1.7",
    tools = {
        command: "//targets/tools/releases:" + command + "_v1.7.35"
        for command in ["containerd", "containerd-shim-runc-v2", "ctr"]
    },
)

worker(name = "rootless_gvisor", plugin = "rootless", net = "gvisor-tap-vsock", detach_netns = True)

# These need a command of the machine that cannot be pinned: fuse-overlayfs or slirp4netns.
worker(name = "oci_fuse_overlayfs", plugin = "oci", snapshotter = "fuse-overlayfs")
worker(name = "containerd_fuse_overlayfs", plugin = "containerd", snapshotter = "fuse-overlayfs")
worker(name = "rootless_fuse_overlayfs", plugin = "rootless", snapshotter = "fuse-overlayfs")
worker(name = "rootless_slirp4netns", plugin = "rootless", net = "slirp4netns", detach_netns = True)

estargz_image(name = "busybox_esgz", image = ":busybox")
estargz_image(name = "bulk_esgz", image = ":bulk")

image_mirror(
    name = "mirror",
    images = {
        "docker.io/library/busybox:latest": ":busybox",
        "docker.io/library/busybox:esgz": ":busybox_esgz",
        "docker.io/library/bulk:latest": ":bulk",
        "docker.io/library/bulk:esgz": ":bulk_esgz",
    },
)

COMPRESSION = {"gzip": "latest", "estargz": "esgz"}

test_matrix(
    name = "stargz_matrix",
    tests = ["//tests/matrix:test_stargz.py"],
    workers = [":oci", ":oci_stargz", ":containerd", ":containerd_stargz", ":rootless"],
    mirror = ":mirror",
    axes = {"compression": COMPRESSION},
)

# The OCI worker with the snapshotter as a separate daemon, as the first users of stargz under BuildKit ran it.
test_matrix(
    name = "stargz_proxy_matrix",
    tests = ["//tests/matrix:test_stargz.py"],
    workers = [":oci_stargz_proxy"],
    mirror = ":mirror",
    axes = {"compression": COMPRESSION},
)

# What a test is promised of its sandbox, on every worker.
test_matrix(
    name = "sandbox_matrix",
    tests = ["//tests/matrix:test_backend.py", "//tests/matrix:test_sandbox.py"],
    workers = [":oci", ":oci_stargz", ":containerd", ":containerd_stargz", ":rootless"],
    mirror = ":mirror",
)

OTHER = ["//tests/matrix:test_stargz.py", "//tests/matrix:test_sandbox.py", "//tests/matrix:test_workers.py"]

# What the workers above do, on the same plugins with other settings and other releases.
test_matrix(
    name = "worker_matrix",
    tests = OTHER,
    workers = [
        ":oci_native",
        ":oci_buildkit_0_17",
        ":containerd_native",
        ":containerd_1_7",
        ":containerd_rootless",
        ":rootless_native",
    ],
    mirror = ":mirror",
    axes = {"compression": {"gzip": "latest"}},
)

DETACHED = [*OTHER, "//tests/matrix:test_detached.py"]

# A network of rootlesskit, in addition to the cell's.
test_matrix(
    name = "detached_matrix",
    tests = DETACHED,
    workers = [":rootless_gvisor"],
    mirror = ":mirror",
    axes = {"compression": {"gzip": "latest"}},
)

# By name only: a machine without one of these commands would end `bk test //...` with 36.
test_matrix(
    name = "fuse_overlayfs_matrix",
    tests = OTHER,
    workers = [":oci_fuse_overlayfs", ":containerd_fuse_overlayfs", ":rootless_fuse_overlayfs"],
    mirror = ":mirror",
    axes = {"compression": {"gzip": "latest"}},
    tags = ["manual"],
)

test_matrix(
    name = "slirp4netns_matrix",
    tests = DETACHED,
    workers = [":rootless_slirp4netns"],
    mirror = ":mirror",
    axes = {"compression": {"gzip": "latest"}},
    tags = ["manual"],
)


def release(tools, version):
    return {"tools": {tool: "//targets/tools/releases:" + tool + "_" + version for tool in tools}}


# Every release of each tool with every one of the others. By name only: the older ones take minutes to build.
test_matrix(
    name = "release_matrix",
    tests = ["//tests/matrix:test_releases.py"],
    workers = [":containerd"],
    mirror = ":mirror",
    axes = {
        "buildkitd": {
            "0.17": release(["buildkitd"], "v0.17.3"),
            "0.33": release(["buildkitd"], "v0.33.1"),
            "0.34": "",
        },
        "containerd": {"1.7": release(["containerd", "containerd-shim-runc-v2", "ctr"], "v1.7.35"), "2.4": ""},
        "runc": {"1.4": release(["runc"], "v1.4.4"), "1.5": ""},
    },
    tags = ["manual"],
)
