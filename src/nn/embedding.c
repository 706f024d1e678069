/* Embeddings: rows of a table by index, and sinusoids of a timestep (Vaswani et al. 2017, section
 * 3.5). */
#include "base/elementary.h"
#include "nn/layers.h"

struct tensor nn_embed_rows(struct run *run, struct tensor table, struct tensor ids, int64_t batch, int64_t tokens) {
    if (run_failed(run)) return (struct tensor){0};
    struct tensor out = run_tensor(run, run->dtype, SHAPE(batch, tokens, table.shape[1]));
    if (run_failed(run)) return out;
    struct tensor rows = tensor_reshape(out, SHAPE(batch * tokens, table.shape[1]));
    run->backend->ops->embed(run->backend, &rows, &table, &ids);
    return out;
}

struct tensor nn_embed(struct run *run, struct tensor table, const int32_t *ids, int64_t batch, int64_t tokens) {
    struct tensor index = tensor_of((void *)ids, DTYPE_I32, SHAPE(batch * tokens));
    if (run->backend->shares_host) return nn_embed_rows(run, table, index, batch, tokens);
    size_t scope = run_enter(run);
    return run_leave(run, scope, nn_embed_rows(run, table, run_upload(run, index), batch, tokens));
}

/* Float32 throughout, as torch computes it: timesteps reach 1000, so float64 would differ from the
 * reference. */
struct tensor nn_timestep_embedding(struct run *run, const float *timesteps, int64_t count, int64_t channels) {
    struct tensor out = run_tensor(run, DTYPE_F32, SHAPE(count, channels));
    float *host = run_map(run, &out, MAP_WRITE);
    if (host == NULL) return (struct tensor){0};
    const struct elementary *f = elementary_of(run->backend->reproducible);
    const float log_max_period = f->logf(10000.0f);
    int64_t half = channels / 2;
    for (int64_t b = 0; b < count; b++) {
        float *row = host + b * channels;
        for (int64_t i = 0; i < half; i++) {
            float angle = timesteps[b] * f->expf(-log_max_period * (float)i / (float)half);
            row[i] = f->cosf(angle);
            row[half + i] = f->sinf(angle);
        }
        if (channels % 2 != 0) row[channels - 1] = 0.0f;
    }
    run_unmap(run, &out, host, MAP_WRITE);
    return out;
}
