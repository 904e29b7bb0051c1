#!/bin/sh
# Makes .venv and installs one of the two locks into it, with hash checking; does nothing when that is done already.
#
#   sh deploy/local/install.sh run    what the service needs (requirements.lock)
#   sh deploy/local/install.sh dev    the same and what tests and checks need (requirements-dev.lock)
#   sh deploy/local/install.sh python only prints which Python .venv would be made with
#
# Read by: the Makefile, before every target that needs Python. Tested by: tests/unit/deploy/test_install.py.
# It is POSIX shell because it has to explain itself on a machine whose Python is too old or missing.
# A finished installation leaves a copy of its lock in .venv, as its last act: that copy is what a later
# run trusts. Every failure is one sentence on standard error and exit code 1.
set -eu
cd "$(dirname "$0")/../.."

VENV=.venv
LOG=var/install.log

fail() {
    printf 'glasshouse: %s\n' "$1" >&2
    exit 1
}

# Written for any Python that may answer to the name, Python 2 included.
PROBE='
import sys
version = ".".join(map(str, sys.version_info[:3]))
if sys.version_info < (3, 11):
    print("old " + version)
else:
    try:
        import ensurepip, venv
        print("ok " + version)
    except ImportError:
        print("bare " + version)
'

# Sets PYTHON_FOUND and PYTHON_VERSION to the first Python that will do, or says why none does.
find_python() {
    old='' bare=''
    if [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON"
    else
        set -- python3 python3.14 python3.13 python3.12 python3.11 python
    fi
    for candidate in "$@"; do
        answer=$("$candidate" -c "$PROBE" 2>/dev/null) || continue
        PYTHON_FOUND=$candidate
        PYTHON_VERSION=${answer#* }
        case $answer in
            "ok "*) return ;;
            "bare "*) bare=${bare:-"Python $PYTHON_VERSION ($candidate)"} ;;
            "old "*) old=${old:-"Python $PYTHON_VERSION ($candidate)"} ;;
        esac
    done
    [ -z "$bare" ] || fail "$bare cannot make virtual environments, its venv or ensurepip module is missing: install it (Debian and Ubuntu: apt install python3-venv) or name another Python with PYTHON=/path/to/python."
    [ -z "$old" ] || fail "$old is too old, Python 3.11 or later is needed: install it or name it with PYTHON=/path/to/python3.11."
    [ -z "${PYTHON:-}" ] || fail "PYTHON=$PYTHON is not a Python that can be run."
    fail "no Python was found, Python 3.11 or later is needed: install it or name it with PYTHON=/path/to/python3.11."
}

# Whether .venv holds an interpreter that runs, is recent enough and has pip: half of one does not count.
venv_usable() {
    [ -x "$VENV/bin/python" ] &&
        "$VENV/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Whether the caller names a Python of another version than the one .venv was made with.
other_python_wanted() {
    [ -n "${PYTHON:-}" ] || return 1
    find_python
    [ "$("$VENV/bin/python" -c "$PROBE" 2>/dev/null)" != "ok $PYTHON_VERSION" ]
}

installed() {
    cmp -s "$1" "$VENV/$1"
}

# Prints why pip failed, from its own log. To pip, an index that never answered is one without the package.
reason_of_failure() {
    broken=$(sed -n "s/.*connection broken by '\\(.*\\)': .*/\\1/p" "$LOG" | tail -n 1 | sed "s/.*>: //; s/')*$//")
    reason=$(sed -n 's/^ *ERROR: //p' "$LOG" | head -n 1)
    case $reason in
        *'(from versions: none)'*) printf 'the package index does not answer (%s)' "${broken:-$reason}" ;;
        *) printf '%s' "${reason:-pip failed}" ;;
    esac
}

case ${1:-} in
    run) lock=requirements.lock ;;
    dev) lock=requirements-dev.lock ;;
    python)
        find_python
        printf '%s\n' "$PYTHON_FOUND"
        exit 0
        ;;
    *) fail "usage: sh deploy/local/install.sh run|dev|python" ;;
esac

if venv_usable && ! other_python_wanted; then
    # The dev lock holds all of the other one, in the same versions.
    if installed "$lock" || installed requirements-dev.lock; then
        exit 0
    fi
    fresh=false
else
    find_python
    fresh=true
fi

if ! { mkdir -p var && true >"$LOG"; } 2>/dev/null; then
    fail "cannot write to $PWD/var: run from a directory that you own, with space left on its disk."
fi

if $fresh; then
    rm -rf "$VENV" 2>/dev/null || fail "cannot replace $PWD/$VENV: remove it, or run from a directory that you own."
    printf 'Making %s with Python %s ...\n' "$VENV" "$PYTHON_VERSION"
    if ! "$PYTHON_FOUND" -m venv "$VENV" >"$LOG" 2>&1; then
        rm -rf "$VENV" 2>/dev/null || :
        fail "Python $PYTHON_VERSION ($PYTHON_FOUND) could not make $PWD/$VENV: $(grep -v '^ *$' "$LOG" | tail -n 1) (all of it: $LOG)"
    fi
fi

rm -f "$VENV/requirements.lock" "$VENV/requirements-dev.lock"
printf 'Installing %s (pip writes to %s) ...\n' "$lock" "$LOG"
# PIP_USER and PIP_REQUIRE_VIRTUALENV are settings of people's machines that make no sense inside .venv.
if ! PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 "$VENV/bin/python" -m pip install \
    --disable-pip-version-check --no-input --require-hashes -r "$lock" >"$LOG" 2>&1; then
    why=$(reason_of_failure)
    if $fresh; then rm -rf "$VENV"; fi
    fail "the packages of $lock could not be installed: $why (all of it: $LOG)."
fi
cp "$lock" "$VENV/$lock"
