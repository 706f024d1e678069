/* The cache on disk: paths, refs, links and locks of one repository; hub.h draws the layout. */
#ifndef TESSERA_HUB_CACHE_H
#define TESSERA_HUB_CACHE_H

#include "base/error.h"

#define HUB_COMMIT_BYTES 41
#define HUB_ETAG_BYTES 129

struct hub_cache {
    char *root;       /* the folder that HF_HUB_CACHE names */
    char *repository; /* root/models--OWNER--NAME */
    char *locks;      /* root/.locks/models--OWNER--NAME */
};

/* Makes nothing on disk. Free with hub_cache_close, after a failure too. */
tessera_status hub_cache_open(const char *root, const char *repository, struct hub_cache *cache, tessera_error *error);
void hub_cache_close(struct hub_cache *cache);

/* Makes the folders for blobs and locks, and the tag that keeps backup programs out (CACHEDIR.TAG). */
tessera_status hub_cache_prepare(const struct hub_cache *cache, tessera_error *error);

/* The commit that `revision` (or itself, if it is one) stood at when it was last asked for; false
 * if the cache does not know. */
bool hub_cache_commit(const struct hub_cache *cache, const char *revision, char commit[HUB_COMMIT_BYTES]);
/* Whether the cache may know, but may not be read: a cache of another user's is not an empty one. */
bool hub_cache_is_forbidden(const struct hub_cache *cache, const char *revision);
/* Writes refs/REVISION, unless it says so already or `revision` is the commit itself. */
tessera_status hub_cache_write_ref(const struct hub_cache *cache, const char *revision, const char *commit, tessera_error *error);

/* snapshots/COMMIT[/FILE] and blobs/ETAG[SUFFIX]; the caller frees. NULL when memory is out. */
char *hub_cache_snapshot(const struct hub_cache *cache, const char *commit, const char *file);
char *hub_cache_blob(const struct hub_cache *cache, const char *etag, const char *suffix);

/* Whether a name from outside may become a path below a folder: relative, no "." or "..", no
 * control characters. */
bool hub_cache_safe_path(const char *path);
/* Whether an entity tag may become a file's name. */
bool hub_cache_safe_etag(const char *etag);

/* Makes snapshots/COMMIT/FILE a relative link to blobs/ETAG, in one step; an existing link is
 * replaced. */
tessera_status hub_cache_link(const struct hub_cache *cache, const char *commit, const char *file, const char *etag, tessera_error *error);

/* Takes the lock of a blob, as huggingface_hub's does (flock), waiting for its holder as long as
 * `wait` returns true (CANCELLED).
 * *lock goes to hub_cache_unlock. */
tessera_status hub_cache_lock(const struct hub_cache *cache, const char *etag, bool (*wait)(void *user), void *user, int *lock,
                              tessera_error *error);
void hub_cache_unlock(int lock);

#endif
