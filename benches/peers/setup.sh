#!/usr/bin/env bash
# What `make bench-peers` needs: the peers at their pinned versions, below target/peers. Installs what is missing; with
# everything there it takes a second. A peer that cannot be installed is left out of the run, and the run says so.
set -eu
cd "$(dirname "$0")/../.."
. tests/interop/into.sh

mkdir -p target/peers
cp benches/peers/peer.mjs target/peers/peer.mjs

want_npm

# Both Node peers ask for 22.18 at least; an older system gets one of their own.
is_new_enough() { node -e 'const [a, b] = process.versions.node.split("."); process.exit(+a > 22 || (+a === 22 && +b >= 19) ? 0 : 1)' 2>/dev/null; }
if command -v npm >/dev/null 2>&1; then
    node=$(command -v node)
    if ! is_new_enough; then
        into peers/node-runtime benches/peers/node-runtime 'npm ci --ignore-scripts'
        node=$(echo "$PWD"/target/peers/node-runtime/node_modules/*/bin/node)
    fi
    ln -sfn "$node" target/peers/node
    into peers/graphile-worker benches/peers/graphile-worker 'npm ci --ignore-scripts'
    into peers/pg-boss benches/peers/pg-boss 'npm ci --ignore-scripts'
fi

cargo build --quiet --release --manifest-path benches/peers/awa/Cargo.toml --target-dir target/peers/awa
