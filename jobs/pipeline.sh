#!/bin/bash
# Submits the whole of it as a chain of jobs, each of which starts when the one before has ended well: import of the data
# set, lookup graph as an array, its gathering, search and selection, training.
#
#   jobs/pipeline.sh [-i 'KIND SOURCE FILE'] CONFIG [--set SECTION.KEY=VALUE]...
#
#   -i  imports the data set first; FILE is the configuration's data.file
#
# What the jobs ask for is in their scripts, or in site.sh (DCANAS_..._OPTIONS). When one fails those after it are cancelled: once the cause
# is removed, the same command goes on with what is left.
set -u
jobs=$(cd "$(dirname "$0")" && pwd) || exit 1
# shellcheck source=jobs/site.sh
. "$jobs/site.sh"

import=
while getopts i: option; do
    case $option in
    i) import=$OPTARG ;;
    *) sed -n '5,7s/^# *//p' "$0" >&2 && exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ -f "${1-}" ] || { echo "jobs/pipeline.sh: ${1:-CONFIG} should be a configuration's file" >&2 && exit 2; }

# submit STEP OPTIONS DEPENDENCY ARGUMENTS...: prints the job's number.
submit() {
    local step=$1 options=$2 after=$3 id
    shift 3
    # shellcheck disable=SC2086 # several words
    id=$(sbatch --parsable --kill-on-invalid-dep=yes ${after:+--dependency=$after} $options "$jobs/$step.sbatch" "$@") || exit 1
    echo "job $id: $step${after:+, $after}" >&2
    echo "${id%%;*}"
}

ready=
if [ "$import" ]; then
    # shellcheck disable=SC2086
    ready=afterok:$(unset SBATCH_GPUS_PER_TASK; submit import "${DCANAS_IMPORT_OPTIONS:-}" '' $import) || exit 1
fi
array=$(submit lug-array "${DCANAS_ARRAY_OPTIONS:-}" "$ready" "$@") || exit 1
lug=$(submit lug "${DCANAS_LUG_OPTIONS:-}" "afterany:$array${ready:+,$ready}" "$@") || exit 1
search=$(submit search "${DCANAS_SEARCH_OPTIONS:-}" "afterok:$lug" "$@") || exit 1
submit train "${DCANAS_TRAIN_OPTIONS:-}" "afterok:$search" "$@" >/dev/null || exit 1
