/* See relay.h. The model and the unit tell what a message must be. The length of the next unit's
 * message, before its turn, is that of the last unit of its kind. So no receive of the first
 * message of a kind starts early. */
#include "pipelines/relay.h"

#include <stdlib.h>
#include <string.h>

/* A message that must come, constants by digest. */
struct awaited {
    size_t bytes;
    struct denoiser_state state;
};

/* A way for states from one stage to another. */
struct relay_line {
    struct parcel_line *parcels;
    bool early;                   /* the next message is expected already */
    struct denoiser_state state;  /* as it must be in the message that is expected; the communication thread reads these two */
    struct state_message message; /* its job and constants */
    struct awaited kinds[];       /* of each kind, once one has come; bytes 0: none yet */
};

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for what pipeline stages send each other");
}

/* ---- beginning and end ---- */

static void close_line(struct relay_line *line) {
    if (line == NULL) return;
    parcel_line_close(line->parcels);
    free(line);
}

/* What a message of another length differs in from the one that is expected, as far as its head and
 * records have come. */
static tessera_status explain(const void *user, const void *data, size_t bytes, tessera_error *error) {
    const struct relay_line *line = user;
    if (!denoiser_state_begins(data, bytes)) return TESSERA_OK;
    return denoiser_state_check(data, bytes, &line->state, &line->message, error);
}

static bool open_line(struct relay *r, int stage, const char *label, struct relay_line **out) {
    struct relay_line *line = calloc(1, sizeof *line + (size_t)r->kinds * sizeof *line->kinds);
    if (line != NULL) line->parcels = parcel_line_open(r->pipe, r->stages->ranks[stage], label);
    if (line == NULL || line->parcels == NULL) {
        free(line);
        return false;
    }
    parcel_line_explain(line->parcels, (struct comm_explanation){explain, line});
    *out = line;
    return true;
}

/* From the last stage to the first, and to member 0 where that is another one. */
static bool open_latents(struct relay *r) {
    const int *ranks = r->stages->ranks;
    int last = ranks[r->count - 1], takers[] = {ranks[0], 0}, me = comm_rank(r->pipe);
    bool open = true;
    for (int i = 0; i < 2; i++) {
        if (takers[i] == last || (i == 1 && takers[1] == takers[0])) continue;
        if (me == last) open = (r->latents_to[i] = parcel_line_open(r->pipe, takers[i], "latents")) != NULL && open;
        if (me == takers[i]) open = (r->latents = parcel_line_open(r->pipe, last, "latents")) != NULL && open;
    }
    return open;
}

static bool is_own(const struct relay *r, int stage) {
    return r->stages->ranks[stage] == comm_rank(r->pipe);
}

/* From stage s; where that is this member's, the line is both's. */
static bool open_skips_from(struct relay *r, int s) {
    if (!open_line(r, s, "skips", &r->skips_from[s])) return false;
    for (int k = 0; k < r->place; k++)
        if (r->first[k].stage == s) r->first[k].skips_to[r->stage] = r->skips_from[s];
    return true;
}

static bool open_lines(struct relay *r) {
    int last = r->count - 1;
    bool open = r->place > 0 || open_latents(r);
    r->skips_from = calloc(2 * (size_t)r->count, sizeof *r->skips_from);
    if (r->skips_from == NULL) return false;
    r->skips_to = r->skips_from + r->count;
    if (r->stage < 0) return open;
    if (r->stage > 0) open = open_line(r, r->stage - 1, "stages", &r->from_before) && open;
    if (r->stage < last) open = open_line(r, r->stage + 1, "stages", &r->to_next) && open;
    for (int s = 0; s < r->stage; s++)
        if (r->stages->comes[s] > 0) open = open_skips_from(r, s) && open;
    for (int i = 0; i < r->stages->num_leaves; i++) {
        int to = r->stages->goes[i];
        if (r->skips_to[to] == NULL && !is_own(r, to)) open = open_line(r, to, "skips", &r->skips_to[to]) && open;
    }
    return open;
}

tessera_status relay_open(struct relay *relays, int held, struct comm *pipe, const struct denoiser *denoiser, const struct stages *stages,
                          struct run *run, int kinds, tessera_error *error) {
    bool open = true;
    for (int k = 0; k < held; k++) {
        relays[k] = (struct relay){.first = relays,
                                   .place = k,
                                   .held = held,
                                   .pipe = pipe,
                                   .denoiser = denoiser,
                                   .stages = stages != NULL ? &stages[k] : NULL,
                                   .run = run,
                                   .stage = stages != NULL ? stages[k].me : 0,
                                   .count = stages != NULL ? stages[k].count : 1,
                                   .kinds = kinds,
                                   .store.backend = run->backend};
        open = open && (comm_size(pipe) == 1 || open_lines(&relays[k]));
    }
    return open ? TESSERA_OK : out_of_memory(error);
}

static void close_one(struct relay *relay) {
    close_line(relay->from_before);
    close_line(relay->to_next);
    for (int s = 0; relay->skips_from != NULL && s < relay->count; s++) {
        close_line(relay->skips_from[s]);
        if (!is_own(relay, s)) close_line(relay->skips_to[s]);
    }
    parcel_line_close(relay->latents);
    for (int i = 0; i < 2; i++) parcel_line_close(relay->latents_to[i]);
    free(relay->skips_from);
    state_store_close(&relay->store);
    *relay = (struct relay){0};
}

void relay_close(struct relay *relays, int held) {
    for (int k = 0; k < held; k++) close_one(&relays[k]);
}

/* ---- what must come ---- */

/* The state that enters `block`, without skips. */
static struct denoiser_state state_of(const struct relay *r, const struct relay_unit *unit, int block) {
    unsigned carries = DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_COND | (unit->text ? (unsigned)DENOISER_CARRIES_TEXT : 0u);
    return denoiser_state_expected(r->denoiser, r->run, unit->inputs, block, carries, NULL, 0);
}

/* The skips alone that come from stage `from`. */
static struct denoiser_state skips_of(const struct relay *r, const struct relay_unit *unit, int from) {
    const struct denoiser_map *maps = r->stages->maps;
    for (int s = 0; s < from; s++) maps += r->stages->comes[s];
    return denoiser_state_expected(r->denoiser, r->run, unit->inputs, r->stages->first[r->stage], 0, maps, r->stages->comes[from]);
}

/* ---- taking ---- */

/* Receives the unit's message on a line, which is as long as `expected` says. */
static tessera_status receive(struct relay *r, struct relay_line *line, const struct relay_unit *unit,
                              const struct denoiser_state *expected, struct state_message *message, struct denoiser_state *out,
                              tessera_error *error) {
    const void *bytes = NULL;
    size_t size = denoiser_state_bytes(expected, message->by_digest);
    line->kinds[unit->kind] = (struct awaited){denoiser_state_bytes(expected, message->constants), *expected};
    if (!line->early) line->state = *expected, line->message = *message;
    line->early = false;
    TRY(parcel_receive(line->parcels, size, &bytes, error));
    return denoiser_state_unpack(bytes, size, expected, &r->store, out, message, error);
}

/* Skips of earlier stages, onto the stack. */
static tessera_status take_skips(struct relay *r, const struct relay_unit *unit, struct denoiser_state *state, tessera_error *error) {
    for (int s = 0; s < r->stage; s++) {
        struct denoiser_state expected, skips;
        struct state_message message = {.job = comm_job_number(r->pipe)};
        if (r->skips_from[s] == NULL) continue;
        expected = skips_of(r, unit, s);
        TRY(run_status(r->run, error));
        TRY(receive(r, r->skips_from[s], unit, &expected, &message, &skips, error));
        for (int i = 0; i < skips.num_skips; i++) state->skips[state->num_skips++] = run_upload(r->run, skips.skips[i]);
    }
    return TESSERA_OK;
}

static tessera_status expect(struct relay_line *line, const struct relay_unit *unit, tessera_error *error) {
    if (line == NULL || line->kinds[unit->kind].bytes == 0) return TESSERA_OK;
    line->state = line->kinds[unit->kind].state; /* the message's job and constants are those of the one before */
    line->early = true;
    return parcel_expect(line->parcels, line->kinds[unit->kind].bytes, error);
}

/* Lets the next unit's messages come while this one is computed. A step cache may leave its skips
 * out. */
static tessera_status expect_next(struct relay *r, const struct relay_unit *next, tessera_error *error) {
    if (next == NULL || r->stages->returns || r->came[next->batch].constants == 0) return TESSERA_OK;
    TRY(expect(r->from_before, next, error));
    for (int s = 0; s < r->stage && !r->may_skip; s++) TRY(expect(r->skips_from[s], next, error));
    return TESSERA_OK;
}

tessera_status relay_take(struct relay *r, const struct relay_unit *unit, const struct relay_unit *next, struct denoiser_state *state,
                          bool *skipped, tessera_error *error) {
    struct denoiser_state expected = state_of(r, unit, r->stages->first[r->stage]);
    struct state_message *message = &r->came[unit->batch];
    TRY(run_status(r->run, error));
    message->by_digest = message->constants; /* those that came with the batch's first unit */
    message->constants = denoiser_state_constants(r->denoiser);
    message->job = comm_job_number(r->pipe);
    TRY(receive(r, r->from_before, unit, &expected, message, state, error));
    *skipped = message->skipped;
    struct tensor *const fields[] = {&state->picture, &state->text, &state->text_mask, &state->cond};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) *fields[i] = run_upload(r->run, *fields[i]);
    if (!message->skipped) TRY(take_skips(r, unit, state, error));
    return expect_next(r, next, error);
}

/* ---- sending ---- */

/* The line's next message. */
static tessera_status pack(struct relay *r, struct relay_line *line, const struct denoiser_state *state, struct state_message *message,
                           tessera_error *error) {
    uint8_t *room = parcel_room(line->parcels, denoiser_state_bytes(state, message->by_digest), error);
    if (room == NULL) return error->status;
    return denoiser_state_pack(state, message, r->run->backend, room, error);
}

static tessera_status send_skips(struct relay *r, const struct denoiser_state *state, tessera_error *error) {
    for (int s = r->stage + 1; s < r->count; s++) {
        struct denoiser_state skips = {.rows = state->rows, .columns = state->columns, .text_tokens = state->text_tokens};
        struct state_message message = {.job = comm_job_number(r->pipe)};
        for (int i = 0; i < state->num_skips; i++)
            if (r->stages->goes[i] == s) skips.skips[skips.num_skips++] = state->skips[i];
        if (skips.num_skips == 0) continue;
        TRY(pack(r, r->skips_to[s], &skips, &message, error));
        if (r->stages->returns)
            parcel_hold(r->skips_to[s]->parcels);
        else
            parcel_send(r->skips_to[s]->parcels);
    }
    return TESSERA_OK;
}

/* The oldest skips that this member's stages up to this one hold for stage `to`. */
static void send_held(struct relay *r, int to) {
    for (int k = 0; k <= r->place; k++)
        if (r->first[k].skips_to[to] != NULL) parcel_send_held(r->first[k].skips_to[to]->parcels);
}

tessera_status relay_send(struct relay *r, const struct relay_unit *unit, const struct denoiser_state *state, bool skipped,
                          tessera_error *error) {
    struct denoiser_state without = *state;
    struct state_message *message = &r->sent[unit->batch];
    without.num_skips = 0;
    message->by_digest = message->constants; /* those that went with the batch's first unit */
    message->constants = denoiser_state_constants(r->denoiser);
    message->job = comm_job_number(r->pipe);
    message->skipped = skipped;
    TRY(pack(r, r->to_next, &without, message, error));
    parcel_send(r->to_next->parcels);
    if (!skipped) TRY(send_skips(r, state, error));
    if (r->stages->returns) send_held(r, r->stage + 1);
    return TESSERA_OK;
}

void relay_pass(struct relay *r, int units) {
    if (r->stages == NULL || !r->stages->returns || r->stage < 0) return;
    int end = r->place + 1 < r->held ? r->first[r->place + 1].stage : r->count - 1;
    for (int to = r->stage + 2; to <= end; to++)
        for (int i = 0; i < units; i++) send_held(r, to);
}

/* ---- latents ---- */

static size_t latents_bytes(const struct relay *r, int64_t count) {
    return (size_t)count * sizeof(float) * (r->shows_x_0 ? 2 : 1);
}

tessera_status relay_send_latents(struct relay *r, const float *x, const float *x_0, int64_t count, tessera_error *error) {
    for (int i = 0; i < 2; i++) {
        if (r->latents_to[i] == NULL) continue;
        float *room = parcel_room(r->latents_to[i], latents_bytes(r, count), error);
        if (room == NULL) return error->status;
        memcpy(room, x, (size_t)count * sizeof *x);
        if (r->shows_x_0) memcpy(room + count, x_0, (size_t)count * sizeof *x_0);
        parcel_send(r->latents_to[i]);
    }
    return TESSERA_OK;
}

tessera_status relay_take_latents(struct relay *r, float *x, float *x_0, int64_t count, tessera_error *error) {
    const void *came = NULL;
    TRY(parcel_receive(r->latents, latents_bytes(r, count), &came, error));
    memcpy(x, came, (size_t)count * sizeof *x);
    if (r->shows_x_0) memcpy(x_0, (const float *)came + count, (size_t)count * sizeof *x_0);
    return TESSERA_OK;
}

tessera_status relay_expect_latents(struct relay *r, int64_t count, tessera_error *error) {
    return r->stages->returns ? TESSERA_OK : parcel_expect(r->latents, latents_bytes(r, count), error);
}
