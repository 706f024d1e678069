/* Earlier measured speeds, by machine, kernels and model: one JSON object in the user's cache
 * folder.
 *
 *     { "AMD EPYC; onednn avx2 + avx2; 1 ranks of 2 threads; bf16, 1536 channels, 24 heads, 1024 tokens": [3.1e11, 0.6, 2.1e9, 9e9], ... }
 *
 * If ranks write at the same time, one wins; the others lose a second of measuring. */
#include <stdio.h>
#include <string.h>

#include "backend/backend.h"
#include "base/cache.h"
#include "pipelines/plan_measure.h"

enum { KEY_LENGTH = 320 };

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

tessera_status plan_known_speed(const struct plan_model *m, int64_t positions, struct plan_measurer measurer, struct plan_speed *out,
                                tessera_error *error) {
    char key[KEY_LENGTH];
    tessera_status status = key_of(m, positions, measurer, key, error);
    if (status != TESSERA_OK) return status;
    struct cache cache = cache_open("speed.json");
    if (!find_speed(cache.root, key, out)) {
        status = plan_measure_speed(m, positions, measurer, out, error);
        if (status == TESSERA_OK && cache.root != NULL) {
            const double numbers[] = {out->operations, out->attention_share, out->elements, out->streaming};
            cJSON_DeleteItemFromObject(cache.root, key);
            cJSON_AddItemToObject(cache.root, key, cJSON_CreateDoubleArray(numbers, 4));
            cache_save(&cache);
        }
    }
    cache_close(&cache);
    return status;
}
