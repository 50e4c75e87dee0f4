#!/bin/sh
# Builds the wheel as `pip install ./python` does, installs it into an environment of its own, and
# runs the tests there.
#
#   REGRAFT_VENV    the environment; kept, so that a second run installs nothing anew
#                   [target/python/venv]
#   REGRAFT_SITE    a directory of packages to use instead of installing torch and the rest: a
#                   site-packages that has them
#   PYTHON          the Python to make the environment with  [python3]
#   arguments       go to pytest
set -eu
cd "$(dirname "$0")"
here=$(pwd)
root=$(dirname "$here")
venv=${REGRAFT_VENV:-$root/target/python/venv}
start=$(date +%s)
took() { echo "[python] $1: $(($(date +%s) - start)) s"; }

[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }

if [ -n "${REGRAFT_SITE:-}" ]; then
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$REGRAFT_SITE" >"$site/regraft-test.pth"
    pip install 'pytest>=7' 'maturin>=1.9,<2' || exit 75
elif ! cat requirements-test.txt requirements-families.txt | cmp -s - "$venv/requirements-test.txt"; then
    # 75 is "try again later": the packages can't be had now, which says nothing about this one.
    pip install -r requirements-test.txt || exit 75
    # Only if there is one for this Python: its tests are skipped otherwise, and say so.
    pip install --no-deps nemo-automodel==0.7.0 || echo "[python] nemo-automodel can't be installed; its tests are skipped"
    # The same holds for these; without an index that has them all, there are none of them.
    pip install --no-deps -r requirements-families.txt || echo "[python] publishers' packages can't be installed; tests of equal outputs are skipped"
    cat requirements-test.txt requirements-families.txt >"$venv/requirements-test.txt"
fi
took "environment"

# Quick to build rather than quick to run: the tests are about what is right.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target/python}"
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
# The environment's own maturin, or that of the packages used instead, so that a second run needs no
# network.
PATH="$venv/bin:${REGRAFT_SITE:+${REGRAFT_SITE%/lib/*}/bin:}$PATH" pip wheel --no-deps --no-build-isolation --wheel-dir "$wheels" "$here"
pip install --no-deps --force-reinstall "$wheels"/regraft-*.whl
took "wheel"

# From elsewhere, so that the installed package is what is tested, not the sources beside the tests.
cd "$wheels"
HF_HUB_OFFLINE=1 "$venv/bin/python" -m pytest -q -p no:cacheprovider -c "$here/pyproject.toml" --rootdir "$here" "$@" "$here/tests"
took "tests"
