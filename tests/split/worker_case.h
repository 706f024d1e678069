/* What tests of workers share: a case's model with one part of it served by a process, and a client
 * that does the rest. */
#ifndef TESSERA_TESTS_WORKER_CASE_H
#define TESSERA_TESTS_WORKER_CASE_H

#include <curl/curl.h>
#include <math.h>

#include "split/remote.h"
#include "split_case.h"
#include "worker_process.h"

static char worker_folder[] = "/tmp/tessera-worker-XXXXXX";

static inline bool worker_folder_make(void) {
    if (mkdtemp(worker_folder) == NULL) return false;
    worker_make_files(worker_folder);
    return true;
}

static inline void worker_folder_remove(void) {
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", worker_folder);
    CHECK(system(command) == 0, "%s", command);
}

struct worker_case {
    struct split_case s;
    struct split_range range;
    char part[160];
    struct worker_process process;
    struct remotes *remotes;
    struct remote *remote;
    struct worker_description description;
    uint8_t job[SPLIT_NONCE_BYTES];
    struct remote_constants constants;
};

/* ---- calls ---- */

/* Waits until this call has finished, or any (NULL). */
static inline const struct remote_result *wait_for_call(struct worker_case *w, struct remote_call *call) {
    tessera_error error = {0};
    for (;;) {
        if (call != NULL && remote_call_result(call)->seconds > 0) return remote_call_result(call);
        struct remote_call *next = remotes_next(w->remotes);
        if (next != NULL && (call == NULL || next == call)) return remote_call_result(next);
        if (next == NULL && remotes_wait(w->remotes, 60, &error) != TESSERA_OK) return NULL;
    }
}

static inline struct remote_options worker_case_options(const struct worker_case *w) {
    struct remote_options options = remote_default_options();
    options.url = w->process.url;
    options.pin = w->process.pin;
    options.token = WORKER_TOKEN;
    return options;
}

/* Connects to the process that runs now, and asks what it is. */
static inline void worker_case_connect(struct worker_case *w) {
    struct remote_options options = worker_case_options(w);
    struct remote_call *call = NULL;
    tessera_error error = {0};
    remote_close(w->remote);
    CHECK(remote_open(w->remotes, &options, &w->remote, &error) == TESSERA_OK, "%s", error.message);
    CHECK(remote_describe(w->remote, NULL, &call, &error) == TESSERA_OK, "%s", error.message);
    const struct remote_result *result = wait_for_call(w, call);
    CHECK(result->outcome == REMOTE_DONE, "%s", result->error.message);
    w->description = result->description;
    CHECK(w->description.range.first == w->range.first && w->description.range.end == w->range.end &&
              w->description.range.finish == w->range.finish,
          "another range");
    remote_call_end(call);
}

/* Makes the part as a file, starts its worker and connects. */
static inline bool worker_case_open(struct worker_case *w, const char *name, enum dtype dtype, struct split_range range,
                                    const char *const *options) {
    tessera_error error = {0};
    struct part_file file;
    *w = (struct worker_case){.range = range};
    if (!split_case_open(&w->s, name, dtype, CPU_KERNELS_REPRODUCIBLE)) return false;
    printf("%s, blocks %d to %d of %d%s\n", name, range.first, range.end - 1, w->s.t.component.num_blocks,
           range.finish ? " and the finish" : "");
    fflush(stdout);
    snprintf(w->part, sizeof w->part, "%s/%s.safetensors", worker_folder, name);
    CHECK(part_file_of_model(w->s.model, &range, dtype, false, &file, &error) == TESSERA_OK &&
              part_file_write(&file, w->part, &error) == TESSERA_OK,
          "%s", error.message);
    CHECK(remotes_open(&w->remotes, &error) == TESSERA_OK && identity_random(w->job, sizeof w->job, &error) == TESSERA_OK, "%s",
          error.message);
    if (!worker_process_start(w->part, worker_folder, options, &w->process)) return false;
    worker_case_connect(w);
    CHECK(memcmp(w->description.digest, file.header.digest, sizeof w->description.digest) == 0, "another digest");
    part_file_close(&file);
    return true;
}

/* Another process on the same port, which the client does not notice. */
static inline bool worker_case_restart(struct worker_case *w, const char *const *options) {
    const char *more[32] = {"--port", strrchr(w->process.url, ':') + 1};
    char port[16];
    int count = 2;
    snprintf(port, sizeof port, "%s", more[1]);
    more[1] = port;
    while (*options != NULL) more[count++] = *options++;
    CHECK(worker_process_stop(&w->process, SIGINT) == 0, "SIGINT ends it well");
    return worker_process_start(w->part, worker_folder, more, &w->process);
}

static inline void worker_case_close(struct worker_case *w) {
    if (w->process.output != NULL) CHECK(worker_process_stop(&w->process, SIGTERM) == 0, "SIGTERM ends it well");
    remote_close(w->remote);
    remotes_close(w->remotes);
    split_case_close(&w->s);
    unlink(w->part);
}

/* ---- states ---- */

/* The state that enters the part, in the run's arena. */
static inline struct denoiser_state entering_state(struct worker_case *w) {
    struct denoiser_state state = denoiser_embed(w->s.t.component.denoiser, &w->s.t.run, &w->s.inputs.in, BOTH);
    return own_blocks(&w->s, 0, w->range.first, state);
}

static inline struct remote_input input_of(struct worker_case *w, const struct denoiser_state *state) {
    struct remote_input input = {.specification = w->description.specification,
                                 .step = 3,
                                 .row = 1,
                                 .denoiser = w->s.t.component.denoiser,
                                 .run = &w->s.t.run,
                                 .range = &w->range,
                                 .state = state,
                                 .constants = &w->constants};
    memcpy(input.job, w->job, sizeof input.job);
    memcpy(input.part_digest, w->description.digest, sizeof input.part_digest);
    return input;
}

/* One request; what came of it, without what lay in the call's memory. */
static inline struct remote_result run_once(struct worker_case *w, const char *specification, uint8_t flip_digest) {
    struct denoiser_state state = entering_state(w);
    struct remote_input input = input_of(w, &state);
    struct remote_call *call = NULL;
    tessera_error error = {0};
    input.specification = specification;
    input.part_digest[0] ^= flip_digest;
    CHECK(remote_run(w->remote, &input, w, &call, &error) == TESSERA_OK, "%s", error.message);
    struct remote_result result = *wait_for_call(w, call);
    CHECK(remote_call_user(call) == w, "the call's user");
    remote_call_end(call);
    arena_release(w->s.t.run.arena, 0);
    return result;
}

/* The prediction by way of the worker is that of one process, to the bit. Returns the bytes that
 * were sent. */
static inline uint64_t check_picture(struct worker_case *w, bool good) {
    const struct denoiser *d = w->s.t.component.denoiser;
    struct denoiser_state state = entering_state(w);
    struct remote_input input = input_of(w, &state);
    struct remote_call *call = NULL;
    tessera_error error = {0};
    CHECK(remote_run(w->remote, &input, NULL, &call, &error) == TESSERA_OK, "%s", error.message);
    const struct remote_result *result = wait_for_call(w, call);
    uint64_t sent = result->bytes_sent;
    CHECK((result->outcome == REMOTE_DONE) == good, "outcome %d: %s", (int)result->outcome, result->error.message);
    if (result->outcome == REMOTE_DONE) {
        split_answer_merge(d, &w->range, &state, &result->answer);
        state = own_blocks(&w->s, w->range.end, d->num_blocks, state);
        struct tensor out = w->range.finish ? state.picture : denoiser_finish(d, &w->s.t.run, state);
        CHECK(out.data != NULL && tensor_bytes(&out) == tensor_bytes(&w->s.whole) &&
                  memcmp(out.data, w->s.whole.data, tensor_bytes(&out)) == 0,
              "%s: other bits than in one process", w->s.model);
    }
    remote_call_end(call);
    arena_release(w->s.t.run.arena, 0);
    return sent;
}

/* The body of a request, made by hand, with an id of its own. The caller frees. */
static inline uint8_t *request_body(struct worker_case *w, const struct denoiser_state *state, unsigned by_digest, size_t *size) {
    size_t state_bytes;
    uint8_t *message = pack_state(&w->s, state, split_job_number(w->job), by_digest, &state_bytes);
    struct wire_request request = {.step = 3, .row = 1, .state_bytes = state_bytes};
    tessera_error error = {0};
    memcpy(request.job, w->job, sizeof request.job);
    memcpy(request.part_digest, w->description.digest, sizeof request.part_digest);
    CHECK(identity_random(request.id, sizeof request.id, &error) == TESSERA_OK, "%s", error.message);
    *size = WIRE_REQUEST_BYTES + state_bytes;
    uint8_t *body = malloc(*size);
    wire_request_write(&request, body);
    memcpy(body + WIRE_REQUEST_BYTES, message, state_bytes);
    free(message);
    return body;
}

/* ---- HTTP by hand ---- */

struct got {
    long status;
    uint8_t *data; /* with a 0 behind; owned */
    size_t size;
};

static inline size_t got_take(char *data, size_t size, size_t count, void *user) {
    struct got *got = user;
    got->data = realloc(got->data, got->size + size * count + 1);
    memcpy(got->data + got->size, data, size * count);
    got->size += size * count;
    got->data[got->size] = 0;
    return size * count;
}

/* size 0: GET. */
static inline struct got http(struct worker_case *w, const char *path, const uint8_t *body, size_t size, const char *token) {
    struct got got = {.data = calloc(1, 1)};
    char url[256], header[128];
    static CURL *curl; /* one connection for all */
    if (curl == NULL) curl = curl_easy_init();
    curl_easy_reset(curl);
    snprintf(url, sizeof url, "%s%s", w->process.url, path);
    snprintf(header, sizeof header, "Authorization: Bearer %s", token != NULL ? token : "");
    struct curl_slist *headers = curl_slist_append(NULL, token != NULL ? header : "X: y");
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
    curl_easy_setopt(curl, CURLOPT_PINNEDPUBLICKEY, w->process.pin);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, got_take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &got);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, 60L);
    if (size > 0) curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)size);
    if (size > 0) curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &got.status);
    curl_slist_free_all(headers);
    return got;
}

#endif
