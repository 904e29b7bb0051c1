# Whether the machine can carry the stack: memory, disk, and ports that nobody else has; and whether what is set for
# it can be meant.
#
# Read (`.`) by: up.sh, after compose.sh. Tested by: tests/unit/deploy/test_stack_up.py.

# MiB: what all mem_limits of docker-compose.yml come to (tests/unit/deploy/test_compose.py adds them up), and what
# everything was measured to take, with head-room (docs/stack.md).
LIMITS_MIB=8064
NEEDED_MIB=4096
DISK_NEEDED_MIB=10240

check_memory() {
    case $DOCKER_MEMORY in '' | *[!0-9]*) return 0 ;; esac
    have=$((DOCKER_MEMORY / 1048576))
    # What a machine is sold with is a little more than what it shows.
    if [ "$have" -lt $((NEEDED_MIB * 9 / 10)) ] && [ "${FORCE:-}" != 1 ]; then
        fail "Docker has $have MB of memory, and the stack needs $NEEDED_MIB: give it more (Docker Desktop: Settings, Resources), or insist with make up FORCE=1."
    fi
    if [ "$have" -lt $((LIMITS_MIB * 9 / 10)) ]; then
        warn "Docker has $have MB of memory. It is enough, but not for all limits at once ($LIMITS_MIB MB): under load something may be ended."
    fi
}

check_disk() {
    where=$(docker info --format '{{.DockerRootDir}}' 2>/dev/null) || where=.
    # Docker Desktop's disk is inside of its machine, and cannot be seen from here.
    [ -d "$where" ] || where=.
    free=$(df -Pk "$where" 2>/dev/null | awk 'NR == 2 {print int($4 / 1024)}')
    case $free in '' | *[!0-9]*) return 0 ;; esac
    if [ "$free" -lt $DISK_NEEDED_MIB ]; then
        warn "there are $free MB left where Docker keeps its files ($where); images and data may take $DISK_NEEDED_MIB. See: docker system df"
    fi
}

# Whether somebody listens on the port: by whichever program is there to ask. Without any, Docker will say it.
is_taken() {
    if command -v nc >/dev/null 2>&1; then
        nc -z -w 1 127.0.0.1 "$1" >/dev/null 2>&1
    elif command -v curl >/dev/null 2>&1; then
        code=0
        curl --silent --noproxy '*' --max-time 1 --output /dev/null "http://127.0.0.1:$1/" </dev/null >/dev/null 2>&1 || code=$?
        [ "$code" -ne 7 ]
    elif command -v python3 >/dev/null 2>&1; then
        python3 -c 'import socket, sys; sys.exit(socket.socket().connect_ex(("127.0.0.1", int(sys.argv[1]))) != 0)' "$1"
    else
        return 1
    fi
}

# Prints who listens there, as far as that can be seen without being root.
who_has() {
    if command -v lsof >/dev/null 2>&1; then
        lsof -nP -iTCP:"$1" -sTCP:LISTEN 2>/dev/null | awk 'NR == 2 {print "by " $1 " (process " $2 ")"}'
    elif command -v ss >/dev/null 2>&1; then
        ss -ltnpH "sport = :$1" 2>/dev/null | sed -n 's/.*users:(("\([^"]*\)",pid=\([0-9]*\).*/by \1 (process \2)/p' | head -n 1
    fi
}

# Compose would take apart the networks of what runs before Docker refuses what cannot be an address.
check_subnet() {
    subnet=$(setting STACK_SUBNET 172.29.88)
    printf '%s\n' "$subnet" | awk -F . '
        NF != 3 || NR > 1 {exit 1}
        {for (i = 1; i <= 3; i++) if ($i !~ /^(0|[1-9][0-9]*)$/ || $i + 0 > 255) exit 1}' ||
        fail "STACK_SUBNET=$subnet is not the beginning of a network: three numbers up to 255 are, such as 172.29.88."
}

# The same rule as in setup.py, which would say it only when everything else waits for it.
check_user() {
    case $(setting STACK_USER admin) in
        *[!A-Za-z0-9.@_-]*) fail "STACK_USER=$(setting STACK_USER admin) cannot be a user: letters, digits and . _ - @ only." ;;
    esac
}

# Prints a port for somebody who cannot have this one: it is nobody's, and none that we want ourselves.
another_port() {
    another=$(($1 > 50000 ? $1 - 10000 : $1 + 10000))
    while case $wanted in *" $another="*) true ;; *) is_taken "$another" ;; esac; do
        another=$((another + 1))
    done
    printf '%s' "$another"
}

check_ports() {
    ours=" $(docker compose ps --format '{{range .Publishers}}{{.PublishedPort}} {{end}}' 2>/dev/null | tr '\n' ' ')"
    wanted=" $(published | while read -r _ variable default _ _; do printf '%s=%s ' "$(setting "$variable" "$default")" "$variable"; done)"
    published | while read -r name variable default _ _; do
        port=$(setting "$variable" "$default")
        case $port in
            '' | *[!0-9]* | 0* | ??????*) fail "$variable=$port is not a port: a number from 1 to 65535 is." ;;
        esac
        [ "$port" -le 65535 ] || fail "$variable=$port is not a port: a number from 1 to 65535 is."
        other=$(printf '%s' "$wanted" | tr ' ' '\n' | sed -n "s/^$port=//p" | grep -v -x "$variable" | head -n 1) || :
        if [ -n "$other" ]; then
            fail "$variable and $other are both $port: choose another for one of them, such as make up $variable=$(another_port "$port")"
        fi
        case $ours in *" $port "*) continue ;; esac
        if is_taken "$port"; then
            by=$(who_has "$port")
            fail "port $port, which $name wants, is taken${by:+ $by}: end that, or choose another: make up $variable=$(another_port "$port")"
        fi
    done
}
