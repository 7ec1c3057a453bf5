"""The package //targets: images, their mirror, the workers, and the matrices that cross tests with them."""

from bkrules import estargz_image, image, image_mirror, test_matrix, worker

APPLETS = ["cat", "chmod", "cp", "echo", "false", "find", "ls", "mkdir", "mv", "rm", "sh", "shasum", "sleep", "tar"]

def box_image(name, noise):
    image(
        name = name,
        files = {"bin/box": "//:box"},
        symlinks = {"bin/" + applet: "box" for applet in APPLETS},
        noise = noise,
        cmd = ["/bin/sh"],
        env = ["PATH=/bin"],
    )

def noise(numbers):
    return {f"data/{number:02}.bin": 1 << 20 for number in numbers}

box_image(name = "busybox", noise = {})

# Two layers of 6 MiB that do not compress, in files of which a build reads few: what lazy pulling is measured on.
box_image(name = "bulk_base", noise = noise(range(6)))
image(name = "bulk", base = ":bulk_base", noise = noise(range(6, 12)))

worker(name = "oci", plugin = "oci")
worker(name = "oci_stargz", plugin = "oci", snapshotter = "stargz")
worker(name = "oci_stargz_proxy", plugin = "oci", snapshotter = "stargz", proxy = True)
worker(name = "containerd", plugin = "containerd")
worker(name = "containerd_stargz", plugin = "containerd+stargz")
worker(name = "rootless", plugin = "rootless")

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

# The OCI worker with the snapshotter as a daemon of its own, as the first users of stargz under BuildKit ran it.
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
