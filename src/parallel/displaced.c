/* See displaced.h. In synchronous steps a place has a store of its own, filled by messages of its
 * own. The first displaced step moves the stores into the buffers of groups of places, made so that
 * what a member gets is one piece of them:
 *
 *     out   [ rows up, all places | blocks, all places | rows down, all places ]       one, sent to ...
 *             --------- the member above --------------
 *                                  --------- the member below ----------------
 *                                  ---- any other -----
 *     in    [ of member 0 | of member 1 | ... ]                                        two: one is read, one is filled for the next step
 *
 * A group is sent when its last place is filled; receives are posted with the sends. The first of
 * its places waits, in the next step, for both: so one `out` is enough, and it still holds what
 * this rank sent a step before when a layer asks for it. A step that skips layers sends what it
 * began, the places that it skipped as they were. */
#include "parallel/displaced.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "comm/stats.h"

enum { ROW_REQUESTS = 4 };

struct displaced_place {
    struct displaced_sizes sizes; /* all: in `memory` */
    struct displaced_data data;   /* as handed out last */
    char *store;                  /* [blocks in rank order | out | in]; NULL once it is in a group */
    size_t store_bytes;
    size_t *all_at; /* [members] in the group's `in`, this rank's in its `out` */
    size_t out_at[2], in_at[2];
    struct comm_request **requests; /* of a fresh exchange: [members] receives of blocks, then [members] sends of them, [4] of rows */
    void *memory;                   /* what this struct's arrays are in */
};

struct displaced_group {
    int first, count; /* places */
    char *in[2], *out;
    int reading;     /* which of `in` */
    size_t starts[4]; /* where the three sections of `out` begin, and its end */
    size_t *from;    /* [members + 1] where each member's piece of `in` begins */
    bool sent;
    struct comm_request **requests; /* [2 members] */
    int num_requests;
};

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for what other ranks computed a step before");
}

const char *sync_mode_name(int mode) {
    static const char *const names[SYNC_MODES] = {"corrected_async_gn", "stale_gn", "sync_gn", "full_sync", "separate_gn", "no_sync"};
    return mode >= 0 && mode < SYNC_MODES ? names[mode] : NULL;
}

/* Does a displaced step of this mode send anything for the next one? */
static bool mode_sends(enum sync_mode mode) {
    return mode != SYNC_FULL_SYNC && mode != SYNC_NO_SYNC;
}

/* ---- places ---- */

/* Points a place's data into its store. */
static void point_to_store(struct displaced_place *p, int members) {
    char *at = p->store;
    for (int i = 0; i < members; at += p->sizes.all[i++]) p->data.all[i] = at;
    for (int i = 0; i < 2; at += p->sizes.out[i++]) p->data.out[i] = at;
    for (int i = 0; i < 2; at += p->sizes.in[i++]) p->data.in[i] = at;
}

static bool place_open(struct displaced_place *p, int members, const struct displaced_sizes *sizes) {
    size_t n = (size_t)members, total = sizes->out[0] + sizes->out[1] + sizes->in[0] + sizes->in[1];
    for (size_t i = 0; i < n && sizes->all != NULL; i++) total += sizes->all[i];
    size_t *numbers = calloc(2 * n + ROW_REQUESTS, 2 * sizeof *numbers + sizeof *p->data.all + sizeof *p->requests);
    *p = (struct displaced_place){.sizes = *sizes, .memory = numbers, .store = calloc(1, total + 1), .store_bytes = total};
    if (numbers == NULL || p->store == NULL) return false;
    if (sizes->all != NULL) memcpy(numbers, sizes->all, n * sizeof *numbers);
    p->sizes.all = numbers;
    p->all_at = numbers + n;
    p->data.all = (char **)(numbers + 2 * n);
    p->requests = (struct comm_request **)(p->data.all + n);
    point_to_store(p, members);
    return true;
}

static bool same_sizes(const struct displaced_sizes *a, const struct displaced_sizes *b, int members) {
    bool same = true;
    for (int i = 0; i < members && b->all != NULL; i++) same = same && a->all[i] == b->all[i];
    for (int i = 0; i < 2; i++) same = same && a->out[i] == b->out[i] && a->in[i] == b->in[i];
    return same;
}

/* The place of the next layer, new in the first step; NULL if memory is out. */
static struct displaced_place *next_place(struct displaced *d, const struct displaced_sizes *sizes) {
    int members = comm_size(d->group);
    if (d->layer < d->num_places) {
        assert(same_sizes(&d->places[d->layer].sizes, sizes, members));
        return &d->places[d->layer++];
    }
    assert(d->groups == NULL);
    if (d->num_places == d->capacity) {
        int capacity = d->capacity == 0 ? 64 : 2 * d->capacity;
        struct displaced_place *places = realloc(d->places, (size_t)capacity * sizeof *places);
        if (places == NULL) return NULL;
        d->places = places;
        d->capacity = capacity;
    }
    struct displaced_place *p = &d->places[d->num_places++];
    d->layer++;
    return place_open(p, members, sizes) ? p : NULL;
}

/* ---- groups ---- */

/* Offsets are multiples of 8, as float64 numbers lie beside others. */
static size_t take(size_t *at, size_t bytes) {
    size_t here = *at;
    *at += (bytes + 7) / 8 * 8;
    return here;
}

/* Where all places of a group have their data. */
static void set_offsets(const struct displaced *d, struct displaced_group *g) {
    int me = comm_rank(d->group), members = comm_size(d->group);
    struct displaced_place *first = d->places + g->first, *end = first + g->count;
    size_t at = 0;
    for (struct displaced_place *p = first; p < end; p++) p->out_at[0] = take(&at, p->sizes.out[0]);
    g->starts[1] = at;
    for (struct displaced_place *p = first; p < end; p++) p->all_at[me] = take(&at, p->sizes.all[me]);
    g->starts[2] = at;
    for (struct displaced_place *p = first; p < end; p++) p->out_at[1] = take(&at, p->sizes.out[1]);
    g->starts[3] = at;
    at = 0;
    for (int i = 0; i < members; i++) {
        g->from[i] = at;
        for (struct displaced_place *p = first; p < end && i == me + 1; p++) p->in_at[1] = take(&at, p->sizes.in[1]);
        for (struct displaced_place *p = first; p < end && i != me; p++) p->all_at[i] = take(&at, p->sizes.all[i]);
        for (struct displaced_place *p = first; p < end && i == me - 1; p++) p->in_at[0] = take(&at, p->sizes.in[0]);
    }
    g->from[members] = at;
}

/* Points a place's data into its group's buffers. */
static void point_to_group(const struct displaced *d, struct displaced_place *p, const struct displaced_group *g) {
    int me = comm_rank(d->group), members = comm_size(d->group);
    for (int i = 0; i < members; i++) p->data.all[i] = (i == me ? g->out : g->in[g->reading]) + p->all_at[i];
    for (int i = 0; i < 2; i++) p->data.out[i] = g->out + p->out_at[i];
    for (int i = 0; i < 2; i++) p->data.in[i] = g->in[g->reading] + p->in_at[i];
}

/* What a place has in its store moves into its group. */
static void leave_store(const struct displaced *d, struct displaced_place *p, const struct displaced_group *g) {
    const char *from = p->store;
    point_to_group(d, p, g);
    for (int i = 0; i < comm_size(d->group); from += p->sizes.all[i++]) memcpy(p->data.all[i], from, p->sizes.all[i]);
    for (int i = 0; i < 2; from += p->sizes.out[i++]) memcpy(p->data.out[i], from, p->sizes.out[i]);
    for (int i = 0; i < 2; from += p->sizes.in[i++]) memcpy(p->data.in[i], from, p->sizes.in[i]);
    free(p->store);
    p->store = NULL;
}

/* The second `in` comes when the stores are gone, so that the groups never need more than they end
 * with. */
static bool group_open(const struct displaced *d, struct displaced_group *g) {
    size_t n = (size_t)comm_size(d->group);
    g->from = calloc(n + 1, sizeof *g->from);
    g->requests = calloc(2 * n, sizeof *g->requests);
    if (g->from == NULL || g->requests == NULL) return false;
    set_offsets(d, g);
    g->out = calloc(1, g->starts[3] + 1);
    g->in[0] = calloc(1, g->from[n] + 1);
    if (g->out == NULL || g->in[0] == NULL) return false;
    for (int i = 0; i < g->count; i++) leave_store(d, &d->places[g->first + i], g);
    g->in[1] = malloc(g->from[n] + 1);
    return g->in[1] != NULL;
}

static int group_size(const struct displaced *d) {
    if (d->comm_checkpoint > 0) return d->comm_checkpoint;
    int few = (d->num_places + DISPLACED_MESSAGES - 1) / DISPLACED_MESSAGES;
    return few < DISPLACED_CHECKPOINT ? few : DISPLACED_CHECKPOINT;
}

/* At the first exchange of the first displaced step: all places are known. */
static tessera_status lay_out_groups(struct displaced *d, tessera_error *error) {
    int size = group_size(d), count = (d->num_places + size - 1) / size;
    if (d->messages == NULL) TRY(comm_split(d->group, 0, comm_rank(d->group), &d->messages, error));
    d->groups = calloc((size_t)count, sizeof *d->groups);
    if (d->groups == NULL) return out_of_memory(error);
    for (; d->num_groups < count; d->num_groups++) {
        int first = d->num_groups * size, left = d->num_places - first;
        d->groups[d->num_groups] = (struct displaced_group){.first = first, .count = left < size ? left : size};
        if (!group_open(d, &d->groups[d->num_groups])) {
            d->num_groups++;
            return out_of_memory(error);
        }
    }
    return TESSERA_OK;
}

/* The group being filled, to all others; theirs into what is read in the next step. */
static void send_group(struct displaced *d) {
    struct displaced_group *g = d->unsent;
    int me = comm_rank(d->messages), members = comm_size(d->messages);
    char *in = g->in[1 - g->reading];
    const char *label = comm_label(d->messages, "displaced");
    for (int step = 1; step < members; step++) { /* each starts with another partner */
        int to = (me + step) % members, from = (me - step + members) % members;
        size_t begin = g->starts[to == me - 1 ? 0 : 1], bytes = g->starts[to == me + 1 ? 3 : 2] - begin;
        size_t in_bytes = g->from[from + 1] - g->from[from];
        if (in_bytes > 0) g->requests[g->num_requests++] = comm_receive_start(d->messages, from, in + g->from[from], in_bytes);
        if (bytes > 0) g->requests[g->num_requests++] = comm_send_start(d->messages, to, g->out + begin, bytes);
    }
    comm_label(d->messages, label);
    g->sent = true;
    d->unsent = NULL;
}

/* Waits for those of `requests` (NULL: there are none) that are under way, after a failure too, and
 * clears them. */
static tessera_status wait_all(struct comm *comm, struct comm_request **requests, int count, tessera_error *error) {
    tessera_status status = TESSERA_OK;
    for (int i = 0; i < count && requests != NULL; i++) {
        if (requests[i] == NULL) continue;
        tessera_status one = comm_wait(comm, requests[i], status == TESSERA_OK ? error : NULL);
        if (status == TESSERA_OK) status = one;
        requests[i] = NULL;
    }
    return status;
}

static int place_requests(const struct displaced *d) {
    return 2 * comm_size(d->group) + ROW_REQUESTS;
}

/* What was under way has arrived and is what is read now. */
static tessera_status take_arrived(struct displaced *d, struct displaced_group *g, tessera_error *error) {
    if (!g->sent) return TESSERA_OK;
    tessera_status status = wait_all(d->messages, g->requests, g->num_requests, error);
    g->reading = 1 - g->reading;
    g->num_requests = 0;
    g->sent = false;
    return status;
}

/* ---- steps ---- */

void displaced_step(struct displaced *d, int index) {
    if (d->unsent != NULL) send_group(d);
    d->synchronous = index <= d->warmup_steps;
    d->last = d->steps > 0 && index == d->steps - 1;
    d->layer = 0;
}

tessera_status displaced_reset(struct displaced *d, tessera_error *error) {
    tessera_status status = TESSERA_OK;
    for (int i = 0; i < d->num_groups; i++) {
        struct displaced_group *g = &d->groups[i];
        tessera_status one = take_arrived(d, g, status == TESSERA_OK ? error : NULL);
        if (status == TESSERA_OK) status = one;
        free(g->in[0]);
        free(g->in[1]);
        free(g->out);
        free(g->from);
        free(g->requests);
    }
    for (int i = 0; i < d->num_places; i++) {
        tessera_status one = wait_all(d->group, d->places[i].requests, place_requests(d), status == TESSERA_OK ? error : NULL);
        if (status == TESSERA_OK) status = one;
        free(d->places[i].store);
        free(d->places[i].memory);
    }
    free(d->groups);
    free(d->places);
    d->groups = d->unsent = NULL;
    d->places = NULL;
    d->num_groups = d->num_places = d->capacity = d->layer = 0;
    return status;
}

void displaced_close(struct displaced *d) {
    displaced_reset(d, NULL);
    comm_free(d->messages);
    d->messages = NULL;
}

tessera_status displaced_receive(struct displaced *d, const struct displaced_sizes *sizes, struct displaced_data *data,
                                 tessera_error *error) {
    int layer = d->layer;
    struct displaced_place *p = next_place(d, sizes);
    if (p == NULL) return out_of_memory(error);
    if (!d->synchronous && mode_sends(d->mode)) {
        if (d->groups == NULL) TRY(lay_out_groups(d, error));
        struct displaced_group *g = &d->groups[layer / d->groups[0].count];
        if (layer == g->first) {
            TRY(take_arrived(d, g, error));
            d->unsent = d->last ? NULL : g;
        }
        point_to_group(d, p, g);
    }
    *data = p->data;
    return TESSERA_OK;
}

/* Everybody's, as it is now: messages to and from all, those of the next members first. */
static void exchange_now(struct displaced *d, struct displaced_place *p) {
    int me = comm_rank(d->group), members = comm_size(d->group);
    struct comm_request **sends = p->requests + members, **rows = sends + members;
    for (int step = 1; step < members; step++) {
        int to = (me + step) % members, from = (me - step + members) % members;
        if (p->sizes.all[from] > 0) p->requests[from] = comm_receive_start(d->group, from, p->data.all[from], p->sizes.all[from]);
        if (p->sizes.all[me] > 0) sends[to] = comm_send_start(d->group, to, p->data.all[me], p->sizes.all[me]);
    }
    for (int i = 0; i < 2; i++) {
        int neighbour = me - 1 + 2 * i;
        if (p->sizes.in[i] > 0) rows[i] = comm_receive_start(d->group, neighbour, p->data.in[i], p->sizes.in[i]);
        if (p->sizes.out[i] > 0) rows[2 + i] = comm_send_start(d->group, neighbour, p->data.out[i], p->sizes.out[i]);
    }
}

void displaced_send(struct displaced *d) {
    if (d->synchronous || d->mode == SYNC_FULL_SYNC)
        exchange_now(d, &d->places[d->layer - 1]);
    else if (d->unsent != NULL && d->layer == d->unsent->first + d->unsent->count)
        send_group(d);
}

tessera_status displaced_wait(struct displaced *d, int member, tessera_error *error) {
    struct displaced_place *p = &d->places[d->layer - 1];
    return wait_all(d->group, &p->requests[member], 1, error);
}

tessera_status displaced_wait_all(struct displaced *d, tessera_error *error) {
    return wait_all(d->group, d->places[d->layer - 1].requests, place_requests(d), error);
}
