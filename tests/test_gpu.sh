#!/bin/sh
# All that can be tested on real GPUs, on the GPUs of this machine. Where there are none it says so, and fails with
# REQUIRE_GPU=1. usage: BUILD=build tests/test_gpu.sh TEST_PROGRAM...
build=${BUILD:-build}
what=$("$build/dcanas" --version | sed -n 's/^ *cuda: //p')
gpus=$(echo "$what" | sed -n 's/.*; \([0-9]*\) GPUs\{0,1\}$/\1/p')
if [ -z "$gpus" ]; then
    echo '************************************************************************'
    echo "* NOTHING HAS BEEN TESTED ON A GPU: ${what:-built without CUDA}"
    echo '************************************************************************'
    [ "${REQUIRE_GPU:-0}" != 1 ]
    exit
fi
echo "On $gpus GPU(s): $what"

export DCANAS_TEST_DEVICE=cuda DCANAS_GPUS="$gpus" OMP_WAIT_POLICY=passive CMOCKA_MESSAGE_OUTPUT=TAP
prove --nocolor --timer -e '' "$@" tests/mpi/run.sh tests/program/gpu.sh || exit 1

if ! command -v compute-sanitizer >/dev/null; then
    echo 'compute-sanitizer is not here: no test ran under it.'
    exit 0
fi
for tool in memcheck racecheck synccheck initcheck; do
    for test in "$@"; do
        case $test in
        */test_*_kernels | */test_dense)
            echo "$test under compute-sanitizer's $tool"
            compute-sanitizer --tool "$tool" --error-exitcode 9 "$test" >"$build/sanitized" 2>&1 ||
                { tail -n 40 "$build/sanitized"; exit 1; } ;;
        esac
    done
done
