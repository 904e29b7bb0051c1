#!/bin/sh
# Starts Caddy with the login of the stack, and with TLS if STACK_TLS is set (to anything).
#
# Run by: the container `gateway` (busybox' sh, as its entrypoint). Tested by: tests/monitoring/test_gateway.py.
# Secrets are files in GATEWAY_SECRETS (/run/secrets): stack_user and stack_password. Only the password's hash gets
# into Caddy, made anew at each start; nothing is printed of either.
# The Caddyfile beside this script reads what is exported here.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
secrets=${GATEWAY_SECRETS:-/run/secrets}

refuse() {
    echo "The gateway does not start. $1" >&2
    exit 1
}

for secret in stack_user stack_password; do
    [ -s "$secrets/$secret" ] || refuse "There is no $secrets/$secret: docker compose up setup makes it."
done
GATEWAY_USER=$(cat "$secrets/stack_user")
# It becomes a word of the Caddyfile. deploy/stack/setup.py refuses the same, earlier.
case $GATEWAY_USER in
'' | *[!A-Za-z0-9.@_-]*) refuse "STACK_USER has characters that it cannot have." ;;
esac
# A tenth of a second for each guess; Caddy's own cost would take a slow machine seconds.
GATEWAY_HASH=$(printf '%s\n' "$(cat "$secrets/stack_password")" | caddy hash-password --bcrypt-cost 11) || refuse "The password cannot be hashed."

# Sets SITE_<port>: the addresses of a site. With TLS they are names, since a certificate is made for each.
site() {
    if [ -n "${STACK_TLS:-}" ]; then
        export "SITE_$1=https://localhost:$1 https://127.0.0.1:$1 https://gateway:$1"
    else
        export "SITE_$1=http://:$1"
    fi
}
for port in 3000 8003 8010 8025 9090 9093 16686; do
    site "$port"
done

# Plain requests to a port with TLS are sent to https on the same port: links in alerts need not know.
if [ -n "${STACK_TLS:-}" ]; then
    GATEWAY_TLS=tls
else
    GATEWAY_TLS=plain
fi
export GATEWAY_USER GATEWAY_HASH GATEWAY_TLS
exec caddy run --config "$here/Caddyfile" --adapter caddyfile
