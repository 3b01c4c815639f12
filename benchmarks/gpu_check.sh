#!/usr/bin/env bash
# All that has to be known about memrl on one GPU, in eight minutes. Prints Markdown; the exit status
# is 1 if a part failed. The parts have limits of time, and each runs whatever became of the others.
# `python`, or the one that PYTHON names, must have memrl with its extra `test`, and torch for CUDA.
#
#     benchmarks/gpu_check.sh > gpu.md
#     benchmarks/gpu_check.sh --dry-run            # on a CPU: tries this script, measures nothing
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
device=cuda update=graphed length=250 updates=() processes=8 slower=1
if [ "${1-}" = --dry-run ]; then
    device=cpu update=eager length=5 updates=(--models lstm --lengths 5 --shared-by 1,2) processes=2
    slower=4 # a CPU that is busy with other things
elif [ $# -gt 0 ]; then
    sed -n '2,7s/^# \{0,1\}//p' "$0"
    exit 2
fi
export MEMRL_TEST_DEVICE=$device

failed=()
part() { # part TITLE SECONDS COMMAND...: prints a section
    local title=$1 limit=$(($2 * slower)) begin=$SECONDS
    shift 2
    printf '\n## %s\n\n    %s\n\n' "$title" "$(echo "$*" | sed "s|$folder|FOLDER|; s|^$python|python|")"
    if timeout --signal=INT --kill-after=10 "$limit" "$@" 2> "$folder/stderr"; then
        printf '\n%s s\n' $((SECONDS - begin))
    else
        printf '\nfailed, status %s, after %s s\n\n' $? $((SECONDS - begin))
        tail -n 15 "$folder/stderr" | sed 's/^/    /'
        failed+=("$title")
    fi
}
updates() { part "$1" "$2" "$python" benchmarks/gpu.py "$3" --device "$device" ${updates[@]+"${updates[@]}"}; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
echo "# memrl on $device"
part "Tests" 80 "$python" -m pytest -q -p no:cacheprovider -n "$processes" tests/test_cuda.py \
    tests/test_trainer.py tests/test_run.py::test_killed_at_random_and_continued_is_uninterrupted
updates "Losses" 80 losses
updates "Updates" 160 updates
updates "Processes that share the device" 60 sharing
part "Passive T-Maze of length $length" 100 "$python" run.py budget=fast env.length="$length" \
    seq_model=gpt device="$device" update="$update" outputs="$folder"

printf '\nAll of it: %s s. ' "$SECONDS"
if [ ${#failed[@]} -gt 0 ]; then
    printf 'Failed: %s.\n' "$(IFS=,; echo "${failed[*]}")"
    exit 1
fi
echo "No part failed."
