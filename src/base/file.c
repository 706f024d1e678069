/* Files: reading whole ones, mapping, and writing so that a failure leaves the old file or none.
 *
 * An output is written under PATH.PID.N.tmp in the target's own folder, because a rename is atomic
 * only within one file system. Left out: making the folder's entry itself durable (fsync of the
 * folder). */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/stand_in.h"

char *file_join(const char *folder, const char *name) {
    size_t length = strlen(folder);
    const char *slash = length == 0 || folder[length - 1] == '/' ? "" : "/";
    char *path = NULL;
    return asprintf(&path, "%s%s%s", folder, slash, name) < 0 ? NULL : path;
}

bool file_name_is_plain(const char *name) {
    return name[0] != 0 && strchr(name, '/') == NULL && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

bool file_exists(const char *path) {
    struct stat about;
    return stat(path, &about) == 0;
}

bool file_is_folder(const char *path) {
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

bool file_is_forbidden(const char *path) {
    struct stat about;
    if (stat(path, &about) != 0) return errno == EACCES;
    return access(path, S_ISDIR(about.st_mode) ? R_OK | X_OK : R_OK) != 0 && errno == EACCES;
}

/* The size found by stat is a first guess only: it is 0 for /proc, and a file may grow. */
static tessera_status read_stream(FILE *stream, const char *path, size_t max_bytes, char **data, size_t *length, tessera_error *error) {
    size_t capacity = 4096, count = 0;
    struct stat about;
    if (fstat(fileno(stream), &about) == 0 && about.st_size > 0 && (size_t)about.st_size <= max_bytes) capacity = (size_t)about.st_size + 2;
    char *text = malloc(capacity);
    while (text != NULL) {
        count += fread(text + count, 1, capacity - 1 - count, stream);
        if (count < capacity - 1) break;
        if (count > max_bytes) break;
        char *larger = realloc(text, capacity *= 2);
        if (larger == NULL) free(text);
        text = larger;
    }
    if (text == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for its %zu bytes", path, capacity);
    if (ferror(stream)) {
        error_set_errno(error, "%s: cannot read", path);
        free(text);
        return TESSERA_ERROR_IO;
    }
    if (count > max_bytes) {
        free(text);
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: longer than the %zu bytes that such a file may have", path, max_bytes);
    }
    text[count] = 0;
    *data = text;
    *length = count;
    return TESSERA_OK;
}

tessera_status file_read(const char *path, size_t max_bytes, char **data, size_t *length, tessera_error *error) {
    *data = NULL;
    *length = 0;
    FILE *stream = fopen(path, "rb");
    if (stream == NULL) return error_set_errno(error, "%s: cannot open", path);
    tessera_status status = read_stream(stream, path, max_bytes, data, length, error);
    fclose(stream);
    return status;
}

/* Opens a regular file; a pipe without a writer must not block. */
static tessera_status open_regular(const char *path, int *descriptor, struct stat *about, tessera_error *error) {
    *descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (*descriptor < 0) return error_set_errno(error, "%s: cannot open", path);
    tessera_status status = TESSERA_OK;
    if (fstat(*descriptor, about) != 0)
        status = error_set_errno(error, "%s: cannot ask its size", path);
    else if (!S_ISREG(about->st_mode))
        status = error_set(error, TESSERA_ERROR_IO, "%s: not a regular file", path);
    if (status != TESSERA_OK) close(*descriptor);
    return status;
}

tessera_status file_read_regular(const char *path, size_t max_bytes, char **data, size_t *length, tessera_error *error) {
    int descriptor;
    struct stat about;
    *data = NULL;
    *length = 0;
    TRY(open_regular(path, &descriptor, &about, error));
    FILE *stream = fdopen(descriptor, "rb");
    if (stream == NULL) {
        close(descriptor);
        return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory to open it", path);
    }
    tessera_status status = read_stream(stream, path, max_bytes, data, length, error);
    fclose(stream);
    const char *stand_in = status == TESSERA_OK ? stand_in_of(*data, *length) : NULL;
    if (stand_in == NULL) return status;
    free(*data);
    *data = NULL;
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: is %s", path, stand_in);
}

tessera_status file_map_open(const char *path, struct file_map *map, tessera_error *error) {
    *map = (struct file_map){0};
    int descriptor;
    struct stat about;
    TRY(open_regular(path, &descriptor, &about, error));
    tessera_status status = TESSERA_OK;
    if (about.st_size == 0) {
        status = error_set(error, TESSERA_ERROR_FORMAT, "%s: the file is empty", path);
    } else {
        void *data = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (data == MAP_FAILED)
            status = error_set_errno(error, "%s: cannot map", path);
        else
            *map = (struct file_map){data, (size_t)about.st_size, descriptor};
    }
    if (status != TESSERA_OK) close(descriptor);
    return status;
}

tessera_status file_map_check(const struct file_map *map, const char *path, tessera_error *error) {
    struct stat about;
    if (map->data == NULL) return TESSERA_OK;
    if (fstat(map->descriptor, &about) != 0) return error_set_errno(error, "%s: cannot ask its size", path);
    if ((size_t)about.st_size >= map->length) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_IO, "%s: was cut from %zu to %lld bytes while it was in use: restore it and open the model again",
                     path, map->length, (long long)about.st_size);
}

/* Bytes before and after a page that Linux maps with it (fault_around_bytes' default). */
#define FAULT_AROUND ((uintptr_t)64 << 10)

void file_map_forget(const struct file_map *map, const void *data, size_t bytes) {
    uintptr_t base = (uintptr_t)map->data, begin = (uintptr_t)data, page = (uintptr_t)sysconf(_SC_PAGESIZE);
    if (map->data == NULL || bytes == 0 || begin < base || begin - base >= map->length) return;
    uintptr_t last = base + map->length, end = bytes < last - begin ? begin + bytes : last;
    begin = begin - base > FAULT_AROUND ? begin - FAULT_AROUND : base;
    end = last - end > FAULT_AROUND ? end + FAULT_AROUND : last;
    begin = begin / page * page; /* the map's own first byte lies at a page's start */
    madvise((void *)begin, end - begin, MADV_DONTNEED); /* only advice */
}

void file_map_close(struct file_map *map) {
    if (map->data != NULL) {
        munmap((void *)map->data, map->length);
        close(map->descriptor);
    }
    *map = (struct file_map){0};
}

/* Creates a new file beside `path`; -1 and errno on failure. *temporary is the caller's to free. */
static int create_beside(const char *path, char **temporary) {
    for (int attempt = 0; attempt < 100; attempt++) {
        if (asprintf(temporary, "%s.%ld.%d.tmp", path, (long)getpid(), attempt) < 0) {
            *temporary = NULL;
            errno = ENOMEM;
            return -1;
        }
        int descriptor = open(*temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (descriptor >= 0) return descriptor;
        int number = errno;
        free(*temporary);
        *temporary = NULL;
        errno = number;
        if (number != EEXIST) return -1;
    }
    return -1;
}

tessera_status file_output_open(const char *path, struct file_output *output, tessera_error *error) {
    *output = (struct file_output){0};
    struct stat about;
    if (stat(path, &about) == 0 && !S_ISREG(about.st_mode)) /* a rename would replace the device or fail at the very end */
        return error_set(error, TESSERA_ERROR_IO, "%s: exists and is not a regular file; name another output", path);
    int descriptor = create_beside(path, &output->temporary);
    if (descriptor < 0) return error_set_errno(error, "%s: cannot create", path);
    output->path = strdup(path);
    output->stream = fdopen(descriptor, "wb");
    if (output->path != NULL && output->stream != NULL) return TESSERA_OK;
    if (output->stream == NULL) close(descriptor);
    file_output_discard(output);
    return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory to open it", path);
}

tessera_status file_output_commit(struct file_output *output, tessera_error *error) {
    errno = 0;
    bool written = fflush(output->stream) == 0 && !ferror(output->stream) && fsync(fileno(output->stream)) == 0;
    int number = errno != 0 ? errno : EIO;
    if (fclose(output->stream) != 0 && written) {
        written = false;
        number = errno;
    }
    output->stream = NULL;
    if (written && rename(output->temporary, output->path) != 0) {
        written = false;
        number = errno;
    }
    tessera_status status = TESSERA_OK;
    if (!written) {
        errno = number;
        status = error_set_errno(error, "%s: cannot write", output->path);
        unlink(output->temporary);
    }
    free(output->temporary);
    free(output->path);
    *output = (struct file_output){0};
    return status;
}

void file_output_discard(struct file_output *output) {
    if (output->stream != NULL) fclose(output->stream);
    if (output->temporary != NULL) unlink(output->temporary);
    free(output->temporary);
    free(output->path);
    *output = (struct file_output){0};
}

tessera_status file_rename_new(const char *from, const char *to, bool *taken, tessera_error *error) {
    int code = renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE);
    if (code != 0 && (errno == EINVAL || errno == ENOSYS)) { /* a file system that knows no such renaming, such as NFS */
        code = link(from, to);
        if (code == 0) unlink(from);
    }
    *taken = code != 0 && errno == EEXIST;
    return code == 0 || *taken ? TESSERA_OK : error_set_errno(error, "%s: cannot name it so", to);
}
