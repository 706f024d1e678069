/* Bytes of files read where they are wanted, past the page cache: of a model that is larger than
 * the memory no byte is read twice from the cache before others have driven it out, so all that the
 * cache would do is drive out what other programs need.
 *
 * A file is read with O_DIRECT, or, where its file system has none, through the cache, which is
 * told to forget what was read. */
#ifndef TESSERA_BASE_DISK_H
#define TESSERA_BASE_DISK_H

#include "base/error.h"

/* Offsets, lengths and addresses are multiples of it: no disk has larger blocks. */
#define DISK_ALIGNMENT ((size_t)4096)

struct disk_file {
    char *path; /* for messages */
    int descriptor;
    bool direct;
};

/* The file behind another descriptor, which may be closed; IO if it cannot be opened once more. */
tessera_status disk_file_open(int descriptor, const char *path, struct disk_file *out, tessera_error *error);
void disk_file_close(struct disk_file *file);
/* Bytes offset .. offset + bytes, of which those behind the file's end stay as they are. IO if
 * fewer than `needed` of them are there: the file was cut, or the disk fails. */
tessera_status disk_file_read(struct disk_file *file, void *to, uint64_t offset, size_t bytes, size_t needed, tessera_error *error);

#endif
