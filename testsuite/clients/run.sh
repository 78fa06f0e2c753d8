#!/usr/bin/env bash
# Runs the clients against the server that was built last. Two environments, because what is built on OpenAI's client
# wants an older one.
set -euo pipefail
cd "$(dirname "$0")"
venv="$(cd ../.. && pwd)/.venv"
"$venv/bin/pip" install --quiet -r requirements.txt
[ -x "$venv/more/bin/python" ] || "$venv/bin/python" -m venv "$venv/more"
"$venv/more/bin/pip" install --quiet -r requirements-more.txt
"$venv/bin/pytest" -q --tb=short -p no:cacheprovider test_*.py
"$venv/more/bin/pytest" -q --tb=short -p no:cacheprovider -W ignore more_*.py
