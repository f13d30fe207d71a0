#!/usr/bin/env bash
# The original in PyTorch beside this package on one GPU, in at most seven minutes:
#
#     COMMIT=$(git rev-parse HEAD) benchmarks/gpu.sh --out found.jsonl
#     python benchmarks/gpu/table.py found.jsonl
#     benchmarks/gpu.sh --rehearse --out rehearsed.jsonl        # in small, on a CPU
#     benchmarks/gpu.sh --cpu 12 --only main --seconds 1800 --out found.jsonl
#
# What is measured, in which order, and the other options: benchmarks/gpu/plan.py. Each figure is in
# the file before the next is measured, so that a cut loses nothing; a second call appends to it.
#
# The machine needs Python with jax[cuda], flax, optax, orbax-checkpoint, jaxtyping, flatbuffers,
# pillow, torch for CUDA and a C compiler, which Triton calls, and for the golden step pytest and
# pytest-xdist; nothing is fetched, and the package is that of this checkout. What else it imports is
# installed from a folder `wheels` in the checkout, where there is one. A machine with a network
# fills it, for the card's version of Python:
#
#     pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux2014_x86_64 \
#         --platform manylinux_2_28_x86_64 -d wheels array_record beartype grain ml_collections portpicker
#
# PYTHON: the interpreter; `python3` without it.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if compgen -G "wheels/*.whl" >/dev/null; then
    "$python" -m pip install -q --no-index --no-deps --target "$work/site" wheels/*.whl
fi
tests=tests:tests/golden:tests/methods/dinogrl
export PYTHONPATH=.:benchmarks:$tests:$work/site${PYTHONPATH:+:$PYTHONPATH}
export PYTHONUNBUFFERED=1
export XLA_PYTHON_CLIENT_PREALLOCATE=false # several processes share the card
export TORCHINDUCTOR_CACHE_DIR=$work/inductor TRITON_CACHE_DIR=$work/triton
"$python" -m gpu.plan "$@"
