/* Workers as the client knows them: what they have, and who is used. See client_parts.h. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "split/client_parts.h"
#include "split/tokens.h"

#define RETRY_SECONDS 0.5

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the workers");
}

/* ---- who is used ---- */

void client_say(const struct client *c, const char *format, ...) {
    char text[600];
    va_list arguments;
    if (c->notice == NULL) return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    c->notice(c->notice_user, text);
}

bool client_worker_usable(const struct client_worker *w) {
    return w->dropped == NULL && !w->gone;
}

void client_drop(struct client *c, int worker, const char *format, ...) {
    struct client_worker *w = &c->workers[worker];
    char text[400];
    va_list arguments;
    if (w->dropped != NULL) return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    w->dropped = strdup(text);
    w->gone = true; /* also where memory is out */
    client_say(c, "worker %s (%s), part %d, is dropped: %s", w->url, w->operator_name, w->part + 1, text);
}

tessera_status client_check_part(const struct client *c, int part, tessera_error *error) {
    const struct client_part *p = &c->parts[part];
    char all[420] = "";
    for (int i = p->first_worker; i < p->first_worker + p->count; i++) {
        const struct client_worker *w = &c->workers[i];
        size_t used = strlen(all);
        if (client_worker_usable(w)) return TESSERA_OK;
        const char *why = w->dropped != NULL ? w->dropped : w->last_error;
        snprintf(all + used, sizeof all - used, "%s%s: %.110s", used > 0 ? "; " : "", w->url, why);
    }
    return error_set(error, TESSERA_ERROR_IO, "workers: no worker of part %d is left: %s", part + 1, all);
}

static void set_aside(struct client *c, struct client_worker *w, const char *why) {
    snprintf(w->last_error, sizeof w->last_error, "%.255s", why);
    w->failures++;
    w->retry_at = clock_seconds() + RETRY_SECONDS * (1 << w->failures_in_row);
    if (++w->failures_in_row < CLIENT_MOST_FAILURES) return;
    w->gone = true;
    client_say(c, "worker %s (%s), part %d, does not answer and is left out: %s", w->url, w->operator_name, w->part + 1, why);
}

/* It has too much to do: later, but not for ever. */
static void wait_for(struct client *c, struct client_worker *w, const struct remote_result *r) {
    double now = clock_seconds();
    if (w->busy_since == 0) w->busy_since = now;
    w->retry_at = now + fmin(fmax(r->retry_seconds, 0.05), 5);
    if (now - w->busy_since < c->timeout) return;
    w->busy_since = 0;
    set_aside(c, w, r->error.message);
}

bool client_take_result(struct client *c, int worker, struct remote_call *call) {
    struct client_worker *w = &c->workers[worker];
    const struct remote_result *r = remote_call_result(call);
    w->bytes_sent += r->bytes_sent;
    w->bytes_received += r->bytes_received;
    if (r->outcome == REMOTE_BUSY) {
        wait_for(c, w, r);
        return false;
    }
    w->busy_since = 0;
    if (r->outcome == REMOTE_LOST) set_aside(c, w, r->error.message);
    if (r->outcome == REMOTE_REFUSED) client_drop(c, worker, "it refuses: %s", r->error.message);
    if (r->outcome == REMOTE_WRONG) client_drop(c, worker, "its reply is not what it must be: %s", r->error.message);
    if (r->outcome != REMOTE_DONE) return false;
    w->failures_in_row = 0;
    w->requests++;
    w->seconds += r->seconds;
    w->usual = w->usual > 0 ? 0.7 * w->usual + 0.3 * r->seconds : r->seconds;
    return true;
}

/* ---- opening ---- */

static tessera_status open_worker(struct client *c, struct client_worker *w, const struct workers_replica *replica, int part,
                                  tessera_error *error) {
    struct remote_options options = remote_default_options();
    w->part = part;
    w->url = strdup(replica->url);
    w->operator_name = strdup(replica->operator_name);
    if (w->url == NULL || w->operator_name == NULL) return out_of_memory(error);
    if (replica->token_file != NULL) TRY(tokens_read_first(replica->token_file, &w->token, error));
    options.url = replica->url;
    options.pin = replica->pin;
    options.token = w->token;
    options.whole_seconds = c->timeout;
    options.connect_seconds = fmin(options.connect_seconds, c->timeout);
    options.stall_seconds = fmin(options.stall_seconds, c->timeout);
    return remote_open(c->remotes, &options, &w->remote, error);
}

tessera_status client_open_workers(struct client *c, const struct workers_file *file, tessera_error *error) {
    int total = 0;
    TRY(workers_file_check(file, error));
    TRY(workers_file_manifest(file, &c->manifest, &c->has_manifest, error));
    for (int p = 0; p < file->count; p++) total += file->parts[p].count;
    c->parts = calloc((size_t)file->count, sizeof *c->parts);
    c->workers = calloc((size_t)total, sizeof *c->workers);
    if (c->parts == NULL || c->workers == NULL) return out_of_memory(error);
    c->num_parts = file->count;
    for (int p = 0; p < file->count; p++) {
        c->parts[p] = (struct client_part){.first_worker = c->num_workers, .count = file->parts[p].count};
        if (c->has_manifest) c->parts[p].range = c->manifest.parts[p].range;
        for (int i = 0; i < file->parts[p].count; i++)
            TRY(open_worker(c, &c->workers[c->num_workers++], &file->parts[p].replicas[i], p, error));
    }
    return TESSERA_OK;
}

void client_close_workers(struct client *c) {
    for (int i = 0; i < c->num_workers; i++) {
        struct client_worker *w = &c->workers[i];
        remote_close(w->remote);
        free(w->url);
        free(w->operator_name);
        free(w->token);
        free(w->dropped);
        free(w->receipt);
    }
    for (int p = 0; p < c->num_parts; p++) split_part_close(c->parts[p].own);
    free(c->workers);
    free(c->parts);
    manifest_free(&c->manifest);
}

/* ---- descriptions ---- */

static bool same_range(const struct split_range *a, const struct split_range *b) {
    return a->first == b->first && a->end == b->end && a->finish == b->finish;
}

/* Takes what a worker says of itself; where parts have no range yet, the first one's word, which
 * the digest later proves. */
static void take_description(struct client *c, int worker, const struct worker_description *d, bool ranges) {
    struct client_worker *w = &c->workers[worker];
    struct client_part *part = &c->parts[w->part];
    w->description = *d;
    w->described = true;
    if (ranges && part->range.end == 0) part->range = d->range;
    if (!same_range(&part->range, &d->range))
        client_drop(c, worker, "it has the blocks %d to %d, but part %d is %d to %d", d->range.first, d->range.end - 1, w->part + 1,
                    part->range.first, part->range.end - 1);
}

tessera_status client_describe_workers(struct client *c, bool ranges, tessera_error *error) {
    struct remote_call **calls = calloc((size_t)c->num_workers, sizeof(struct remote_call *)), *call;
    tessera_status status = calls != NULL ? TESSERA_OK : out_of_memory(error);
    int left = 0;
    for (int i = 0; i < c->num_workers && status == TESSERA_OK; i++) {
        if (c->workers[i].described || c->workers[i].dropped != NULL) continue;
        status = remote_describe(c->workers[i].remote, &c->workers[i], &calls[i], error);
        left += status == TESSERA_OK;
    }
    while (left > 0 && status == TESSERA_OK) {
        status = remotes_wait(c->remotes, 1, error);
        while (status == TESSERA_OK && (call = remotes_next(c->remotes)) != NULL) {
            int worker = (int)((struct client_worker *)remote_call_user(call) - c->workers);
            left--;
            if (client_take_result(c, worker, call))
                take_description(c, worker, &remote_call_result(call)->description, ranges);
            else
                c->workers[worker].gone = true; /* in this job */
        }
    }
    for (int i = 0; calls != NULL && i < c->num_workers; i++) remote_call_end(calls[i]);
    free(calls);
    for (int i = 0; i < c->num_workers; i++) c->workers[i].usual = 0; /* that was no request */
    for (int p = 0; p < c->num_parts && status == TESSERA_OK; p++) status = client_check_part(c, p, error);
    return status;
}

/* ---- requests ---- */

struct remote_input client_input(struct client *c, struct workers_unit unit, int part, int worker, const struct denoiser_state *state) {
    struct remote_input input = {.specification = c->workers[worker].description.specification,
                                 .step = (uint32_t)unit.step,
                                 .row = (uint32_t)unit.prediction,
                                 .denoiser = c->job.denoiser,
                                 .run = c->job.run,
                                 .range = &c->parts[part].range,
                                 .state = state,
                                 .constants = client_constants(c, unit, part)};
    memcpy(input.job, c->nonces[unit.picture], sizeof input.job);
    memcpy(input.part_digest, c->parts[part].digest, sizeof input.part_digest);
    return input;
}
