#!/bin/sh
# The layering of the house, as TAP: a file may include only its own layer and those before it, and stays readable in
# size. usage: tests/layers.sh, from the root.

# violations RULE ROOT: one line for each.
violations() {
    find "$2/src" "$2/kernels" -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' | LC_ALL=C sort | (
        cd "$2" && sed "s|^$2/||" | xargs awk -v rule="$1" '
    BEGIN {
        n = split("base graph kernels backend comm data nn space train search lug report app", names, " ")
        for (i = 1; i <= n; i++)
            level[names[i]] = i
    }
    # The layer of a path below src/ or kernels/; headers of kernels/ are included by their bare names.
    function layer(path,    parts) {
        return split(path, parts, "/") == 1 || parts[1] == "kernels" ? "kernels" : parts[1]
    }
    function say(text) {
        print FILENAME ":" FNR ": " text
    }
    FNR == 1 {
        start = 0
        own = layer(substr(FILENAME, 1, 4) == "src/" ? substr(FILENAME, 5) : FILENAME)
        if (rule == "layers" && !(own in level))
            say("the folder " own " is no layer")
    }
    rule == "layers" && /^[ \t]*#[ \t]*include[ \t]*"/ {
        split($0, quoted, "\"")
        other = layer(quoted[2])
        if (!(other in level))
            say(quoted[2] " belongs to no layer: includes are written from the root")
        else if (level[other] > level[own])
            say(own " may not include " quoted[2])
    }
    rule == "files" && FNR == 601 {
        say("more than 600 lines")
    }
    rule == "functions" && /^{/ {
        start = FNR
    }
    rule == "functions" && /^}/ && start {
        if (FNR - start - 1 > 80)
            say("a function of " FNR - start - 1 " lines: at most 80")
        start = 0
    }
    rule == "exits" && /(^|[^_a-zA-Z0-9])exit *\(/ && !/^ *(\/?\*|\/\/)/ && FILENAME != "src/app/main.c" {
        say("only main may exit")
    }'
    )
}

# shellcheck source=tests/tap.sh
. tests/tap.sh

report 'a layer includes only itself and those before it' "$(violations layers .)"
report 'files have at most 600 lines' "$(violations files .)"
report 'functions have at most 80 lines' "$(violations functions .)"
report 'nothing but main exits' "$(violations exits .)"

# The rules find what is planted.
planted=$(mktemp -d) || exit 1
trap 'rm -rf "$planted"' EXIT
mkdir -p "$planted/src/graph" "$planted/src/attic" "$planted/kernels"
printf '#include "nn/params.h"\n#include "base/status.h"\n#include "lost/x.h"\n' >"$planted/src/graph/a.c"
printf '#include "graph/graph.h"\n#include "kernels.h"\n#include "backend/backend.h"\n' >"$planted/kernels/k.c"
echo >"$planted/src/attic/b.c"
{ echo 'int f(void)'; echo '{'; yes '    exit(1);' | head -700; echo '}'; } >"$planted/src/graph/c.c"
count() {
    found=$(violations "$1" "$planted" | wc -l)
    [ "$found" -eq "$2" ] || echo "$1: $found findings instead of $2"
}
report 'planted violations are found' "$(count layers 4 && count files 1 && count functions 1 && count exits 700)"
plan
