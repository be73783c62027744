#!/usr/bin/env bash
# Runs the properties in rounds with new random inputs until FUZZ_SECONDS are over (ten minutes unless set); a round
# that has begun is finished. PROPTEST_CASES is how many inputs each property gets in a round. A failure is kept in
# proptest-regressions/, shrunk, and tried first from then on, by `make test` too.
set -eu
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-600}
export PROPTEST_CASES=${PROPTEST_CASES:-5000}
cargo test --quiet --lib --test it --no-run
# Building does not count, and one round is run at least.
SECONDS=0
rounds=0
while [ $rounds -eq 0 ] || [ $SECONDS -lt "$seconds" ]; do
    rounds=$((rounds + 1))
    echo "round $rounds, $SECONDS s of $seconds: $PROPTEST_CASES inputs a property"
    # Unit tests that are no properties cost next to nothing beside.
    log=$(mktemp)
    for target in "--lib" "--test it properties::"; do
        # shellcheck disable=SC2086
        RUST_BACKTRACE=0 cargo test --quiet $target >"$log" 2>&1 || { cat "$log"; rm "$log"; exit 1; }
        grep -E '^test result' "$log"
    done
    rm "$log"
done
echo "$rounds rounds of $PROPTEST_CASES inputs for each of $(grep -rhoE '^ {4}#\[test\]$|samples\(' src/*/properties.rs src/*/*/properties.rs tests/it/properties.rs | wc -l) properties and more, $SECONDS s: nothing found"
