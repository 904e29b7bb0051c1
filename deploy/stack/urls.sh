#!/bin/sh
# Prints where everything is, and the login.
#
# Run by: `make urls`, and `make up` at its end. Tested by: tests/unit/deploy/test_stack_scripts.py.
set -eu
cd "$(dirname "$0")/../.."
. deploy/stack/compose.sh

require_docker
# What runs knows better than .env where it is and whether it speaks TLS, unless it does not run.
take_running_ports
if [ -z "${STACK_TLS+set}" ]; then
    STACK_TLS=$(running_tls) || STACK_TLS=$(setting STACK_TLS '')
fi
scheme=http
[ -z "$STACK_TLS" ] || scheme=https

user='' password=''
if read_login; then
    user=$STACK_LOGIN password=$STACK_SECRET
fi
printf '\n  %-14s %-34s %s\n' What Where Login
published | while read -r name variable default path login; do
    address="$scheme://localhost:$(setting "$variable" "$default")$path"
    case $login in
        yes) who=$user ;;
        own) who="$user@glasshouse.localhost" ;;
        no) who=- address="http://localhost:$(setting "$variable" "$default")$path" ;;
    esac
    printf '  %-14s %-34s %s\n' "$name" "$address" "$who"
done
if [ -n "$password" ]; then
    printf '\n  Password of all of them: %s\n\n' "$password"
else
    printf '\n  There is no password yet: make up makes it.\n\n'
fi
