#!/bin/bash
# The commands beside a run: count, limits, plan, eval, data info, and everybody's --help.
# shellcheck disable=SC2317 # functions that `check` calls
# shellcheck source=tests/program/common.sh
. "$(dirname "$0")/common.sh"

# says KEY VALUE: the last command's JSON holds this number (or text).
says() {
    [ "$status" = 0 ] && [ "$(number "$1" "$out")" = "$2" ]
}

# ---- count: the published networks, exactly ----

# counts PARAMS MACS ARGUMENTS...
counts() {
    local params=$1 macs=$2
    shift 2
    run 0 count "$@" --json
    check "count $*: $params parameters" says params "$params"
    check "count $*: $macs multiply-accumulates" says macs "$macs"
}

counts 3349342 528359040 DARTS_V2
check 'count DARTS_V2: 3825768 parameters with the auxiliary head' says params_with_auxiliary 3825768
check 'count DARTS_V2: activation memory is counted' [ "$(number peak_activation_bytes "$out")" -gt 0 ]
counts 3634678 556670592 PC_DARTS_cifar
counts 3433798 532174464 PDARTS
counts 4718752 529911552 DARTS_V2 --network imagenet
counts 5270560 571137408 PC_DARTS_cifar --network imagenet
counts 4944352 542819328 PDARTS --network imagenet
counts 3349342 528359040 DARTS_V2 --network cifar --classes 10 --channels 36 --cells 20 --input 3x32x32
run 0 count supernet --json
check 'count supernet: 1930618 weights with all switches off' says params 1930618

# ---- limits ----

geometry=(--channels 4 --cells 3 --classes 4 --input 1x8x8)
run 0 limits --space darts --network cifar "${geometry[@]}" --json
check 'limits: JSON' [ "$status" = 0 ]
check 'limits: the smallest and the largest network of tiny.ini' grep -q 1592 "$out"
check '... in parameters' grep -q 19064 "$out"
check '... and in multiply-accumulates' grep -q 268288 "$out"
for network in cifar imagenet; do
    run 0 limits --network $network
    check "limits --network $network" [ "$status" = 0 ]
done

# ---- plan ----

run 0 plan "$ini" --json
check 'plan: JSON' [ "$status" = 0 ]
check 'plan: four phases' [ "$(grep -c '"arena_bytes":' "$out")" = 4 ]
check 'plan: steps of a search, a candidate, the training' [ \
    "$(sed -n 's/.*"steps":[[:space:]]*\([0-9]*\).*/\1/p' "$out" | tr '\n' ' ')" = '15 15 5 30 ' ]
check 'plan: items' [ "$(sed -n 's/.*"items":[[:space:]]*\([0-9]*\).*/\1/p' "$out" | tr '\n' ' ')" = '4 2 4 1 ' ]
check 'plan: makes no folder' [ ! -e output ]
cp "$out" one.json
run 0 plan "$ini" --json --ranks 2
check 'plan --ranks 2: says so' says ranks 2
# arena FILE: of the training, the last phase.
arena() {
    sed -n 's/.*"arena_bytes":[[:space:]]*\([0-9]*\).*/\1/p' "$1" | tail -n 1
}
check 'plan --ranks 2: a rank of the training needs less memory' [ "$(arena "$out")" -lt "$(arena one.json)" ]
if "$program" --version | grep -q cuDNN; then
    run 0 plan "$ini" --gpu h100
    check 'plan --gpu h100: without one' [ "$status" = 0 ]
    check 'plan --gpu h100: what a rank takes of it' grep -q 'a rank needs .* MiB of its GPU at most' "$out"
    run 0 plan "$ini" --gpu h100 --json
    check 'plan --gpu h100 --json: what steps take beside arena and model' [ "$(grep -c '"step_bytes":.*[1-9]' "$out")" = 4 ]
    run 0 plan "$ini" --gpu abacus
    check 'plan --gpu abacus: those that are described' [ $status = 2 -a "$(own_lines)" = \
        "dcanas: GPU 'abacus' is not described; described are: a100, h100, b200" ]
else
    run 0 plan "$ini" --gpu h100
    check 'plan --gpu h100, built without CUDA: status 2, one line' [ $status = 2 -a "$(own_lines | grep -c 'built without CUDA')" = 1 ]
fi
run 0 plan "$ini" --measure --gpu h100
check 'plan --measure of a GPU that is not here: status 2' [ "$status" = 2 ]
run 0 plan "$ini" --ranks 4
check 'plan: what to ask of sbatch' [ "$(grep -cE '^    --(ntasks=4|mem=[0-9]+G |time=\.\.\. |signal=B:USR1@120 --requeue)' "$out")" = 4 ]
check 'plan: no time without --measure' [ "$(grep -c '"seconds"' one.json)" = 0 ]
run 0 plan "$ini" --json --measure
check 'plan --measure: a time for each phase, and of all' [ "$status" = 0 -a "$(grep -c '"seconds"' "$out")" = 5 ]
check '... of a right order: minutes for what takes seconds would be wrong' awk -F: \
    '/"seconds"/ { s = $2 + 0; if (s <= 0 || s > 60) exit 1 }' "$out"
run 2 plan "$ini"
check 'plan under mpirun: prints once' [ "$(grep -c '^ *training' "$out")" = 1 ]

# ---- search, train, eval ----

run 2 lug "$ini" --set run.output=steps
check 'lug' [ "$status" = 0 -a -e steps/tiny/lug.h5 ]
DCANAS_STATUS_FILE=told run 2 search "$ini" --set run.output=steps
check 'search' [ "$status" = 0 -a -e steps/tiny/genotype.txt ]
check '... leaves its status in a file where asked to' [ "$(cat told)" = 0 ]
DCANAS_STATUS_FILE=told run 2 search "$ini" --set run.output=steps --set run.seed=8
check '... also that of an error' [ "$status" = 2 -a "$(cat told)" = 2 ]
run 2 train "$ini" --set run.output=steps
check 'train' [ "$status" = 0 ]
run 2 train "$ini" --genotype SNAS --set run.output=large --set budget.params=0 --set target.batch=200
check 'train takes a batch that would be too large for the short trainings of candidates' [ "$status" = 0 ]
run 2 run "$ini" --set run.output=whole
check 'lug, search and train, one by one, end as run' same_end whole/tiny steps/tiny
run 2 run "$ini" --set run.output=whole
check 'a finished run that is started again does nothing anew' cmp steps/tiny/training/last.h5 whole/tiny/training/last.h5
check '... and shows its summary' grep -q 'accuracy' "$out"

folder=whole/tiny
check 'result.json: the network fits' grep -q '"fits":[[:space:]]*true' $folder/result.json
check 'result.json: and its parameters are at most the budget' [ "$(number params $folder/result.json)" -le 6000 ]
run 0 count $folder/genotype.txt "${geometry[@]}" --json
check 'count of the genotype found: as in result.json' says macs "$(number macs $folder/result.json)"
result_params=$(grep -v '^		' $folder/result.json | sed -n 's/.*"params":[[:space:]]*\([0-9]*\),*/\1/p')
check '... parameters too' says params "$result_params"

# ---- which device, and why ----

gpus=$("$program" --version | sed -n 's/^ *cuda: //p')
if ! grep -q '; [0-9]* GPUs\{0,1\}$' <<<"$gpus"; then
    why=${gpus##*; no GPU: }
    check 'device = auto: the CPU, and why' grep -qF "(no GPU: $why)" $folder/log.txt
    run 0 plan "$ini" --device cuda
    check '--device cuda: status 2' [ "$status" = 2 ]
    check '... and one line that says what lacks' [ "$(own_lines | grep -F "device 'cuda': " | grep -cF "$why")" = 1 ]
fi

accuracy=$(number test_accuracy $folder/result.json)
best=$(number best_test_accuracy $folder/result.json)
for n_ranks in 0 1 2 3; do
    run $n_ranks eval $folder/training/last.h5 tiny.h5 --json
    check "eval last.h5 ($n_ranks ranks): the test accuracy of result.json" says accuracy "$accuracy"
    check "eval last.h5 ($n_ranks ranks): each image once" says images 100
    run $n_ranks eval $folder/training/best.h5 tiny.h5 --json
    check "eval best.h5 ($n_ranks ranks): the best accuracy of result.json" says accuracy "$best"
done
run 0 eval $folder/training/last.h5 tiny.h5 --json
cp "$out" eval.json
for n_ranks in 2 3 4; do
    run $n_ranks eval $folder/training/last.h5 tiny.h5 --json --batch 7
    check "eval --batch 7 ($n_ranks ranks): every figure the same" cmp eval.json "$out"
done
run 0 eval $folder/training/checkpoint.h5 tiny.h5 --json --threads 2 --confusion table.csv
check 'eval checkpoint.h5: as last.h5' cmp eval.json "$out"
check 'eval --confusion: a line a class' [ "$(grep -c '^[^,]*,25,[01]\.[0-9]*,[0-9]*,[0-9]*,[0-9]*,[0-9]*$' table.csv)" = 4 ]
check '... below a heading' grep -qx "class,images,accuracy,$(tail -n 4 table.csv | cut -d, -f1 | paste -sd,)" table.csv
right=$(awk -F, 'NR > 1 { right += $(NR + 2) } END { printf "%g", right / 100 }' table.csv)
check '... whose diagonal is the accuracy' [ "$right" = "$(number accuracy eval.json)" ]
run 2 eval $folder/training/last.h5 tiny.h5 --confusion nowhere/table.csv
check 'eval --confusion: a folder that is not there is told' [ "$status" = 1 -a "$(grep -c 'nowhere' "$err")" = 1 ]
run 0 eval $folder/training/best.h5 tiny.h5 --split train
check 'eval --split train, as text' grep -q '320' "$out"

# averages, pieces of a batch, and rates by the batch
averaged=(--genotype SNAS --set budget.params=0 --set target.ema_decay=0.9 --set target.micro_batch=16
    --set target.batch=96 --set target.learning_rate_batch=48)
run 2 train "$ini" "${averaged[@]}" --set run.output=averaged
check 'train: with averaged weights, in pieces' [ "$status" = 0 ]
check '... the rate is twice that of half the batch' [ "$(sed -n 2p averaged/tiny/training/epochs.csv | cut -d, -f2)" = 0.2 ]
run 0 eval averaged/tiny/training/last.h5 tiny.h5 --json
cp "$out" averaged.json
check '... the average is what is evaluated' says accuracy "$(number test_accuracy averaged/tiny/result.json)"
check '... and its top 5' says top5 "$(number test_top5 averaged/tiny/result.json)"
run 3 eval averaged/tiny/training/checkpoint.h5 tiny.h5 --json
check 'eval checkpoint.h5: the average too' cmp averaged.json "$out"

# ---- transfer: another data set's genotype, within this one's budget ----

run 2 train "$ini" --genotype averaged/tiny/genotype.txt --set run.output=transfer --set budget.params=19000
check 'train --genotype FILE: what another run has found' [ "$status" = 0 ]
run 2 train "$ini" --genotype DARTS_V2 --set run.output=transfer --set budget.params=2000
check 'train: a network that is larger than the budget is refused' [ "$status" = 2 ]
cp "$err" refusal
run 0 count DARTS_V2 "${geometry[@]}" --json
check '... by its exact size on this data set' grep -q "= 2000: .*cifar network of 4 channels and 3 cells, for 4 classes of 1x8x8.* $(number params "$out") params" refusal

# ---- data ----

run 0 data info tiny.h5 --json --verify
check 'data info: images' says train_images 320
check 'data info: images for testing' says test_images 100
check 'data info: verified' grep -q '"verified":[[:space:]]*true' "$out"
gzip -c idx/train-images-idx3-ubyte >images.gz
run 0 data import idx zipped.h5 --classes 4 --name idx --train-images images.gz \
    --train-labels idx/train-labels-idx1-ubyte --test-images idx/t10k-images-idx3-ubyte \
    --test-labels idx/t10k-labels-idx1-ubyte
check 'data import of gzip files: the same data set' cmp tiny.h5 zipped.h5

# ---- bench-data ----

run 0 bench-data "$ini" --time 0.2s --json
check 'bench-data: images come' [ "$status" = 0 -a "$(number images "$out")" -gt 0 ]
check 'bench-data: a rank of one thread' says ranks 1
run 2 bench-data "$ini" --search --time 0.2s --step 0.02s --set search.random_resized_crop=yes \
    --set search.crop_padding=0 --set search.hue=0.2 --set data.decode_threads=2
check 'bench-data: the search, on ranks, with a wait' grep -q 'data wait' "$out"
run 0 bench-data "$ini" --step soon
check 'bench-data: a time that is none' [ "$status" = 2 -a "$(wc -l <"$err")" = 1 ]
run 0 bench-data "$ini" --set target.random_resized_crop=yes --set target.crop_padding=1
check 'bench-data: two kinds of crops are refused' grep -q 'set crop_padding = 0' "$err"

# ---- a copy of the data on the node's own storage ----

mkdir stage
run 2 train "$ini" --genotype DARTS_V2 --set target.epochs=1 --set run.output=staged --set data.stage=stage
check 'train: reads a copy of the data ...' grep -q 'tiny.h5 is read from stage/dcanas-' staged/tiny/log.txt
check '... that is gone at the end' [ "$status" = 0 -a -z "$(ls stage)" ]
check '... and tells how long steps waited for data' grep -q '"data_wait":' staged/tiny/events.jsonl
run 2 train "$ini" --genotype DARTS_V2 --set run.output=unstaged --set data.stage=nowhere
check 'train: a folder to copy to that is not there' [ "$status" = 2 -a "$(grep -c 'stage = nowhere: ' "$err")" = 1 ]

# ---- help ----

for command in run lug search train eval plan count limits data bench-data 'data import' 'data info'; do
    # shellcheck disable=SC2086
    run 0 $command --help
    check "$command --help" [ "$status" = 0 -a ! -s "$err" ]
    check "$command --help: says how it is used" grep -q "^usage: dcanas $command" "$out"
done
run 0 --help
check '--help: lists all commands' [ "$(grep -cE '^  (run|lug|search|train|eval|plan|count|limits|data|bench-data) ' "$out")" = 10 ]
run 0 --version
check '--version' grep -q '[0-9]\.[0-9]' "$out"
run 0 run --keys
check 'run --keys: documents every key' grep -q 'epochs' "$out"
run 2 --help
check '--help under mpirun: once' [ "$(grep -c '^usage' "$out")" = 1 ]
finish
