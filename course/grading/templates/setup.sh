#!/usr/bin/env bash
# Run once, as root, when Gradescope builds the image.
set -euo pipefail
cd "$(dirname "$0")"
export DEBIAN_FRONTEND=noninteractive

newest() {
  for python in python3 python3.13 python3.12 python3.11; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$python" && return
  done
}
apt-get update
# bubblewrap: what student code runs in. The others: for an image whose own Python is too old.
apt-get install -y --no-install-recommends bubblewrap
apt-get install -y --no-install-recommends python3 python3-venv
[ -n "$(newest)" ] || apt-get install -y --no-install-recommends python3.11 python3.11-venv

"$(newest)" -m venv .venv
.venv/bin/python -m pip install --index-url https://download.pytorch.org/whl/cpu \
  $(grep -Eo '^torch(vision)?==[0-9.]+' requirements.lock)
.venv/bin/python -m pip install -r requirements.lock
.venv/bin/python -m pip install --no-deps --no-build-isolation -e .

# The models that tests serve; then the solution that made them goes.
.venv/bin/python -m course.harness.models_for_tests models-of-the-tests
rm -rf solutions
mkdir solutions
