#!/usr/bin/env bash
# All that needs a GPU, in one command and without a network: bash benchmarks/gpu_check.sh [FOLDER]
# Builds for the GPU at hand, runs the op table on it, the sanitizers on small cases, and the sweep. Each
# stage has a time limit and a log in FOLDER, and one that fails does not stop the next: under 9 minutes.
# PYTHON names a Python that has torch with CUDA, numpy, pytest and pybind11.
set -uo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
OUT=$(mkdir -p "${1:-build/gpu}" && cd "${1:-build/gpu}" && pwd)
failed=()

stage() { # NAME SECONDS COMMAND...
  local name=$1 limit=$2 start=$SECONDS code
  shift 2
  timeout --kill-after=5 "$limit" "$@" >"$OUT/$name.log" 2>&1
  code=$?
  echo "$name: exit $code after $((SECONDS - start)) s" | tee -a "$OUT/summary.txt"
  if [ "$code" != 0 ]; then
    failed+=("$name")
    tail -n 15 "$OUT/$name.log"
  fi
}

export PGEST_CUDA=1 PGEST_BUILD=1 PGEST_REQUIRE_KERNELS=1
export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-$("$PYTHON" -c \
  'import torch; print("%d.%d" % torch.cuda.get_device_capability())')}
export NVCC_APPEND_FLAGS="-Xptxas=-v"
: >"$OUT/summary.txt"
nvidia-smi >"$OUT/machine.log" 2>&1

stage build 150 "$PYTHON" setup.py build_ext --inplace
"$PYTHON" .ci/ptxas.py "$OUT/build.log" >"$OUT/registers.txt" 2>&1
unset NVCC_APPEND_FLAGS
# Small first: a wrong kernel shows itself before the time goes.
stage tests 150 "$PYTHON" -m pytest -q -p no:cacheprovider tests/test_cuda.py
if command -v compute-sanitizer >/dev/null; then
  small="equals_float64 and 2049 and float32 and not linear"
  for tool in memcheck racecheck synccheck; do
    stage "$tool" 45 compute-sanitizer --tool "$tool" --error-exitcode 1 \
      "$PYTHON" -m pytest -q -x -p no:cacheprovider tests/test_cuda.py -k "$small"
  done
fi
stage sweep 110 "$PYTHON" -m benchmarks.cuda --out "$OUT"

echo "results are in $OUT"
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
