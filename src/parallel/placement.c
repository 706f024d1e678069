/* See placement.h. Blocks are cut by dynamic programming over where each rank's run ends:
 *
 *     cost[r][end] = min over begin of cost[r - 1][begin] + (load of rank r + bytes of begin .. end - 1)^2
 *
 * where a run must fit into the rest of the rank's memory. If no cut fits, the squares are those of
 * the bytes above it. */
#include "parallel/placement.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

/* A placement under way. */
struct placing {
    const struct placement_model *m;
    const double *rooms;
    int ranks;
    enum placement_way way;
    enum placement_keep keep;
    double *loads; /* [ranks] bytes placed so far */
    int at;        /* sequential: the rank that is being filled */
    struct placement *out;
};

/* ---- what is left ---- */

/* Bytes of weights that rank r can still take in a phase that needs `needs` beside them; below 0:
 * none. In a window only the largest segment must fit. */
static double left_of(const struct placing *p, int r, double needs, double largest) {
    double left = p->rooms[r] - needs - (p->keep == PLACEMENT_WHOLE ? p->loads[r] : 0);
    if (p->keep != PLACEMENT_WINDOW) return left;
    return largest <= left ? INFINITY : -1;
}

/* What a phase takes beside the weights that are kept. */
static double beside(const struct placement_model *m, enum placement_keep keep, double phase) {
    return keep == PLACEMENT_WINDOW ? phase : phase + m->loading;
}

/* The same for all phases, if weights stay for all of them. */
static double needs_of(const struct placing *p, double phase) {
    const struct placement_model *m = p->m;
    return beside(m, p->keep, p->keep == PLACEMENT_WHOLE ? fmax(m->text, fmax(m->denoise, m->decode)) : phase);
}

static double window_of(const struct placement_model *m, int block) {
    return m->windows != NULL ? m->windows[block] : m->blocks[block];
}

static int first_rank(const struct placing *p) {
    return p->way == PLACEMENT_BALANCED_LOW_0 && p->ranks > 1 ? 1 : 0;
}

/* ---- components that are placed whole ---- */

/* The rank with the smallest load, of those from `first` on into whose memory it fits; -1: there is
 * none. */
static int least_loaded(const struct placing *p, int first, struct placement_weight weight, double needs) {
    int best = -1;
    for (int r = first; r < p->ranks; r++)
        if (weight.bytes <= left_of(p, r, needs, weight.largest) && (best < 0 || p->loads[r] < p->loads[best])) best = r;
    return best;
}

static int roomiest(const struct placing *p) {
    int best = 0;
    for (int r = 1; r < p->ranks; r++)
        if (p->rooms[r] - p->loads[r] > p->rooms[best] - p->loads[best]) best = r;
    return best;
}

static int place_weight(struct placing *p, struct placement_weight weight, double phase) {
    double needs = needs_of(p, phase);
    int r = -1;
    if (p->way == PLACEMENT_SEQUENTIAL) {
        while (p->at < p->ranks - 1 && weight.bytes > left_of(p, p->at, needs, weight.largest)) p->at++;
        r = p->at;
    } else {
        r = least_loaded(p, first_rank(p), weight, needs);
        if (r < 0 && first_rank(p) > 0 && weight.bytes <= left_of(p, 0, needs, weight.largest)) r = 0;
        if (r < 0) r = roomiest(p);
    }
    p->loads[r] += weight.bytes;
    return r;
}

/* The largest comes first, so that the others can even out the loads; "sequential" takes them as
 * they come. */
static void place_encoders(struct placing *p) {
    const struct placement_model *m = p->m;
    bool placed[PLACEMENT_MAX_ENCODERS] = {false};
    for (int k = 0; k < m->num_encoders; k++) {
        int next = -1;
        for (int i = 0; i < m->num_encoders; i++) {
            if (placed[i] || (next >= 0 && p->way == PLACEMENT_SEQUENTIAL)) continue;
            if (next < 0 || m->encoders[i].bytes > m->encoders[next].bytes) next = i;
        }
        placed[next] = true;
        p->out->encoders[next] = place_weight(p, m->encoders[next], m->text);
    }
}

/* ---- blocks ---- */

/* Cuts the blocks from `from` on into runs for the ranks from `first` on, with room for `caps`
 * bytes beside their `loads`. NULL caps: loads are counted from the ranks' room on, and only bytes
 * above it count. */
struct cutting {
    const double *sums; /* [blocks + 1]: bytes before each block */
    int blocks, from, first, ranks;
    const double *loads, *caps;
};

static double cost_of(const struct cutting *c, int rank, int begin, int end) {
    double bytes = c->sums[end] - c->sums[begin], load = c->loads[rank] + bytes;
    if (c->caps != NULL && bytes > 0 && bytes > c->caps[rank]) return INFINITY;
    return c->caps == NULL && load < 0 ? 0 : load * load;
}

/* Rank r's step of the dynamic programming: cost[end] becomes that of one rank more. */
static void add_rank(const struct cutting *c, int r, double *cost, int16_t *begins) {
    for (int end = c->blocks; end >= c->from; end--) {
        double best = INFINITY;
        begins[end] = (int16_t)c->from;
        for (int begin = c->from; begin <= end; begin++) {
            double both = cost[begin] + cost_of(c, r, begin, end);
            if (both < best) best = both, begins[end] = (int16_t)begin;
        }
        cost[end] = best;
    }
}

/* Writes ranks[c->from ..]. False: nothing fits, and nothing is written. *failed: memory is out. */
static bool cut(const struct cutting *c, int *ranks, bool *failed) {
    size_t ends = (size_t)c->blocks + 1;
    double *cost = malloc(ends * sizeof *cost);
    int16_t *begins = calloc((size_t)c->ranks * ends, sizeof *begins);
    *failed = *failed || cost == NULL || begins == NULL;
    bool good = cost != NULL && begins != NULL;
    for (int end = c->from; good && end <= c->blocks; end++) cost[end] = end == c->from ? 0 : INFINITY;
    for (int r = c->first; good && r < c->ranks; r++) add_rank(c, r, cost, begins + (size_t)r * ends);
    good = good && isfinite(cost[c->blocks]);
    for (int r = c->ranks - 1, end = c->blocks; good && r >= c->first; r--) {
        int begin = begins[(size_t)r * ends + (size_t)end];
        for (int i = begin; i < end; i++) ranks[i] = r;
        end = begin;
    }
    free(begins);
    free(cost);
    return good;
}

static void fill(struct placing *p, const double *caps) {
    double used = 0;
    for (int i = 0; i < p->m->num_blocks; i++) {
        while (p->at < p->ranks - 1 && used + p->m->blocks[i] > caps[p->at]) p->at++, used = 0;
        used += p->m->blocks[i];
        p->out->blocks[i] = p->at;
    }
}

/* As few blocks on rank 0 as possible: none, unless the others are full. */
static bool cut_low_0(struct cutting *c, int *ranks, bool *failed) {
    c->first = c->ranks > 1 ? 1 : 0;
    for (c->from = 0; c->from <= c->blocks; c->from++) {
        if (c->from > 0 && (c->first == 0 || c->sums[c->from] > c->caps[0])) return false;
        for (int i = 0; i < c->from; i++) ranks[i] = 0;
        if (cut(c, ranks, failed) || *failed) return !*failed;
    }
    return false;
}

static double largest_block(const struct placement_model *m) {
    double largest = 0;
    for (int i = 0; i < m->num_blocks; i++) largest = fmax(largest, window_of(m, i));
    return largest;
}

/* caps, loads: [ranks]; sums: [blocks + 1]. */
static bool place_blocks_in(struct placing *p, double *caps, double *loads, double *sums) {
    const struct placement_model *m = p->m;
    bool failed = false;
    double needs = needs_of(p, m->denoise), largest = largest_block(m);
    sums[0] = 0;
    for (int i = 0; i < m->num_blocks; i++) sums[i + 1] = sums[i] + m->blocks[i];
    for (int r = 0; r < p->ranks; r++) {
        caps[r] = left_of(p, r, needs, largest);
        loads[r] = p->keep == PLACEMENT_WHOLE ? p->loads[r] : 0;
    }
    struct cutting c = {.sums = sums, .blocks = m->num_blocks, .ranks = p->ranks, .loads = loads, .caps = caps};
    if (p->way == PLACEMENT_SEQUENTIAL) {
        fill(p, caps);
        return true;
    }
    if (p->way == PLACEMENT_BALANCED_LOW_0 ? cut_low_0(&c, p->out->blocks, &failed) : cut(&c, p->out->blocks, &failed)) return true;
    for (int r = 0; r < p->ranks; r++) loads[r] = isfinite(caps[r]) ? -caps[r] : 0;
    c.from = c.first = 0, c.caps = NULL;
    return cut(&c, p->out->blocks, &failed);
}

static bool place_blocks(struct placing *p) {
    size_t ranks = (size_t)p->ranks, blocks = (size_t)p->m->num_blocks;
    double *memory = malloc((2 * ranks + blocks + 1) * sizeof *memory);
    if (memory == NULL) return false;
    bool good = place_blocks_in(p, memory, memory + ranks, memory + 2 * ranks);
    free(memory);
    for (int i = 0; i < p->m->num_blocks && good; i++) p->loads[p->out->blocks[i]] += p->m->blocks[i];
    return good;
}

/* ---- all of it ---- */

/* What was placed for an earlier phase counts only if it stays in memory. */
static void begin_phase(struct placing *p) {
    if (p->keep == PLACEMENT_WHOLE) return;
    for (int r = 0; r < p->ranks; r++) p->loads[r] = 0;
    p->at = 0;
}

bool placement_choose(const struct placement_model *m, const double *rooms, int ranks, enum placement_way way, enum placement_keep keep,
                      struct placement *out) {
    struct placing p = {.m = m, .rooms = rooms, .ranks = ranks, .way = way, .keep = keep, .out = out};
    *out = (struct placement){.blocks = calloc((size_t)m->num_blocks + 1, sizeof *out->blocks)};
    p.loads = calloc((size_t)ranks, sizeof *p.loads);
    bool good = out->blocks != NULL && p.loads != NULL;
    if (good) {
        place_encoders(&p);
        begin_phase(&p);
        good = place_blocks(&p);
        begin_phase(&p);
        out->autoencoder = place_weight(&p, m->autoencoder, m->decode);
    }
    free(p.loads);
    if (!good) placement_free(out);
    return good;
}

void placement_free(struct placement *placement) {
    free(placement->blocks);
    *placement = (struct placement){0};
}

double placement_bytes(const struct placement_model *m, const struct placement *placement, int rank) {
    double bytes = placement->autoencoder == rank ? m->autoencoder.bytes : 0;
    for (int i = 0; i < m->num_encoders; i++) bytes += placement->encoders[i] == rank ? m->encoders[i].bytes : 0;
    for (int i = 0; i < m->num_blocks; i++) bytes += placement->blocks[i] == rank ? m->blocks[i] : 0;
    return bytes;
}

/* Adds a phase in which the rank holds `bytes`, in segments of at most `largest`. */
static void add_phase(enum placement_keep keep, double bytes, double largest, double needs, double *weights, double *most) {
    if (bytes == 0) return;
    if (keep == PLACEMENT_WHOLE) {
        *weights += bytes;
        *most = fmax(*most, needs);
    } else {
        *most = fmax(*most, needs + (keep == PLACEMENT_WINDOW ? largest : bytes));
    }
}

double placement_need(const struct placement_model *m, const struct placement *placement, enum placement_keep keep, int rank) {
    double weights = 0, most = 0, blocks = 0, largest = 0;
    double text = beside(m, keep, m->text), denoise = beside(m, keep, m->denoise), decode = beside(m, keep, m->decode);
    for (int i = 0; i < m->num_blocks; i++) {
        if (placement->blocks[i] != rank) continue;
        blocks += m->blocks[i];
        largest = fmax(largest, window_of(m, i));
    }
    for (int i = 0; i < m->num_encoders; i++)
        if (placement->encoders[i] == rank) add_phase(keep, m->encoders[i].bytes, m->encoders[i].largest, text, &weights, &most);
    add_phase(keep, blocks, largest, denoise, &weights, &most);
    if (placement->autoencoder == rank) add_phase(keep, m->autoencoder.bytes, m->autoencoder.largest, decode, &weights, &most);
    return weights + most;
}
