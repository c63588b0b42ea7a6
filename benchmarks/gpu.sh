#!/usr/bin/env bash
# Runs the tests and benchmarks that need a GPU, in under 8 minutes, and installs nothing.
#
#   bash benchmarks/gpu.sh OUT                # on a machine with a GPU
#   bash benchmarks/gpu.sh OUT --device cpu   # the same parts at toy size, to try the script
#
# OUT receives the result of each benchmark, log.txt with everything that was printed, and
# summary.txt with the exit status of each part. A part that fails does not stop the others, but
# the script then ends with status 1. PYTHON names another interpreter than python3; it needs the
# packages of the extra `examples`, scipy, hypothesis and pytest.
set -u

case "$# ${*:2}" in
    "1 " | "3 --device cuda")
        device=cuda
        size=(--repeats 15)  # large maps, few rounds
        scenes=(--train 400 --val 60 --size 128x256)
        run=(--preset demo --size 128x256 --batch-size 16 --iterations 100000)
        # Each way to weigh has the same time: the trainer saves when it is told to end.
        limit=(bash -c 'timeout 45 "$@"; [ $? -eq 124 ]' _)
        ;;
    "3 --device cpu")
        device=cpu
        size=(--effort smoke)
        scenes=(--train 8 --val 2 --size 32x64)
        run=(--preset demo --size 32x64 --decoder-channels 4 --aspp-channels 4 --iterations 2)
        limit=()
        ;;
    *)
        echo "usage: bash benchmarks/gpu.sh OUT [--device cuda|cpu]" >&2
        exit 2
        ;;
esac
out=$1 python=${PYTHON:-python3} root=$(cd "$(dirname "$0")/.." && pwd) result=0
mkdir -p "$out" || exit 2
rm -rf "$out"/{scenes,learned,equal,closed_form}
: >"$out/log.txt"
: >"$out/summary.txt"
export PYTHONPATH=$root PYTHONUNBUFFERED=1

part() {  # NAME SECONDS COMMAND...: runs it, and notes how it ended
    local name=$1 seconds=$2 left=$((470 - SECONDS)) start=$SECONDS status
    shift 2
    # The parts may take longer than 8 minutes in sum, but not together.
    [ "$seconds" -le "$left" ] || seconds=$((left > 1 ? left : 1))
    printf '\n== %s: %s\n' "$name" "$*" >>"$out/log.txt"
    timeout --kill-after=5 "$seconds" "$@" >>"$out/log.txt" 2>&1
    status=$?
    echo "$name: exit status $status after $((SECONDS - start)) s" | tee -a "$out/summary.txt"
    [ "$status" -eq 0 ] || { result=1; tail -n 20 "$out/log.txt"; }
}

benchmark() {  # NAME SECONDS
    rm -f "$out/$1.md"
    part "$1" "$2" "$python" -m benchmarks "$1" --device "$device" "${size[@]}" --out "$out/$1.md"
}

learn() {  # NAME OPTION...: trains, and evaluates what was learned
    local name=$1
    shift
    part "train_$name" 60 "${limit[@]}" "$python" -m examples.cityscapes train \
        --data "$out/scenes" --out "$out/$name" "${run[@]}" --device "$device" "$@"
    part "evaluate_$name" 60 "$python" -m examples.cityscapes evaluate --run "$out/$name" \
        --data "$out/scenes" --device "$device" --clustering hdbscan
    rm -f "$out/$name"/*.pt
}

part environment 40 "$python" -m torch.utils.collect_env
# Without a GPU, tests and benchmarks would be skipped; this part fails instead.
part device 30 "$python" -c "import torch; torch.zeros(1, device='$device')"
# Only the files with such tests are collected, as others import what may not be installed.
mapfile -t tests < <(grep -rl --include='*.py' 'pytest\.mark\.cuda' "$root/tests")
# Another version of PyTorch may warn of something new, which is not an error here.
part tests 130 "$python" -m pytest -c "$root/pyproject.toml" -m cuda -W default \
    -p no:cacheprovider "${tests[@]}"
benchmark weighting_cost 40
benchmark dense_maps 40
benchmark memory 40
benchmark training_step 50
part render 60 "$python" -m examples.cityscapes synthesize --out "$out/scenes" "${scenes[@]}"
learn learned --weighting uncertainty
if [ "$device" = cuda ]; then
    learn equal --weighting equal
    learn closed_form --weighting uncertainty --estimator closed_form
fi
rm -rf "$out/scenes"
exit "$result"
