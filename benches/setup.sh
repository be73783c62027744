#!/usr/bin/env bash
# What `make bench` needs besides PostgreSQL: the real payloads, below target/bench. Installs what is missing; with
# everything there it takes a moment. Without npm, or without a way out, the benchmark runs and leaves their rows out.
set -eu
cd "$(dirname "$0")/.."

. tests/interop/into.sh
want_npm
if command -v npm >/dev/null 2>&1; then
    (into bench/payloads benches/payloads 'npm ci --ignore-scripts') ||
        echo "the real payloads cannot be installed: their rows are left out" >&2
fi
