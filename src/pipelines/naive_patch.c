/* See naive_patch.h. A part is a rectangle of [B, H, W, C]: whole rows, or all rows of some columns. */
#include "pipelines/naive_patch.h"

#include "parallel/exchange.h"

const char *naive_split_name(int split) {
    static const char *const names[NAIVE_SPLITS] = {"row", "col", "alternate"};
    return split >= 0 && split < NAIVE_SPLITS ? names[split] : NULL;
}

/* x as rows of what is cut: [B, H, W C] for rows, [B H, W, C] for columns. */
static struct tensor as_rows(struct tensor x, bool columns) {
    if (columns) return tensor_reshape(x, SHAPE(x.shape[0] * x.shape[1], x.shape[2], x.shape[3]));
    return tensor_reshape(x, SHAPE(x.shape[0], x.shape[1], x.shape[2] * x.shape[3]));
}

static struct span part_of(int64_t total, int64_t unit, int members, int member) {
    struct span units = cut_share(total / unit, members, member);
    return (struct span){units.first * unit, units.count * unit};
}

/* An empty tensor for a part of a picture shaped as `whole`, with `channels`. */
static struct tensor part_tensor(struct run *run, struct tensor whole, bool columns, struct span part, int64_t channels) {
    int64_t rows = columns ? whole.shape[1] : part.count, width = columns ? part.count : whole.shape[2];
    return run_tensor(run, DTYPE_F32, SHAPE(whole.shape[0], rows, width, channels));
}

/* The members' parts, one after another in `all`, to their places in `out`. */
static void place_parts(struct run *run, struct tensor out, struct tensor all, bool columns, int64_t unit, int members) {
    char *from = all.data;
    for (int i = 0; i < members; i++) {
        struct span part = part_of(out.shape[columns ? 2 : 1], unit, members, i);
        struct tensor piece = tensor_of(
            from, DTYPE_F32, SHAPE(out.shape[0], columns ? out.shape[1] : part.count, columns ? part.count : out.shape[2], out.shape[3]));
        struct tensor to = as_rows(out, columns), x = as_rows(piece, columns);
        run->backend->ops->copy_rows(run->backend, &to, part.first, &x, 0, part.count);
        from += tensor_bytes(&piece);
    }
}

/* This rank's part of the prediction. */
static struct tensor make_part(const struct denoiser *denoiser, struct run *run, const struct denoiser_inputs *inputs, bool columns,
                               struct span mine) {
    struct denoiser_inputs part = *inputs;
    part.latents = part_tensor(run, inputs->latents, columns, mine, inputs->latents.shape[3]);
    if (run_failed(run)) return (struct tensor){0};
    struct tensor to = as_rows(part.latents, columns), from = as_rows(inputs->latents, columns);
    run->backend->ops->copy_rows(run->backend, &to, 0, &from, mine.first, mine.count);
    return denoiser_forward(denoiser, run, &part);
}

struct tensor naive_patch_forward(const struct denoiser *denoiser, struct run *run, struct comm *group, enum naive_split split, int step,
                                  const struct denoiser_inputs *inputs) {
    bool columns = split == NAIVE_COLUMNS || (split == NAIVE_ALTERNATE && step % 2 == 1);
    struct tensor whole = inputs->latents;
    int64_t side = whole.shape[columns ? 2 : 1], unit = denoiser->patch_size;
    int members = comm_size(group);
    if (side / unit < members) {
        error_set(&run->error, TESSERA_ERROR_ARGUMENT, "patch degree %d: the picture has %lld patches of %s: at most %lld are possible",
                  members, (long long)(side / unit), columns ? "columns" : "rows", (long long)(side / unit));
        return (struct tensor){0};
    }
    struct tensor out = run_tensor(run, DTYPE_F32, SHAPE(whole.shape[0], whole.shape[1], whole.shape[2], denoiser->out_channels));
    size_t scope = run_enter(run), bytes[members];
    struct tensor all = run_tensor(run, DTYPE_F32, out.ndim, out.shape);
    struct tensor mine = make_part(denoiser, run, inputs, columns, part_of(side, unit, members, comm_rank(group)));
    if (run_failed(run)) return (struct tensor){0};
    for (int i = 0; i < members; i++) bytes[i] = tensor_bytes(&out) / (size_t)side * (size_t)part_of(side, unit, members, i).count;
    comm_label(group, "patches");
    tessera_status status = comm_all_gather(group, mine.data, all.data, bytes, &run->error);
    if (status == TESSERA_OK) place_parts(run, out, all, columns, unit, members);
    arena_release(run->arena, scope);
    return run_checked(run, status, out);
}
