/* Fingerprints by FNV-1a, 64 bits (Fowler, Noll, Vo 1991); see fingerprint.h. */
#include "checkpoint/fingerprint.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/file.h"

#define FNV_OFFSET 0xcbf29ce484222325u
#define FNV_PRIME 0x100000001b3u
#define WHOLE_BYTES ((size_t)1 << 20)
#define HEAD_BYTES ((size_t)256 << 10)
#define SAMPLE_BYTES ((size_t)4096)
#define SAMPLES 64
#define MAX_DEPTH 3

static uint64_t fnv(uint64_t hash, const void *data, size_t length) {
    const uint8_t *bytes = data;
    for (size_t i = 0; i < length; i++) hash = (hash ^ bytes[i]) * FNV_PRIME;
    return hash;
}

static void to_text(uint64_t hash, char out[FINGERPRINT_BYTES]) {
    snprintf(out, FINGERPRINT_BYTES, "%016" PRIx64, hash);
}

void fingerprint_bytes(const void *data, size_t length, char out[FINGERPRINT_BYTES]) {
    to_text(fnv(FNV_OFFSET, data, length), out);
}

static tessera_status hash_file(const char *path, uint64_t *hash, tessera_error *error) {
    struct file_map map;
    TRY(file_map_open(path, &map, error));
    uint64_t length = map.length;
    *hash = fnv(*hash, &length, sizeof length);
    if (map.length <= WHOLE_BYTES) {
        *hash = fnv(*hash, map.data, map.length);
    } else {
        *hash = fnv(*hash, map.data, HEAD_BYTES);
        for (size_t i = 0; i < SAMPLES; i++) *hash = fnv(*hash, map.data + (map.length - SAMPLE_BYTES) / (SAMPLES - 1) * i, SAMPLE_BYTES);
    }
    file_map_close(&map);
    return TESSERA_OK;
}

static bool counts(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot != NULL && (strcmp(dot, ".json") == 0 || strcmp(dot, ".txt") == 0 || strcmp(dot, ".model") == 0 ||
                           strcmp(dot, ".safetensors") == 0 || strcmp(dot, ".bin") == 0);
}

static int by_bytes(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static tessera_status hash_folder(const char *folder, int depth, uint64_t *hash, tessera_error *error) {
    struct dirent **entries;
    int count = scandir(folder, &entries, NULL, by_bytes);
    if (count < 0) return error_set_errno(error, "model folder %s cannot be read", folder);
    tessera_status status = TESSERA_OK;
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        char *path = name[0] != '.' && status == TESSERA_OK ? file_join(folder, name) : NULL;
        if (path != NULL && file_is_folder(path) && depth < MAX_DEPTH) {
            *hash = fnv(*hash, name, strlen(name) + 1);
            status = hash_folder(path, depth + 1, hash, error);
        } else if (path != NULL && counts(name)) {
            *hash = fnv(*hash, name, strlen(name) + 1);
            status = hash_file(path, hash, error);
        }
        free(path);
        free(entries[i]);
    }
    free(entries);
    return status;
}

tessera_status fingerprint_model(const char *model, char out[FINGERPRINT_BYTES], tessera_error *error) {
    uint64_t hash = FNV_OFFSET;
    TRY(file_is_folder(model) ? hash_folder(model, 0, &hash, error) : hash_file(model, &hash, error));
    to_text(hash, out);
    return TESSERA_OK;
}

tessera_status fingerprint_files(const char *const *paths, int count, char out[FINGERPRINT_BYTES], tessera_error *error) {
    uint64_t hash = FNV_OFFSET;
    for (int i = 0; i < count; i++) TRY(hash_file(paths[i], &hash, error));
    to_text(hash, out);
    return TESSERA_OK;
}

tessera_status fingerprint_loras(const tessera_lora *loras, int count, char out[FINGERPRINT_BYTES], tessera_error *error) {
    uint64_t hash = FNV_OFFSET;
    for (int i = 0; i < count; i++) TRY(hash_file(loras[i].path, &hash, error));
    to_text(hash, out);
    return TESSERA_OK;
}
