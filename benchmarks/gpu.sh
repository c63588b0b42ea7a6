#!/usr/bin/env bash
# Runs the tests and benchmarks that need a GPU, in under 8 minutes, and installs nothing.
#
#   bash benchmarks/gpu.sh OUT                # on a machine with a GPU
#   bash benchmarks/gpu.sh OUT --device cpu   # the same parts at toy size, to try the script
#
# OUT receives the result of each benchmark, log.txt with everything that was printed, and
# summary.txt with versions and exit statuses. A part that fails does not stop the others, but the
# script then ends with status 1. PYTHON names another interpreter than python3; it needs torch,
# torchvision, numpy, scipy, scikit-learn, pillow, matplotlib, tqdm, jinja2, torchmetrics,
# hypothesis and pytest.
set -u

if [ $# -eq 1 ]; then
    device=cuda
elif [ $# -eq 3 ] && [ "$2" = --device ]; then
    device=$3
else
    device=
fi
case $device in
    cuda)
        size=(--repeats 15)  # large maps, few rounds
        scenes=(--train 400 --val 60 --size 128x256)
        run=(--preset demo --size 128x256 --batch-size 16 --iterations 100000)
        # Each way to weigh has the same time: the trainer saves when it is told to end.
        limit=(bash -c 'timeout 45 "$@"; [ $? -eq 124 ]' _)
        ;;
    cpu)
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

mkdir -p "$1" && out=$(cd "$1" && pwd) || exit 2
python=${PYTHON:-python3}
case $python in */*) python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python") ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
log=$out/log.txt summary=$out/summary.txt
: >"$log"
: >"$summary"
result=0

part() {  # NAME SECONDS COMMAND...: runs it, and notes how it ended
    local name=$1 seconds=$2 start=$SECONDS status
    shift 2
    # Whatever single parts may take, all of them end within 8 minutes.
    [ "$seconds" -le $((470 - SECONDS)) ] || seconds=$((470 - SECONDS))
    [ "$seconds" -ge 1 ] || seconds=1
    printf '\n== %s: %s\n' "$name" "$*" >>"$log"
    timeout --kill-after=5 "$seconds" "$@" >>"$log" 2>&1
    status=$?
    echo "$name: exit status $status after $((SECONDS - start)) s" | tee -a "$summary"
    if [ "$status" -ne 0 ]; then
        result=1
        tail -n 20 "$log"
    fi
}

benchmark() {  # NAME SECONDS
    rm -f "$out/$1.md"
    part "$1" "$2" "$python" -m benchmarks "$1" --device "$device" "${size[@]}" --out "$out/$1.md"
}

versions='
import sys, hypothesis, numpy, pytest, sklearn, torch, torchvision
with open(sys.argv[1], "a") as summary:
    for module in (torch, torchvision, numpy, sklearn, hypothesis, pytest):
        print(module.__name__, module.__version__, file=summary)
    print("python", sys.version, file=summary)
    if sys.argv[2] == "cuda":  # an error where there is no GPU
        print("CUDA", torch.version.cuda, torch.cuda.get_device_name(), file=summary)
'

[ "$device" = cpu ] || part nvidia-smi 10 nvidia-smi
part versions 30 "$python" -c "$versions" "$summary" "$device"
# Only the files that have such tests are collected: others import what may not be installed.
mapfile -t tests < <(grep -rl --include='*.py' 'pytest\.mark\.cuda' tests)
# Warnings of another version of PyTorch are listed, but are not errors.
part tests 130 "$python" -m pytest -m cuda -W default -p no:cacheprovider "${tests[@]}"
benchmark weighting_cost 40
benchmark dense_maps 40
benchmark memory 20
benchmark training_step 50

learn() {  # NAME OPTION...
    local name=$1
    shift
    part "train_$name" 60 "${limit[@]}" "$python" -m examples.cityscapes train \
        --data "$out/scenes" --out "$out/$name" "${run[@]}" --device "$device" "$@"
    part "evaluate_$name" 25 "$python" -m examples.cityscapes evaluate --run "$out/$name" \
        --data "$out/scenes" --device "$device" --clustering hdbscan
    rm -f "$out/$name"/*.pt
}
rm -rf "$out/scenes" "$out/equal" "$out/learned" "$out/closed_form"
part render 60 "$python" -m examples.cityscapes synthesize --out "$out/scenes" "${scenes[@]}"
learn learned --weighting uncertainty
if [ "$device" = cuda ]; then
    learn equal --weighting equal
    learn closed_form --weighting uncertainty --estimator closed_form
fi
rm -rf "$out/scenes"
exit "$result"
