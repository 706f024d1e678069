/* The public handle of include/tessera_workers.h over a client: see client_parts.h. */
#include <stdlib.h>
#include <string.h>

#include "pipelines/sized.h"
#include "split/client_parts.h"

#define DEFAULT_TIMEOUT 300
#define END_OF(type, field) (offsetof(type, field) + sizeof((type *)0)->field)

/* Parts follow one another: what the loop sees is one range. */
static tessera_status join_parts(struct client *c, tessera_error *error) {
    for (int p = 1; p < c->num_parts; p++)
        if (c->parts[p].range.first != c->parts[p - 1].range.end)
            return error_set(error, TESSERA_ERROR_ARGUMENT,
                             "workers: part %d ends with block %d, but part %d begins with block %d: parts must follow one another", p,
                             c->parts[p - 1].range.end - 1, p + 1, c->parts[p].range.first);
    c->handle.calls = &client_calls;
    c->handle.first = c->parts[0].range.first;
    c->handle.end = c->parts[c->num_parts - 1].range.end;
    c->handle.finish = c->parts[c->num_parts - 1].range.finish;
    c->handle.rewinds = c->verification.kind != VERIFY_NONE;
    int copies = c->verification.kind == VERIFY_EXACT || c->verification.kind == VERIFY_REPLICAS ? c->verification.count : 1;
    c->handle.at_once = (c->num_workers + copies - 1) / copies + 1; /* one is always on its way */
    return TESSERA_OK;
}

static tessera_status read_lists(const tessera_workers_options *options, struct workers_file *file, tessera_error *error) {
    if (options->num_workers < 0 || (options->num_workers > 0 && options->workers == NULL))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "workers: %d of them, but workers is NULL", options->num_workers);
    if (options->file != NULL) TRY(workers_file_read(options->file, file, error));
    for (int i = 0; i < options->num_workers; i++) TRY(workers_file_add(file, options->workers[i], options->token_file, error));
    return TESSERA_OK;
}

static tessera_status open_client(struct client *c, const tessera_workers_options *options, tessera_error *error) {
    struct workers_file *file = calloc(1, sizeof *file);
    if (options->receipts != NULL) c->receipts = strdup(options->receipts);
    if (file == NULL || (options->receipts != NULL && c->receipts == NULL)) {
        free(file);
        return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the workers");
    }
    c->notice = options->notice;
    c->notice_user = options->notice_user;
    c->timeout = options->timeout > 0 ? options->timeout : DEFAULT_TIMEOUT;
    tessera_status status = verification_read(options->verify, &c->verification, error);
    if (status == TESSERA_OK) status = read_lists(options, file, error);
    if (status == TESSERA_OK) status = remotes_open(&c->remotes, error);
    if (status == TESSERA_OK) status = client_open_workers(c, file, error);
    if (status == TESSERA_OK) status = client_describe_workers(c, !c->has_manifest, error);
    if (status == TESSERA_OK) status = join_parts(c, error);
    workers_file_free(file);
    free(file);
    return status;
}

tessera_status tessera_workers_check_verify(const char *verify, tessera_error *error) {
    struct verification read;
    return verification_read(verify, &read, error);
}

tessera_workers *tessera_workers_open(const tessera_workers_options *given, tessera_error *error) {
    tessera_workers_options options = TESSERA_WORKERS_OPTIONS;
    tessera_error own = {0};
    struct client *c = calloc(1, sizeof *c);
    tessera_status status = c != NULL ? TESSERA_OK : error_set(&own, TESSERA_ERROR_MEMORY, "out of memory for the workers");
    if (status == TESSERA_OK && given != NULL)
        status = sized_read(&options, sizeof options, given, END_OF(tessera_workers_options, notice_user), "options of the workers", &own);
    if (status == TESSERA_OK) status = open_client(c, &options, &own);
    if (status == TESSERA_OK) return &c->handle;
    if (error != NULL) *error = own;
    if (c != NULL) tessera_workers_free(&c->handle);
    return NULL;
}

void tessera_workers_free(tessera_workers *workers) {
    if (workers == NULL) return;
    struct client *c = client_of(workers);
    client_close_workers(c);
    remotes_close(c->remotes);
    free(c->receipts);
    free(c->folder);
    free(c);
}

bool tessera_workers_get(const tessera_workers *workers, int index, tessera_worker_report *report) {
    const struct client *c = client_of((tessera_workers *)(uintptr_t)workers);
    if (workers == NULL || report == NULL || index < 0 || index >= c->num_workers) return false;
    const struct client_worker *w = &c->workers[index];
    const tessera_worker_report all = {.struct_size = sizeof all,
                                       .url = w->url,
                                       .operator_name = w->operator_name,
                                       .part = w->part + 1,
                                       .dropped = w->dropped != NULL ? w->dropped
                                                  : w->gone          ? w->last_error
                                                                     : NULL,
                                       .receipt = w->receipt,
                                       .requests = w->requests,
                                       .failures = w->failures,
                                       .checks = w->checks,
                                       .bytes_sent = w->bytes_sent,
                                       .bytes_received = w->bytes_received,
                                       .seconds = w->seconds};
    return sized_write(report, &all, sizeof all, END_OF(tessera_worker_report, seconds));
}

void tessera_workers_miss(const tessera_workers *workers, int steps, double *one_step, double *every_step) {
    const struct client *c = client_of((tessera_workers *)(uintptr_t)workers);
    bool checked = workers != NULL;
    for (int p = 0; checked && p < c->num_parts; p++) checked = !c->parts[p].unchecked;
    *one_step = checked ? verification_miss(&c->verification, steps, 1) : 1;
    *every_step = checked ? verification_miss(&c->verification, steps, steps) : 1;
}
