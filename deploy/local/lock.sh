#!/bin/sh
# Resolves pyproject.toml into requirements.lock (the service), requirements-load.lock (and the customers'
# load generator), requirements-dev.lock (and the service's checks) and tests/requirements-bugsink.lock (the error tracker of the tests, which has an environment of its own).
#
# Run by: `make lock`. Checked by: `make lint-locks` (deploy/local/locks.py).
# One resolution for every platform and every Python since 3.11, with hashes and without an index address:
# whoever installs uses the index that his machine is set up for, and cannot get other files from it.
# Versions that are in the locks and still fit stay; UPGRADE=1 takes the newest ones instead.
set -eu
cd "$(dirname "$0")/../.."

UV_VERSION=0.13.8
# shellcheck disable=SC2016 # the backquotes are meant
HEADER='# Written by `make lock` from pyproject.toml; universal (Python 3.11 and later, every platform), with hashes and no index address.'

python=$(sh deploy/local/install.sh python)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
mkdir "$work/tests"
cp pyproject.toml requirements.lock requirements-load.lock requirements-dev.lock "$work/"
cp tests/requirements-bugsink.lock "$work/tests/"

# resolve OUTPUT SOURCE...: in the copy, so that a failure leaves the locks as they were.
resolve() {
    output=$1
    shift
    (cd "$work" && venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-annotate --no-header ${UPGRADE:+--upgrade} \
        --output-file "$output" "$@" >/dev/null)
}
resolve requirements.lock pyproject.toml
resolve requirements-dev.lock pyproject.toml --group dev --constraint requirements.lock
# After the checks': what customers run on is then what the tests ran.
resolve requirements-load.lock pyproject.toml --group load --constraint requirements-dev.lock
resolve tests/requirements-bugsink.lock --group bugsink

for lock in requirements.lock requirements-load.lock requirements-dev.lock tests/requirements-bugsink.lock; do
    { printf '%s\n' "$HEADER" && grep -v '^#' "$work/$lock"; } >"$work/$lock.complete"
    mv "$work/$lock.complete" "$lock"
done
