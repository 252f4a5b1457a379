#!/bin/bash
# Importing pictures: any number of ranks, kills and full disks between, and the real data sets.
# shellcheck disable=SC2317 # functions that `check` calls
# shellcheck source=tests/program/common.sh
. "$(dirname "$0")/common.sh"

# shellcheck disable=SC2046
"${CC:-cc}" -O1 -o make_pictures "$here/make_pictures.c" $(pkg-config --cflags --libs libjpeg) ||
    bail_out 'make_pictures.c does not compile'
./make_pictures large 4 100 480 360 || bail_out 'no pictures'
mkdir out

# says TEXT: one line of ours does.
says() {
    [ "$(own_lines | wc -l)" = 1 ] && own_lines | grep -q -- "$1"
}

# left NAMES...: just these are in out/.
left() {
    [ "$(find out -mindepth 1 -printf '%f\n' | LC_ALL=C sort | tr '\n' ' ')" = "$(printf '%s ' "$@")" ]
}

# ---- ranks ----

run 0 data import folders large out/one.h5 --threads 2
check 'data import: class folders' [ "$status" = 0 ]
check '... a tenth is held out' grep -q 'train  *360 images, 90 of each class' "$out"
check '... large pictures stay JPEG' grep -q 'storage  *JPEG' "$out"
check '... whose sizes are told' grep -q 'widths  *480 to 480, median 480' "$out"
run 2 data import folders large out/two.h5 --name large
check 'data import: two ranks make the same file' cmp out/one.h5 out/two.h5
tar cf large.tar large
run 2 data import folders large.tar out/tar.h5
check 'data import: and so does a tar' cmp out/one.h5 out/tar.h5
run 0 data info out/one.h5 --json --verify
check 'data info: JSON' [ "$status" = 0 ]
check '... with counts' [ "$(number train_images "$out")" = 360 -a "$(number storage "$out")" = jpeg ]
rm -f out/tar.h5 out/two.h5
bytes=$(stat -c %s out/one.h5)

# ---- kills ----

# begun: some pictures have been read.
begun() {
    [ "$(cat out/two.h5.part-* 2>/dev/null | wc -c)" -gt $((bytes / 8)) ]
}
# wait_for CONDITION: until it holds or the job ends.
wait_for() {
    local tries=2000
    until "$1"; do
        if ended || [ $((tries -= 1)) -lt 0 ]; then
            return 1
        fi
        sleep 0.01
    done
}
tell_it() {
    kill -TERM "$(head -n 1 "$ranks")"
    finished
}
# caught RANKS HOW: killed or told to stop on the way. On a busy machine it may have ended before: then once more.
caught() {
    local tries=5
    until [ $((tries -= 1)) -lt 0 ]; do
        rm -f out/two.h5
        start "$1" data import folders large out/two.h5 --threads 1
        wait_for begun
        "$2"
        [ -e out/two.h5 ] || return 0
    done
    return 1
}
check 'data import: killed on the way' caught 2 kill_job
check '... no file is there' [ ! -e out/two.h5 ]
run 2 data import folders large out/two.h5
check '... the next import goes on' grep -q 'going on from [0-9]* pictures' "$out"
check '... and ends as one that was not killed' cmp out/one.h5 out/two.h5
check '... and leaves nothing else' left one.h5 two.h5
rm out/two.h5

check 'data import: told to stop' caught 1 tell_it
check '... says so' says 'the same command goes on from here'
check '... leaves what it has read' [ ! -e out/two.h5 -a -e out/two.h5.part-0 ]
truncate -s -100 out/two.h5.part-0
run 2 data import folders large out/two.h5
check '... and goes on, on more ranks, without what was cut off' cmp out/one.h5 out/two.h5
check '... and leaves nothing else' left one.h5 two.h5
rm out/two.h5

# ---- a rank that hangs ----

# A rank is stopped on the way; on a busy machine the import may have ended before: then once more.
hangs() {
    local tries=10
    until [ $((tries -= 1)) -lt 0 ]; do
        rm -f out/two.h5
        DCANAS_WATCHDOG=2s start 2 data import folders large out/two.h5 --threads 1
        wait_for begun
        kill -STOP "$(tail -n 1 "$ranks" 2>/dev/null)" 2>/dev/null
        finished
        ! says 'no progress for 2.0s (DCANAS_WATCHDOG): silent ' || return 0
    done
    return 1
}
check 'data import: a rank is stopped on the way: the job ends and says so' hangs
rm -f out/two.h5
run 2 data import folders large out/two.h5
check '... and the next import goes on' cmp out/one.h5 out/two.h5
rm out/two.h5
timeout -k 5 60 mpirun --oversubscribe --bind-to none -np 1 env DCANAS_WATCHDOG=0 "$program" data import folders large out/two.h5 : \
    -np 1 env DCANAS_WATCHDOG=1s "$program" data import folders large out/two.h5 >"$out" 2>"$err"
status=$?
check 'rank 0 says for how long' [ $status = 0 ]
check '... and the file is there' cmp out/one.h5 out/two.h5
rm out/two.h5
DCANAS_WATCHDOG=soon run 1 data import folders large out/two.h5
check 'DCANAS_WATCHDOG that is no time is refused' says '^dcanas: DCANAS_WATCHDOG=soon: must be a duration'

# ---- full disks ----

# limited KIB RANKS ARGUMENTS...: no file may grow beyond that; 0 ranks: without mpirun.
limited() {
    local kib=$1 launch=()
    if [ "$2" -gt 0 ]; then
        launch=(mpirun -np "$2" --oversubscribe --bind-to none)
    fi
    shift 2
    (
        ulimit -f "$kib"
        exec "${launch[@]}" "$program" "$@"
    ) >"$out" 2>"$err" </dev/null
    status=$?
}
limited $((bytes / 4096)) 0 data import folders large out/two.h5
check 'data import: no room for what is read' says 'cannot write .*File too large'
check '... fails' [ "$status" = 1 ]
check '... and leaves nothing' left one.h5
limited $((bytes * 3 / 4096)) 2 data import folders large out/two.h5
check 'data import: no room for the file' says 'two.h5.*cannot write.*: File too large$'
check '... fails' [ "$status" = 1 ]
check '... and leaves nothing' left one.h5
limited $((bytes * 3 / 4096)) 2 data import folders large out/one.h5
check '... and what stood there stands' [ "$status" = 1 -a "$(stat -c %s out/one.h5)" = "$bytes" ]

# ---- bad pictures ----

echo 'no picture' >large/class_1/text.JPEG
head -c 5000 large/class_2/007.jpg >large/class_2/cut.jpg
cp large/class_0/000.jpg large/class_3/copy.jpg
: >large/class_0/empty.png
run 2 data import folders large out/two.h5
check 'data import: bad pictures are refused' says '4 of 404 pictures'
check '... each is named' [ "$(grep -c 'class_1/text.JPEG\|class_2/cut.jpg\|class_3/copy.jpg\|class_0/empty.png' "$err")" -ge 4 ]
check '... wrong input' [ "$status" = 2 ]
check '... nothing is left' left one.h5
run 2 data import folders large out/two.h5 --skip-bad --name large
check 'data import --skip-bad' [ "$status" = 0 ]
check '... leaves them out' cmp out/one.h5 out/two.h5
mkdir large/class_9
run 0 data import folders large out/three.h5 --skip-bad
check 'data import: a folder without pictures' says 'class_9 holds no pictures'
run 0 data import idx large out/three.h5 --size 3
check 'data import: options of other kinds' says 'options of pictures'

# ---- the real ones ----

data=${DCANAS_DATA:-$here/../../../shared/data}
# real FILE: is it there?
real() {
    [ -e "$data/$1" ] && return
    note "SKIPPED: $1 is not in $data"
    return 1
}
if real imagenet-sample-200.tar.gz; then
    run 2 data import imagenet "$data/imagenet-sample-200.tar.gz" out/sample.h5 --held-out 0
    check 'imagenet-sample-200: 200 classes' grep -q '^  classes   200:' "$out"
    check '... its mean is ImageNet'"'"'s' grep -q '^  mean  *0\.4[5-9][0-9]* 0\.4[4-6][0-9]* 0\.[34]' "$out"
fi
if real tiny-imagenet-20.tar.gz; then
    run 2 data import tiny-imagenet "$data/tiny-imagenet-20.tar.gz" out/tiny.h5
    check 'tiny-imagenet-20: 10,000 and 1,000 of 3x64x64' [ "$(grep -c \
        'train  *10,000 images, 500 of each class\|test  *1,000 images, 50 of each class\|pixels, 3x64x64' "$out")" = 3 ]
fi
if [ -n "$long" ] && real cifar10-images.tar.gz; then
    run 2 data import folders "$data/cifar10-images.tar.gz" out/cifar10.h5
    check 'cifar10-images: 50,000 and 10,000 of 3x32x32' [ "$(grep -c \
        'train  *50,000 images, 5,000 of each class\|test  *10,000 images, 1,000 of each class\|pixels, 3x32x32' "$out")" = 3 ]
fi
finish
