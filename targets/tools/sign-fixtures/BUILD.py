"""The package //targets/tools/sign-fixtures: keys and signatures for BuildKit's tests of signatures. By name only."""

from bkrules import genrule, go_binary

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
