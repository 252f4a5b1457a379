#!/bin/bash
# Whole runs on GPUs end as on the CPU, whatever the order of threads and streams, for one rank and for several; and go
# on from each other's checkpoints; in bfloat16 they come close, and go on in bfloat16 only. On emulated devices, where CUDA was found; DCANAS_GPUS=N: on the N real ones of this
# machine. EMULATOR_SEED: of the orders. DCANAS_LONG=1: more orders, and kills in every phase.
# shellcheck disable=SC2317 # functions that `check` calls
# shellcheck source=tests/program/common.sh
. "$(dirname "$0")/common.sh"
need h5dump

if [ -z "${DCANAS_GPUS:-}" ]; then
    program=$(dirname "$program")/emulated/dcanas
    if [ ! -x "$program" ]; then
        echo '1..0 # SKIP no emulated device: built without CUDA'
        exit 0
    fi
fi
limit=${long:+600}
limit=${limit:-120}
seed=${EMULATOR_SEED:-1}
export DCANAS_NCCL_TIMEOUT_S=60
note "EMULATOR_SEED=$seed"

# A run of few steps at rates at which rounding does not grow: every phase, on 64 images.
./make_data idx 64 32 && run 0 data import idx idx few.h5 --classes 4
[ $status = 0 ] || bail_out "dcanas data import: $(cat "$err")"
few=("$ini")
for key in data.file=few.h5 lug.points=1 search.runs=1 search.epochs=2 search.batch=16 search.learning_rate=0.02 \
    select.candidates=0 target.epochs=2 target.learning_rate=0.02 target.micro_batch=16 target.ema_decay=0.5; do
    few+=(--set "$key")
done

# on DEVICE RANKS FOLDER COMMAND...: `start` with as many GPUs as ranks, and other orders each time.
on() {
    local device=$1 n=$2 folder=$3
    shift 3
    export EMULATED_DEVICES=${gpus:-$((n > 1 ? n : 1))} EMULATOR_SEED=$((seed++))
    start "$n" "$@" --device "$device" --set run.output="$folder"
}

# has N GPUs, as the emulated machine always has.
has() {
    [ -z "${DCANAS_GPUS:-}" ] || [ "$DCANAS_GPUS" -ge "$1" ]
}

# ---- what is close ----

# figures FOLDER: what a run has come to, a word or number a line: its result, its tables, its weights.
figures() {
    result_of "$1" device ranks | tr -d '",:{}[]' | tr -s ' \t' '\n'
    cat "$1/training/epochs.csv" "$1"/searches/*.csv | tr , '\n'
    h5dump -y -w 1 -m %.9g -d /params/values "$1/training/last.h5" | sed -n 's/^ *\(-\{0,1\}[0-9.e+-]*\),\{0,1\}$/\1/p'
}

# close A B: the same architecture and as many figures, words the same, numbers within 1e-3 of the larger or of 1. (One
# image of 32 that changes sides would be beyond that: none does.)
close() {
    cmp "$1/genotype.txt" "$2/genotype.txt" >&2 || return 1
    paste -d ' ' <(figures "$1") <(figures "$2") | awk '
        $1 == $2 { next }
        { number = "^-?[0-9.]+(e[+-]?[0-9]+)?$"
          most = $1 * $1 > 1 ? ($1 < 0 ? -$1 : $1) : 1
          if ($1 ~ number && $2 ~ number && ($1 - $2) ^ 2 <= (1e-3 * most) ^ 2) next
          print "# line " NR ": " $0
          if (++wrong == 5) exit }
        END { exit wrong > 0 || NR < 5000 }'
}

# ---- the same end on both devices ----

for n in 1 2 4 ${long:+1 2 4 1 2 4}; do
    has "$n" || { note "$DCANAS_GPUS GPUs: none of $n ranks"; continue; }
    groups=(--set lug.ranks_per_search=$((n > 1 ? 2 : 1)))
    [ "$n" = 1 ] || groups+=(--set target.auxiliary=no --set target.epochs=1)
    rm -rf cpu-"$n" cuda-"$n"
    for device in cpu cuda; do
        on $device "$n" "$device-$n" run "${few[@]}" "${groups[@]}"
        finished
        [ $status = 0 ] || tap 1 "run on $device, $n ranks"
    done
    check "run on $n GPU(s): as on the CPU" close "cpu-$n/tiny" "cuda-$n/tiny"
    check '... and it was on GPUs' grep -q '"device":.*"cuda, ' "cuda-$n/tiny/result.json"
done

far() {
    ! close "$1" "$2" >/dev/null 2>&1
}
on cpu 1 other run "${few[@]}" --set target.learning_rate=0.021
finished
check 'another learning rate is not close' far cpu-1/tiny other/tiny

# ---- interruptions ----

# until_in RANKS FOLDER DEVICE PHASE: starts a run and waits until it is in that phase.
until_in() {
    on "$3" "$1" "$2" run "${few[@]}"
    reached "\"phase\":\"$4\"}" "$2/tiny/events.jsonl" 1 60
}

goes_on() {
    on "$1" 1 "$2" run "${few[@]}"
    finished
    [ "$status" = 0 ]
}

for phase in 'lookup graph' ${long:+search selection}; do
    until_in 1 stopped cuda "$phase"
    sleep 1
    kill_job
    note "killed in $phase"
done
until_in 1 stopped cuda training
sleep 1
kill -USR1 "$(cat "$launcher")"
finished
check 'killed, and then asked to stop in training' [ $status = 75 ]
cp -r stopped moved
check 'goes on on a GPU' goes_on cuda stopped
check '... to the same bits, in other orders' same_end cuda-1/tiny stopped/tiny
check 'goes on on the CPU' goes_on cpu moved
check '... to the same end' close cpu-1/tiny moved/tiny

until_in 1 begun cpu search
kill -USR1 "$(cat "$launcher")"
finished
check 'asked to stop in a search on the CPU' [ $status = 75 ]
check 'goes on on a GPU' goes_on cuda begun
check '... to the same end' close cpu-1/tiny begun/tiny

# ---- bfloat16 ----

# in_bf16 FOLDER
in_bf16() {
    on cuda 1 "$1" run "${few[@]}" --precision bf16
}

# loss_near A B: of the test images, within 2 %.
loss_near() {
    awk -v a="$(number test_loss "$1/result.json")" -v b="$(number test_loss "$2/result.json")" \
        'BEGIN { exit !(a > 0 && b > 0 && a / b < 1.02 && b / a < 1.02) }'
}

arena_of() {
    on cuda 1 none plan "${few[@]}" --json "$@"
    finished
    number arena_bytes "$out"
}

check 'plan: a search needs less memory in bf16' \
    [ "$((10 * $(arena_of --precision bf16)))" -lt "$((7 * $(arena_of --precision float)))" ]
in_bf16 narrow
finished
check 'run in bf16' [ $status = 0 ]
check '... on a device that says so' grep -q '"device":.*"cuda, .*, bf16"' narrow/tiny/result.json
on cuda 1 wide train "${few[@]}" --genotype narrow/tiny/genotype.txt --set run.autotune=yes
finished
check '... comes to what float comes to for its architecture, in engines that were timed' loss_near narrow/tiny wide/tiny
check '... as the device says' grep -q '"device":.*"cuda, .*, float, autotuned"' wide/tiny/result.json
in_bf16 paused
reached '"phase":"training"}' paused/tiny/events.jsonl 1 60
kill -USR1 "$(cat "$launcher")"
finished
check 'asked to stop in training in bf16' [ $status = 75 ]
on cuda 1 paused run "${few[@]}"
finished
check '... does not go on in float' [ $status = 2 ]
check '... and says why' grep -q 'precision is float, but was bf16' "$err"
in_bf16 paused
finished
check '... goes on in bf16, to the same bits' same_end narrow/tiny paused/tiny
run 0 eval narrow/tiny/training/last.h5 few.h5 --device cpu --json
check 'its weights are floats: the CPU evaluates them' [ $status = 0 ]
cp "$out" by_cpu.json
run 0 eval narrow/tiny/training/last.h5 few.h5 --device cuda --precision bf16 --json
check '... as bf16 does' awk -v a="$(number loss by_cpu.json)" -v b="$(number loss "$out")" \
    'BEGIN { exit !(a > 0 && b > 0 && a / b < 1.02 && b / a < 1.02) }'

# ---- too little memory ----

if [ -z "${DCANAS_GPUS:-}" ]; then
    export EMULATED_MEMORY_MIB=24
    on cuda 1 small run "${few[@]}"
    finished
    check 'too little memory: status 1, one line' [ "$status" = 1 -a "$(own_lines | wc -l)" = 1 ]
    check '... what is needed, what is free, and what to lower' grep -q \
        "^dcanas: .* needs [0-9]* bytes .*, 2[0-9]* .* are free: lower \[search\] batch, channels or cells" "$err"
    unset EMULATED_MEMORY_MIB
fi

# ---- several ranks on one GPU ----

gpus=1
export CUDA_VISIBLE_DEVICES=0 # for real ones
on cuda 2 shared run "${few[@]}"
finished
check 'two ranks on one GPU: no training together' [ $status = 2 ]
check '... with the reason, before anything is computed' grep -q \
    '^dcanas: ranks 0 and 1 both use GPU 0 (.*) of their node: .* start as many ranks a node as it has GPUs' "$err"
check '... and nothing begun' [ ! -e shared ]
on cuda 2 shared lug "${few[@]}" --set lug.points=2
finished
check 'two ranks on one GPU: searches of their own' [ $status = 0 ]
finish
