"""Macros for the workers and images of this module."""

from bkrules import image, installed_workers

WORKERS = {
    "oci": "oci",
    "oci_stargz": "oci",
    "containerd": "containerd",
    "containerd_stargz": "containerd+stargz",
    "rootless": "rootless",
    "dockerd": "dockerd",
}

APPLETS = ["cat", "chmod", "cp", "echo", "false", "find", "ls", "mkdir", "mv", "rm", "sh", "shasum", "sleep", "tar"]


def standard_workers():
    """Return the workers of bk's own plugins, as far as these are installed."""
    installed = installed_workers()
    return ["@bk_tools//workers:" + name for name, plugin in WORKERS.items() if plugin in installed]


def box_image(name, files={}, noise={}):
    """Declare an image with a small busybox. `noise` are the sizes of further files, which do not compress."""
    image(
        name=name,
        files={"bin/box": "@bk_tools//:box", **files},
        symlinks={"bin/" + applet: "box" for applet in APPLETS},
        noise=noise,
        cmd=["/bin/sh"],
        env=["PATH=/bin"],
    )
