#!/bin/bash
# A file system that fails and becomes read-only in mid-run, as ext4 does: one line, and once it is mounted again the run
# goes on to the same end. Needs root, for a file system in a file.
# shellcheck disable=SC2317 # functions that `check` calls
if [ -z "${DCANAS_MOUNTS:-}" ]; then # in a mount namespace of its own, which takes all mounts with it
    if [ "$(id -u)" != 0 ] || [ ! -e /dev/loop-control ] || ! command -v mkfs.ext4 >/dev/null ||
        ! unshare -m true 2>/dev/null; then
        echo '1..0 # SKIP READ-ONLY FILE SYSTEMS ARE NOT TESTED: needs root, loop devices and mkfs.ext4'
        exit 0
    fi
    DCANAS_MOUNTS=own exec unshare -m bash "$0"
fi
# shellcheck source=tests/program/common.sh
. "$(dirname "$0")/common.sh"

options=(--set target.epochs=6)
run 2 run "$ini" --set run.output=whole "${options[@]}"
check 'an undisturbed run' [ "$status" = 0 ]

truncate -s 256M image
mkdir disk
mkfs.ext4 -q -F image || bail_out 'mkfs.ext4 fails'
if ! mount -o loop,errors=remount-ro image disk 2>"$err"; then
    echo "1..$n_tests # SKIP no file system in a file here: $(cat "$err")"
    exit 0
fi
trigger=/sys/fs/ext4/$(basename "$(findmnt -n -o SOURCE disk)")/trigger_fs_error

start 2 run "$ini" --set run.output=disk "${options[@]}"
check 'a run is under way' reached '"event":"epoch"' disk/tiny/events.jsonl 2 30
echo 1 >"$trigger"
finished
touch disk/new 2>/dev/null
check 'the file system becomes read-only' [ ! -e disk/new ]
check '... the job ends with status 1' [ "$status" = 1 ]
check '... and one line that names a file there' [ "$(own_lines | grep -c 'disk/tiny/.*\(Read-only\|Input/output\)')" = 1 ]
check '... and no other' [ "$(own_lines | wc -l)" = 1 ]
run 2 run "$ini" --set run.output=disk "${options[@]}"
check 'a start on it is refused with status 1' [ "$status" = 1 ]
check '... and one line' [ "$(own_lines | grep -c 'disk/tiny.*Read-only file system')" = 1 ]
run 0 status disk/tiny
check 'status is told all the same' [ "$status" = 0 ]
umount disk
e2fsck -p image >"$out" 2>&1 # what an administrator does: 1, errors corrected
mount -o loop image disk || bail_out 'the file system cannot be mounted again'
run 2 run "$ini" --set run.output=disk "${options[@]}"
check 'mounted again the run goes on' [ "$status" = 0 ]
check '... to the same end' same_end whole/tiny disk/tiny
umount disk
finish
