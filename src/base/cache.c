/* See cache.h. */
#include "base/cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/json.h"

enum { MAX_CACHE_BYTES = 1 << 20 };

/* The cache's folder, made if it is not there; the caller frees. NULL without a home. */
static char *cache_folder(void) {
    const char *caches = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *base = NULL, *folder = NULL;
    if (caches != NULL && caches[0] != 0)
        base = strdup(caches);
    else if (home != NULL && home[0] != 0)
        base = file_join(home, ".cache");
    if (base != NULL && (mkdir(base, 0777) == 0 || errno == EEXIST)) folder = file_join(base, "tessera");
    free(base);
    if (folder != NULL && mkdir(folder, 0777) != 0 && errno != EEXIST) {
        free(folder);
        return NULL;
    }
    return folder;
}

struct cache cache_open(const char *name) {
    char *folder = cache_folder();
    struct cache cache = {.path = folder != NULL ? file_join(folder, name) : NULL};
    struct json *json = NULL;
    free(folder);
    if (cache.path != NULL && file_exists(cache.path) && json_open(cache.path, MAX_CACHE_BYTES, &json, NULL) == TESSERA_OK &&
        cJSON_IsObject(json_root(json)))
        cache.root = cJSON_Duplicate(json_root(json), true);
    json_free(json);
    if (cache.root == NULL) cache.root = cJSON_CreateObject();
    return cache;
}

void cache_save(const struct cache *cache) {
    struct file_output output;
    char *text = cache->path != NULL && cache->root != NULL ? cJSON_Print(cache->root) : NULL;
    if (text != NULL && file_output_open(cache->path, &output, NULL) == TESSERA_OK) {
        if (fputs(text, output.stream) < 0)
            file_output_discard(&output);
        else
            file_output_commit(&output, NULL);
    }
    cJSON_free(text);
}

void cache_close(struct cache *cache) {
    cJSON_Delete(cache->root);
    free(cache->path);
    *cache = (struct cache){0};
}
