"""The package //targets/tools/debian: Debian packages for cells whose tests run git, a shell, ssh or gpg. By name only."""

from bkrules import debian_package, load

load(":packages.py", "PACKAGES")

[
    debian_package(
        name = package,
        version = version,
        sha256 = {"linux-x86_64": sha256},
        files = [folder + "/" + name for folder, names in files.items() for name in names.split()],
        tags = ["manual"],
    )
    for package, (version, sha256, files) in PACKAGES.items()
]
