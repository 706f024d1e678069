/* The two checksums that the hub names files by: SHA-256 of a large file's bytes (git LFS), and
 * git's SHA-1 of a small one, which covers "blob LENGTH" and a 0 byte before them. */
#ifndef TESSERA_HUB_CHECKSUM_H
#define TESSERA_HUB_CHECKSUM_H

#include "base/error.h"

#define HUB_DIGEST_BYTES 65

/* Whether `text` can be one of the two: 40 or 64 lower-case hexadecimal digits. */
bool hub_checksum_is(const char *text);

/* Reads the file and tells in *match whether `expected` is its checksum, the kind going by its
 * length. `wait` is asked now and then; false gives CANCELLED. */
tessera_status hub_checksum_file(const char *path, const char *expected, bool (*wait)(void *user), void *user, bool *match,
                                 tessera_error *error);

#endif
