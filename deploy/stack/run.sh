#!/bin/sh
# The everyday commands of the stack, each after a look at whether Docker is there: down, logs, doctor, e2e.
#
# Run by: the Makefile (make down|logs|doctor|e2e). Tested by: tests/unit/deploy/test_stack_scripts.py.
set -eu
cd "$(dirname "$0")/../.."
. deploy/stack/compose.sh

is_running() {
    [ -n "$(docker compose ps --quiet gateway 2>/dev/null)" ]
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
    down)
        require_docker
        docker compose --profile '*' down --remove-orphans
        echo 'Stopped. What was kept is there again with make up; make clean removes it.'
        ;;
    logs)
        require_docker
        # One that has ended has lines, too.
        exec docker compose logs --follow --tail "${TAIL:-100}" ${SERVICE:+"$SERVICE"}
        ;;
    doctor)
        require_docker
        is_running || fail 'the stack does not run: make up'
        # As it runs, not as .env has it by now.
        STACK_TLS=$(running_tls) || fail 'the gateway of the stack does not run: make up'
        export STACK_TLS
        # Compose 5 would tell of the container that it makes before the doctor speaks; of errors it tells still.
        export COMPOSE_PROGRESS="${COMPOSE_PROGRESS:-quiet}"
        exec docker compose run --rm --no-deps doctor "$@"
        ;;
    e2e)
        require_docker
        is_running || fail 'the stack does not run: make up'
        read_login || fail 'the login of the stack cannot be read: make up'
        take_running_ports
        STACK_TLS=$(running_tls) || fail 'the gateway of the stack does not run: make up'
        scheme=http
        if [ -n "$STACK_TLS" ]; then
            scheme=https
            # For Python's clients, and for curl
            export SSL_CERT_FILE="$PWD/var/tls/root.crt" CURL_CA_BUNDLE="$PWD/var/tls/root.crt"
        fi
        at() { printf '%s://localhost:%s' "$1" "$(setting "$2" "$3")"; }
        export STACK_USER="$STACK_LOGIN" STACK_PASSWORD="$STACK_SECRET"
        export GRAFANA_URL="${GRAFANA_URL:-$(at $scheme GRAFANA_PORT 3000)}"
        export PROMETHEUS_URL="${PROMETHEUS_URL:-$(at $scheme PROMETHEUS_PORT 9090)}"
        export ALERTMANAGER_URL="${ALERTMANAGER_URL:-$(at $scheme ALERTMANAGER_PORT 9093)}"
        export JAEGER_URL="${JAEGER_URL:-$(at $scheme JAEGER_PORT 16686)}"
        export MAILPIT_URL="${MAILPIT_URL:-$(at $scheme MAILPIT_PORT 8025)}"
        export BUGSINK_URL="${BUGSINK_URL:-$(at $scheme BUGSINK_PORT 8010)}"
        export NOTIFICATIONS_URL="${NOTIFICATIONS_URL:-$(at $scheme NOTIFICATIONS_PAGE_PORT 8003)}"
        export APP_URL="${APP_URL:-$(at http APP_PORT 8000)}"
        # Against what runs, so nothing of it may be skipped for a program that this machine lacks.
        exec .venv/bin/python -m pytest tests/e2e --no-cov -p no:cacheprovider ${PYTEST_ARGS:-} "$@"
        ;;
    *) fail 'usage: sh deploy/stack/run.sh down|logs|doctor|e2e' ;;
esac
