#!/bin/sh
# One step of the set-up. The Makefile decides when it is due; each step can be repeated without harm.
#
#   tools/setup.sh venv            make .venv, with uv in it
#   tools/setup.sh packages run    install the hash-locked packages of requirements/run.txt (or test), and this project
#   tools/setup.sh node_modules    install the web client's packages, apply and verify the patches
#   tools/setup.sh chromium        make sure that a Chromium is there for the browser tests
#   tools/setup.sh proxies         the same for nginx and Caddy, for the tests of deploy/
set -eu
cd "$(dirname "$0")/.."

# Hospitals often inspect TLS with a certificate of their own: trust what the system trusts.
if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
    export PIP_CERT="${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}"
    export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}" NODE_USE_SYSTEM_CA="${NODE_USE_SYSTEM_CA:-1}"
fi

say() { printf '  %s\n' "$*"; }
stop() {
    printf '\nset-up stopped: %s\nnext step: %s\n' "$1" "$2" >&2
    exit 1
}
is_root() { [ "$(id -u)" = 0 ]; }

apt_install() {
    say "installing from Debian: $*"
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    if ! { apt-get install -y --no-install-recommends "$@" || { apt-get update && apt-get install -y --no-install-recommends "$@"; }; } >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        rm -f "$log"
        stop "apt-get could not install $*" "check the network, then run: apt-get update && apt-get install $*"
    fi
    rm -f "$log"
}

find_python() {
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(not sys.version_info >= (3, 11))' 2>/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
    stop "no Python 3.11 or newer found" "install one (Debian 12: apt-get install python3), or run: make PYTHON=/path/to/python3 $*"
}

step_venv() {
    if [ -x .venv/bin/uv ] && .venv/bin/python -c '' 2>/dev/null; then
        say "using the .venv that is here"
        return
    fi
    python=$(find_python)
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        if is_root && command -v apt-get >/dev/null; then
            apt_install "python$version-venv"
        else
            stop "this Python cannot make virtual environments" "sudo apt-get install python$version-venv"
        fi
    fi
    say "making .venv with $("$python" --version)"
    "$python" -m venv .venv
    say "installing uv"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt ||
        stop "pip could not install uv" "check the network or the package index that pip is set to, then run make again"
}

step_packages() {
    lock="requirements/$1.txt"
    say "installing $(grep -c '^[a-z]' "$lock") packages, each checked against its hash ($lock)"
    # Compiled now: where nothing may be written later, each start would compile again, which takes as long as the rest.
    if ! .venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python --require-hashes -r "$lock"; then
        say "uv could not; trying pip, which knows this machine's package index settings"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock" ||
            stop "packages could not be installed" "check the network, then run make again"
    fi
    .venv/bin/python -m pip --version >/dev/null 2>&1 || stop ".venv has no pip" "remove .venv and run make again"
    .venv/bin/uv pip install --quiet --offline --python .venv/bin/python --no-deps --no-build-isolation --editable . ||
        stop "Curbside itself could not be installed into .venv" "read the message above; remove .venv and run make again"
    .venv/bin/python -m compileall -q src
}

step_node_modules() {
    say "installing the web client's packages"
    tools/npm ci --no-progress --loglevel=error --prefer-offline ||
        stop "npm could not install the web client's packages" "check the network, then run make again"
    tools/npm run --silent patch
}

step_chromium() {
    for candidate in "${CURBSIDE_CHROMIUM:-}" chromium chromium-browser google-chrome; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 && return
    done
    if is_root && command -v apt-get >/dev/null; then
        apt_install chromium
    else
        stop "the browser tests need Chromium" "sudo apt-get install chromium (or set CURBSIDE_CHROMIUM to one)"
    fi
}

step_proxies() {
    missing=
    for program in nginx caddy; do
        PATH="$PATH:/usr/sbin" command -v $program >/dev/null 2>&1 || missing="$missing $program"
    done
    [ -z "$missing" ] && return
    # shellcheck disable=SC2086 # words on purpose; nginx-light holds all that the example uses
    set -- $(printf '%s' "$missing" | sed 's/nginx/nginx-light/')
    if is_root && command -v apt-get >/dev/null; then
        apt_install "$@"
    else
        stop "the tests of deploy/ need $*" "sudo apt-get install $* (they need not be started)"
    fi
}

step=$1
shift
"step_$step" "$@"
