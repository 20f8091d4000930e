#!/bin/sh
# Brings the one system package that the tests want: Debian's PostgreSQL 15 server programs.
# (PostgreSQL 16 and 18 come from wheels.) Only as root and only where apt-get exists; no cluster
# is made or started. Elsewhere it says what is missing and leaves the rest to the tests, which
# fail for a missing server when CI is set.
set -eu

programs=/usr/lib/postgresql/15/bin
if [ -x "$programs/postgres" ]; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "PostgreSQL 15 is not installed ($programs); install the package postgresql-15 to test with it" >&2
    exit 0
fi

export DEBIAN_FRONTEND=noninteractive
install_packages() {
    apt-get install --yes --quiet --no-install-recommends "$@" >/dev/null
}
if ! apt-cache show postgresql-15 >/dev/null 2>&1; then
    apt-get update --quiet >/dev/null || true
fi
if ! apt-cache show postgresql-15 >/dev/null 2>&1; then
    echo "this system's package lists have no postgresql-15; the tests that need it will say so" >&2
    exit 0
fi
echo "installing PostgreSQL 15 (programs only)"
# The packages make and start a cluster unless this file forbids it beforehand.
if [ ! -e /etc/postgresql-common/createcluster.d/no-main-cluster.conf ]; then
    mkdir -p /etc/postgresql-common/createcluster.d
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/no-main-cluster.conf
fi
install_packages postgresql-15 || { apt-get update --quiet >/dev/null; install_packages postgresql-15; }
