/* Speeds that were measured before, by machine, kernels and model: one JSON object in the user's cache folder.
 *
 *     { "AMD EPYC; onednn avx2 + avx2; 1 ranks of 2 threads; bf16, 1536 channels, 24 heads, 1024 tokens": [3.1e11, 0.6, 2.1e9, 9e9], ... }
 *
 * A file that cannot be read, or is no such object, is as none, and is written anew. Of ranks that write at once one wins; nothing is
 * lost but a second of measuring. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "backend/backend.h"
#include "base/file.h"
#include "base/json.h"
#include "pipelines/plan_measure.h"

enum { KEY_LENGTH = 320, MAX_CACHE_BYTES = 1 << 20 };

/* The processor as the kernel calls it, or "". */
static void machine_name(char *out, size_t capacity) {
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "r");
    out[0] = 0;
    while (file != NULL && out[0] == 0 && fgets(line, sizeof line, file) != NULL) {
        const char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || value == NULL) continue;
        snprintf(out, capacity, "%s", value + 2);
        out[strcspn(out, "\n")] = 0;
    }
    if (file != NULL) fclose(file);
}

static tessera_status key_of(const struct plan_model *m, int64_t positions, struct plan_measurer who, char key[KEY_LENGTH],
                             tessera_error *error) {
    char name[128];
    struct plan_layer layer = plan_busiest_layer(m);
    struct backend *backend = cpu_backend_open(who.threads, CPU_KERNELS_BEST, error);
    if (backend == NULL) return error->status;
    machine_name(name, sizeof name);
    snprintf(key, KEY_LENGTH, "%s; %s; %d ranks of %d threads; %s, %lld channels, %lld heads, %lld tokens", name, backend->kernel_path,
             who.ranks, backend->threads, m->element_bytes == 4 ? "f32" : "bf16", (long long)layer.width, (long long)layer.heads,
             (long long)plan_measured_tokens(layer, positions));
    backend_free(backend);
    return TESSERA_OK;
}

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

/* The file's object, or an empty one; NULL if memory is out. */
static cJSON *read_cache(const char *path) {
    struct json *json = NULL;
    cJSON *root = NULL;
    if (file_exists(path) && json_open(path, MAX_CACHE_BYTES, &json, NULL) == TESSERA_OK && cJSON_IsObject(json_root(json)))
        root = cJSON_Duplicate(json_root(json), true);
    json_free(json);
    return root != NULL ? root : cJSON_CreateObject();
}

static bool find_speed(const cJSON *root, const char *key, struct plan_speed *out) {
    const cJSON *entry = cJSON_GetObjectItem(root, key);
    double numbers[4];
    for (int i = 0; i < 4; i++) {
        const cJSON *number = cJSON_GetArrayItem(entry, i);
        if (!cJSON_IsNumber(number) || !(number->valuedouble > 0)) return false;
        numbers[i] = number->valuedouble;
    }
    *out = (struct plan_speed){numbers[0], numbers[1], numbers[2], numbers[3]};
    return true;
}

static void write_cache(const char *path, const cJSON *root) {
    struct file_output output;
    char *text = cJSON_Print(root);
    if (text != NULL && file_output_open(path, &output, NULL) == TESSERA_OK) {
        if (fputs(text, output.stream) < 0)
            file_output_discard(&output);
        else
            file_output_commit(&output, NULL);
    }
    cJSON_free(text);
}

tessera_status plan_known_speed(const struct plan_model *m, int64_t positions, struct plan_measurer measurer, struct plan_speed *out,
                                tessera_error *error) {
    char key[KEY_LENGTH];
    tessera_status status = key_of(m, positions, measurer, key, error);
    if (status != TESSERA_OK) return status;
    char *folder = cache_folder(), *path = folder != NULL ? file_join(folder, "speed.json") : NULL;
    cJSON *root = path != NULL ? read_cache(path) : NULL;
    if (!find_speed(root, key, out)) {
        status = plan_measure_speed(m, positions, measurer, out, error);
        if (status == TESSERA_OK && root != NULL) {
            const double numbers[] = {out->operations, out->attention_share, out->elements, out->streaming};
            cJSON_DeleteItemFromObject(root, key);
            cJSON_AddItemToObject(root, key, cJSON_CreateDoubleArray(numbers, 4));
            write_cache(path, root);
        }
    }
    cJSON_Delete(root);
    free(path);
    free(folder);
    return status;
}
