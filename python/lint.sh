#!/bin/sh
# What can be said of everything written in Python without building or importing the package: lints
# and layout (ruff.toml), and types (pyproject.toml).
#
#   REGRAFT_LINT    the environment with ruff and mypy; kept  [target/python/lint]
#   PYTHON          the Python to make it with, 3.10 or newer  [python3]
set -eu
cd "$(dirname "$0")/.."
venv=${REGRAFT_LINT:-target/python/lint}
needs=python/requirements-lint.txt

[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
if ! cmp -s $needs "$venv/requirements-lint.txt"; then
    # 75 is "try again later": the packages can't be had now, which says nothing about this one.
    "$venv/bin/python" -m pip --disable-pip-version-check --quiet install -r $needs || exit 75
    cp $needs "$venv/requirements-lint.txt"
fi

"$venv/bin/ruff" check --quiet
"$venv/bin/ruff" format --check --quiet
"$venv/bin/mypy" --config-file python/pyproject.toml
