/* See pipefusion.h. A store holds a layer's keys and values [B, S + T, heads, D]: the picture's
 * positions by their number, and the text's, in the order of tokens. Writing what is fresh into it
 * and attending to all of it is the whole strategy.
 *
 *     sent per rank of a ring of R, layer and step: 2 (R - 1) B S / n C in all patches together, as in ring attention; each rank keeps all
 *     sent to the next stage, for each patch: its state, with the text that blocks change in patch 0 only (models/state.h)
 */
#include "parallel/pipefusion.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/online_attention.h"
#include "parallel/strategy.h"

/* A layer's. */
struct store {
    struct tensor k, v; /* F32 or BF16 [B, S + T, heads, D]; owned */
    int64_t origin;     /* the row of the picture's first position: T where the text comes first */
    int64_t known;      /* of the picture's positions, from the first on: those that have been there */
};

struct pipefusion {
    int count;                   /* of patches */
    int current;                 /* the patch of this pass, or PATCHES_WHOLE */
    int prediction, predictions; /* the first of this pass's batch, among those of all passes of a step */
    int layer;               /* the number of the next attention layer */
    struct backend *backend; /* borrowed: whose memory the stores are in */
    struct store *stores;
    int num_stores, capacity;
};

static bool applies(const struct strategy_choice *choice) {
    return choice->patches > 1 || choice->degrees[MESH_PIPEFUSION] > 1;
}

static tessera_status open(const struct strategy_choice *choice, struct comm *group, void **state, tessera_error *error) {
    struct pipefusion *p = calloc(1, sizeof *p);
    (void)group;
    if (p == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    p->count = choice->patches > 1 ? choice->patches : 1;
    p->current = PATCHES_WHOLE;
    *state = p;
    return TESSERA_OK;
}

static void begin(void *state, const struct strategy_moment *moment) {
    struct pipefusion *p = state;
    assert(moment->patch >= PATCHES_WHOLE && moment->patch < p->count && moment->prediction >= 0 &&
           moment->prediction < moment->predictions);
    p->current = moment->patch;
    p->prediction = moment->prediction;
    p->predictions = moment->predictions;
    p->layer = 0;
}

static tessera_status reset(void *state, tessera_error *error) {
    struct pipefusion *p = state;
    (void)error;
    for (int i = 0; i < p->num_stores; i++) {
        struct tensor *halves[] = {&p->stores[i].k, &p->stores[i].v};
        for (int half = 0; half < 2; half++)
            if (halves[half]->data != NULL) p->backend->ops->release(p->backend, halves[half]->data, tensor_bytes(halves[half]));
    }
    free(p->stores);
    p->stores = NULL;
    p->num_stores = p->capacity = p->layer = 0;
    return TESSERA_OK;
}

static void close(void *state) {
    reset(state, NULL);
    free(state);
}

static struct span held_rows(const void *state, int64_t rows) {
    const struct pipefusion *p = state;
    if (p->current == PATCHES_WHOLE) return (struct span){0, rows};
    return cut_evenly(rows, p->count, p->current);
}

static bool keeps_text_whole(const struct strategy_choice *choice) {
    return choice->patches > 1;
}

/* ---- stores ---- */

/* The next layer's store, empty in the first pass. */
static struct store *next_store(struct pipefusion *p) {
    if (p->layer == p->capacity) {
        int capacity = p->capacity == 0 ? 64 : 2 * p->capacity;
        struct store *stores = realloc(p->stores, (size_t)capacity * sizeof *stores);
        if (stores == NULL) return NULL;
        memset(stores + p->capacity, 0, (size_t)(capacity - p->capacity) * sizeof *stores);
        p->stores = stores;
        p->capacity = capacity;
    }
    if (p->layer == p->num_stores) p->num_stores++;
    return &p->stores[p->layer++];
}

/* Memory of the run's backend for `tokens` keys and values like the call's. */
static tessera_status reserve(struct run *run, struct pipefusion *p, struct store *store, const struct attention_call *call,
                              int64_t tokens) {
    struct tensor shape = tensor_of(NULL, call->dtype, SHAPE(p->predictions, tokens, call->heads, call->width)),
                  *halves[] = {&store->k, &store->v};
    if (store->v.data != NULL) {
        if (store->k.dtype == call->dtype && memcmp(store->k.shape, shape.shape, 4 * sizeof *shape.shape) == 0) return TESSERA_OK;
        char was[128], is[128];
        return error_set(&run->error, TESSERA_ERROR_INTERNAL, "a layer's keys are %s %s, but were %s %s in the step before",
                         dtype_name(call->dtype), tensor_shape_text(4, shape.shape, is, sizeof is), dtype_name(store->k.dtype),
                         tensor_shape_text(4, store->k.shape, was, sizeof was));
    }
    shape.device = run->backend->device;
    p->backend = run->backend;
    store->origin = call->text_first ? call->k[STREAM_TEXT].count : 0;
    for (int half = 0; half < 2; half++) {
        void *memory = halves[half]->data;
        if (memory == NULL) memory = run->backend->ops->alloc(run->backend, tensor_bytes(&shape), NULL);
        *halves[half] = shape;
        halves[half]->data = memory;
        if (memory == NULL)
            return error_set(&run->error, TESSERA_ERROR_MEMORY, "out of memory for the keys and values of a layer of %lld tokens",
                             (long long)tokens);
    }
    return TESSERA_OK;
}

/* This pass's batch, of a store's. */
static struct tensor batch_of(const struct pipefusion *p, struct tensor t, int64_t count) {
    t.data = (char *)t.data + tensor_bytes(&t) / (size_t)t.shape[0] * (size_t)p->prediction;
    t.shape[0] = count;
    return t;
}

static int64_t picture_of(const struct attention_call *call) {
    return call->cut->rows * call->cut->columns;
}

/* The layer's store is where keys and values belong: it is taken once a call, here or in `attend`.
 */
static void place(struct run *run, const struct strategy_link *link, struct attention_call *call) {
    struct pipefusion *p = link->state;
    if (p->count == 1) {
        attention_place_next(run, link, call);
        return;
    }
    struct store *store = next_store(p);
    if (store == NULL) {
        error_set(&run->error, TESSERA_ERROR_MEMORY, "out of memory for the list of layers");
        return;
    }
    int64_t tokens = store->v.data != NULL ? store->v.shape[1] : picture_of(call) + call->k[STREAM_TEXT].count;
    if (reserve(run, p, store, call, tokens) != TESSERA_OK) return;
    struct token_span *streams[] = {call->k, call->v};
    for (int half = 0; half < 2; half++) {
        struct token_span *spans = streams[half];
        spans[STREAM_PICTURE].x = spans[STREAM_TEXT].x = batch_of(p, half == 0 ? store->k : store->v, call->batch);
        spans[STREAM_PICTURE].first = store->origin + cut_first(call->cut, (int)call->members.first);
        spans[STREAM_TEXT].first = store->origin > 0 ? 0 : picture_of(call);
    }
}

/* Keys or values that are known: all text, and the positions up to store->known. */
static struct tensor known_of(struct run *run, const struct store *store, const struct attention_call *call, struct tensor x) {
    int64_t picture = picture_of(call), text = x.shape[1] - picture;
    struct attention_call known = *call;
    struct token_span spans[STREAMS] = {{x, store->origin, store->known}, {x, store->origin > 0 ? 0 : picture, text}};
    known.text_first = store->origin > 0;
    return attention_join(run, &known, spans);
}

/* The next link that can bring other members' keys, if any. */
static const struct strategy_link *next_with_collect(const struct run *run, const struct strategy_link *link) {
    const struct strategy_link *end = run->parallel->links + run->parallel->num_links;
    for (link++; link < end; link++)
        if (link->strategy->collect != NULL) return link;
    return NULL;
}

static void attend(struct run *run, const struct strategy_link *link, struct attention_call *call) {
    struct pipefusion *p = link->state;
    if (p->count == 1) {
        attention_next(run, link, call);
        return;
    }
    attention_bring(run, link, call);
    if (run_failed(run)) return;
    struct store *store = &p->stores[p->layer - 1];
    struct tensor k = call->k[STREAM_PICTURE].x, v = call->v[STREAM_PICTURE].x, q = attention_join(run, call, call->q);
    const struct strategy_link *ring = next_with_collect(run, link);
    if (ring != NULL) ring->strategy->collect(run, ring, call, k, v, store->origin);
    int64_t end = cut_first(call->cut, call->cut->members);
    if (store->known < end) store->known = end;
    k = known_of(run, store, call, k), v = known_of(run, store, call, v);
    if (!run_failed(run)) attention_set_out(call, attention_to_block(run, q, k, v, call->scale, NULL));
}

/* ---- bytes ---- */

/* As models/state.h has them: a message's head, and what describes each of its tensors, which begin
 * at multiples of 64 bytes. */
enum { STATE_HEAD = 64, STATE_RECORD = 64, STATE_ALIGNMENT = 64, STATE_DIGEST = 32 };

/* What a tensor takes in a state. */
static int64_t state_tensor(int64_t bytes) {
    return STATE_RECORD + (bytes + STATE_ALIGNMENT - 1) / STATE_ALIGNMENT * STATE_ALIGNMENT;
}

static int64_t state_map(const struct plan_pass *p, struct denoiser_map map) {
    return state_tensor(p->batch * plan_pass_positions(p, p->me, map.level) * map.channels * p->m->element_bytes);
}

/* A stage's state to the next one: tokens, conditioning, the text where its stream goes on,
 * otherwise its digest. Skips, and the last stage's latents to the first. */
static void end_bytes(struct plan_pass *p, int64_t latents) {
    const struct plan_model *m = p->m;
    if (p->degrees[MESH_PIPEFUSION] == 1) return;
    if (plan_pass_is_last_stage(p)) {
        if (p->is_last_prediction) plan_pass_add(p, MESH_PIPEFUSION, latents * m->channels, (int)sizeof(float));
        return;
    }
    int64_t bytes = STATE_HEAD * (1 + p->skip_parcels) + state_map(p, m->blocks[p->stage_end - 1].out);
    bytes += state_tensor(p->batch * m->cond_width * (int64_t)sizeof(float)) + m->constants * state_tensor(STATE_DIGEST);
    for (int i = 0; i < p->num_skips; i++) bytes += state_map(p, p->skips[i]);
    bool text = p->has_text && m->text_stream && m->blocks[p->stage_end - 1].carries_text;
    if (text) bytes += state_tensor(p->batch * p->text * m->width * m->element_bytes);
    plan_pass_add(p, MESH_PIPEFUSION, bytes, 1);
}

const struct strategy pipefusion_strategy = {.name = "pipefusion",
                                             .group = MESH_PIPEFUSION,
                                             .applies = applies,
                                             .open = open,
                                             .begin = begin,
                                             .reset = reset,
                                             .close = close,
                                             .attend = attend,
                                             .place = place,
                                             .keeps_text_whole = keeps_text_whole,
                                             .held_rows = held_rows,
                                             .collects_keys = true,
                                             .end_bytes = end_bytes};
