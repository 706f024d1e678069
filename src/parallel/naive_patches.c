/* Naive patches: each rank makes a patch of the picture as if it were a picture of its own, and the
 * patches are laid side by side: DistriFusion's baseline (Li et al. 2024, section 4.1), fast and with
 * visible seams. Not exact. A patch is a rectangle of [B, H, W, C]: whole rows, or all rows of some
 * columns.
 *
 * Sent per rank and step: (n - 1) times its patch of the prediction. */
#include "parallel/naive_patches.h"

#include <stdlib.h>

#include "backend/memory.h"
#include "parallel/strategy.h"

struct naive_patches {
    enum naive_split split;
    int step;
};

const char *naive_split_name(int split) {
    static const char *const names[NAIVE_SPLITS] = {"row", "col", "alternate"};
    return split >= 0 && split < NAIVE_SPLITS ? names[split] : NULL;
}

static bool applies(const struct strategy_choice *choice) {
    return choice->degrees[MESH_PATCH] > 1 && choice->patch_strategy == &naive_patches_strategy;
}

static tessera_status open(const struct strategy_choice *choice, struct comm *group, void **state, tessera_error *error) {
    struct naive_patches *n = calloc(1, sizeof *n);
    (void)group;
    if (n == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    n->split = choice->split;
    *state = n;
    return TESSERA_OK;
}

static void begin(void *state, const struct strategy_moment *moment) {
    ((struct naive_patches *)state)->step = moment->step;
}

static bool cuts_columns(const struct strategy_link *link) {
    const struct naive_patches *n = link->state;
    return n->split == NAIVE_COLUMNS || (n->split == NAIVE_ALTERNATE && n->step % 2 == 1);
}

/* x as rows of what is cut: [B, H, W C] for rows, [B H, W, C] for columns. */
static struct tensor as_rows(struct tensor x, bool columns) {
    if (columns) return tensor_reshape(x, SHAPE(x.shape[0] * x.shape[1], x.shape[2], x.shape[3]));
    return tensor_reshape(x, SHAPE(x.shape[0], x.shape[1], x.shape[2] * x.shape[3]));
}

/* A member's patch of a side, in whole units. */
static struct span patch_of(int64_t side, int64_t unit, int members, int member) {
    struct span units = cut_evenly(side / unit, members, member);
    return (struct span){units.first * unit, units.count * unit};
}

static struct tensor split(struct run *run, const struct strategy_link *link, struct tensor latents, int64_t unit) {
    bool columns = cuts_columns(link);
    int64_t side = latents.shape[columns ? 2 : 1];
    int members = comm_size(link->group);
    if (side / unit < members) {
        error_set(&run->error, TESSERA_ERROR_ARGUMENT, "patch degree %d: the picture has %lld patches of %s: at most %lld are possible",
                  members, (long long)(side / unit), columns ? "columns" : "rows", (long long)(side / unit));
        return (struct tensor){0};
    }
    struct span mine = patch_of(side, unit, members, comm_rank(link->group));
    int64_t rows = columns ? latents.shape[1] : mine.count, width = columns ? mine.count : latents.shape[2];
    struct tensor patch = run_tensor(run, latents.dtype, SHAPE(latents.shape[0], rows, width, latents.shape[3]));
    if (run_failed(run)) return patch;
    struct tensor to = as_rows(patch, columns), from = as_rows(latents, columns);
    backend_copy_rows(run->backend, &to, 0, &from, mine.first, mine.count);
    return patch;
}

static struct tensor unite(struct run *run, const struct strategy_link *link, struct tensor mine, struct tensor latents, int64_t unit) {
    bool columns = cuts_columns(link);
    int members = comm_size(link->group), me = comm_rank(link->group), cut = columns ? 2 : 1;
    struct tensor patches[members],
        out = run_tensor(run, mine.dtype, SHAPE(latents.shape[0], latents.shape[1], latents.shape[2], mine.shape[3]));
    size_t scope = run_enter(run);
    struct transfer t = {.group = link->group};
    comm_label(link->group, "patches");
    patches[me] = mine;
    for (int step = 1; step < members && !run_failed(run); step++) { /* each starts with another partner */
        int to = (me + step) % members, from = (me - step + members) % members;
        struct tensor shape = out;
        shape.shape[cut] = patch_of(latents.shape[cut], unit, members, from).count;
        patches[from] = run_tensor(run, out.dtype, shape.ndim, shape.shape);
        if (!run_failed(run)) transfer_receive(run, &t, from, token_span_all(patches[from]));
        transfer_send(run, &t, to, token_span_all(mine));
    }
    transfer_wait(run, &t);
    for (int i = 0; i < members && !run_failed(run); i++) {
        struct span patch = patch_of(latents.shape[cut], unit, members, i);
        struct tensor to = as_rows(out, columns), x = as_rows(patches[i], columns);
        backend_copy_rows(run->backend, &to, patch.first, &x, 0, patch.count);
    }
    arena_release(run->arena, scope);
    return run_failed(run) ? (struct tensor){0} : out;
}

const struct strategy naive_patches_strategy = {.name = "naive_patch",
                                                .group = MESH_PATCH,
                                                .applies = applies,
                                                .open = open,
                                                .begin = begin,
                                                .close = free,
                                                .split = split,
                                                .unite = unite};
