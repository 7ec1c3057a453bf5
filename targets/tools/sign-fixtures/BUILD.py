"""The package //targets/tools/sign-fixtures: keys and signatures for BuildKit's tests of signatures. By name only."""

from bkrules import debian_package, genrule, go_binary

[
    go_binary(name = name, mod = ":go.mod", srcs = ["main.go"], tags = ["manual"])
    for name in ["git-gpg-sign", "git-ssh-sign", "sign-fixtures"]
]

USERS = ["user1", "user2"]
KINDS = [
    "gpg.gitconfig",
    "gpg.key",
    "gpg.pub",
    "http.artifact",
    "http.artifact.asc",
    "ssh.gitconfig",
    "ssh.key",
    "ssh.pub",
]

genrule(
    name = "fixtures",
    outs = [user + "." + kind for user in USERS for kind in KINDS],
    cmd = ["$(location :sign-fixtures)", "out", *USERS],
    tools = [":sign-fixtures"],
    tags = ["manual"],
)

# gpg's agent loads it by libnpth.
debian_package(
    name = "libpthread",
    package = "libc6",
    version = "2.36-9+deb12u14",
    sha256 = {"linux-x86_64": "ba4f88f73dbc3ae9055f3c20f4523bfdbaf1ad13ff95e258924f77d20b4fbedf"},
    files = ["lib/x86_64-linux-gnu/libpthread.so.0"],
    tags = ["manual"],
)
