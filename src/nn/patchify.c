/* Squares are gathers of strips of p neighbouring pixels: the strip is the longest run that stays
 * together. */
#include "nn/patchify.h"

#include "nn/layers.h"

struct tensor nn_patchify(struct run *run, struct tensor picture, int64_t p, const struct cut *cut) {
    if (run_failed(run)) return (struct tensor){0};
    int64_t batch = picture.shape[0], h = picture.shape[1] / p, w = picture.shape[2] / p, strip = p * picture.shape[3];
    struct span mine = cut_mine(cut, h * w);
    struct tensor index = run_tensor(run, DTYPE_I32, SHAPE(batch * mine.count * p));
    int32_t *ids = run_map(run, &index, MAP_WRITE), *next = ids;
    for (int64_t b = 0; ids != NULL && b < batch; b++) {
        for (int64_t token = mine.first; token < mine.first + mine.count; token++) {
            for (int64_t i = 0; i < p; i++) *next++ = (int32_t)(((b * h + token / w) * p + i) * w + token % w);
        }
    }
    run_unmap(run, &index, ids, MAP_WRITE);
    struct tensor strips = nn_embed_rows(run, tensor_reshape(picture, SHAPE(batch * h * p * w, strip)), index, batch, mine.count * p);
    return nn_reshape(strips, SHAPE(batch, mine.count, p * strip));
}

struct tensor nn_unpatchify(struct run *run, struct tensor tokens, int64_t p, int64_t h, int64_t w) {
    if (run_failed(run)) return (struct tensor){0};
    int64_t batch = tokens.shape[0], strip = tokens.shape[2] / p;
    struct tensor index = run_tensor(run, DTYPE_I32, SHAPE(batch * h * p * w));
    int32_t *ids = run_map(run, &index, MAP_WRITE), *next = ids;
    for (int64_t y = 0; ids != NULL && y < batch * h; y++) {
        for (int64_t i = 0; i < p; i++) {
            for (int64_t x = 0; x < w; x++) *next++ = (int32_t)((y * w + x) * p + i);
        }
    }
    run_unmap(run, &index, ids, MAP_WRITE);
    struct tensor strips = nn_embed_rows(run, tensor_reshape(tokens, SHAPE(batch * h * w * p, strip)), index, batch, h * p * w);
    return nn_cast(run, nn_reshape(strips, SHAPE(batch, h * p, w * p, strip / p)), DTYPE_F32);
}
