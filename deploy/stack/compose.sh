# What the scripts beside it share: the way to Compose, what is published where, and how trouble is said.
#
# Read (`.`) by: up.sh, urls.sh, clean.sh, run.sh. POSIX shell. Expects to be in the directory of docker-compose.yml.

fail() {
    printf 'glasshouse: %s\n' "$1" >&2
    exit 1
}

warn() {
    printf 'glasshouse: %s\n' "$1" >&2
}

# Prints the value of a variable: of the environment, else of .env, else the default.
setting() {
    eval "given=\${$1:-}"
    if [ -z "$given" ] && [ -r .env ]; then
        given=$(sed -n "s/^$1=//p" .env | tail -n 1 | sed 's/^"\(.*\)"$/\1/; s/^'"'"'\(.*\)'"'"'$/\1/')
    fi
    printf '%s' "${given:-$2}"
}

# NAME VARIABLE DEFAULT-PORT PATH LOGIN, a line each: what a person opens.
# `own`: Bugsink's page of login, which wants an address of e-mail.
published() {
    cat <<'LINES'
Grafana GRAFANA_PORT 3000 / yes
Prometheus PROMETHEUS_PORT 9090 / yes
Alertmanager ALERTMANAGER_PORT 9093 / yes
Jaeger JAEGER_PORT 16686 / yes
Mailpit MAILPIT_PORT 8025 / yes
Bugsink BUGSINK_PORT 8010 / own
Notifications NOTIFICATIONS_PAGE_PORT 8003 / yes
Runbooks NOTIFICATIONS_PAGE_PORT 8003 /runbooks yes
API APP_PORT 8000 /docs no
LINES
}

# Prints what `docker inspect` says of the running container of a service: SERVICE TEMPLATE. Fails if there is none.
inspect() {
    container=$(docker compose ps --quiet "$1" 2>/dev/null | head -n 1)
    [ -n "$container" ] && docker inspect --format "$2" "$container" 2>/dev/null
}

# Prints 1 if the gateway speaks TLS as it runs, which .env may not say any more, and nothing if it does not.
# Fails if it does not run.
running_tls() {
    told=$(inspect gateway '{{range .Config.Env}}{{println .}}{{end}}') || return 1
    ! printf '%s\n' "$told" | grep -q '^STACK_TLS=.' || printf 1
}

# Prints PORT-IN-THE-CONTAINER PORT-OF-THIS-MACHINE, a line each, of what is published as it runs.
running_ports() {
    for service in gateway app; do
        inspect "$service" '{{range $inner, $places := .NetworkSettings.Ports}}{{range $places}}{{$inner}} {{println .HostPort}}{{end}}{{end}}' |
            sed -n 's,^\([0-9]*\)/tcp \([0-9]*\)$,\1 \2,p'
    done
}

# Sets the variable of each port to what is published as it runs; those of a stack that does not run stay.
take_running_ports() {
    found=$(running_ports)
    # What is published has the same number in its container as by default.
    while read -r _ variable default _ _; do
        port=$(printf '%s\n' "$found" | sed -n "s/^$default //p" | head -n 1)
        [ -z "$port" ] || eval "export $variable=$port"
    done <<VARIABLES
$(published)
VARIABLES
}

# Whether Docker and Compose are there, running, and recent enough; says what to do otherwise.
require_docker() {
    command -v docker >/dev/null 2>&1 ||
        fail 'Docker is not installed: https://docs.docker.com/get-started/get-docker/ (without it, make run starts the service alone).'
    version=$(docker compose version --short 2>/dev/null) ||
        fail 'Docker Compose is missing: install the package docker-compose-plugin (Docker Desktop has it).'
    version=${version#v}
    major=${version%%.*}
    rest=${version#*.}
    minor=${rest%%.*}
    case $major$minor in
        '' | *[!0-9]*) warn "the version of Docker Compose cannot be read ($version): 2.24 or later is needed." ;;
        *)
            if [ "$major" -lt 2 ] || { [ "$major" -eq 2 ] && [ "$minor" -lt 24 ]; }; then
                fail "Docker Compose $version is too old, 2.24 or later is needed: update Docker."
            fi
            ;;
    esac
    if ! answer=$(docker info --format '{{.MemTotal}} {{.ServerVersion}}' 2>&1); then
        case $answer in
            *'permission denied'*) fail 'you may not use Docker: add yourself to the group docker (sudo usermod -aG docker "$USER") and log in again.' ;;
            *) fail 'Docker does not answer: start it (Docker Desktop, or sudo systemctl start docker).' ;;
        esac
    fi
    DOCKER_MEMORY=${answer%% *}
    require_engine "${answer#* }"
}

# Docker 28.2 brought the log driver's option fluentd-write-timeout; those before refuse to start a container with it.
require_engine() {
    major=${1%%.*}
    rest=${1#*.}
    minor=${rest%%.*}
    case $major$minor in
        '' | *[!0-9]*) warn "the version of Docker cannot be read ($1): 28.2 or later is needed." ;;
        *)
            if [ "$major" -lt 28 ] || { [ "$major" -eq 28 ] && [ "$minor" -lt 2 ]; }; then
                fail "Docker $1 is too old, 28.2 or later is needed (https://docs.docker.com/engine/install/ has packages for your system)."
            fi
            ;;
    esac
}

# Sets STACK_LOGIN and STACK_SECRET to the login: .env has it, or else the volume that `setup` keeps it in.
read_login() {
    STACK_LOGIN=$(setting STACK_USER admin)
    STACK_SECRET=$(setting STACK_PASSWORD '')
    [ -n "$STACK_SECRET" ] && return 0
    answer=$(docker compose run --rm --no-deps -T setup python -B /opt/setup.py login 2>/dev/null) || return 1
    STACK_LOGIN=$(printf '%s\n' "$answer" | sed -n 1p)
    STACK_SECRET=$(printf '%s\n' "$answer" | sed -n 2p)
    [ -n "$STACK_SECRET" ]
}
