/* Side products, from the hook's float32 numbers to tensors of the computing type.
 *
 *     W' = W + f B A     down = A, up = f B          for each low-rank product of the change
 *     W' = W + D         up = D                      where the change is something else
 *
 * Of a weight that is cut over ranks the products are cut with it: A by inputs, B by outputs. */
#include "nn/load_side.h"

/* What is being made. */
struct making {
    const char *name;
    const struct tensor *whole;
    struct span rows;
    const struct span *columns; /* [2] */
    int64_t width;              /* of both */
};

/* F32 numbers as a tensor of the computing type that the layer keeps. */
static struct tensor keep(struct loader *loader, const float *numbers, struct tensor kept) {
    dtype_convert(kept.data, kept.dtype, numbers, DTYPE_F32, (size_t)tensor_count(&kept));
    return load_place(loader, kept);
}

/* Room for a tensor of the computing type; counted, and without data where layers get none. */
static struct tensor room(struct loader *loader, int64_t rows, int64_t columns) {
    struct tensor t = load_made(loader, loader->dtype, SHAPE(rows, columns));
    if (t.ndim == 0) return t;
    loader->bytes += tensor_bytes(&t);
    loader->converted += tensor_bytes(&t);
    return t;
}

static struct load_piece piece_of(const struct making *m, int range) {
    return (struct load_piece){m->whole->shape, m->rows, m->columns[range]};
}

static void fill_product(struct loader *loader, const struct making *m, int index, int64_t rank, struct linear_side *side) {
    size_t mark = arena_mark(loader->arena);
    float *down = loader_take(loader, (size_t)(rank * m->width) * sizeof *down);
    float *up = loader_take(loader, (size_t)(m->rows.count * rank) * sizeof *up);
    float *at = down;
    for (int range = 0; range < 2 && !load_failed(loader); range++) {
        if (m->columns[range].count > 0)
            loader->hooks->product(loader->hooks->user, m->name, index, piece_of(m, range), at, m->width, range == 0 ? up : NULL,
                                   &loader->error);
        at += m->columns[range].count;
    }
    if (load_failed(loader)) return;
    side->down = keep(loader, down, side->down);
    side->up = keep(loader, up, side->up);
    arena_release(loader->arena, mark);
}

static void fill_difference(struct loader *loader, const struct making *m, struct linear_side *side) {
    size_t mark = arena_mark(loader->arena);
    float *numbers = loader_take(loader, (size_t)(m->rows.count * m->width) * sizeof *numbers), *at = numbers;
    for (int range = 0; range < 2 && !load_failed(loader); range++) {
        if (m->columns[range].count > 0) stored_put_change(loader, m->name, *m->whole, piece_of(m, range), at, m->width);
        at += m->columns[range].count;
    }
    if (load_failed(loader)) return;
    side->up = keep(loader, numbers, side->up);
    arena_release(loader->arena, mark);
}

/* What the arena needs for a while: the numbers in float32, and for a difference the weight before
 * and after, which may be wanted whole. */
static void plan_room(struct loader *loader, const struct making *m, int64_t rank) {
    int64_t product = rank > 0 ? rank * (m->width + m->rows.count) : 0, weight = tensor_count(m->whole);
    size_t beside = (size_t)(rank > 0 ? product : 4 * weight) * sizeof(float) + tensor_bytes(m->whole) + 6 * ARENA_SLACK;
    if (beside > loader->largest) loader->largest = beside;
}

/* One product, or the difference (rank -1); NULL where layers get no data. */
static struct linear_side *make(struct loader *loader, const struct making *m, int index, int64_t rank) {
    struct linear_side side = {0}, *kept = NULL;
    if (rank > 0) side.down = room(loader, rank, m->width);
    side.up = room(loader, m->rows.count, rank > 0 ? rank : m->width);
    loader->room += sizeof side + ARENA_SLACK;
    plan_room(loader, m, rank);
    if (!loader_reads(loader) || (kept = load_alloc(loader, sizeof *kept)) == NULL) return NULL;
    if (rank > 0)
        fill_product(loader, m, index, rank, &side);
    else
        fill_difference(loader, m, &side);
    *kept = side;
    return kept;
}

const struct linear_side *load_side(struct loader *loader, const char *name, const struct tensor *whole, struct span rows,
                                    const struct span columns[2]) {
    const struct making m = {name, whole, rows, columns, columns[0].count + columns[1].count};
    struct linear_side *first = NULL, **last = &first;
    if (load_failed(loader) || whole->ndim == 0 || !stored_has_side(loader, name, whole)) return NULL;
    for (int index = 0; !load_failed(loader); index++) {
        int64_t rank = loader->hooks->rank(loader->hooks->user, name, index);
        if (rank == 0) break;
        struct linear_side *side = make(loader, &m, index, rank);
        if (side != NULL) *last = side, last = (struct linear_side **)&side->next;
        if (rank < 0) break;
    }
    return load_failed(loader) ? NULL : first;
}
