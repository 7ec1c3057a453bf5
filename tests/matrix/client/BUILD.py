"""The package //tests/matrix/client: behaviours of BuildKit as a client sees them, each on every worker."""

from bkrules import glob, test_matrix

# Those of BuildKit's own harness, but for dockerd.
WORKERS = [
    "//targets:oci",
    "//targets:oci_stargz",
    "//targets:containerd",
    "//targets:containerd_stargz",
    "//targets:containerd_rootless",
    "//targets:rootless",
    "//targets:rootless_gvisor",
]

test_matrix(
    name = "client_matrix",
    tests = glob(["test_*.py"], exclude = ["test_gha.py", "test_lazy.py", "test_s3.py"]),
    workers = [*WORKERS, "//targets:dockerd", "//targets:dockerd_graphdriver"],
    mirror = "//targets:mirror",
)

# Build caches in a bucket, and in the service of GitHub Actions. Apart from the others, which need not wait until these
# servers are compiled.
test_matrix(
    name = "s3_matrix",
    tests = ["test_s3.py"],
    workers = WORKERS,
    mirror = "//targets:mirror",
    tools = ["//targets/tools/versitygw:versitygw"],
)

test_matrix(
    name = "gha_matrix",
    tests = ["test_gha.py"],
    workers = [*WORKERS, "//targets:dockerd"],
    mirror = "//targets:mirror",
    tools = ["//targets/tools/actions-cache:actions-cache"],
)

# Each way to pull lazily, and two workers that do not.
test_matrix(
    name = "lazy_matrix",
    tests = ["test_lazy.py"],
    workers = [
        "//targets:oci",
        "//targets:oci_stargz",
        "//targets:oci_stargz_proxy",
        "//targets:containerd",
        "//targets:containerd_stargz",
        "//targets:rootless_stargz",
    ],
    mirror = "//targets:mirror",
    axes = {"compression": {"gzip": "latest", "estargz": "esgz"}},
    # these make their own images, of both kinds
    exclude = [
        {"test": "test_the_tree_*", "compression": "gzip"},
        {"test": "test_layers_made_*", "compression": "gzip"},
        {"test": "test_another_table_*", "compression": "gzip"},
    ],
)
