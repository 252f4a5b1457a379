#!/bin/bash
# Bad inputs: each ends with one line from dcanas that says what is wrong and where, with its exit status, in time, and
# leaves nothing behind.
# shellcheck disable=SC2317 # functions that `check` calls
# shellcheck source=tests/program/common.sh
. "$(dirname "$0")/common.sh"
limit=30

listing() {
    find . -path ./tmp -prune -o -type f -print | sort | grep -v '/log.txt$'
}

# fails RANKS STATUS PATTERN ARGUMENTS...: see above. The pattern is a regular expression for the one line.
fails() {
    local n_ranks=$1 wanted=$2 pattern=$3 before name
    shift 3
    name="$* ($n_ranks)"
    name=${name//"$here/"/}
    before=$(listing)
    run "$n_ranks" "$@"
    if [ "$status" != "$wanted" ]; then
        tap 1 "$name: status $wanted"
    elif [ "$(own_lines | wc -l)" != 1 ]; then
        tap 1 "$name: one line"
    elif [ "$n_ranks" = 0 ] && [ "$(wc -l <"$err")" != 1 ]; then
        tap 1 "$name: nothing but one line"
    elif ! own_lines | grep -q -- "$pattern"; then
        tap 1 "$name: it says '$pattern'"
    elif [ "$(listing)" != "$before" ]; then
        tap 1 "$name: nothing is left behind"
        diff <(echo "$before") <(listing) | sed 's/^/# /'
    else
        tap 0 "$name"
    fi
}

# refuses STATUS PATTERN --set KEY=VALUE...: a run of the small configuration.
refuses() {
    local wanted=$1 pattern=$2
    shift 2
    fails 0 "$wanted" "$pattern" run "$ini" "$@"
}

# The same also with 2 ranks under mpirun.
all_refuse() {
    local wanted=$1 pattern=$2
    refuses "$@"
    shift 2
    fails 2 "$wanted" "$pattern" run "$ini" "$@"
}

cut_to() {
    head -c "$3" "$1" >"$2"
}

# ---- data sets to import ----

imports=(--train-images idx/train-images-idx3-ubyte --train-labels idx/train-labels-idx1-ubyte
    --test-images idx/t10k-images-idx3-ubyte --test-labels idx/t10k-labels-idx1-ubyte)
# fails_import PATTERN FILE-OPTION FILE
fails_import() {
    fails 0 2 "$1" data import idx bad.h5 --classes 4 "${imports[@]}" "$2" "$3"
}

cut_to idx/train-images-idx3-ubyte short.idx 5000
cut_to idx/train-images-idx3-ubyte header.idx 7
: >empty.idx
head -c 5000 /dev/urandom >garbled.idx
gzip -c idx/train-images-idx3-ubyte >whole.gz
cut_to whole.gz short.gz 3000
mkdir part two
cp idx/train-* part
./make_data two 8 8
fails 0 1 'nowhere' data import idx nowhere bad.h5
fails 0 1 't10k-images' data import idx part bad.h5
fails 0 2 'nonsense.*folders, .*cifar10' data import nonsense idx bad.h5
fails 0 2 'labels\|label' data import idx idx bad.h5 --classes 2
fails_import 'short.idx' --train-images short.idx
fails_import 'header.idx' --train-images header.idx
fails_import 'empty.idx' --train-images empty.idx
fails_import 'garbled.idx' --test-labels garbled.idx
fails_import 'short.gz' --train-images short.gz
fails_import 'labels' --train-labels idx/t10k-labels-idx1-ubyte
fails_import 'train-labels' --train-images idx/train-labels-idx1-ubyte
fails 0 1 "$ini" data import idx idx "$ini/bad.h5" --classes 4

# ---- data set files ----

cut_to tiny.h5 short.h5 20000
head -c 30000 /dev/urandom >garbled.h5
{ head -c 512 tiny.h5 && head -c $(($(stat -c %s tiny.h5) - 512)) /dev/urandom; } >body.h5
: >empty.h5
for file in short garbled body empty; do
    refuses 2 "$file.h5" --set data.file=$file.h5
    fails 0 2 "$file.h5" data info $file.h5
done
all_refuse 1 'missing.h5' --set data.file=missing.h5
refuses 2 'idx' --set data.file=idx
refuses 2 '\[data\] file' --set data.file=

# ---- configurations ----

refuses 2 '\[target\] epohcs.*epochs' --set target.epohcs=3
refuses 2 '\[targte\].*\[target\]' --set targte.epochs=3
all_refuse 2 '\[target\] epochs = many' --set target.epochs=many
refuses 2 '\[target\] epochs = 0' --set target.epochs=0
refuses 2 'epochs' --set target.epochs=3.5
refuses 2 'momentum' --set target.momentum=1.5
refuses 2 'flip.*maybe\|maybe' --set target.flip=maybe
refuses 2 'estimate.*derived' --set constraint.estimate=hard
refuses 2 'learning_rate' --set target.learning_rate=nan
refuses 2 'nothing' --set nothing
refuses 2 'channels = 6.*multiple of 4' --set search.channels=6
refuses 2 'alpha_warmup_epochs' --set search.alpha_warmup_epochs=3
refuses 2 'train_fraction' --set search.train_fraction=0.9
all_refuse 2 'params.*1,592 to 19,064' --set budget.params=100
refuses 2 'params.*1,592 to 19,064' --set budget.params=20k
refuses 2 'params.*-5' --set budget.params=-5
refuses 2 'macs = 100.*39,936 to 268,288' --set budget.params=2000 --set budget.macs=100
all_refuse 2 '\[search\] batch = 512.*160.*tiny.h5' --set search.batch=512
refuses 2 '\[target\] batch = 512.*320.*tiny.h5' --set target.batch=512
refuses 2 '\[target\] batch = 200.*160.*tiny.h5' --set target.batch=200
refuses 2 'ranks_per_search' --set search.batch=2 --set lug.ranks_per_search=3
all_refuse 2 'cuda' --set run.device=cuda
all_refuse 2 'precision = tf32 needs a GPU' --device cpu --precision tf32
refuses 2 'precision = fp16.*float' --set run.precision=fp16
refuses 2 'name' --set run.name=a/b
{ cat "$ini" && echo 'colour = red'; } >key.ini
fails 0 2 'key.ini.*colour' run key.ini
{ echo '[nowhere]' && echo 'x = 1' && cat "$ini"; } >section.ini
fails 0 2 'section.ini.*nowhere' run section.ini
{ cat "$ini" && echo 'what is this'; } >line.ini
fails 0 2 'line.ini' run line.ini
head -c 3000 /dev/urandom >garbled.ini
fails 0 2 'garbled.ini' run garbled.ini
fails 0 1 'missing.ini' run missing.ini
fails 2 1 'missing.ini' run missing.ini
fails 0 2 'epochs' plan "$ini" --set target.epochs=0

# ---- output ----

all_refuse 1 "make_data" --set run.output=make_data/here
refuses 1 "make_data" --set run.output=make_data
run 0 lug "$ini" --set run.output=taken
check 'a run in the folder taken' [ "$status" = 0 ]
all_refuse 2 '\[search\] epochs' --set run.output=taken --set search.epochs=2
start 2 run "$ini" --set run.output=busy --set target.epochs=1000
keeper=$job
reached '"phase":"' busy/tiny/events.jsonl 1 30
job=
launched=$(cat "$launcher" "$ranks")
out=$work/tmp/second.out err=$work/tmp/second.err
run 0 run "$ini" --set run.output=busy --set target.epochs=1000
check 'a folder that a living run uses: status 2' [ "$status" = 2 ]
check 'a folder that a living run uses: one line, naming host and process' grep -q \
    '^dcanas: busy/tiny is in use by another job (host .*, process [0-9]*)' "$err"
check 'a folder that a living run uses: the first goes on' kill -0 "$keeper"
# shellcheck disable=SC2086
kill -9 $launched 2>/dev/null
{ wait "$keeper"; } 2>/dev/null
out=$work/tmp/stdout err=$work/tmp/stderr

# The data set becomes unreadable in mid-run.
cp tiny.h5 fading.h5
fading=(--set data.file=fading.h5 --set run.output=fading --set target.epochs=300)
start 2 run "$ini" "${fading[@]}"
check 'a run is under way' reached '"event":"epoch"' fading/tiny/events.jsonl 1 30
truncate -s 4096 fading.h5
finished
check 'a data set that is cut in mid-run: the job ends, not well' grep -qvwE '0|75|124|137' <<<"$status"
check '... and says why' grep -q '^dcanas: .*\(data set can no longer be read\|fading.h5\)' "$err"
cp tiny.h5 fading.h5
start 2 run "$ini" "${fading[@]}"
check 'once it is there again the run goes on' reached '"event":"epoch"' fading/tiny/events.jsonl 3 30
kill_job

# A disk that is full after some 100 KiB: files are limited to that size.
full() {
    (
        ulimit -f 100
        timeout -k 5 "$limit" "$program" "$@" >"$out" 2>"$err"
    )
    status=$?
    [ "$status" = 1 ] && [ "$(own_lines | wc -l)" = 1 ] && own_lines | grep -q 'cannot write full' &&
        [ -z "$(find full -name '*.tmp')" ]
}
check 'a full disk: status 1, one line, no half file' full run "$ini" --set run.output=full
run 0 run "$ini" --set run.output=full
check 'and with space again the run goes on' [ "$status" = 0 ]

# ---- commands ----

for n_ranks in 0 2; do
    fails $n_ranks 2 'rnu' rnu
    fails $n_ranks 2 '--sett' run "$ini" --sett a.b=c
    fails $n_ranks 2 'CONFIG' run
    fails $n_ranks 2 'extra' run "$ini" extra
    fails $n_ranks 2 'set' run "$ini" --set
    fails $n_ranks 2 'DATASET' eval one
    fails $n_ranks 2 'NO_SUCH_NET' count NO_SUCH_NET
    fails $n_ranks 2 'sep_conv_9x9' count "Genotype(normal=[('sep_conv_9x9', 0)], normal_concat=[2])"
    fails $n_ranks 2 'genotype, line 1, column 19' count 'Genotype(normal=[('
    fails $n_ranks 2 'classes' count DARTS_V2 --classes many
    fails $n_ranks 2 'input' count DARTS_V2 --input 3x32
    fails $n_ranks 2 'nasnet' limits --space nasnet
    fails $n_ranks 2 '\[budget\] params = 1700: .*genotype.* has 2252 params' train "$ini" \
        --set budget.params=1700 --genotype DARTS_V2
    fails $n_ranks 2 'genotype' train "$ini" --genotype "Genotype(normal=[('sep_conv_3x3', 7)])"
    fails $n_ranks 2 'give --genotype' train "$ini"
    fails $n_ranks 2 '\[budget\]' lug "$ini" --set budget.params=0
    fails $n_ranks 1 'missing.h5' eval missing.h5 tiny.h5
    fails $n_ranks 2 'tiny.h5' eval tiny.h5 tiny.h5
done
fails 0 2 'command\|import' data
fails 0 2 'improt' data improt

mkdir three
./make_data three 64 64
run 0 data import idx three three.h5 --classes 5
fails 0 2 '4 classes.*5 classes' eval full/tiny/training/best.h5 three.h5
fails 2 2 '4 classes.*5 classes' eval full/tiny/training/best.h5 three.h5
cut_to full/tiny/training/best.h5 best.h5 9000
fails 0 2 'best.h5' eval best.h5 tiny.h5

export DCANAS_ISA=nonsense
all_refuse 2 'nonsense.*DCANAS_ISA.*portable'
unset DCANAS_ISA
finish
