#include "data/stage.h"

#include "base/signals.h"
#include "base/units.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

enum { PIECE_BYTES = 8 << 20 };

static const char memory_folder[] = "/dev/shm";

/* Linux' numbers of file systems that reach over a network: NFS, SMB, CIFS, Lustre, GPFS, Ceph, BeeGFS, AFS, PanFS,
 * OrangeFS, 9P, FUSE. */
static bool is_remote(const char *path)
{
    static const uint32_t numbers[] = {0x6969,     0xfe534d42, 0xff534d42, 0x0bd00bd0, 0x47504653, 0x00c36400,
                                       0x19830326, 0x5346414f, 0xaad7aaea, 0x20030528, 0x01021997, 0x65735546};
    struct statfs info;
    if (statfs(path, &info) != 0)
        return false;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if ((uint32_t)info.f_type == numbers[i])
            return true;
    return false;
}

/* ---- room ---- */

static double memory_available(void)
{
    double kib = 0;
    char line[128];
    FILE *file = fopen("/proc/meminfo", "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %lf kB", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib * 1024;
}

/* Bytes that a copy may take; of what lies in memory half is left to the job. */
static double room_in(const char *folder)
{
    struct statfs info;
    if (statfs(folder, &info) != 0 || access(folder, W_OK) != 0)
        return 0;
    double room = (double)info.f_bavail * (double)info.f_bsize;
    if (strcmp(folder, memory_folder) == 0 && memory_available() / 2 < room)
        room = memory_available() / 2;
    return room;
}

/* ---- the copy ---- */

/* A lock on the copy at `path`, in *fd, if it is there, ours, of that size, and of this data set; else -1. */
static void find_copy(const char *path, const dc_dataset *dataset, off_t size, int *fd)
{
    struct stat info;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (*fd < 0)
        return;
    dc_dataset *copy = NULL;
    if (flock(*fd, LOCK_SH) == 0 && fstat(*fd, &info) == 0 && info.st_nlink > 0 && info.st_uid == geteuid() &&
        info.st_size == size && dc_dataset_open(path, &copy) == DC_OK && copy->hash == dataset->hash) {
        dc_dataset_close(copy);
        return;
    }
    dc_dataset_close(copy);
    close(*fd);
    *fd = -1;
}

static dc_status copy_bytes(int from, const char *from_path, int to, const char *to_path, dc_watchdog *watchdog)
{
    char *piece = dc_alloc(PIECE_BYTES);
    if (!piece)
        return DC_ERR_MEMORY;
    dc_status status = DC_OK;
    int64_t n_pieces = 0;
    for (ssize_t n = 1; status == DC_OK && n != 0;) {
        dc_watchdog_moved(watchdog, "the copying of the data set", n_pieces++);
        n = read(from, piece, PIECE_BYTES);
        if (dc_signals_received())
            status = dc_fail(DC_INTERRUPTED, "stopped while %s was copied to %s", from_path, to_path);
        else if (n > 0)
            status = dc_file_write_all(to, to_path, piece, (size_t)n);
        else if (n < 0 && errno != EINTR)
            status = dc_fail(DC_ERR_IO, "%s: cannot read: %s", from_path, strerror(errno));
    }
    free(piece);
    return status;
}

/* Under another name first, so that a copy with its name is whole. */
static dc_status make_copy(const dc_dataset *dataset, const char *path, dc_watchdog *watchdog, int *fd)
{
    char unfinished[DC_PATH_CHARS + 32];
    snprintf(unfinished, sizeof unfinished, "%s.%ld", path, (long)getpid());
    const int from = open(dataset->path, O_RDONLY | O_CLOEXEC);
    if (from < 0)
        return dc_fail(DC_ERR_IO, "%s: cannot read: %s", dataset->path, strerror(errno));
    unlink(unfinished); /* of a process that had this number */
    const int to = open(unfinished, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    dc_status status = to < 0 ? dc_fail(DC_ERR_IO, "%s: cannot write: %s", unfinished, strerror(errno)) : DC_OK;
    if (status == DC_OK)
        status = copy_bytes(from, dataset->path, to, unfinished, watchdog);
    close(from);
    if (status == DC_OK && (flock(to, LOCK_SH) != 0 || rename(unfinished, path) != 0))
        status = dc_fail(DC_ERR_IO, "%s: cannot rename to %s: %s", unfinished, path, strerror(errno));
    if (status != DC_OK && to >= 0) {
        unlink(unfinished);
        close(to);
    }
    *fd = status == DC_OK ? to : -1;
    return status;
}

/* In this folder: DC_OK without stage->staged when there is no room. */
static dc_status stage_in(const char *folder, const dc_dataset *dataset, off_t size, dc_watchdog *watchdog,
                          dc_stage *stage)
{
    char name[128], path[DC_PATH_CHARS];
    snprintf(name, sizeof name, "dcanas-%lu-%016" PRIx64 ".h5", (unsigned long)geteuid(), dataset->hash);
    DC_TRY(dc_path_join(folder, name, path));
    find_copy(path, dataset, size, &stage->fd);
    stage->found = stage->fd >= 0;
    if (!stage->found) {
        if (room_in(folder) < (double)size)
            return DC_OK;
        DC_TRY(make_copy(dataset, path, watchdog, &stage->fd));
    }
    stage->staged = true;
    strcpy(stage->path, path);
    return DC_OK;
}

/* By one rank of a node. */
static dc_status stage_on_node(const char *where, const dc_dataset *dataset, dc_watchdog *watchdog, dc_stage *stage)
{
    struct stat info;
    if (stat(dataset->path, &info) != 0)
        return dc_fail(DC_ERR_IO, "%s: cannot read: %s", dataset->path, strerror(errno));
    if (strcmp(where, "auto") != 0) {
        DC_TRY(stage_in(where, dataset, info.st_size, watchdog, stage));
        if (stage->staged)
            return DC_OK;
        return dc_fail(DC_ERR_INPUT, "[data] stage = %s: %s of %s is needed there, and it has room for %s", where,
                       dc_format_bytes((double)info.st_size).s, dataset->path, dc_format_bytes(room_in(where)).s);
    }
    const char *folders[] = {memory_folder, getenv("TMPDIR")};
    for (int i = 0; i < 2 && !stage->staged && is_remote(dataset->path); i++)
        if (folders[i] && *folders[i] && !is_remote(folders[i]))
            DC_TRY(stage_in(folders[i], dataset, info.st_size, watchdog, stage));
    return DC_OK;
}

dc_status dc_stage_open(const dc_comm *world, const char *where, const dc_dataset *dataset, dc_stage *stage)
{
    *stage = (dc_stage){.fd = -1};
    snprintf(stage->path, sizeof stage->path, "%s", dataset->path);
    if (strcmp(where, "no") == 0)
        return DC_OK;
    dc_comm node;
    DC_TRY(dc_comm_split_node(world, &node));
    dc_status status = node.rank == 0 ? stage_on_node(where, dataset, world->watchdog, stage) : DC_OK;
    status = dc_comm_agree(&node, status);
    const int fd = stage->fd;
    if (status == DC_OK)
        status = dc_comm_bcast(&node, 0, stage, sizeof *stage);
    stage->fd = fd;
    dc_comm_clear(&node);
    return dc_comm_agree(world, status);
}

void dc_stage_close(dc_stage *stage)
{
    if (stage->fd < 0)
        return;
    if (flock(stage->fd, LOCK_EX | LOCK_NB) == 0) /* nobody else's */
        unlink(stage->path);
    close(stage->fd);
    stage->fd = -1;
}
