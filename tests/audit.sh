#!/usr/bin/env bash
# What is in the dependency tree: licences, sources, bans and duplicates (deny.toml), versions that were taken back,
# and advisories. Two of them need a network: the advisory database is a repository on GitHub, the list of versions that
# were taken back is crates.io's. What cannot be reached is said and left out, or fails with OUTBOXD_AUDIT_REQUIRE=1.
set -eu
cd "$(dirname "$0")/.."
# The version that deny.toml was written for; it builds with the rust-version of Cargo.toml.
version=0.20.2
root=target/tools
deny=$root/bin/cargo-deny

if [ "$("$deny" --version 2>/dev/null)" != "cargo-deny $version" ]; then
    echo "installing cargo-deny $version into $root (a minute or two, once)"
    CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --root $root --target-dir $root/build "cargo-deny@$version"
    rm -rf $root/build
fi

unreachable=()
"$deny" --all-features --log-level error check bans licenses sources

# The databases stay below target, so that the first audit of a machine is like every other.
advisories() { "$deny" --all-features --config "$root/deny.toml" --log-level error check "$@" advisories; }
sed "s|^\[advisories\]|&\ndb-path = \"$PWD/$root/advisory-db\"|" deny.toml > "$root/deny.toml"
if "$deny" --all-features --config "$root/deny.toml" --log-level error fetch db >"$root/fetch.log" 2>&1; then
    advisories --disable-fetch
elif compgen -G "$root/advisory-db/*/.git" >/dev/null && advisories --disable-fetch; then
    echo "advisories: of the database as it was fetched last; it cannot be fetched anew:"
    tail -n 3 "$root/fetch.log"
    unreachable+=("advisories of today")
elif compgen -G "$root/advisory-db/*/.git" >/dev/null; then
    exit 1
else
    echo "advisories: NOT CHECKED, the database cannot be fetched:"
    tail -n 3 "$root/fetch.log"
    unreachable+=(advisories)
fi

# cargo asks crates.io for every version in Cargo.lock when it packages, and warns.
if packaged=$(cargo package --no-verify --allow-dirty 2>&1); then
    if grep 'is yanked' <<<"$packaged"; then
        echo "Cargo.lock names a version that was taken back: cargo update"
        exit 1
    fi
    echo "no version in Cargo.lock was taken back"
else
    tail -n 5 <<<"$packaged"
    unreachable+=("versions taken back")
fi

if [ ${#unreachable[@]} -gt 0 ] && [ "${OUTBOXD_AUDIT_REQUIRE:-0}" = 1 ]; then
    printf 'OUTBOXD_AUDIT_REQUIRE: not checked: %s\n' "${unreachable[@]}"
    exit 1
fi
