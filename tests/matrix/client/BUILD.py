"""The package //tests/matrix/client: behaviours of BuildKit as a client sees them, each on every worker."""

from bkrules import glob, test_matrix

test_matrix(
    name = "client_matrix",
    tests = glob(["test_*.py"]),
    workers = [
        "//targets:oci",
        "//targets:oci_stargz",
        "//targets:containerd",
        "//targets:containerd_stargz",
        "//targets:rootless",
    ],
    mirror = "//targets:mirror",
)
