#!/bin/sh
# Removes what the stack has kept, after asking; then the caller removes what running and testing left behind.
#
# Run by: `make clean`. Tested by: tests/unit/deploy/test_stack_scripts.py. FORCE=1 does not ask, for scripts.
# Without Docker, or where the stack was never started, there is nothing to ask.
set -eu
cd "$(dirname "$0")/../.."
. deploy/stack/compose.sh

volumes=$(docker volume ls --quiet --filter label=com.docker.compose.project=glasshouse 2>/dev/null) || volumes=''
containers=$(docker ps --all --quiet --filter label=com.docker.compose.project=glasshouse 2>/dev/null) || containers=''
[ -n "$volumes$containers" ] || exit 0

if [ "${FORCE:-}" != 1 ]; then
    cat >&2 <<'LOST'
This removes the containers of the stack and everything that they have kept, for good:
  the orders, payments and customers of its database, and its audit log
  metrics, logs, traces and errors
  what was changed in Grafana by hand, silences, mails, the local certificate authority
  the secrets of the stack (.env stays)
LOST
    [ -t 0 ] ||
        fail 'nothing was removed, since nobody can be asked here: make clean FORCE=1 does not ask.'
    printf 'Remove it? [y/N] ' >&2
    read -r answer || answer=''
    case $answer in
        y | Y | yes) ;;
        *) fail 'nothing was removed.' ;;
    esac
fi
docker compose --profile '*' down --volumes --remove-orphans
