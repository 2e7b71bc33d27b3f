#!/bin/sh
# Creates .venv/ with exactly the packages in requirements/dev.lock and the project itself. `make setup` calls it. Does
# nothing if .venv/ is current.
# `bootstrap.sh fuzz` creates .venv/fuzz/ for `make fuzz`; `bootstrap.sh clients` creates .venv/clients/ for
# `make clients`, with npm packages in it; `bootstrap.sh release` creates .venv/release/ for `make release`.
# `bootstrap.sh 3.12` creates .venv-3.12/ with the oldest release of Python 3.12 on this machine, and exits with 3 if
# there is none.
set -eu
cd "$(dirname "$0")"

fail() {
    echo "bootstrap.sh: $*" >&2
    exit 1
}

# The requested Python version, the environment's folder, its lock file, whether the project itself is installed into
# it, and the files that declare its npm packages.
version= into=.venv lock=requirements/dev.lock with_project=yes npm=
case "${1:-}" in
    "") ;;
    fuzz | release) into=".venv/$1" lock="requirements/$1.lock" with_project= ;;
    clients) into=.venv/clients lock=requirements/clients.lock with_project=
        npm="tests/clients/package.json tests/clients/package-lock.json tests/clients/.npmrc" ;;
    *) version="$1" into=".venv-$1" ;;
esac

# $npm is unquoted on purpose: the shell splits it into file names.
digest="$(cat bootstrap.sh "$lock" requirements/build.lock pyproject.toml byteor/pyproject.toml $npm | cksum)"
if [ "$(cat "$into/.made-from" 2>/dev/null)" = "$digest" ] && "$into/bin/python" -c '' 2>/dev/null; then
    exit 0
fi

# Without a writable home folder, uv and npm store their downloads in the checkout.
if [ ! -w "${HOME:-/nowhere}" ]; then
    export UV_CACHE_DIR="${UV_CACHE_DIR:-$PWD/.uv/cache}" npm_config_cache="${npm_config_cache:-$PWD/.uv/npm}"
fi

# Find a Python that is new enough. Each candidate is executed, because a pyenv shim in PATH may fail to run.
python=
oldest=
for series in ${version:-3.13 3.12 3.14}; do
    for candidate in "$(command -v "python$series" || true)" "/usr/bin/python$series" "/usr/local/bin/python$series" \
        "/opt/homebrew/bin/python$series" "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/$series".*/bin/python; do
        patch="$("$candidate" -c "import sys; sys.version_info >= (3, 12) and print(sys.version_info.micro)" \
            2>/dev/null)" || continue
        if [ -n "$patch" ] && { [ -z "$python" ] || { [ -n "$version" ] && [ "$patch" -lt "$oldest" ]; }; }; then
            python="$candidate"
            oldest="$patch"
        fi
    done
done
if [ -n "$version" ] && [ -z "$python" ]; then
    echo "no Python $version found in PATH, the system's folders or pyenv's folders" >&2
    exit 3
fi

uv="$(command -v uv || true)"
if [ -z "$uv" ]; then
    uv=.uv/bin/uv
    if [ "$(cat .uv/.made-from 2>/dev/null)" != "$(cksum <requirements/build.lock)" ]; then
        echo "Downloading uv into .uv/ (only once)"
        any_python="${python:-$(command -v python3 || command -v python || true)}"
        [ -n "$any_python" ] || fail "no Python found: install Python 3.12 or newer, or uv"
        # On Debian, venv and pip are separate packages; one of them is enough.
        if log="$("$any_python" -m venv --clear .uv 2>&1)"; then
            set -- .uv/bin/python -m pip install
        elif "$any_python" -m pip --version >/dev/null 2>&1; then
            set -- "$any_python" -m pip install --upgrade --target .uv
        else
            fail "$any_python has neither venv nor pip: install python3-venv, or uv"
        fi
        log="$("$@" --quiet --disable-pip-version-check --require-hashes -r requirements/build.lock 2>&1)" || {
            echo "$log" >&2
            fail "could not download uv; check the network connection"
        }
        cksum <requirements/build.lock >.uv/.made-from
    fi
fi

echo "Creating $into/"
rm -f "$into/.made-from"
if ! "$into/bin/python" -c "import sys; sys.exit(sys.version_info < (3, 12))" 2>/dev/null; then
    "$uv" venv --quiet --clear --python "${python:-3.13}" "$into" || {
        [ -z "$python" ] || fail "could not create $into/ with $python"
        fail "could not create $into/: install Python 3.12 or newer"
    }
fi
"$uv" pip sync --quiet --python "$into/bin/python" --require-hashes "$lock" ||
    fail "could not install the packages in $lock; check the network connection"
if [ -n "$with_project" ]; then
    "$uv" pip install --quiet --python "$into/bin/python" --no-deps --build-constraints requirements/build.lock \
        --editable byteor --editable . || fail "could not install the project itself into $into/"
fi
if [ -n "$npm" ]; then
    cp $npm "$into/"
    log="$(cd "$into" && bin/npm ci --ignore-scripts 2>&1)" || {
        echo "$log" >&2
        fail "could not install the npm packages into $into/; check the network connection"
    }
fi
echo "$digest" >"$into/.made-from"
