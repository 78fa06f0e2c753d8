#!/usr/bin/env bash
# Everything that needs a real GPU, in one command, for a machine with nothing but the driver, CUDA's tools and PyTorch:
#
#   testsuite/gpu/run.sh OUT_DIR
#
# The binaries are those beside this script in bin/ (a copied folder), or target/release of the repository:
#   sinter             built with --features nvptx
#   gpu_check          the kernels of the golden models on the GPU and on the virtual GPU
# MODELS names model directories for the speed part, separated by colons; without it the example model is measured.
# Results are JSON files below OUT_DIR. Without a GPU it says so and ends well.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?"usage: run.sh OUT_DIR"}
mkdir -p "$out"
out=$(cd "$out" && pwd)
python=${PYTHON:-python3}

skip() {
    echo "skipped: $1"
    printf '{"skipped": "%s"}\n' "$1" > "$out/summary.json"
    exit 0
}
nvidia-smi -L > "$out/gpus.txt" 2>/dev/null || skip "no GPU"
[ -s "$out/gpus.txt" ] || skip "no GPU"

bin=$here/bin
[ -x "$bin/sinter" ] || bin=$here/../../target/release
for tool in sinter gpu_check; do
    [ -x "$bin/$tool" ] || { echo "$bin/$tool is missing; run make gpu-build"; exit 1; }
done
goldens=${GOLDENS:-$here/../goldens}
example=$here/../../examples/tiny_chat/model
export SINTER_CACHE=$out/cache
export PATH=$bin:$PATH

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.memory --format=csv > "$out/gpu.csv"
sinter doctor --json > "$out/doctor.json"
status=0
step() {
    local name=$1
    shift
    echo "== $name"
    if "$@" > "$out/$name.log" 2>&1; then
        echo "   good"
    else
        echo "   FAILED, see $out/$name.log"
        status=1
    fi
}

step kernels gpu_check --goldens "$goldens" --out "$out/kernels.json" --dump "$out/kernels"
step torch_kernels "$python" "$here/torch_kernels.py" "$out/kernels" "$out/torch_kernels.json"
step models "$python" "$here/models.py" "$goldens" "$out/models.json"
if command -v compute-sanitizer > /dev/null; then
    for tool in memcheck racecheck initcheck synccheck; do
        step "sanitizer_$tool" compute-sanitizer --tool "$tool" --error-exitcode 3 \
            sinter logits "$goldens/llama" --tokens 3,1,4,1,5,9,2,6 --decode 3 --device cuda \
            --out "$out/sanitized.safetensors"
    done
else
    echo "== sanitizer: compute-sanitizer is not there, skipped"
fi
step speed "$python" "$here/speed.py" "${MODELS:-$example}" "$out/speed.json"
"$python" "$here/summary.py" "$out"
exit $status
