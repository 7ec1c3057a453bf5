"""The package //tests/matrix: tests that run in cells. It bounds which conftest.py they share."""

from bkrules import image_mirror, test_matrix, worker

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
    updaters = ["daemons.py"],
)

# Other workers next to the one of the cell. A daemon that is no buildkitd does not start.
worker(name = "broken", plugin = "oci", id = "broken", tools = {"buildkitd": "//:buildctl"})

test_matrix(
    name = "extra_workers_matrix",
    tests = ["test_extra_workers.py"],
    workers = ["//targets:oci", "//targets:rootless"],
    extra_workers = [
        *["//targets:" + name for name in ["oci", "oci_buildkit_0_17", "containerd", "rootless"]],
        ":broken",
    ],
    mirror = "//targets:mirror",
    exclude = [{"worker": "rootless"}],
    include = [{"worker": "rootless", "test": "test_two_*"}, {"worker": "rootless", "test": "test_the_files_*"}],
)

# A registry that misbehaves, on an eager worker and on each way to pull lazily.
test_matrix(
    name = "faults_matrix",
    tests = ["test_registry_faults.py"],
    workers = [
        "//targets:" + name
        for name in ["oci", "oci_stargz", "oci_stargz_proxy", "containerd_stargz", "rootless_stargz"]
    ],
    mirror = "//targets:mirror",
    axes = {
        "mirror": {
            "well": None,
            "busy": {"mirror": {"status": 429, "retry_after": 1, "times": 2, "paths": "*/blobs/*", "later": True}},
            "slow": {"mirror": {"delay": 0.02, "bytes_per_second": 10 << 20, "later": True}},
            "cut": {"mirror": {"reset_after": 10000, "times": 2, "paths": "*/blobs/*", "later": True}},
            "gone": {"mirror": {"reset_after": 0, "later": True}},
        },
    },
    exclude = [{"test": "test_reads_*", "mirror": "slow"}],
    size = "small",
)

# The network of steps. What a worker without CNI lacks is skipped.
CNI = {
    "buildkit-cni-" + part: "//targets/tools/cni:buildkit-cni-" + part for part in ["bridge", "host-local", "loopback"]
}

[worker(name = plugin + "_cni", plugin = plugin, tools = CNI, network = "cni") for plugin in ["oci", "containerd"]]

test_matrix(
    name = "network_matrix",
    tests = ["test_network.py"],
    workers = ["//targets:oci", ":oci_cni", ":containerd_cni"],
    mirror = "//targets:mirror",
    axes = {"daemon": {"granted": {"buildkitd.toml": {"insecure-entitlements": ["network.host"]}}}},
)

# Docker's daemon, whose BuildKit is a worker too.
image_mirror(
    name = "dockerd_mirror",
    images = {
        "docker.io/library/busybox:latest": "//targets:busybox",
        "docker.io/library/bulk:latest": "//targets:bulk",
        "other.example/team/sample:1": "//targets:busybox",
    },
)

test_matrix(
    name = "dockerd_matrix",
    tests = ["test_dockerd.py", "test_sandbox.py", "test_stargz.py", "test_workers.py"],
    workers = ["//targets:dockerd", "//targets:dockerd_graphdriver"],
    mirror = ":dockerd_mirror",
    axes = {
        "compression": {"gzip": "latest"},
        "daemon": {
            "plain": "",
            "granted": {"buildkitd.toml": {"insecure-entitlements": ["network.host"]}},
            "forgetful": {"buildkitd.toml": {"history": {"maxEntries": 0}}},
        },
    },
    exclude = [{"daemon": "granted"}, {"daemon": "forgetful"}],
    include = [
        {"daemon": "granted", "test": "test_an_entitlement_*"},
        {"daemon": "forgetful", "test": "test_a_history_*"},
    ],
)
