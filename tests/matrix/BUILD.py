"""The package //tests/matrix: tests that run in cells. It bounds which conftest.py they share."""

from bkrules import test_matrix

# What users of pytest expect of it, in cells.
test_matrix(
    name = "pytest_matrix",
    tests = ["test_pytest.py"],
    workers = ["//targets:oci", "//targets:rootless"],
    mirror = "//targets:mirror",
)

def labels(text):
    return {"worker": {kind: {"labels": {"changed-by": text}} for kind in ["oci", "containerd"]}}

# Axis values that change the worker, for each kind of change and on every worker.
test_matrix(
    name = "updates_matrix",
    tests = ["test_updates.py"],
    workers = ["//targets:" + name for name in ["oci", "oci_stargz", "containerd", "containerd_stargz", "rootless"]],
    mirror = "//targets:mirror",
    updaters = ["daemons.py"],
    axes = {
        "daemon": {
            "data": {"buildkitd.toml": labels("data"), "value": "DATA"},
            "text": {
                "buildkitd.toml": "[worker]\noci.labels.changed-by = 'text'\ncontainerd.labels.changed-by = 'text'\n",
                "value": "TEXT",
            },
            "flags": {
                "flags": {"buildkitd": [f"--{kind}-worker-labels=changed-by=flags" for kind in ["oci", "containerd"]]},
                "environment": {"buildkitd": {"CHANGED_BY": "flags"}},
                "value": "FLAGS",
            },
            "function": {"updater": "labelled", "value": "FUNCTION"},
        },
    },
)
