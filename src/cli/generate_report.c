/* What `tessera generate` says when it is done: a summary for people, or JSON. */
#include <cjson/cJSON.h>

#include "base/error.h"
#include "cli/device_maps.h"
#include "cli/session.h"

void session_add_costs(struct session *s, const tessera_image *image) {
    const double seconds[] = {image->seconds_load, image->seconds_text, image->seconds_encode, image->seconds_denoise,
                              image->seconds_decode};
    const double operations[] = {image->operations_text, image->operations_denoise, image->operations_decode};
    for (int i = 0; i < 5; i++) s->seconds[i] += seconds[i];
    for (int i = 0; i < 3; i++) s->operations[i] += operations[i];
    s->blocks += image->blocks;
    s->blocks_skipped += image->blocks_skipped;
    s->bytes_copied += image->bytes_copied;
    s->bytes_moved += image->bytes_moved;
    s->disk_bytes += image->disk_bytes;
    s->seconds_disk += image->seconds_disk;
}

/* ---- reports ---- */

/* A limit is a promise: where it was not kept, that is said. */
static void tell_overruns(const struct session *s) {
    for (int i = 0; i < tessera_world_size(s->world); i++)
        if (s->limits[i] > 0 && s->peaks[i] > s->limits[i])
            fprintf(stderr, "tessera: rank %d held up to %llu MiB, more than the %llu MiB of --max-memory\n", i,
                    (unsigned long long)s->peaks[i] >> 20, (unsigned long long)s->limits[i] >> 20);
}

static void print_summary(const struct session *s) {
    fprintf(stderr, "%d picture%s: open %.2f s, text %.2f s, ", s->written, s->written == 1 ? "" : "s", s->seconds_open + s->seconds[0],
            s->seconds[1]);
    if (s->seconds[2] > 0) fprintf(stderr, "encode %.2f s, ", s->seconds[2]);
    fprintf(stderr, "denoise %.2f s, decode %.2f s; %.1f GFLOP; peak resident memory ", s->seconds[3], s->seconds[4],
            (s->operations[0] + s->operations[1] + s->operations[2]) / 1e9);
    for (int i = 0; i < tessera_world_size(s->world); i++)
        fprintf(stderr, "%s%llu", i > 0 ? "/" : "", (unsigned long long)s->peaks[i] >> 20);
    fprintf(stderr, " MiB; %s, %d threads\n", s->facts.kernel_path, s->values[GENERATE_THREADS].integer);
    if (s->disk_bytes > 0)
        fprintf(stderr, "weights: read %.2f GB from the disk, waited %.2f s for it\n", (double)s->disk_bytes / 1e9, s->seconds_disk);
    if (s->request.step_cache != NULL)
        fprintf(stderr, "step cache: left out %lld of %lld blocks\n", (long long)s->blocks_skipped, (long long)s->blocks);
}

static tessera_status print_json(struct session *s) {
    const char *second_names[] = {"load", "text", "encode", "denoise", "decode"}, *operation_names[] = {"text", "denoise", "decode"};
    cJSON *root = cJSON_CreateObject(), *seconds, *operations;
    cJSON_AddItemToObject(root, "pictures", s->pictures);
    cJSON_AddItemToObject(root, "parameters", s->record);
    s->pictures = s->record = NULL;
    cJSON_AddStringToObject(root, "pipeline_class", tessera_model_pipeline_class(s->model));
    cJSON_AddStringToObject(root, "kernel_path", s->facts.kernel_path);
    cJSON_AddNumberToObject(root, "threads", s->values[GENERATE_THREADS].integer);
    cJSON_AddStringToObject(root, "dtype", s->values[GENERATE_DTYPE].text);
    seconds = cJSON_AddObjectToObject(root, "seconds");
    cJSON_AddNumberToObject(seconds, "open", s->seconds_open);
    for (int i = 0; i < 5; i++) cJSON_AddNumberToObject(seconds, second_names[i], s->seconds[i]);
    operations = cJSON_AddObjectToObject(root, "operations");
    for (int i = 0; i < 3; i++) cJSON_AddNumberToObject(operations, operation_names[i], s->operations[i]);
    cJSON_AddNumberToObject(root, "peak_resident_memory_bytes", (double)s->peaks[0]);
    cJSON *peaks = cJSON_AddArrayToObject(root, "peak_resident_memory_bytes_of_ranks");
    for (int i = 0; i < tessera_world_size(s->world); i++) cJSON_AddItemToArray(peaks, cJSON_CreateNumber((double)s->peaks[i]));
    cJSON_AddNumberToObject(root, "bytes_copied", (double)s->bytes_copied);
    cJSON_AddNumberToObject(root, "bytes_moved", (double)s->bytes_moved);
    cJSON_AddNumberToObject(root, "disk_bytes", (double)s->disk_bytes);
    cJSON_AddNumberToObject(root, "seconds_disk", s->seconds_disk);
    if (s->request.step_cache != NULL) {
        cJSON_AddNumberToObject(root, "blocks", (double)s->blocks);
        cJSON_AddNumberToObject(root, "blocks_skipped", (double)s->blocks_skipped);
    }
    if (s->map != NULL) cJSON_AddItemToObject(root, "device_map", device_maps_json(s->map));
    session_add_workers(s, root);
    if (benchmark_wanted(s->values)) benchmark_add_report(&s->benchmark, s->written, root);
    char *text = cJSON_Print(root);
    if (text != NULL) puts(text);
    cJSON_Delete(root);
    if (text == NULL) return error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for the report");
    cJSON_free(text);
    return TESSERA_OK;
}

tessera_status session_report(struct session *s) {
    tell_overruns(s);
    fflush(stdout);
    if (s->values[GENERATE_JSON].flag) return print_json(s);
    if (!s->quiet) print_summary(s);
    if (!s->quiet) session_print_workers(s);
    if (benchmark_wanted(s->values)) benchmark_print(&s->benchmark, s->written);
    return TESSERA_OK;
}
