#!/bin/sh
# No double precision where none is meant: what the PTX of the compiled kernels says, as TAP. usage: BUILD=build tests/ptx.sh
build=${BUILD:-build}

# Kernels that may compute in double, each a few numbers a block or a channel, and why.
allowed='
finish_squares_kernel   the norm of all gradients, from a number for each block, as the CPU has it
finish_mix_kernel       a weight gradient of the mix, from a number for each block: they nearly cancel
finish_moments_kernel   moments of a channel, from those of its chunks: the squares nearly cancel
finish_products_kernel  both sums of a batch norm gradient, which nearly cancel in a trained network
'

# doubles OBJECT...: kernels in which there is a .f64.
doubles() {
    for object in "$@"; do
        strings -n 4 "$object" | grep -oE '\.entry[[:space:]]+[A-Za-z0-9_$]+|\.f64' |
            awk '$1 == ".entry" { kernel = $2; next } !seen[kernel]++ { print kernel }'
    done | c++filt | sed 's/^void //; s/(anonymous namespace):://g; s/[<(].*//' | sort -u
}

unexpected() {
    doubles "$@" | while read -r kernel; do
        echo "$allowed" | grep -q "^$kernel " || echo "$kernel computes in double"
    done
}

# shellcheck source=tests/tap.sh
. tests/tap.sh

set -- "$build"/kernels/*.cuda.o
if [ ! -e "$1" ]; then
    echo '1..0 # SKIP built without CUDA'
    exit 0
fi
report 'kernels compute in double only where it is allowed' "$(unexpected "$@")"
found=$(doubles "$@")
report 'and each that may does' "$(echo "$allowed" | awk 'NF { print $1 }' | while read -r kernel; do
    echo "$found" | grep -qx "$kernel" || echo "$kernel computes in no double (any more)"
done)"

# One that is added is found: a constant without its f.
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
cat >"$folder/planted.cu" <<'END'
namespace {
template <typename T> __global__ void planted_kernel(T *x) { x[threadIdx.x] *= 0.1; }
}
void launch(float *x) { planted_kernel<<<1, 32>>>(x); }
END
${NVCC:-nvcc} -lineinfo -no-compress -arch=sm_90 -c -o "$folder/planted.o" "$folder/planted.cu" || exit 1
wanted='planted_kernel computes in double'
got=$(unexpected "$folder/planted.o")
report 'a double that is planted is found' "$([ "$got" = "$wanted" ] || echo "found: $got")"
plan
