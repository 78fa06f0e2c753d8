#!/usr/bin/env bash
# Runs the clients against the server that was built last. `run.sh short` leaves out those that are built on OpenAI's
# client: they want an older one and many packages, so they have an environment of their own.
set -euo pipefail
cd "$(dirname "$0")"
venv="$(cd ../.. && pwd)/.venv"
"$venv/bin/pip" install --quiet -r requirements.txt
"$venv/bin/pytest" -q --tb=short -p no:cacheprovider test_*.py
[ "${1:-}" != short ] || exit 0
[ -x "$venv/more/bin/python" ] || "$venv/bin/python" -m venv "$venv/more"
"$venv/more/bin/pip" install --quiet -r requirements-more.txt
"$venv/more/bin/pytest" -q --tb=short -p no:cacheprovider -W ignore more_*.py
