/* See displaced.h. A place holds two buffers: one is read in this step, the other is filled for the next. This rank's own block lies in the
 * buffer that is read, from where it is sent; it stays there until the same layer of the next step has waited for the transfer. */
#include "parallel/displaced.h"

#include <stdlib.h>
#include <string.h>

struct displaced_place {
    char *in[2]; /* [all blocks] */
    char *out;   /* what neighbours are sent: blocks for the members above and below */
    size_t in_bytes, out_bytes;
    int reading; /* which of `in` */
    size_t own;  /* where this rank's block begins */
    size_t own_bytes;
    size_t *bytes; /* [members] of a gather, or what comes from each and goes to each */
    size_t *sent;
    struct comm_operation *operation; /* on its way into in[1 - reading]; NULL: none */
};

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for what other ranks computed a step before");
}

const char *sync_mode_name(int mode) {
    static const char *const names[SYNC_MODES] = {"corrected_async_gn", "stale_gn", "sync_gn", "full_sync", "separate_gn", "no_sync"};
    return mode >= 0 && mode < SYNC_MODES ? names[mode] : NULL;
}

void displaced_step(struct displaced *d, int index) {
    d->synchronous = index <= d->warmup_steps;
    d->layer = 0;
}

tessera_status displaced_reset(struct displaced *d, tessera_error *error) {
    tessera_status status = TESSERA_OK;
    for (int i = 0; i < d->num_places; i++) {
        struct displaced_place *p = &d->places[i];
        if (p->operation != NULL && status == TESSERA_OK) status = comm_operation_wait(d->group, p->operation, error);
        free(p->in[0]);
        free(p->in[1]);
        free(p->out);
        free(p->bytes);
    }
    free(d->places);
    d->places = NULL;
    d->num_places = d->capacity = d->layer = 0;
    return status;
}

/* The place of the next layer, new where this is the first step. */
static struct displaced_place *next_place(struct displaced *d) {
    if (d->layer == d->capacity) {
        int capacity = d->capacity == 0 ? 64 : 2 * d->capacity;
        struct displaced_place *places = realloc(d->places, (size_t)capacity * sizeof *places);
        if (places == NULL) return NULL;
        memset(places + d->capacity, 0, (size_t)(capacity - d->capacity) * sizeof *places);
        d->places = places;
        d->capacity = capacity;
    }
    if (d->layer == d->num_places) d->num_places++;
    return &d->places[d->layer++];
}

static bool reserve(struct displaced_place *p, int members, size_t in_bytes, size_t out_bytes) {
    if (p->bytes != NULL) return p->in_bytes == in_bytes && p->out_bytes == out_bytes;
    *p = (struct displaced_place){.in_bytes = in_bytes, .out_bytes = out_bytes};
    p->in[0] = calloc(1, in_bytes + 1);
    p->in[1] = calloc(1, in_bytes + 1);
    p->out = malloc(out_bytes + 1);
    p->bytes = calloc(2 * (size_t)members, sizeof *p->bytes);
    p->sent = p->bytes + members;
    return p->in[0] != NULL && p->in[1] != NULL && p->out != NULL && p->bytes != NULL;
}

/* What was under way has arrived and is what is read now. */
static tessera_status take_arrived(struct displaced *d, struct displaced_place *p, tessera_error *error) {
    if (p->operation == NULL) return TESSERA_OK;
    struct comm_operation *operation = p->operation;
    p->operation = NULL;
    TRY(comm_operation_wait(d->group, operation, error));
    p->reading = 1 - p->reading;
    return TESSERA_OK;
}

tessera_status displaced_receive(struct displaced *d, const void *mine, const size_t *bytes, bool fresh, char **all, tessera_error *error) {
    int members = comm_size(d->group), me = comm_rank(d->group);
    size_t total = 0, own = 0;
    for (int i = 0; i < members; i++) {
        if (i == me) own = total;
        total += bytes[i];
    }
    struct displaced_place *p = next_place(d);
    if (p == NULL || !reserve(p, members, total, 0)) return out_of_memory(error);
    memcpy(p->bytes, bytes, (size_t)members * sizeof *bytes);
    p->own = own;
    p->own_bytes = bytes[me];
    TRY(take_arrived(d, p, error));
    *all = p->in[p->reading];
    return d->synchronous || fresh ? comm_all_gather(d->group, mine, *all, bytes, error) : TESSERA_OK;
}

tessera_status displaced_send(struct displaced *d, const void *mine, bool sends, tessera_error *error) {
    struct displaced_place *p = &d->places[d->layer - 1];
    char *own = p->in[p->reading] + p->own;
    if (own != mine) memcpy(own, mine, p->own_bytes);
    if (d->synchronous || !sends) return TESSERA_OK;
    p->operation = comm_all_gather_start(d->group, own, p->in[1 - p->reading], p->bytes);
    return p->operation != NULL ? TESSERA_OK : out_of_memory(error);
}

/* The exchange with neighbours as an all-to-all in which the others send nothing. */
static struct comm_operation *start_neighbours(struct displaced *d, struct displaced_place *p, char *in) {
    return comm_all_to_all_start(d->group, p->out, p->sent, in, p->bytes);
}

tessera_status displaced_neighbours(struct displaced *d, const void *const out[2], const size_t out_bytes[2], void *in[2],
                                    const size_t in_bytes[2], bool fresh, bool sends, tessera_error *error) {
    int members = comm_size(d->group), me = comm_rank(d->group);
    struct displaced_place *p = next_place(d);
    if (p == NULL || !reserve(p, members, in_bytes[0] + in_bytes[1], out_bytes[0] + out_bytes[1])) return out_of_memory(error);
    if (me > 0) p->bytes[me - 1] = in_bytes[0], p->sent[me - 1] = out_bytes[0];
    if (me < members - 1) p->bytes[me + 1] = in_bytes[1], p->sent[me + 1] = out_bytes[1];
    TRY(take_arrived(d, p, error));
    if (out_bytes[0] > 0) memcpy(p->out, out[0], out_bytes[0]);
    if (out_bytes[1] > 0) memcpy(p->out + out_bytes[0], out[1], out_bytes[1]);
    if (d->synchronous || fresh) {
        struct comm_operation *operation = start_neighbours(d, p, p->in[p->reading]);
        if (operation == NULL) return out_of_memory(error);
        TRY(comm_operation_wait(d->group, operation, error));
    } else if (sends) {
        p->operation = start_neighbours(d, p, p->in[1 - p->reading]);
        if (p->operation == NULL) return out_of_memory(error);
    }
    if (in_bytes[0] > 0) memcpy(in[0], p->in[p->reading], in_bytes[0]);
    if (in_bytes[1] > 0) memcpy(in[1], p->in[p->reading] + in_bytes[0], in_bytes[1]);
    return TESSERA_OK;
}
