#!/usr/bin/env bash
# The whole suite on each PostgreSQL of versions.tsv, or on those that VERSIONS names; arguments go to the tests. What a
# server cannot be tested for is listed with its reason, and counted.
set -eu
cd "$(dirname "$0")/../.."

versions=${VERSIONS:-$(cut -f 1 tests/postgres/versions.tsv | grep -v client)}
bash tests/postgres/setup.sh client $versions
summary=()
failed=0
for major in $versions; do
    out=target/postgres/$major
    : >"$out/left-out.txt"
    echo "== $("$out/native/bin/postgres" --version)"
    OUTBOXD_PG_BIN=$PWD/$out/native/bin OUTBOXD_LEFT_OUT=$PWD/$out/left-out.txt \
        cargo test --no-fail-fast "$@" >"$out/test.log" 2>&1 || failed=1
    grep -E "^test .* FAILED$|^test result: FAILED|^error" "$out/test.log" || true
    count() { awk -v what="$1" '/^test result:/ { for (i = 2; i <= NF; i++) if ($i ~ "^" what) n += $(i - 1) } END { print n + 0 }' "$out/test.log"; }
    [ "$(count passed)" -gt 0 ] || { echo "nothing was run: see $out/test.log" >&2; tail -5 "$out/test.log" >&2; failed=1; }
    [ "$(count failed)" -eq 0 ] || failed=1
    summary+=("PostgreSQL $major: $(count passed) passed, $(count failed) failed, $(wc -l <"$out/left-out.txt") left out")
    sort "$out/left-out.txt" | uniq -c | sed 's/^/  left out /'
done
printf '%s\n' "${summary[@]}"
exit $failed
