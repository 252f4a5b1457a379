#!/bin/sh
# What ptxas reports of each kernel, as a table. usage: tests/gpu_report.sh FILE.ptxas...
printf '%-36s %-8s %9s %7s %7s\n' kernel arch registers spilled shared
cat "$@" | awk -F"'" '
    / Compiling entry function / { kernel = $2; arch = $4 }
    / spill stores/ { split($0, n, /[ ,]+/); for (i in n) if (n[i] == "spill") { spilled = n[i - 2]; break } }
    / Used / {
        match($0, /[0-9]+ registers/); registers = substr($0, RSTART, RLENGTH) + 0
        shared = match($0, /[0-9]+ bytes smem/) ? substr($0, RSTART, RLENGTH) + 0 : 0
        print kernel, arch, registers, spilled, shared
    }' | c++filt | sed 's/^void //; s/(anonymous namespace):://g; s/(.*) sm_/ sm_/' | awk '
    { shared = $NF; spilled = $(NF - 1); registers = $(NF - 2); arch = $(NF - 3)
      name = $0; sub(/ sm_.*/, "", name); gsub(/__nv_bfloat16/, "bf16", name); gsub(/, /, ",", name)
      printf "%-36s %-8s %9d %7d %7d\n", name, arch, registers, spilled, shared
      kernels += 1; if (registers > most) most = registers; spills += spilled > 0 }
    END { printf "\n%d compiled kernels, at most %d registers, %d with spills\n", kernels, most, spills }'
