"""The package @bk_tools//workers: the workers of bk's own plugins. A cell of one needs its plugin to be installed."""

from bkrules import worker

worker(name = "oci", plugin = "oci")
worker(name = "oci_stargz", plugin = "oci", snapshotter = "stargz")
worker(name = "containerd", plugin = "containerd")
worker(name = "containerd_stargz", plugin = "containerd+stargz")
worker(name = "rootless", plugin = "rootless")
worker(name = "dockerd", plugin = "dockerd")
