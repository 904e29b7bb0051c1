#!/bin/sh
# Starts the whole stack: looks at the machine first, waits until everything is healthy, and says where it is.
#
#   make up              make up TLS=1             make up DEMO=1
#
# Run by: `make up`. Tested by: tests/unit/deploy/test_stack_up.py, with a `docker` that only answers.
# Every failure is one sentence with what to do. .env is made if it is missing (mode 600, ignored by git); lines that
# stand in it are never changed, but for a port that is given anew. A second run brings what runs up to date.
set -eu
cd "$(dirname "$0")/../.."
. deploy/stack/compose.sh
. deploy/stack/machine.sh

WAIT_SECONDS=${STACK_WAIT_SECONDS:-420}
ENV=.env

# 1 and yes are on; empty, 0 and no are off. To Compose, anything is on that is not empty.
switch() {
    case $1 in
        1 | yes | true | on) printf 1 ;;
        '' | 0 | no | false | off) ;;
        *) fail "$2=$1 is not understood: $2=1 switches it on." ;;
    esac
}

random() {
    LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom | head -c "$1"
}

# Adds NAME=VALUE to .env unless it has a value there or in the environment.
remember() {
    [ -z "$(setting "$1" '')" ] || return 0
    # A file of somebody else's may lack its last line break.
    if [ -s "$ENV" ] && [ -n "$(tail -c 1 "$ENV")" ]; then
        printf '\n' >>"$ENV"
    fi
    printf '%s=%s\n' "$1" "$2" >>"$ENV"
}

# Writes the ports that the environment gives into .env, so that make urls and the next make up have them, too.
remember_ports() {
    while read -r _ variable default _ _; do
        eval "given=\${$variable:-}"
        kept=$(unset "$variable" && setting "$variable" "$default")
        [ -n "$given" ] && [ "$given" != "$kept" ] || continue
        if grep -q "^$variable=" "$ENV"; then
            # Into the same file, which keeps its mode and its owner.
            sed "s/^$variable=.*/$variable=$given/" "$ENV" >"$STATES"
            cat "$STATES" >"$ENV"
        else
            (unset "$variable" && remember "$variable" "$given")
        fi
        echo "Wrote $variable=$given into $ENV (it was $kept), where the next make up finds it."
    done <<VARIABLES
$(published)
VARIABLES
}

make_env() {
    if command -v git >/dev/null 2>&1 && git rev-parse --git-dir >/dev/null 2>&1; then
        git check-ignore -q "$ENV" || fail "$ENV is not ignored by git, so it could be committed: add the line .env to .gitignore."
    fi
    if [ ! -e "$ENV" ]; then
        (
            umask 077
            printf '# Made by make up; see .env.example for what else can be set.\n' >"$ENV"
        )
        echo "Made $ENV with the login (mode 600, ignored by git)."
    fi
    # A stack that was started without this script has a login already: it stays.
    if [ -z "$(setting STACK_PASSWORD '')" ] &&
        docker volume inspect glasshouse_secrets-setup >/dev/null 2>&1 && read_login; then
        remember STACK_PASSWORD "$STACK_SECRET"
    fi
    remember STACK_PASSWORD "$(random 24)"
    remember OPERATIONS_TOKEN "$(random 40)"
    case $(ls -l "$ENV") in
        -rw-------*) ;;
        *) warn "$ENV can be read by others: chmod 600 $ENV" ;;
    esac
}

# Prints what to do about a service that is not well; what is known of it: SERVICE STATE
remedy() {
    case $1 in
        setup) echo 'Volumes of secrets that belong to somebody else, or a value in .env that cannot be one. All anew: make clean' ;;
        postgres) echo 'A volume of another PostgreSQL, or of another password: make clean begins with an empty one.' ;;
        migrations) echo 'The database does not answer or holds another schema. See: make logs SERVICE=postgres' ;;
        valkey) echo 'Its volume or its secrets do not fit: make clean begins anew.' ;;
        otel-collector | loki | jaeger | prometheus | alertmanager | blackbox-exporter)
            echo "Its configuration is refused, or it has too little memory (mem_limit in docker-compose.yml)." ;;
        grafana) echo 'It migrates its database at the first start, which takes a while on a slow machine: STACK_WAIT_SECONDS=900 make up' ;;
        gateway) echo 'A port that is taken meanwhile, or a secret that is missing. See: make logs SERVICE=gateway' ;;
        bugsink*) echo 'It migrates its database at the first start, which takes a while on a slow machine: make up again.' ;;
        *) echo "See: make logs SERVICE=$1" ;;
    esac
}

# Prints the last lines of a service since the beginning of this run.
last_lines() {
    docker compose logs --no-color --no-log-prefix --since "$SINCE" --tail 12 "$1" 2>/dev/null | cut -c 1-300
}

# Names every service that is not well, with its last lines and what to do. One that still starts is not ill, unless
# there was time enough.
explain() {
    ill='' lost=''
    docker compose ps --all --format '{{.Service}} {{.State}} {{.ExitCode}} {{.Health}}' >"$STATES" 2>/dev/null || :
    while read -r service state code health; do
        case $state/$health in
            exited/*) [ "$code" != 0 ] || continue ;;
            running/healthy | running/) continue ;;
            running/starting) [ $(($(date +%s) - BEGAN)) -ge "$WAIT_SECONDS" ] || continue ;;
            created/*) continue ;; # it waits for another, which is the one to look at
        esac
        ill="$ill $service"
        printf '\n%s: %s\n' "$service" "$state${health:+, $health}$([ "$state" != exited ] || printf ', exit code %s' "$code")" >&2
        lines=$(last_lines "$service") || lines=''
        [ -z "$lines" ] || printf '%s\n' "$lines" | sed 's/^/    /' >&2
        case $lines in
            *'name resolution'* | *'no such host'* | *'could not translate host name'* | *'Name or service not known'* | \
                *'Name does not resolve'* | *'bad address'* | *'server misbehaving'*) lost=1 ;;
        esac
        container=$(docker compose ps --all --quiet "$service" 2>/dev/null | head -n 1)
        if [ "$(docker inspect --format '{{.State.OOMKilled}}' "$container" 2>/dev/null)" = true ]; then
            printf '  It was ended for want of memory: raise its mem_limit in docker-compose.yml.\n' >&2
        fi
        printf '  %s\n' "$(remedy "$service")" >&2
    done <"$STATES"
    if [ -n "$lost" ]; then
        printf '\nNames are not found: the networks are not in order, as after a start that was broken off. make down && make up\n' >&2
    fi
    [ -n "$ill" ] || return 1
}

# The collector's image has nothing in it that could ask whether it is well, so to Compose it is as soon as it was
# started: whether it stays is seen by looking twice. Without it, everything else runs, and nothing is seen of it.
check_collector() {
    container=$(docker compose ps --all --quiet otel-collector 2>/dev/null | head -n 1)
    look='{{.State.Status}} {{.RestartCount}}'
    before=$(docker inspect --format "$look" "$container" 2>/dev/null) || before='missing 0'
    sleep 5
    after=$(docker inspect --format "$look" "$container" 2>/dev/null) || after='missing 0'
    case $before/$after in
        running*/running*) [ "$before" != "$after" ] || return 0 ;;
    esac
    printf '\notel-collector: %s, restarted %s times\n' "${after% *}" "${after##* }" >&2
    last_lines otel-collector | sed 's/^/    /' >&2
    printf '  %s\n' "$(remedy otel-collector)" >&2
    fail 'the collector does not stay up, so nothing would be seen of what runs. The rest of it runs: make urls, make down.'
}

STACK_TLS=$(switch "${TLS:-$(setting STACK_TLS '')}" TLS)
STACK_DEMO=$(switch "${DEMO:-$(setting STACK_DEMO '')}" DEMO)
export STACK_TLS STACK_DEMO
if [ -n "$STACK_DEMO" ]; then
    # A minute is a second: the journeys, too.
    SYNTHETIC_INTERVAL_SECONDS=$(setting SYNTHETIC_INTERVAL_SECONDS 2)
    SYNTHETIC_JITTER_SECONDS=0
    # Each of them registers and logs in, 30 a minute from one address.
    RATE_LIMIT_LOGIN=$(setting RATE_LIMIT_LOGIN 100/minute)
    RATE_LIMIT_REGISTRATION=$(setting RATE_LIMIT_REGISTRATION 100/minute)
    export SYNTHETIC_INTERVAL_SECONDS SYNTHETIC_JITTER_SECONDS RATE_LIMIT_LOGIN RATE_LIMIT_REGISTRATION
    echo 'The demonstration: alerts take seconds for what takes them minutes in earnest.'
fi
SERVICE_VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
GIT_COMMIT=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
export SERVICE_VERSION GIT_COMMIT

check_user
check_subnet
require_docker
check_memory
check_disk
check_ports
if [ -n "$STACK_DEMO" ] && docker volume inspect glasshouse_prometheus-data >/dev/null 2>&1; then
    echo 'There is data of earlier runs: to the quick clock of the demonstration it may use up the budgets at once. make clean starts afresh.'
fi
STATES=$(mktemp)
trap 'rm -f "$STATES"' EXIT
make_env
remember_ports

echo 'Building the images of the service ...'
if ! docker compose build --quiet >"$STATES" 2>&1; then
    tail -n 20 "$STATES" >&2
    fail 'the images cannot be built: what it says above is what Docker said.'
fi
BEGAN=$(date +%s)
SINCE=$(date -u +%Y-%m-%dT%H:%M:%SZ)
echo "Starting everything; the first time, images are fetched. At most $WAIT_SECONDS s from then on ..."
if ! docker compose up --detach --wait --wait-timeout "$WAIT_SECONDS" --remove-orphans >"$STATES" 2>&1; then
    said=$(grep -v '^ *$' "$STATES" | tail -n 5)
    reason=$(printf '%s\n' "$said" | tail -n 1)
    printf 'Docker Compose says:\n' >&2
    printf '%s\n' "$said" | cut -c 1-300 | sed 's/^/    /' >&2
    if explain; then
        fail "the services above are not well. What else is there runs: make urls, make down."
    fi
    case $reason in
        *'no such host'* | *registry* | *'pull access'* | *timeout* | *toomanyrequests*)
            fail "an image cannot be fetched, so look at the network and its proxy: $reason"
            ;;
        *network*) warn 'the networks are not in order: make down && make up makes them anew.' ;;
    esac
    fail "Docker Compose says: $reason"
fi
check_collector

if [ -n "$STACK_TLS" ]; then
    mkdir -p var/tls
    docker compose cp gateway:/data/caddy/pki/authorities/local/root.crt var/tls/root.crt >/dev/null 2>&1 ||
        fail 'the gateway has made no certificate: make logs SERVICE=gateway'
    chmod 644 var/tls/root.crt
    printf '%s\n' 'The certificate of the local CA is var/tls/root.crt. Let your browser trust it (settings, certificates, authorities),' \
        'or the machine: macOS: sudo security add-trusted-cert -d -k /Library/Keychains/System.keychain var/tls/root.crt;' \
        'Debian: sudo cp var/tls/root.crt /usr/local/share/ca-certificates/glasshouse.crt && sudo update-ca-certificates'
fi
sh deploy/stack/urls.sh
