# Sourced by the set-up scripts of the tests that use packages of others.

# into NAME FROM COMMAND: copies FROM to target/NAME and runs COMMAND there, unless what it is made from is the same
# as last time.
into() {
    local name=$1 from=$2 command=$3 to=target/$1 sum
    sum=$(cat "$from"/* "$from"/.npmrc 2>/dev/null | sha256sum)
    [ -f "$to/.made-from" ] && [ "$(cat "$to/.made-from")" = "$sum" ] && return
    rm -rf "$to"
    mkdir -p "$to"
    cp -a "$from/." "$to/"
    (cd "$to" && eval "$command" >install.log 2>&1) || { tail -20 "$to/install.log" >&2; exit 1; }
    echo "$sum" >"$to/.made-from"
}

# Installs npm where it is missing and can be installed; whether it is there afterwards is for the caller to ask.
want_npm() {
    local as_root=()
    if command -v npm >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then return; fi
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    echo "installing npm"
    "${as_root[@]}" apt-get update -qq || true
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null || true
}
