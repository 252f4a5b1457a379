# shellcheck shell=sh
# TAP for the tests of the source itself. Sourced; ends with `plan`.
n=0
# report NAME FINDINGS: passes when there are none.
report() {
    n=$((n + 1))
    if [ -z "$2" ]; then
        echo "ok $n - $1"
    else
        echo "not ok $n - $1"
        echo "$2" | sed 's/^/# /'
    fi
}

# skip NAME WHY
skip() {
    n=$((n + 1))
    echo "ok $n - $1 # SKIP $2"
}

plan() {
    echo "1..$n"
}
