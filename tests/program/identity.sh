#!/bin/bash
# Results are the same bits for any number of threads, and those of searches and short trainings for any number of ranks.
# shellcheck disable=SC2317 # functions that `check` calls
# shellcheck source=tests/program/common.sh
. "$(dirname "$0")/common.sh"
need h5dump

# lug RANKS THREADS [--set ...]
lug() {
    local n_ranks=$1 threads=$2
    shift 2
    run "$n_ranks" lug "$ini" --set run.output="lug-$n_ranks-$threads" --set run.threads="$threads" "$@"
}

lug 1 1
check 'lug, 1 rank' [ $status = 0 ]
check 'it holds what can be compared' [ "$(bits lug-1-1/tiny/lug.h5 | grep -c '^/')" -ge 9 ]
for n_ranks in 1 2 4; do
    for threads in 1 2; do
        [ $n_ranks$threads = 11 ] && continue
        lug $n_ranks $threads
        check "lug, $n_ranks ranks of $threads threads: the same lug.h5" equal_bits lug-1-1/tiny/lug.h5 \
            lug-$n_ranks-$threads/tiny/lug.h5
    done
done
lug 6 1
check 'lug, more ranks than searches: the same lug.h5' equal_bits lug-1-1/tiny/lug.h5 lug-6-1/tiny/lug.h5

pair=(--set lug.ranks_per_search=2 --set lug.points=2 --set run.name=pairs)
lug 2 1 "${pair[@]}"
check 'lug, 2 ranks a search' [ $status = 0 ]
lug 2 2 "${pair[@]}"
check 'lug, 2 ranks a search, of 2 threads: the same lug.h5' equal_bits lug-2-1/pairs/lug.h5 lug-2-2/pairs/lug.h5
lug 4 1 "${pair[@]}"
check 'lug, 2 ranks a search, 2 at a time: the same lug.h5' equal_bits lug-2-1/pairs/lug.h5 lug-4-1/pairs/lug.h5

# same_up_to_training A B: all that is chosen before the target network is trained.
same_up_to_training() {
    local own=(test_accuracy test_loss best_test_accuracy best_epoch train_accuracy train_loss test_top5 ranks device)
    cmp <(result_of "$1" "${own[@]}") <(result_of "$2" "${own[@]}") >&2 && cmp "$1/genotype.txt" "$2/genotype.txt" >&2
}

same_training() {
    cmp <(result_of "$1" device) <(result_of "$2" device) >&2 && cmp "$1/training/best.h5" "$2/training/best.h5" >&2 &&
        cmp "$1/training/last.h5" "$2/training/last.h5" >&2 && cmp "$1/training/epochs.csv" "$2/training/epochs.csv" >&2
}

for n_ranks in 1 2 3; do
    for threads in 1 2; do
        run $n_ranks run "$ini" --set run.output=run-$n_ranks-$threads --set run.threads=$threads
        [ $status = 0 ] || tap 1 "run, $n_ranks ranks of $threads threads"
    done
    check "run, $n_ranks ranks: 1 and 2 threads give the same result and weights" same_training run-$n_ranks-1/tiny \
        run-$n_ranks-2/tiny
    check "run, $n_ranks ranks: the same lug.h5" equal_bits lug-1-1/tiny/lug.h5 run-$n_ranks-1/tiny/lug.h5
    check "run, $n_ranks ranks: the same choice as with 1" same_up_to_training run-1-1/tiny run-$n_ranks-1/tiny
done

crops=(--set target.random_resized_crop=yes --set target.crop_padding=0 --set target.brightness=0.4 --set target.contrast=0.4)
for threads in 1 3; do
    run 2 train "$ini" --genotype DARTS_V2 "${crops[@]}" --set run.output=decode-$threads --set data.decode_threads=$threads \
        --set data.prefetch=$threads
done
check 'train, images made by 1 and 3 threads: the same result and weights' same_training decode-1/tiny decode-3/tiny
finish
