#!/usr/bin/python3 -I
"""`sudo -u '#UID' -i -- [exec] COMMAND...` in a cell: becomes the command, as that user and with nothing but a login's variables.

BuildKit's harness starts its rootless workers so. In the place of the login shell, which a cell has not, is this program.
"""

import os
import pwd
import sys


def main(words: list[str]) -> None:
    """Become the command. Raises KeyError for an unknown user, and OSError when the command cannot be run."""
    user = "#0"
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word == "--":
            break
        if word == "-u":
            user = words.pop(0)
        elif word != "-i":
            sys.exit(f"sudo: unknown option {word}")
    if words and words[0] == "exec":
        words.pop(0)
    entry = pwd.getpwuid(int(user[1:])) if user.startswith("#") else pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.chdir(entry.pw_dir)
    names = {"HOME": entry.pw_dir, "LOGNAME": entry.pw_name, "SHELL": entry.pw_shell, "USER": entry.pw_name}
    os.execvpe(words[0], words, {**names, "PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": f"/run/user/{entry.pw_uid}"})


if __name__ == "__main__":
    main(sys.argv[1:])
