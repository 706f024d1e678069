/* See remote.h: what calls send, and what their replies must be. The transport is in
 * remote_transport.c. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "split/remote_parts.h"

enum { ALIGNMENT = 64 };

struct remote_options remote_default_options(void) {
    return (struct remote_options){.connect_seconds = 10, .stall_seconds = 20, .whole_seconds = 300};
}

/* ---- opening and closing ---- */

tessera_status remotes_open(struct remotes **out, tessera_error *error) {
    struct remotes *remotes = calloc(1, sizeof *remotes);
    *out = NULL;
    if (remotes == NULL || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(remotes);
        return error_set(error, TESSERA_ERROR_MEMORY, "libcurl cannot start");
    }
    remotes->multi = curl_multi_init();
    *out = remotes;
    if (remotes->multi != NULL) return TESSERA_OK;
    remotes_close(remotes);
    *out = NULL;
    return error_set(error, TESSERA_ERROR_MEMORY, "no memory for connections");
}

void remotes_close(struct remotes *remotes) {
    if (remotes == NULL) return;
    curl_multi_cleanup(remotes->multi);
    curl_global_cleanup();
    free(remotes);
}

tessera_status remote_open(struct remotes *remotes, const struct remote_options *options, struct remote **out, tessera_error *error) {
    struct remote *remote = calloc(1, sizeof *remote);
    *out = NULL;
    if (remote == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a worker");
    remote->remotes = remotes;
    remote->connect_seconds = options->connect_seconds;
    remote->stall_seconds = options->stall_seconds;
    remote->whole_seconds = options->whole_seconds;
    tessera_status status = transport_address(remote, options, error);
    if (status == TESSERA_OK)
        *out = remote;
    else
        remote_close(remote);
    return status;
}

void remote_close(struct remote *remote) {
    if (remote == NULL) return;
    free(remote->url);
    free(remote->name);
    free(remote->pin);
    free(remote->authorization);
    free(remote);
}

void call_list_add(struct call_list *list, struct remote_call *call) {
    call->before = list->last;
    call->after = NULL;
    *(list->last != NULL ? &list->last->after : &list->first) = call;
    list->last = call;
}

void call_list_remove(struct call_list *list, struct remote_call *call) {
    *(call->before != NULL ? &call->before->after : &list->first) = call->after;
    *(call->after != NULL ? &call->after->before : &list->last) = call->before;
    call->before = call->after = NULL;
}

/* ---- which constants a worker has ---- */

static void name_constants(const struct remote_call *call, uint8_t out[CANONICAL_HASH_BYTES]) {
    struct canonical c;
    canonical_begin(&c, "constants");
    canonical_bytes(&c, call->input.job, sizeof call->input.job);
    canonical_bytes(&c, call->input.constants->digests, sizeof call->input.constants->digests);
    canonical_end(&c, out);
}

static bool has_constants(const struct remote_call *call) {
    const struct remote *remote = call->remote;
    uint8_t name[CANONICAL_HASH_BYTES];
    if (!call->input.constants->known) return false;
    name_constants(call, name);
    for (unsigned i = 0; i < remote->num_known && i < REMOTE_KNOWN_CONSTANTS; i++)
        if (memcmp(remote->known[i], name, sizeof name) == 0) return true;
    return false;
}

static void note_constants(struct remote_call *call) {
    struct remote *remote = call->remote;
    if (call->whole && !has_constants(call)) name_constants(call, remote->known[remote->num_known++ % REMOTE_KNOWN_CONSTANTS]);
}

/* ---- requests ---- */

/* The body, with its constants whole or by digest. */
static tessera_status pack(struct remote_call *call, bool whole, tessera_error *error) {
    const struct remote_input *in = &call->input;
    struct denoiser_state state = split_request_state(in->denoiser, in->range, in->state);
    unsigned constants = denoiser_state_constants(in->denoiser);
    struct state_message message = {.job = split_job_number(in->job), .constants = constants, .by_digest = whole ? 0 : constants};
    memcpy(message.digests, in->constants->digests, sizeof message.digests);
    size_t state_bytes = denoiser_state_bytes(&state, message.by_digest), bytes = WIRE_REQUEST_BYTES + state_bytes;
    free(call->body);
    call->body = aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (call->body == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a request of %zu bytes", bytes);
    call->body_size = bytes;
    call->whole = whole;
    call->request.state_bytes = state_bytes;
    wire_request_write(&call->request, call->body);
    TRY(denoiser_state_pack(&state, &message, in->run->backend, call->body + WIRE_REQUEST_BYTES, error));
    memcpy(in->constants->digests, message.digests, sizeof message.digests);
    in->constants->known = true;
    return TESSERA_OK;
}

static const char *path_of(const struct remote_call *call) {
    static const char *const paths[] = {
        [CALL_DESCRIBE] = "/v1/part", [CALL_RUN] = "/v1/run", [CALL_HASHES] = "/v1/hashes", [CALL_STATE] = "/v1/state"};
    return paths[call->kind];
}

static tessera_status start(struct remote_call *call, tessera_error *error) {
    TRY(transport_start(call, path_of(call), error));
    call->finished = false;
    call_list_add(&call->remote->remotes->under_way, call);
    return TESSERA_OK;
}

static tessera_status new_call(struct remote *remote, enum call_kind kind, void *user, struct remote_call **out, tessera_error *error) {
    struct remote_call *call = calloc(1, sizeof *call);
    *out = NULL;
    if (call == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a call");
    call->remote = remote;
    call->kind = kind;
    call->user = user;
    call->start = clock_seconds();
    call->finished = true; /* in no list */
    *out = call;
    return TESSERA_OK;
}

tessera_status remote_describe(struct remote *remote, void *user, struct remote_call **out, tessera_error *error) {
    TRY(new_call(remote, CALL_DESCRIBE, user, out, error));
    tessera_status status = start(*out, error);
    if (status == TESSERA_OK) return TESSERA_OK;
    remote_call_end(*out);
    *out = NULL;
    return status;
}

/* Of the answer that the call asks for. A block outside the range has none: the worker refuses it. */
static struct denoiser_state answer_form(const struct remote_call *call, const struct split_shape *shape) {
    const struct remote_input *in = &call->input;
    bool inside = (int)in->block > in->range->first && (int)in->block <= in->range->end;
    if (call->kind == CALL_STATE && inside) return split_answer_form(in->denoiser, in->run, in->range, (int)in->block, false, shape);
    return split_answer_form(in->denoiser, in->run, in->range, in->range->end, in->range->finish, shape);
}

/* The longest reply that can be right. */
static tessera_status measure(struct remote_call *call, tessera_error *error) {
    const struct remote_input *in = &call->input;
    struct split_shape shape = split_shape_of(in->state);
    call->most = WIRE_REPLY_BYTES + (size_t)RECEIPT_MOST_HASHES * CANONICAL_HASH_BYTES;
    if (call->kind == CALL_HASHES) return TESSERA_OK;
    struct denoiser_state form = answer_form(call, &shape);
    TRY(run_status(in->run, error));
    call->most = WIRE_REPLY_BYTES + denoiser_state_bytes(&form, 0);
    return TESSERA_OK;
}

static tessera_status begin(struct remote_call *call, const struct remote_input *input, tessera_error *error) {
    call->input = *input;
    call->request = (struct wire_request){.step = input->step, .row = input->row, .block = call->kind == CALL_STATE ? input->block : 0};
    memcpy(call->request.job, input->job, sizeof input->job);
    memcpy(call->request.part_digest, input->part_digest, sizeof input->part_digest);
    TRY(identity_random(call->request.id, sizeof call->request.id, error));
    TRY(measure(call, error));
    TRY(pack(call, !has_constants(call), error));
    return start(call, error);
}

static tessera_status compute_remotely(struct remote *remote, enum call_kind kind, const struct remote_input *input, void *user,
                                       struct remote_call **out, tessera_error *error) {
    TRY(new_call(remote, kind, user, out, error));
    tessera_status status = begin(*out, input, error);
    if (status == TESSERA_OK) return TESSERA_OK;
    remote_call_end(*out);
    *out = NULL;
    return status;
}

tessera_status remote_run(struct remote *remote, const struct remote_input *input, void *user, struct remote_call **out, tessera_error *error) {
    return compute_remotely(remote, CALL_RUN, input, user, out, error);
}

tessera_status remote_hashes(struct remote *remote, const struct remote_input *input, void *user, struct remote_call **out, tessera_error *error) {
    return compute_remotely(remote, CALL_HASHES, input, user, out, error);
}

tessera_status remote_state(struct remote *remote, const struct remote_input *input, void *user, struct remote_call **out,
                            tessera_error *error) {
    return compute_remotely(remote, CALL_STATE, input, user, out, error);
}

static bool is_listed(const struct remote_call *call) {
    const struct remotes *remotes = call->remote->remotes;
    return call->before != NULL || call->after != NULL || remotes->under_way.first == call || remotes->finished.first == call;
}

void remote_call_end(struct remote_call *call) {
    if (call == NULL) return;
    struct remotes *remotes = call->remote->remotes;
    if (is_listed(call)) call_list_remove(call->finished ? &remotes->finished : &remotes->under_way, call);
    transport_stop(call);
    free(call->body);
    free(call->data);
    free(call);
}

/* ---- replies ---- */

static tessera_status same_hash(const uint8_t *a, const uint8_t *b, const char *what, tessera_error *error) {
    if (memcmp(a, b, CANONICAL_HASH_BYTES) == 0) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "the worker's reply signs another %s than it had", what);
}

/* The state before a block, and that its hash is the one in the reply. `state` enters the part. */
static tessera_status read_before(struct remote_call *call, const struct split_shape *shape, struct denoiser_state state,
                                  tessera_error *error) {
    const struct remote_input *in = &call->input;
    struct denoiser_state form = answer_form(call, shape), answer;
    struct state_message message = {.job = split_job_number(in->job)};
    uint8_t hash[CANONICAL_HASH_BYTES];
    TRY(run_status(in->run, error));
    TRY(denoiser_state_unpack(call->data + WIRE_REPLY_BYTES, (size_t)call->result.reply.state_bytes, &form, NULL, &answer, &message,
                              error));
    split_answer_merge_within(in->denoiser, (int)in->block, &state, &answer);
    split_state_hash(&state, hash);
    call->result.before = state;
    return same_hash(hash, call->result.reply.signed_fields.output_hash, "output", error);
}

/* The state in the reply, and that input and output are what the worker signed. */
static tessera_status read_state(struct remote_call *call, tessera_error *error) {
    const struct remote_input *in = &call->input;
    struct split_shape shape = split_shape_of(in->state);
    struct denoiser_state state = split_request_state(in->denoiser, in->range, in->state);
    uint8_t hash[CANONICAL_HASH_BYTES];
    split_state_hash(&state, hash);
    TRY(same_hash(hash, call->result.reply.signed_fields.input_hash, "input", error));
    if (call->kind == CALL_HASHES) return TESSERA_OK;
    if (call->kind == CALL_STATE) return read_before(call, &shape, state, error);
    TRY(split_answer_read(in->denoiser, in->run, in->range, &shape, split_job_number(in->job), call->data + WIRE_REPLY_BYTES,
                          (size_t)call->result.reply.state_bytes, &call->result.answer, error));
    split_answer_merge(in->denoiser, in->range, &state, &call->result.answer);
    split_state_hash(&state, hash);
    return same_hash(hash, call->result.reply.signed_fields.output_hash, "output", error);
}

static tessera_status check_counts(const struct remote_call *call, tessera_error *error) {
    const struct wire_reply *reply = &call->result.reply;
    const struct split_range *range = call->input.range;
    uint32_t hashes = call->kind == CALL_HASHES ? (uint32_t)(range->end - range->first + range->finish) : 0;
    if (reply->num_hashes == hashes && (call->kind != CALL_HASHES || reply->state_bytes == 0)) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "the worker's reply has %u hashes and a state of %llu bytes", reply->num_hashes,
                     (unsigned long long)reply->state_bytes);
}

static tessera_status read_reply(struct remote_call *call, tessera_error *error) {
    struct remote_result *r = &call->result;
    TRY(wire_reply_read(call->data, call->size, &r->reply, error));
    TRY(check_counts(call, error));
    if (r->reply.num_hashes > 0) r->hashes = (const uint8_t(*)[CANONICAL_HASH_BYTES])(call->data + WIRE_REPLY_BYTES);
    TRY(wire_reply_check(&r->reply, &call->request, call->input.specification, call->remote->pin, r->hashes, error));
    return read_state(call, error);
}

static tessera_status read_description(struct remote_call *call, tessera_error *error) {
    struct worker_description *d = &call->result.description;
    TRY(worker_description_parse(call->remote->name, (const char *)call->data, call->size, d, error));
    if (identity_pin_matches(&d->worker, call->remote->pin)) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "field public_key: is not the key with the pin %s", call->remote->pin);
}

/* What a reply with another status than 200 means. */
static enum remote_outcome read_status(struct remote_call *call) {
    call->text[strcspn(call->text, "\r\n")] = 0;
    error_set(&call->result.error, TESSERA_ERROR_IO, "%s: HTTP %ld: %s", call->remote->name, call->status, call->text);
    if (call->status == 429 || call->status == 503) return REMOTE_BUSY;
    return call->status >= 500 ? REMOTE_LOST : REMOTE_REFUSED;
}

static enum remote_outcome settle(struct remote_call *call, CURLcode code) {
    struct remote_result *r = &call->result;
    tessera_error error = {0};
    enum remote_outcome outcome = transport_outcome(call, code, &r->error);
    if (outcome != REMOTE_DONE) return outcome;
    if (call->status != 200) return read_status(call);
    if ((call->kind == CALL_DESCRIBE ? read_description(call, &error) : read_reply(call, &error)) != TESSERA_OK) {
        error_set(&r->error, error.status, "%s: %s", call->remote->name, error.message);
        return REMOTE_WRONG;
    }
    if (call->kind != CALL_DESCRIBE) note_constants(call);
    return REMOTE_DONE;
}

static void finish(struct remote_call *call, enum remote_outcome outcome) {
    struct remotes *remotes = call->remote->remotes;
    call->result.outcome = outcome;
    call->result.seconds = clock_seconds() - call->start;
    transport_stop(call);
    call_list_remove(&remotes->under_way, call);
    call->finished = true;
    call_list_add(&remotes->finished, call);
}

/* The worker lacks constants: the same request with all of them whole. True where it is under way. */
static bool send_constants(struct remote_call *call) {
    tessera_error error = {0};
    if (call->kind == CALL_DESCRIBE || call->status != WIRE_UNKNOWN_CONSTANTS || call->asked || call->whole) return false;
    call->asked = true;
    call->result.error = (tessera_error){0};
    if (pack(call, true, &error) != TESSERA_OK || transport_start(call, path_of(call), &error) != TESSERA_OK) return false;
    return true;
}

static void take_message(struct remotes *remotes, const CURLMsg *message) {
    struct remote_call *call = NULL;
    CURLcode code = message->data.result;
    (void)remotes;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&call);
    enum remote_outcome outcome = settle(call, code);
    if (!send_constants(call)) finish(call, outcome);
}

/* ---- waiting ---- */

/* Moves on what can; false where libcurl fails. */
static bool step(struct remotes *remotes) {
    int running = 0, left = 0;
    CURLMsg *message;
    if (curl_multi_perform(remotes->multi, &running) != CURLM_OK) return false;
    while ((message = curl_multi_info_read(remotes->multi, &left)) != NULL)
        if (message->msg == CURLMSG_DONE) {
            CURLMsg copy = *message; /* it goes with its transfer */
            take_message(remotes, &copy);
        }
    return true;
}

enum { LONGEST_MS = 200 }; /* so that stalls are seen */

tessera_status remotes_wait_for(struct remotes *remotes, const struct remote_call *call, tessera_error *error) {
    for (;;) {
        if (!step(remotes)) return error_set(error, TESSERA_ERROR_MEMORY, "libcurl cannot go on with its connections");
        if (call->finished) return TESSERA_OK;
        if (curl_multi_poll(remotes->multi, NULL, 0, LONGEST_MS, NULL) != CURLM_OK)
            return error_set(error, TESSERA_ERROR_IO, "libcurl cannot wait for its connections");
    }
}

tessera_status remotes_wait(struct remotes *remotes, double seconds, tessera_error *error) {
    double until = clock_seconds() + seconds;
    for (;;) {
        if (!step(remotes)) return error_set(error, TESSERA_ERROR_MEMORY, "libcurl cannot go on with its connections");
        double left = until - clock_seconds();
        if (remotes->finished.first != NULL || remotes->under_way.first == NULL || left <= 0) return TESSERA_OK;
        int ms = left * 1000 < LONGEST_MS ? (int)(left * 1000) + 1 : LONGEST_MS;
        if (curl_multi_poll(remotes->multi, NULL, 0, ms, NULL) != CURLM_OK)
            return error_set(error, TESSERA_ERROR_IO, "libcurl cannot wait for its connections");
    }
}

struct remote_call *remotes_next(struct remotes *remotes) {
    struct remote_call *call = remotes->finished.first;
    if (call != NULL) call_list_remove(&remotes->finished, call);
    return call;
}

const struct remote_result *remote_call_result(const struct remote_call *call) {
    return &call->result;
}

void *remote_call_user(const struct remote_call *call) {
    return call->user;
}
