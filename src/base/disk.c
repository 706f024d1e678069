/* See disk.h. */
#include "base/disk.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

tessera_status disk_file_open(int descriptor, const char *path, struct disk_file *out, tessera_error *error) {
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor); /* the same file, whatever its name leads to by now */
    *out = (struct disk_file){.path = strdup(path), .descriptor = open(name, O_RDONLY | O_CLOEXEC | O_DIRECT), .direct = true};
    if (out->path == NULL) {
        disk_file_close(out);
        return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory to open it", path);
    }
    if (out->descriptor < 0) {
        out->direct = false;
        out->descriptor = open(name, O_RDONLY | O_CLOEXEC);
    }
    return out->descriptor >= 0 ? TESSERA_OK : error_set_errno(error, "%s: cannot be opened for reading", path);
}

void disk_file_close(struct disk_file *file) {
    if (file->descriptor >= 0) close(file->descriptor);
    free(file->path);
    *file = (struct disk_file){.descriptor = -1};
}

/* Reads as much as there is; -1 and errno on failure. */
static ssize_t read_some(struct disk_file *file, char *to, uint64_t offset, size_t bytes) {
    ssize_t got;
    do got = pread(file->descriptor, to, bytes, (off_t)offset);
    while (got < 0 && errno == EINTR);
    if (got >= 0 || errno != EINVAL || !file->direct) return got;
    file->direct = false; /* the file system opens files so, but does not read them so */
    fcntl(file->descriptor, F_SETFL, 0);
    return read_some(file, to, offset, bytes);
}

tessera_status disk_file_read(struct disk_file *file, void *to, uint64_t offset, size_t bytes, size_t needed, tessera_error *error) {
    assert(offset % DISK_ALIGNMENT == 0 && bytes % DISK_ALIGNMENT == 0 && (uintptr_t)to % DISK_ALIGNMENT == 0 && needed <= bytes);
    size_t done = 0;
    while (done < needed) {
        ssize_t got = read_some(file, (char *)to + done, offset + done, bytes - done);
        if (got < 0) return error_set_errno(error, "%s: cannot be read at byte %llu", file->path, (unsigned long long)(offset + done));
        if (got == 0 || (done + (size_t)got < needed && (size_t)got % DISK_ALIGNMENT != 0)) { /* the end */
            if (got > 0) done += (size_t)got;
            break;
        }
        done += (size_t)got;
    }
    if (!file->direct) posix_fadvise(file->descriptor, (off_t)offset, (off_t)bytes, POSIX_FADV_DONTNEED);
    if (done >= needed) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_IO, "%s: ends at byte %llu, %zu bytes too early: it was cut while it was in use: restore it and open the model again",
                     file->path, (unsigned long long)(offset + done), needed - done);
}
