/* What the program may forget: JSON objects in the user's cache folder.
 *
 *     $XDG_CACHE_HOME/tessera/NAME, else ~/.cache/tessera/NAME
 *
 * A file that cannot be read, or is no object, is as an empty one, and is written anew. Of
 * processes that write at once one wins: what the other found out it finds out again. */
#ifndef TESSERA_BASE_CACHE_H
#define TESSERA_BASE_CACHE_H

#include <cjson/cJSON.h>

struct cache {
    char *path;  /* NULL: there is no home to keep it in */
    cJSON *root; /* an object; NULL if memory is out */
};
struct cache cache_open(const char *name); /* cache_close either way */
/* A cache that cannot be written stays as it was. */
void cache_save(const struct cache *cache);
void cache_close(struct cache *cache);

#endif
