"""The package @bk_tools//images: a small busybox, as it is and as eStargz, and a mirror with both."""

from bkrules import estargz_image, image_mirror, load

load("//:macros.py", "box_image")

box_image(name = "busybox")

estargz_image(name = "busybox_esgz", image = ":busybox", worker = "//workers:oci")

image_mirror(
    name = "mirror",
    images = {
        "docker.io/library/busybox:latest": ":busybox",
        "docker.io/library/busybox:esgz": ":busybox_esgz",
    },
)
