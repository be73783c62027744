#!/usr/bin/env bash
# What `make interop` needs: the verifiers of other people at their pinned versions, below target/interop, and the
# runtimes of the example receivers. Installs what is missing; with everything there it takes a second.
set -eu
cd "$(dirname "$0")/../.."

missing=()
have() { command -v "$1" >/dev/null 2>&1 || missing+=("${@:2}"); }
have node nodejs npm
have python3 python3 python3-venv
if command -v python3 >/dev/null 2>&1 && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then missing+=(python3-venv); fi
have php php-cli
have go golang-go
have ruby ruby ruby-webrick
if command -v ruby >/dev/null 2>&1 && ! ruby -rwebrick -e '' 2>/dev/null; then missing+=(ruby-webrick); fi
if [ ${#missing[@]} -gt 0 ]; then
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    echo "installing ${missing[*]}"
    # What cannot be installed is reported by the run itself.
    if command -v apt-get >/dev/null 2>&1; then
        "${as_root[@]}" apt-get update -qq || true
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || true
    fi
fi

. tests/interop/into.sh
if command -v npm >/dev/null 2>&1; then
    into interop/node tests/interop/node 'npm ci --ignore-scripts'
    into interop/receiver-node examples/receivers/node 'npm ci --ignore-scripts'
fi
if command -v python3 >/dev/null 2>&1; then
    into interop/python tests/interop/python 'python3 -m venv venv && venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt'
    into interop/receiver-python examples/receivers/python 'python3 -m venv venv && venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt'
fi
if command -v go >/dev/null 2>&1; then
    into interop/receiver-go examples/receivers/go 'GOFLAGS=-mod=mod GOTOOLCHAIN=local go build -o receiver .'
fi
