#!/usr/bin/env bash
# What `make test-web` needs: a browser, promtool, and the packages of node/ and python/ below target/web at their
# pinned versions. Installs what is missing; with everything there it takes a second.
set -eu
cd "$(dirname "$0")/../.."

missing=()
have() { command -v "$1" >/dev/null 2>&1 || missing+=("${@:2}"); }
have chromium chromium
have promtool prometheus
have node nodejs npm
have python3 python3 python3-venv
if command -v python3 >/dev/null 2>&1 && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then missing+=(python3-venv); fi
if [ ${#missing[@]} -gt 0 ]; then
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    echo "installing ${missing[*]}"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

. tests/interop/into.sh
into web/node tests/web/node 'npm ci --ignore-scripts'
into web/python tests/web/python 'python3 -m venv venv && venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt'
