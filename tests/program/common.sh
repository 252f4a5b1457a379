# shellcheck shell=bash
# What the program's tests share: a folder of their own with a small data set (tiny.h5), jobs under mpirun that cannot
# hang, and TAP. Sourced first by each of them; environment: BUILD (default: build), CC.
if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    echo '1..0 # SKIP it is a part of the others'
    exit 0
fi

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 1
program=$(cd "${BUILD:-$here/../../build}" && pwd)/dcanas || exit 1
# shellcheck disable=SC2034 # used by those that source this
ini=$here/tiny.ini
work=$(mktemp -d) || exit 1
cd "$work" || exit 1
mkdir tmp
out=$work/tmp/stdout
err=$work/tmp/stderr
launcher=$work/tmp/launcher # the numbers of the last job's processes: mpirun or dcanas
ranks=$work/tmp/ranks       # and all ranks
limit=60 # seconds that a job may take
status=0
job=
n_tests=0
# shellcheck disable=SC2034
long=${DCANAS_LONG:-}

if [ "$(id -u)" = 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# More threads than cores: those that wait must not spin.
export OMP_WAIT_POLICY=passive
# What killed jobs leave behind goes with our folder.
export TMPDIR=$work/tmp OMPI_MCA_btl_vader_backing_directory=$work/tmp

# ---- TAP ----

# tap PASSED(0 is yes) NAME: one line, and what the last job said when it did not pass.
tap() {
    n_tests=$((n_tests + 1))
    if [ "$1" = 0 ]; then
        echo "ok $n_tests - $2"
        return
    fi
    echo "not ok $n_tests - $2"
    echo "# exit status $status; $out and $err end with"
    tail -n 12 "$out" "$err" | sed 's/^/# /'
}

# check NAME COMMAND...: passes when the command succeeds.
check() {
    local name=$1
    shift
    "$@"
    tap $? "$name"
}

note() {
    echo "# $*"
}

# The end of each test program.
finish() {
    echo "1..$n_tests"
    exit 0
}

leave() {
    if [ -n "$job" ]; then
        kill_job
    fi
    rm -rf "$work"
}
trap leave EXIT
trap 'exit 1' HUP INT TERM

bail_out() {
    echo "Bail out! $*"
    exit 1
}

need() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || bail_out "$tool is missing: make deps"
    done
}

# ---- jobs ----

# start RANKS ARGUMENTS...: dcanas in the background (0 ranks: without mpirun); its processes' numbers are in the files
# $launcher and $ranks.
start() {
    local n=$1
    shift
    local command=("$program" "$@")
    rm -f "$launcher" "$ranks"
    if [ "$n" -gt 0 ]; then
        # shellcheck disable=SC2016
        command=(mpirun -np "$n" --oversubscribe --bind-to none
            sh -c 'echo $$ >>"$0"; exec "$@"' "$ranks" "${command[@]}")
    fi
    # shellcheck disable=SC2016
    timeout -k 5 "$limit" sh -c 'echo $$ >"$0"; exec "$@"' "$launcher" "${command[@]}" >"$out" 2>"$err" </dev/null &
    job=$!
}

# Waits for the job that was started: $status, 124 or 137 when it hung.
finished() {
    { wait "$job"; } 2>/dev/null
    status=$?
    job=
}

# run RANKS ARGUMENTS...
run() {
    start "$@"
    finished
}

ended() {
    ! kill -0 "$job" 2>/dev/null
}

# The ranks that still live; who has ended and waits for being noticed does not.
living() {
    local pid
    while read -r pid; do
        case $(ps -o stat= -p "$pid") in
        '' | Z*) ;;
        *) echo "$pid" ;;
        esac
    done <"$ranks"
}

# No rank outlives its job by more than the seconds that a busy machine needs.
none_left() {
    local tries=50
    while [ -n "$(living)" ]; do
        [ $((tries -= 1)) -gt 0 ] || return 1
        sleep 0.1
    done
}

# All processes of the job at once, as when a machine dies.
kill_job() {
    local all
    mapfile -t all < <(cat "$launcher" "$ranks" 2>/dev/null)
    kill -9 "${all[@]}" 2>/dev/null
    finished
}

# count TEXT FILE: lines that hold it; 0 when there is no file.
count() {
    if [ -e "$2" ]; then
        grep -c -- "$1" "$2"
    else
        echo 0
    fi
}

# reached TEXT FILE COUNT SECONDS: waits until so many lines of the file hold the text; fails when the job ends first.
reached() {
    local tries=$(($4 * 50))
    while [ "$(count "$1" "$2")" -lt "$3" ]; do
        if ended || [ $((tries -= 1)) -lt 0 ]; then
            return 1
        fi
        sleep 0.02
    done
}

# The lines that dcanas itself wrote to stderr.
own_lines() {
    grep '^dcanas: ' "$err"
}

# ---- results ----

# result_of FOLDER [KEY...]: result.json without times and without these keys.
result_of() {
    local folder=$1 key
    local script='/"seconds":/,/}/d'
    shift
    for key in "$@"; do
        script="$script;/\"$key\":/d"
    done
    sed "$script" "$folder/result.json"
}

# number KEY FILE: of indented JSON, the first of that name.
number() {
    sed -n "s/^[[:space:]]*\"$1\":[[:space:]]*\"\{0,1\}\([^,\"]*\)\"\{0,1\},\{0,1\}\$/\1/p" "$2" | head -n 1
}

# The same end: results but for times, architecture, weights and tables of epochs.
same_end() {
    local file
    cmp <(result_of "$1") <(result_of "$2") >&2 || return 1
    for file in genotype.txt training/best.h5 training/last.h5 training/epochs.csv; do
        cmp "$1/$file" "$2/$file" >&2 || return 1
    done
}

# bits FILE: everything that a lookup graph holds but `seconds`, as text: names, types, attributes, raw bytes.
bits() {
    local raw=raw.$BASHPID
    h5dump -A "$1" | sed 1d
    h5dump -n "$1" | sed -n 's/^ *dataset *//p' | while read -r name; do
        [ "$name" = /seconds ] && continue
        h5dump -d "$name" -b LE -o "$raw" "$1" >/dev/null || echo "$name cannot be read"
        echo "$name $(md5sum <"$raw")"
    done
    rm -f "$raw"
}

equal_bits() {
    cmp <(bits "$1") <(bits "$2") >&2
}

# made SEARCH FOLDER: how often one of the lookup graph was really made to its end there, by whichever job.
made() {
    cat "$2"/tiny/events.jsonl "$2"/tiny/parts/*/events.jsonl 2>/dev/null |
        grep '"event":"finished".*"lookup graph"' | grep "\"$1\"" | grep -cv 'made before'
}

# all_made LEAST MOST FOLDER SEARCHES: each of so many (up to 10, of one seed) so often.
all_made() {
    local i n
    for ((i = 0; i < $4; i++)); do
        n=$(made "point-00$i-seed-0" "$3")
        [ "$n" -ge "$1" ] && [ "$n" -le "$2" ] && continue
        note "$3: point-00$i-seed-0 was made $n times"
        return 1
    done
}

# ---- data ----

mkdir idx
"${CC:-cc}" -O1 -o make_data "$here/make_data.c" || bail_out 'make_data.c does not compile'
./make_data idx 320 100 || bail_out 'no data'
run 0 data import idx idx tiny.h5 --classes 4
[ $status = 0 ] || bail_out "dcanas data import: $(cat "$err")"
