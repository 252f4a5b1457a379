#!/bin/sh
# Format, static analysis and shell scripts, as TAP. usage: tests/lint.sh, from the root.
# shellcheck source=tests/tap.sh
. tests/tap.sh

# sources PATTERN...: the project's files, outside a git checkout those found.
sources() {
    git ls-files --cached --others --exclude-standard -- "$@" 2>/dev/null | while read -r file; do
        [ ! -e "$file" ] || echo "$file"
    done
}
if [ -z "$(sources Makefile)" ]; then
    echo '1..0 # SKIP not a git checkout'
    exit 0
fi

# Other versions of clang-format have other opinions.
if clang-format --version 2>/dev/null | grep -q 'version 14\.'; then
    report 'clang-format changes nothing' "$(sources '*.c' '*.h' '*.cu' '*.cuh' '*.cpp' '*.hpp' | xargs clang-format --dry-run -Werror 2>&1)"
else
    skip 'clang-format changes nothing' 'needs clang-format 14'
fi

# Not taken from it: casts of raw memory to floats, which is what arenas are; kernels/norm.c's accumulators, set in a
# loop that it takes for empty.
if command -v cppcheck >/dev/null; then
    report 'cppcheck finds nothing' "$(cppcheck --quiet --enable=warning,performance,portability --std=c11 -j2 \
        --suppress=invalidPointerCast --suppress=uninitvar:kernels/norm.c --inline-suppr -Isrc -Ikernels src kernels 2>&1)"
else
    skip 'cppcheck finds nothing' 'cppcheck is not installed'
fi

if command -v shellcheck >/dev/null; then
    report 'shellcheck finds nothing' "$(sources '*.sh' '*.sbatch' .ci/run | xargs shellcheck --severity=warning 2>&1)"
else
    skip 'shellcheck finds nothing' 'shellcheck is not installed'
fi

report 'no blanks at the ends of lines' "$(sources '*.[ch]' '*.cu' '*.cuh' '*.[ch]pp' '*.sh' '*.sbatch' '*.py' '*.ini' '*.md' Makefile .ci/run |
    xargs grep -n '[[:blank:]]$')"
plan
