#!/usr/bin/env bash
# Sees to it that there is a server of a later major version than Debian's own here, with all its programs (pg_upgrade,
# psql, pg_dump), and prints their directory. It is of Debian's next release, from the mirror this machine uses, unpacked
# below target/newer-postgres and never installed: it is given its own C library, so nothing of the system is touched.
# OUTBOXD_PG_NEWER names the programs of another one.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ -n "${OUTBOXD_PG_NEWER:-}" ]; then
    echo "$OUTBOXD_PG_NEWER"
    exit
fi
suite=trixie
major=17
root=$PWD/target/newer-postgres
bin=$root/usr/lib/postgresql/$major/bin
if [ -x "$bin/pg_upgrade" ] && [ -e "$root/complete" ]; then
    echo "$bin"
    exit
fi

bash tests/setup.sh patchelf >&2
rm -rf "$root"
mkdir -p "$root"/apt/{lists/partial,archives/partial}
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | head -n 1)
[ -n "$mirror" ] || { echo "outboxd: apt knows no mirror of Debian" >&2; exit 1; }
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$root/apt/sources.list"
cat >"$root/apt/apt.conf" <<END
Dir::Etc::SourceList "$root/apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$root/apt/lists";
Dir::State::status "$root/apt/status";
Dir::Cache "$root/apt";
APT::Sandbox::User "root";
END
# As if nothing were installed: everything it needs comes with it.
: >"$root/apt/status"
export APT_CONFIG=$root/apt/apt.conf
apt-get update -qq >&2
packages=$(apt-get -s install --no-install-recommends "postgresql-$major" | awk '/^Inst/ { print $2 }' |
    grep -E "^(lib|zlib|postgresql-$major|postgresql-client-$major)" | grep -Ev 'perl|llvm|libz3|^libc-' | sort -u)
[ -n "$packages" ] || { echo "outboxd: $suite has no postgresql-$major" >&2; exit 1; }
# shellcheck disable=SC2086
(cd "$root/apt" && apt-get download -qq $packages >&2)
for package in "$root"/apt/*.deb; do
    dpkg -x "$package" "$root"
done

# Its programs run with the loader and the libraries that came with them.
lib=$(dirname "$(find "$root" -name 'libssl.so.3' | head -n 1)")
loader=$(find "$root" -name 'ld-linux-*.so.*' | head -n 1)
path=$lib:$root/lib/${lib##*/}:$(dirname "$loader")
for program in "$bin"/*; do
    patchelf --print-interpreter "$program" >/dev/null 2>&1 || continue
    patchelf --set-interpreter "$loader" --force-rpath --set-rpath "$path" "$program"
done
"$bin/postgres" --version >&2
# Whoever runs the server may not be whoever unpacked it.
chmod -R a+rX "$root/usr" "$root"
rm -rf "$root/apt"
touch "$root/complete"
echo "$bin"
