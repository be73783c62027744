#!/usr/bin/env bash
# Sees to it that PostgreSQL's server programs and a C compiler (for ring) are there; installs what is missing.
# Arguments are programs, of packages of the same name, that are needed besides.
set -eu

have_postgres() {
    [ -n "${OUTBOXD_PG_BIN:-}" ] && [ -x "$OUTBOXD_PG_BIN/initdb" ] && return
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && return
    command -v initdb >/dev/null 2>&1
}

missing=()
have_postgres || missing+=(postgresql)
command -v cc >/dev/null 2>&1 || missing+=(gcc libc6-dev)
# The tests of connection pooling run against the real thing.
command -v pgbouncer >/dev/null 2>&1 || [ -x /usr/sbin/pgbouncer ] || missing+=(pgbouncer)
# Those of clocks that jump give a process another time.
ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || missing+=(faketime)
for program in "$@"; do
    command -v "$program" >/dev/null 2>&1 || missing+=("$program")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "outboxd: please install: ${missing[*]} (or set OUTBOXD_PG_BIN to PostgreSQL's bin directory)" >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || { echo "outboxd: please install, as root: apt-get install ${missing[*]}" >&2; exit 1; }
    as_root=(sudo)
fi
echo "installing ${missing[*]}"
"${as_root[@]}" apt-get update -qq
install() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }
if [[ " ${missing[*]} " == *" postgresql "* ]]; then
    # No cluster of Debian's own: the tests and the demo start theirs.
    install postgresql-common
    "${as_root[@]}" sed -ri 's/^#?create_main_cluster .*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
fi
install "${missing[@]}"
