#!/usr/bin/env bash
# `make gpu-check`, from a plain checkout: the machine's own python and torch, and nothing from the
# network. WHEELS=FOLDER: wheels of what that python lacks. ARGS: what `python -m benchmarks.gpu` takes.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
site=""
if [ -n "${WHEELS:-}" ]; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl
fi
export PYTHONPATH="$PWD:$PWD/backend:$PWD/bakery:$PWD/sdk/python:$PWD/tests${site:+:$site}${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1
# shellcheck disable=SC2086 # several words
"$python" -m benchmarks.gpu ${ARGS:-}
