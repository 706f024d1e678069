/* See known_digests.h. */
#include "split/known_digests.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cache.h"
#include "base/file.h"
#include "split/identity.h"
#include "split/part_file.h"
#include "tessera.h"

enum { MOST_DIGESTS = 256, SETTLED_SECONDS = 2 };
static const char name[] = "part-digests.json";

static void add_file(struct canonical *c, const char *file, const struct stat *s) {
    canonical_text(c, file);
    canonical_u64(c, (uint64_t)s->st_dev);
    canonical_u64(c, (uint64_t)s->st_ino);
    canonical_u64(c, (uint64_t)s->st_size);
    canonical_u64(c, (uint64_t)s->st_mtim.tv_sec);
    canonical_u64(c, (uint64_t)s->st_mtim.tv_nsec);
    canonical_u64(c, (uint64_t)s->st_ctim.tv_sec);
    canonical_u64(c, (uint64_t)s->st_ctim.tv_nsec);
}

/* False where one was changed in the last seconds. */
static bool add_files(struct canonical *c, const char *folder, struct dirent *const *entries, int count) {
    bool settled = true;
    time_t now = time(NULL);
    for (int i = 0; i < count; i++) {
        struct stat s;
        char *path = file_join(folder, entries[i]->d_name);
        bool known = path != NULL && stat(path, &s) == 0;
        free(path);
        if (known) add_file(c, entries[i]->d_name, &s);
        settled = settled && known && s.st_ctim.tv_sec + SETTLED_SECONDS < now && s.st_mtim.tv_sec + SETTLED_SECONDS < now;
    }
    return settled;
}

/* In the order of their bytes, whatever the locale. */
static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_shown(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

bool known_digest_key(const char *folder, const struct split_range *range, char out[KNOWN_KEY_CHARS]) {
    struct canonical c;
    uint8_t hash[CANONICAL_HASH_BYTES];
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, is_shown, by_name);
    if (count < 0) return false;
    canonical_begin(&c, "tessera-known-1");
    canonical_text(&c, SPLIT_SPECIFICATION " " TESSERA_VERSION); /* another version may know other tensors of a block */
    canonical_u32(&c, (uint32_t)range->first);
    canonical_u32(&c, (uint32_t)range->end);
    canonical_u32(&c, range->finish);
    bool settled = add_files(&c, folder, entries, count);
    for (int i = 0; i < count; i++) free(entries[i]);
    free(entries);
    canonical_end(&c, hash);
    identity_hex(hash, sizeof hash, out);
    return settled;
}

bool known_digest_find(const char *key, uint8_t out[CANONICAL_HASH_BYTES]) {
    struct cache cache = cache_open(name);
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(cache.root, key));
    bool known = text != NULL && identity_unhex(text, out, CANONICAL_HASH_BYTES);
    cache_close(&cache);
    return known;
}

void known_digest_keep(const char *key, const uint8_t digest[CANONICAL_HASH_BYTES]) {
    char text[2 * CANONICAL_HASH_BYTES + 1];
    struct cache cache = cache_open(name);
    identity_hex(digest, CANONICAL_HASH_BYTES, text);
    cJSON_DeleteItemFromObjectCaseSensitive(cache.root, key);
    while (cJSON_GetArraySize(cache.root) >= MOST_DIGESTS) cJSON_DeleteItemFromArray(cache.root, 0); /* the oldest */
    cJSON_AddStringToObject(cache.root, key, text);
    cache_save(&cache);
    cache_close(&cache);
}
