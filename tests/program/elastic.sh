#!/bin/bash
# A run goes on with another number of ranks: the lookup graph, searches and choices are the same bits whatever numbers
# there were; the training goes on with the same images in the same batches at the same rates.
# shellcheck disable=SC2317 # functions that `check` calls
# shellcheck source=tests/program/common.sh
. "$(dirname "$0")/common.sh"
need h5dump

options=(--set target.epochs=6 --set search.epochs=6)
run 2 run "$ini" --set run.output=whole "${options[@]}"
check 'an uninterrupted run of 2 ranks' [ "$status" = 0 ]

# part RANKS EVENT COUNT: goes on with so many ranks until so many lines of events.jsonl have the event, and is stopped.
part() {
    start "$1" run "$ini" --set run.output=now "${options[@]}"
    reached "$2" now/tiny/events.jsonl "$3" 30
    mapfile -t all <"$ranks"
    kill -USR1 "${all[@]}" 2>/dev/null
    finished
    check "stopped with $1 ranks after event $3 of $2" [ "$status" = 75 ]
}

part 2 '"event":"phase","time":[0-9.]*,"phase":"lookup graph"' 1
part 3 '"event":"finished"' 1
begun=$(find now/tiny/searches -name 'point*.h5' | wc -l)
note "$begun searches of the lookup graph are begun or done"
part 1 '"phase":"search"}' 1
check 'the lookup graph is the same bits' equal_bits whole/tiny/lug.h5 now/tiny/lug.h5
part 4 '"event":"epoch"' 1
check 'the choice is the same' cmp whole/tiny/genotype.txt now/tiny/genotype.txt
part 2 '"event":"epoch"' 2
part 3 '"event":"epoch"' 4
run 1 run "$ini" --set run.output=now "${options[@]}"
check 'the last start ends well' [ "$status" = 0 ]
check 'candidates and architecture are the same' cmp \
    <(result_of whole/tiny | sed -n '/"genotype"\|"fits"\|"chosen_from"\|"from"\|"validation_accuracy"\|"params"/p') \
    <(result_of now/tiny | sed -n '/"genotype"\|"fits"\|"chosen_from"\|"from"\|"validation_accuracy"\|"params"/p')

# ---- the training ----

table=now/tiny/training/epochs.csv
check 'each epoch has one row' [ "$(cut -d, -f1 $table | tail -n +2 | tr '\n' ' ')" = '1 2 3 4 5 6 ' ]
check 'at the same rates' cmp <(cut -d, -f1,2 whole/tiny/training/epochs.csv) <(cut -d, -f1,2 $table)
check 'each epoch saw every image once' awk -F, \
    'NR > 1 { n = $4 * 320; if (n - int(n + 0.5) > 1e-4 || int(n + 0.5) - n > 1e-4) exit 1 }' $table
# Batch norm's shares differ, and so does rounding: not the same bits, the same training.
loss() {
    awk -F, 'NR > 1 { sum += $3 } END { print sum / (NR - 1) }' "$1"
}
note "mean training loss: $(loss whole/tiny/training/epochs.csv) uninterrupted, $(loss $table) with 4, 2, 3, 1 ranks"
check 'it learns as the uninterrupted one does' awk -v a="$(loss whole/tiny/training/epochs.csv)" -v b="$(loss $table)" \
    'BEGIN { exit !(b < 2 * a && a < 2 * b) }'
finish
