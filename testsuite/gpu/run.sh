#!/usr/bin/env bash
# Everything that needs a real GPU, in one command, for a machine with nothing but the driver, CUDA's tools and PyTorch:
#
#   testsuite/gpu/run.sh OUT_DIR
#
# The binaries are those beside this script in bin/ (a copied folder), or target/release of the repository:
#   sinter             built with --features nvptx
#   gpu_check          the kernels of the golden models on the GPU and on the virtual GPU, and the speed of kernels
# Each phase has a time limit, and whatever becomes of it the next one runs; LIMIT stretches or shrinks them all (1 makes
# them about 14 minutes together at most). The phases that say whether results are right come first.
# MODELS names model directories for the speed part, separated by colons; without it a model of the shape of Llama-3.2-1B
# with random weights is made. DRY=1 takes the CPU and the virtual GPU in the GPU's place, on small shapes: it checks
# nothing but this script and what it calls.
# Results are JSON files below OUT_DIR. Without a GPU it says so and ends well.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?"usage: run.sh OUT_DIR"}
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
python=${PYTHON:-python3}
dry=${DRY:-}
export SINTER_DEVICE=cuda

skip() {
    echo "skipped: $1"
    printf '{"skipped": "%s"}\n' "$1" > "$out/summary.json"
    exit 0
}
if [ -n "$dry" ]; then
    export SINTER_DEVICE=vgpu:sm_90a SINTER_DRY=1
else
    timeout 30 nvidia-smi -L > "$out/gpus.txt" 2>/dev/null || skip "no GPU"
    [ -s "$out/gpus.txt" ] || skip "no GPU"
fi

bin=$here/bin
[ -x "$bin/sinter" ] || bin=${SINTER_BIN:-$here/../../target/release}
for tool in sinter gpu_check; do
    [ -x "$bin/$tool" ] || { echo "$bin/$tool is missing; run make gpu-build"; exit 1; }
done
# Libraries of the machine that built the binaries, for one that has not all of them.
[ ! -d "$bin/lib" ] || export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$bin/lib
for tool in sinter gpu_check; do
    missing=$(ldd "$bin/$tool" 2>&1 | grep "not found")
    if [ -n "$missing" ]; then
        echo "$bin/$tool does not run here:"
        echo "$missing"
        printf '{"failed": "%s does not run here, see doctor.log"}\n' "$tool" > "$out/summary.json"
        echo "$missing" > "$out/doctor.log"
        exit 1
    fi
done
goldens=${GOLDENS:-$here/../goldens}
# What is large and of no use afterwards.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SINTER_CACHE=$work/cache
export PATH=$bin:$PATH

status=0
phases=()
# step NAME SECONDS COMMAND...: its output goes to a log; 124 and 137 mean that its time was up.
step() {
    local name=$1 seconds=$2 started=$SECONDS code
    seconds=$(awk "BEGIN { print int($seconds * ${LIMIT:-1} + 0.5) }")
    shift 2
    echo "== $name, at most $seconds s"
    timeout --kill-after=10 "$seconds" "$@" > "$out/$name.log" 2>&1
    code=$?
    phases+=("{\"phase\": \"$name\", \"exit\": $code, \"seconds\": $((SECONDS - started)), \"limit\": $seconds}")
    if [ $code = 0 ]; then
        echo "   good, $((SECONDS - started)) s"
    else
        echo "   FAILED with $code after $((SECONDS - started)) s, see $out/$name.log"
        status=1
    fi
    # What is known so far stays, whatever happens next.
    printf '[%s]\n' "$(IFS=,; echo "${phases[*]}")" > "$out/phases.json"
}

commit=$(cat "$bin/commit.txt" 2>/dev/null || git -C "$here" rev-parse HEAD 2>/dev/null || echo unknown)
printf '{"commit": "%s", "sinter": "%s", "dry": %s, "date": "%s"}\n' "$commit" "$(sinter --version 2>/dev/null)" \
    "$([ -n "$dry" ] && echo true || echo false)" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" > "$out/run.json"
if [ -z "$dry" ]; then
    timeout 30 nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.max.memory,power.limit \
        --format=csv > "$out/gpu.csv"
fi
virtual=()
[ -z "$dry" ] || virtual=(--virtual sm_90a)

step doctor 30 sinter doctor --json
# The first launch of all, so that whatever keeps everything from working shows at once.
step first 60 sinter logits "$goldens/llama" --tokens 3,1,4 --device "$SINTER_DEVICE" --out "$work/first.safetensors"
step kernels 180 gpu_check kernels --goldens "$goldens" --out "$out/kernels.json" --dump "$work/kernels" \
    --seconds "$(awk "BEGIN { print int(170 * ${LIMIT:-1}) }")" --case-seconds 60 ${virtual[@]+"${virtual[@]}"}
step torch_kernels 90 "$python" "$here/torch_kernels.py" "$work/kernels" "$out/torch_kernels.json"
step models 180 "$python" "$here/models.py" "$goldens" "$out/models.json"
step speed 180 "$python" "$here/speed.py" "$work" "${MODELS:-}" "$out/speed.json"
if command -v compute-sanitizer > /dev/null; then
    for tool in memcheck racecheck initcheck synccheck; do
        step "sanitizer_$tool" 30 compute-sanitizer --tool "$tool" --error-exitcode 3 \
            sinter logits "$goldens/llama" --tokens 3,1,4,1,5,9,2,6 --decode 3 --device cuda \
            --out "$work/sanitized.safetensors"
    done
else
    echo "== sanitizer: compute-sanitizer is not there, skipped"
fi
"$python" "$here/summary.py" "$out" || status=1
exit $status
