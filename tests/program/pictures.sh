#!/bin/bash
# Training on JPEG pictures: stopped in the middle of an epoch it goes on to the same bits, and it learns. With
# DCANAS_LONG=1 also input/imagenet.ini as it is, on real pictures of ImageNet.
# shellcheck disable=SC2317 # functions that `check` calls
# shellcheck source=tests/program/common.sh
. "$(dirname "$0")/common.sh"

# shellcheck disable=SC2046
"${CC:-cc}" -O1 -o make_pictures "$here/make_pictures.c" $(pkg-config --cflags --libs libjpeg) ||
    bail_out 'make_pictures.c does not compile'
./make_pictures photos 4 40 130 110 || bail_out 'no pictures'
run 0 data import folders photos photos.h5
[ $status = 0 ] || bail_out "dcanas data import: $(cat "$err")"

# train RANKS FOLDER ARGUMENTS...: begins it in the background.
train() {
    local n=$1 folder=$2
    shift 2
    start "$n" train "$@" --set run.output="$folder"
}

# of_checkpoint KEY FOLDER: a number of what the newest one's first line tells of it; 0: none is there.
of_checkpoint() {
    local file=$2/training/checkpoint.h5 value
    [ -e "$file" ] || file=$file.previous
    value=$(head -c 512 "$file" 2>/dev/null | tr -d '\0' | sed -n "s/^about \(.* \)*$1=\([0-9]*\).*/\2/p")
    echo "${value:-0}"
}

# mid_epoch FOLDER SECONDS: waits until its checkpoint is one of the middle of the second epoch or a later one.
mid_epoch() {
    local tries=$(($2 * 50))
    until [ "$(of_checkpoint epoch "$1")" -ge 1 ] && [ "$(of_checkpoint step "$1")" -ge 1 ]; do
        if ended || [ $((tries -= 1)) -lt 0 ]; then
            return 1
        fi
        sleep 0.02
    done
}

# goes_on RANKS NAME SECONDS ARGUMENTS...: a training that is killed in the middle of an epoch, and goes on, ends with the
# bits of one that nobody stopped, which is in whole/.
goes_on() {
    local n=$1 name=$2 seconds=$3
    shift 3
    train "$n" killed "$@" --set checkpoint.interval=0
    check "$name: is in the middle of an epoch" mid_epoch "killed/$name" "$seconds"
    kill_job
    note "epoch $(of_checkpoint epoch "killed/$name"), step $(of_checkpoint step "killed/$name")"
    train "$n" killed "$@"
    finished
    check '... killed and started again it ends well' [ "$status" = 0 ]
    check '... with the bits of one that was not killed' same_end "whole/$name" "killed/$name"
}

# losses NAME: of training, by epoch.
losses() {
    awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i } NR > 1 { print $column["train_loss"] }' \
        "whole/$1/training/epochs.csv"
}

# falls NAME FROM TO: the first epoch's loss is above, the last one's below.
falls() {
    note "losses: $(losses "$1" | tr '\n' ' ')"
    awk -v from="$2" -v to="$3" 'NR == 1 && $1 < from { exit 1 } { last = $1 } END { exit !(NR > 1 && last < to) }' \
        <(losses "$1")
}

# ---- pictures made here, ImageNet's network and augmentation in small ----

limit=180
small=("$ini" --genotype DARTS_V2 --set run.name=photos --set data.file=photos.h5 --set data.image_size=40
    --set data.decode_threads=2 --set budget.params=0 --set space.network=imagenet --set target.epochs=3
    --set target.batch=36 --set target.micro_batch=16 --set target.ema_decay=0.9 --set target.crop_padding=0
    --set target.cutout=0 --set target.random_resized_crop=yes --set target.brightness=0.2 --set target.hue=0.1
    --set data.stage="$work/tmp" --set checkpoint.interval=1h)
train 2 whole "${small[@]}"
finished
check 'train: on JPEG pictures, 2 ranks' [ "$status" = 0 ]
check '... from a copy' grep -q 'photos.h5 is read from' "$out"
check '... which is gone' [ -z "$(find "$work/tmp" -name 'dcanas-*.h5')" ]
check '... tells top 5' [ -n "$(number test_top5 whole/photos/result.json)" ]
check '... and how long it waited for data' grep -q 'data wait' whole/photos/log.txt
for n_ranks in 0 3; do
    run $n_ranks eval whole/photos/training/last.h5 photos.h5 --json
    cp "$out" eval-$n_ranks.json
done
check 'eval: the accuracy of the training, for pictures of any size' \
    [ "$(number accuracy eval-0.json)" = "$(number test_accuracy whole/photos/result.json)" ]
check '... every figure the same on 3 ranks' cmp eval-0.json eval-3.json
goes_on 2 photos 60 "${small[@]}"

# ---- the real ones, by the recipe as it is ----

data=${DCANAS_DATA:-$here/../../../shared/data}
if [ -z "$long" ]; then
    note 'SKIPPED without DCANAS_LONG=1: input/imagenet.ini on pictures of ImageNet'
elif [ ! -e "$data/imagenet-sample-200.tar.gz" ]; then
    note "SKIPPED: imagenet-sample-200.tar.gz is not in $data"
else
    limit=3600
    run 2 data import imagenet "$data/imagenet-sample-200.tar.gz" sample.h5 --held-out 0
    imagenet=("$here/../../input/imagenet.ini" --genotype PC_DARTS_cifar --set data.file=sample.h5 --set target.batch=32)
    short=("${imagenet[@]}" --set target.epochs=3 --set target.schedule_warmup_epochs=1)
    train 2 whole "${short[@]}"
    finished
    check 'imagenet.ini: real steps on 2 ranks' [ "$status" = 0 ]
    goes_on 2 imagenet 1200 "${short[@]}"
    rm -r whole killed
    # by heart: the same pictures each time, at a rate for so few steps
    train 2 whole "${imagenet[@]}" --set target.epochs=12 --set target.random_resized_crop=no --set target.flip=no \
        --set target.brightness=0 --set target.contrast=0 --set target.saturation=0 --set target.hue=0 \
        --set target.label_smoothing=0 --set target.learning_rate_batch=0 --set target.learning_rate=0.05 \
        --set target.schedule_warmup_epochs=1
    finished
    check 'imagenet.ini: learns 200 pictures by heart' falls imagenet 5 4.5
fi
finish
