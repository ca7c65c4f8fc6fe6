#!/usr/bin/env bash
# with_server.sh COMMAND…: runs a command beside a PostgreSQL server of its own, made in a temporary folder
# and gone afterwards. The command finds it in REFRAIN_TEST_POSTGRES. Installs PostgreSQL where there is
# none (Debian, as root).
set -euo pipefail

server=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1 || true)
if [ -z "$server" ]; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends postgresql
    server=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
fi

# The server refuses to run as root.
as() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }
home=$(as mktemp -d)
stop() {
    as "$server/pg_ctl" --pgdata "$home/data" --mode immediate --silent stop >/dev/null 2>&1 || true
    rm -rf "$home"
}
trap stop EXIT

# Over a socket in the folder: no port to find free, nobody else gets in.
as "$server/initdb" --pgdata "$home/data" --username refrain --auth trust --encoding UTF8 >/dev/null
as "$server/pg_ctl" --pgdata "$home/data" --log "$home/log" --silent --wait \
    --options "-c listen_addresses='' -c unix_socket_directories='$home' -c max_connections=200" start
if [ "$(id -u)" = 0 ]; then chmod 755 "$home"; fi
as "$server/createdb" --host "$home" --username refrain test
export REFRAIN_TEST_POSTGRES="postgres://refrain@${home//\//%2F}/test"
"$@"
