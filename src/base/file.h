/* Files: whole files in, whole files out, and read-only maps.
 *
 * Writing goes to a temporary name beside the target, then fsync and rename, so that a full disk or
 * a killed process leaves the old file or none, never half of one. */
#ifndef TESSERA_BASE_FILE_H
#define TESSERA_BASE_FILE_H

#include <stdio.h>
#include "base/error.h"

/* Joins two path parts with one '/'; the caller frees. NULL only when memory is out. */
char *file_join(const char *folder, const char *name);
/* Whether `name`, which a foreign file gives, names something inside the folder it is joined to:
 * not "", "." or "..", and no '/'. */
bool file_name_is_plain(const char *name);
bool file_exists(const char *path);
bool file_is_folder(const char *path);
/* Is it there, or may be, but out of reach: no permission for a folder on the way to it, for the
 * folder itself, or to read the file? */
bool file_is_forbidden(const char *path);

/* Reads at most max_bytes; a longer file is an error. *data ends in an extra 0 byte; the caller
 * frees it. A pipe is read to its end, which may be long in coming: for what a person names. */
tessera_status file_read(const char *path, size_t max_bytes, char **data, size_t *length, tessera_error *error);

/* The same for a file of a model: IO if it is a pipe, a device or a folder, at once and without
 * waiting; FORMAT, which names it, if it is a Git LFS pointer or a web page. */
tessera_status file_read_regular(const char *path, size_t max_bytes, char **data, size_t *length, tessera_error *error);

struct file_map {
    const uint8_t *data;
    size_t length;
    int descriptor;
};
/* A private read-only map; an empty file is an error. A file that is unlinked or replaced while it
 * is mapped does no harm; one that is cut kills whoever reads behind its new end (SIGBUS). */
tessera_status file_map_open(const char *path, struct file_map *map, tessera_error *error);
/* IO if the file, `path` in the message, has been cut since it was mapped; what a map with a longer
 * life asks before it is used again. */
tessera_status file_map_check(const struct file_map *map, const char *path, tessera_error *error);
/* Lets the system take back the pages of some bytes of the map (a range of others' bytes is
 * ignored), and their neighbours that were mapped with them: they are read from the file again when
 * they are needed. */
void file_map_forget(const struct file_map *map, const void *data, size_t bytes);
void file_map_close(struct file_map *map);

/* An output file under a temporary name. Write to ->stream, then commit (rename) or discard
 * (unlink); both free it. */
struct file_output {
    FILE *stream;
    char *path, *temporary;
};
tessera_status file_output_open(const char *path, struct file_output *output, tessera_error *error);
tessera_status file_output_commit(struct file_output *output, tessera_error *error);
void file_output_discard(struct file_output *output);

/* Gives the file `from` the name `to`, unless there is a file of that name already: then *taken is
 * true, and nothing has changed. Of several processes that try at once one succeeds. IO for
 * anything else. */
tessera_status file_rename_new(const char *from, const char *to, bool *taken, tessera_error *error);

#endif
