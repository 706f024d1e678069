/* See patches.h. A store holds a layer's keys and values [B, S + T, heads, D]: the picture's positions by their number, then the text's.
 * Writing what is fresh into it and attending to all of it is the whole strategy.
 *
 *     sent per rank of a ring of R, layer and step: 2 (R - 1) B S / n C in all parts together, as in ring attention; each rank keeps all */
#include "parallel/patches.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/exchange.h"
#include "parallel/online_attention.h"

struct patches_store {
    struct tensor k, v; /* F32 or BF16 [B, S + T, heads, D]; owned */
    int64_t known;      /* of the picture's positions, from the first on: those that have been there */
};

void patches_begin(struct patches *patches, int current, int row, int rows) {
    assert(current >= PATCHES_WHOLE && current < patches->count && row >= 0 && row < rows);
    patches->current = current;
    patches->row = row;
    patches->rows = rows;
    patches->layer = 0;
}

void patches_reset(struct patches *patches) {
    for (int i = 0; i < patches->num_stores; i++) {
        free(patches->stores[i].k.data);
        free(patches->stores[i].v.data);
    }
    free(patches->stores);
    patches->stores = NULL;
    patches->num_stores = patches->capacity = patches->layer = 0;
}

struct span patches_rows(const struct patches *patches, int64_t rows) {
    if (patches->current == PATCHES_WHOLE) return (struct span){0, rows};
    return cut_share(rows, patches->count, patches->current);
}

/* The next layer's store, empty in the first pass. */
static struct patches_store *next_store(struct patches *p) {
    if (p->layer == p->capacity) {
        int capacity = p->capacity == 0 ? 64 : 2 * p->capacity;
        struct patches_store *stores = realloc(p->stores, (size_t)capacity * sizeof *stores);
        if (stores == NULL) return NULL;
        memset(stores + p->capacity, 0, (size_t)(capacity - p->capacity) * sizeof *stores);
        p->stores = stores;
        p->capacity = capacity;
    }
    if (p->layer == p->num_stores) p->num_stores++;
    return &p->stores[p->layer++];
}

/* Memory for `tokens` keys and values like `k`'s, of a batch of `rows`. */
static bool reserve(struct patches_store *store, const struct tensor *k, int64_t rows, int64_t tokens) {
    if (store->v.data != NULL) return store->k.shape[0] == rows && store->k.shape[1] == tokens && store->k.dtype == k->dtype;
    struct tensor shape = tensor_of(NULL, k->dtype, SHAPE(rows, tokens, k->shape[2], k->shape[3]));
    free(store->k.data);
    store->k = store->v = shape;
    store->k.data = malloc(tensor_bytes(&shape));
    store->v.data = malloc(tensor_bytes(&shape));
    return store->k.data != NULL && store->v.data != NULL;
}

/* x [B, tokens, heads, D] to the places from `first` on. */
static void put(struct run *run, struct tensor store, int64_t first, struct tensor x) {
    if (x.data == NULL) return;
    int64_t width = x.shape[2] * x.shape[3];
    struct tensor to = tensor_reshape(store, SHAPE(store.shape[0], store.shape[1], width));
    struct tensor from = tensor_reshape(x, SHAPE(x.shape[0], x.shape[1], width));
    run->backend->ops->copy_rows(run->backend, &to, first, &from, 0, x.shape[1]);
}

/* The first `known` of a store's `picture` positions, and the text behind them all. */
static struct tensor known_of(struct run *run, struct tensor store, int64_t picture, int64_t known) {
    int64_t batch = store.shape[0], text = store.shape[1] - picture, heads = store.shape[2], width = store.shape[3];
    struct tensor out = run_tensor(run, store.dtype, SHAPE(batch, known + text, heads, width));
    if (run_failed(run)) return out;
    struct tensor to = tensor_reshape(out, SHAPE(batch, known + text, heads * width));
    struct tensor from = tensor_reshape(store, SHAPE(batch, picture + text, heads * width));
    run->backend->ops->copy_rows(run->backend, &to, 0, &from, 0, known);
    run->backend->ops->copy_rows(run->backend, &to, known, &from, picture, text);
    return out;
}

/* The rows first .. first + count of a store's batch. */
static struct tensor rows_of(struct tensor t, int64_t first, int64_t count) {
    t.data = (char *)t.data + tensor_bytes(&t) / (size_t)t.shape[0] * (size_t)first;
    t.shape[0] = count;
    return t;
}

/* Where member `round` of the ring has its tokens of the part at hand. */
static struct span span_of(const struct cut *cut, int rounds, int round) {
    int members = cut->members / rounds;
    int64_t first = cut_first(cut, round * members);
    return (struct span){first, cut_first(cut, (round + 1) * members) - first};
}

/* Puts keys and values of all members of the ring into the store. */
static void gather(struct run *run, struct patches_store *store, const struct patches_input *in, const struct cut *cut) {
    struct comm *ring = run->parallel->ring;
    int rounds = comm_size(ring);
    int64_t batch = in->k.shape[0], heads = in->k.shape[2], width = in->k.shape[3],
            total = cut_first(cut, cut->members) - cut_first(cut, 0);
    size_t token = 2 * tensor_bytes(&in->k) / (size_t)in->k.shape[1], bytes[rounds], half = tensor_bytes(&in->k);
    struct tensor all = run_tensor(run, in->k.dtype, SHAPE(2, batch * total, heads, width));
    struct tensor mine = run_tensor(run, in->k.dtype, SHAPE(2, batch * in->k.shape[1], heads, width));
    if (run_failed(run)) return;
    memcpy(mine.data, in->k.data, half);
    memcpy((char *)mine.data + half, in->v.data, half);
    for (int i = 0; i < rounds; i++) bytes[i] = token * (size_t)span_of(cut, rounds, i).count;
    if (comm_all_gather(ring, mine.data, all.data, bytes, &run->error) != TESSERA_OK) return;
    char *from = all.data;
    for (int i = 0; i < rounds; from += bytes[i++]) {
        struct span span = span_of(cut, rounds, i);
        put(run, store->k, span.first, tensor_of(from, in->k.dtype, SHAPE(batch, span.count, heads, width)));
        put(run, store->v, span.first, tensor_of(from + bytes[i] / 2, in->k.dtype, SHAPE(batch, span.count, heads, width)));
    }
}

struct tensor patches_attention(struct run *run, const struct patches_input *in, const struct cut *cut) {
    struct patches *p = run->parallel->patches;
    if (run_failed(run)) return (struct tensor){0};
    struct patches_store *store = next_store(p);
    int64_t picture = cut->rows * cut->columns, text = in->text_k.data != NULL ? in->text_k.shape[1] : 0;
    int64_t tokens = store != NULL && store->v.data != NULL ? store->v.shape[1] : picture + text;
    if (store == NULL || !reserve(store, &in->k, p->rows, tokens)) {
        error_set(&run->error, TESSERA_ERROR_MEMORY, "out of memory for the keys and values of a layer of %lld tokens", (long long)tokens);
        return (struct tensor){0};
    }
    struct patches_store here = {.k = rows_of(store->k, p->row, in->k.shape[0]), .v = rows_of(store->v, p->row, in->k.shape[0])};
    size_t scope = run_enter(run);
    if (comm_size(run->parallel->ring) > 1) {
        gather(run, &here, in, cut);
    } else {
        put(run, here.k, cut_first(cut, 0), in->k);
        put(run, here.v, cut_first(cut, 0), in->v);
    }
    put(run, here.k, picture, in->text_k);
    put(run, here.v, picture, in->text_v);
    if (run_failed(run)) return (struct tensor){0};
    arena_release(run->arena, scope);
    if (store->known < cut_first(cut, cut->members)) store->known = cut_first(cut, cut->members);
    if (store->known == picture) return attention_to_block(run, in->q, here.k, here.v, in->scale, NULL);
    struct tensor k = known_of(run, here.k, picture, store->known), v = known_of(run, here.v, picture, store->known);
    return run_failed(run) ? (struct tensor){0} : attention_to_block(run, in->q, k, v, in->scale, NULL);
}
