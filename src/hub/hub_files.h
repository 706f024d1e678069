/* Which files of a repository a pipeline needs, and whether a snapshot has them. */
#ifndef TESSERA_HUB_FILES_H
#define TESSERA_HUB_FILES_H

#include "base/json.h"
#include "hub/hub_cache.h"
#include "hub/hub_checksum.h"

struct hub_file {
    char *path;                    /* in the repository; safe (hub_cache_safe_path) */
    int64_t size;                  /* bytes; -1: the hub does not say */
    char digest[HUB_DIGEST_BYTES]; /* its checksum, "" if the hub does not say */
    bool wanted;
};

struct hub_listing {
    char commit[HUB_COMMIT_BYTES];
    struct hub_file *files;
    int count;
};

/* Reads the hub's answer to GET /api/models/OWNER/NAME/revision/REVISION?blobs=true; `name` stands
 * for it in messages. FORMAT if it breaks the protocol, or holds a path that would leave the
 * snapshot. Free with hub_listing_free, after a failure too. */
tessera_status hub_listing_parse(const char *name, const char *text, size_t length, struct hub_listing *listing, tessera_error *error);
void hub_listing_free(struct hub_listing *listing);

struct hub_file *hub_listing_find(struct hub_listing *listing, const char *path);

/* Sets `wanted` by model_index.json (`index`); `variant` ("fp16", or NULL) is preferred where a
 * component has it. UNSUPPORTED if a component has no weights that the engine reads. */
tessera_status hub_listing_select(struct hub_listing *listing, const struct json *index, const char *variant, tessera_error *error);

/* OK if the snapshot folder has model_index.json, something of each component, and every weight
 * file that is named there. IO: the first thing missing. */
tessera_status hub_snapshot_check(const char *folder, tessera_error *error);

#endif
