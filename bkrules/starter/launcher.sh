#!/bin/sh
# Runs bk in this repository. The first run installs what bk-requirements.txt pins and the plugins of plugins/ into .bk, and says what
# it does.
set -eu

case $0 in
    */*) root=${0%/*} ;;
    *) root=. ;;
esac
env=$root/.bk/venv
pins=$root/bk-requirements.txt

# The environment has the time of the pins that it was made from; an older file is another one too. Plugins are older than it.
fresh() {
    [ -x "$env/bin/python" ] && [ "$env/root" -ef "$root" ] && [ -e "$env/made" ] || return 1
    [ ! "$env/made" -nt "$pins" ] && [ ! "$env/made" -ot "$pins" ] || return 1
    [ -e "$root/plugins" ] || [ ! -e "$env/plugins" ] || return 1
    for file in "$root/plugins" "$root"/plugins/*/pyproject.toml; do
        [ ! -e "$file" ] || [ "$env/plugins" -nt "$file" ] || return 1
    done
}

fail() {
    printf 'error: %s\n  %s\n' "$1" "$2" >&2
    exit 36
}

find_python() {
    for python in python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
        if "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            # A version manager's shim would cost its start on every run.
            python=$("$python" -I -c 'import os, sys; print(os.path.realpath(sys.executable))')
            return 0
        fi
    done
    fail "this machine has no Python 3.11 or newer" "on Debian and Ubuntu:  apt-get install python3"
}

# What cannot be pinned: a C compiler for runc, the setuid helpers of rootless workers, and what pip and Go need to fetch.
missing_packages() {
    packages=
    "$python" -I -c 'import ensurepip, venv' 2>/dev/null || packages="$packages python3-venv"
    command -v gcc >/dev/null || packages="$packages gcc"
    command -v pkg-config >/dev/null || packages="$packages pkg-config"
    command -v newuidmap >/dev/null || packages="$packages uidmap"
    [ -e /usr/include/stdio.h ] || packages="$packages libc6-dev"
    [ -e /usr/include/seccomp.h ] || packages="$packages libseccomp-dev"
    [ -n "${SSL_CERT_FILE-}" ] || [ -e /etc/ssl/certs/ca-certificates.crt ] || packages="$packages ca-certificates"
    packages=${packages# }
}

install_packages() {
    [ -n "$packages" ] || return 0
    if [ "${BK_SYSTEM_PACKAGES-}" = no ] || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "this machine lacks what bk builds and runs its tools with: $packages" \
            "as root, on Debian and Ubuntu:  apt-get install --no-install-recommends $packages"
    fi
    echo "bk: installing system packages: $packages" >&2
    export DEBIAN_FRONTEND=noninteractive
    if ! { apt-get update -qq && apt-get install -qq --no-install-recommends $packages; } >"$root/.bk/log" 2>&1; then
        cat "$root/.bk/log" >&2
        fail "the system packages could not be installed: $packages" "apt-get's own words are above"
    fi
}

make_environment() {
    echo "bk: installing what bk-requirements.txt pins into .bk" >&2
    failed="the packages in bk-requirements.txt could not be installed"
    next="the next run tries again"
    if ! {
        clean "$python" -I -m venv --clear "$env" &&
            { [ ! -e "$root/plugins" ] || : >"$env/plugins"; } &&
            install_pins &&
            failed="the plugins in plugins/ could not be installed" &&
            next="bk-requirements.txt must pin what they need, and what builds them" &&
            install_plugins
    } >"$root/.bk/log" 2>&1; then
        cat "$root/.bk/log" >&2
        fail "the environment could not be made: $failed" "pip's own words are above; $next"
    fi
    ln -sfn "$(CDPATH= cd -- "$root" && pwd -P)" "$env/root"
    touch -r "$pins" "$env/made"
    rm -f "$root/.bk/log"
}

# Installs them; folders with wheels in that file are relative to it, wherever bk is started.
install_pins() (
    CDPATH= cd -- "$root" && clean .bk/venv/bin/python -I -m pip install --quiet --disable-pip-version-check --no-input \
        --require-hashes --only-binary=:all: --requirement bk-requirements.txt
)

# Installs the distributions in plugins/ that have an entry point of bk, without a registry: an edit there needs no installation.
install_plugins() (
    CDPATH= cd -- "$root" && clean .bk/venv/bin/python -I -c '
import pathlib, subprocess, sys, tomllib
folders = []
for file in sorted(pathlib.Path("plugins").glob("*/pyproject.toml")):
    try:
        document = tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        sys.exit(f"{file}: {error}")
    if "bk" in document.get("project", {}).get("entry-points", {}):
        folders += ["--editable", f"./{file.parent}"]
pip = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input"]
install = [*pip, "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", *folders]
if folders:
    sys.exit(subprocess.run(install).returncode or subprocess.run([*pip, "check"]).returncode)'
)

# Runs a command without the caller's wishes for Python and pip, such as PYTHONHOME, PIP_TARGET or PIP_USER. What says how to reach
# a registry stays: certificates, proxies, addresses, patience, and where downloads are kept.
clean() {
    "$python" -I -c '
import os, sys
network = "CERT CLIENT_CERT PROXY TRUSTED_HOST INDEX_URL EXTRA_INDEX_URL FIND_LINKS NO_INDEX DEFAULT_TIMEOUT TIMEOUT RETRIES"
kept = {f"PIP_{name}" for name in (*network.split(), "KEYRING_PROVIDER", "CACHE_DIR", "NO_CACHE_DIR", "CONFIG_FILE")}
names = [name for name in os.environ if name in kept or not name.upper().startswith(("PIP_", "PYTHON"))]
os.execvpe(sys.argv[1], sys.argv[1:], {name: os.environ[name] for name in names})' "$@"
}

if ! fresh; then
    [ "${1-}" != __complete ] || exit 0 # completion never installs anything
    [ -e "$pins" ] || fail "bk-requirements.txt is not next to $0" "restore it, or write both again:  bk init --launcher"
    find_python
    mask=$(umask)
    umask 022
    mkdir -p "$root/.bk"
    echo '*' >"$root/.bk/.gitignore"
    exec 9>"$root/.bk/lock"
    flock 9
    missing_packages
    install_packages
    fresh || make_environment
    exec 9>&-
    umask "$mask"
fi
exec "$env/bin/python" -I -m bkrules "$@"
