/* Bytes and operations of a picture's way through a pipeline of stages, written down a second time:
 * from the model's config, the mesh and where the stages' blocks begin.
 *
 * The work is a list of units: steps as a whole, then steps in patches; of a step as a whole that
 * is guided, each prediction where one rank has both. Sent per rank, with {x} = 64 + x rounded up
 * to 64 bytes, a tensor and what describes it, H = 64 a message's head:
 *
 *     blocks            as without a pipeline, of the stage's blocks and the unit's rows (formula.c)
 *     states            H + {e B S_me C} + {4 B D} + text a unit, to the next stage; D: channels of the conditioning
 *     text              {e B T_me C} with patch 0 or the whole, where blocks change it; otherwise its digest, {32}, and its mask's, {32}
 *     constants         the text that blocks only read, and its mask, in place of their digests in the first unit with these rows
 *     skips             H + k {e B S_me C} a unit, to each stage that uses k of them
 *     latents           4 (positions) (channels) a unit of both rows but in the last step, from the last stage to the first
 *     guidance          4 (positions) (channels) a unit, on the last stage
 *     result            4 (positions) (channels) to each child in the tree of a broadcast from the last stage
 *
 * Left out: U-Nets, step caches, several pictures. */
#include "formula.h"

#include <string.h>

enum { HEAD = 64, RECORD = 64, DIGEST = 32, ALIGNMENT = 64, WHOLE = -1 };

static int64_t rows_held(const struct formula_pipeline *p, int patch) {
    int64_t unit = p->f.denoiser->patch_size, rows = p->f.rows / unit;
    return patch == WHOLE ? p->f.rows : (rows * (patch + 1) / p->patches - rows * patch / p->patches) * unit;
}

static int stages(const struct formula_pipeline *p) {
    return p->f.mesh->degrees[MESH_PIPEFUSION];
}

static int stage(const struct formula_pipeline *p) {
    return p->f.mesh->coordinate[MESH_PIPEFUSION];
}

/* Steps as a whole; the others are in patches. */
static int whole_steps(const struct formula_pipeline *p) {
    return p->patches == 1 || p->whole_steps > p->steps ? p->steps : p->whole_steps;
}

/* The prediction of one unit, or of its blocks here. */
static struct formula unit_of(const struct formula_pipeline *p, int patch) {
    struct formula f = p->f;
    f.blocks = (struct span){p->first[stage(p)], p->first[stage(p) + 1] - p->first[stage(p)]};
    f.in_patches = p->patches > 1;
    f.picture_rows = f.rows;
    f.rows = rows_held(p, patch);
    if (patch > 0 && f.denoiser->text_stream) f.text_tokens = 0;
    return f;
}

/* ---- bytes ---- */

/* A tensor of so many bytes in a message, and what describes it. */
static uint64_t tensor_of_bytes(int64_t bytes) {
    return RECORD + (uint64_t)((bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}

static bool is(const struct formula *f, const char *family) {
    return strncmp(f->denoiser->class->name, family, strlen(family)) == 0;
}

static int64_t inner_channels(const struct formula *f) {
    int64_t heads = 0, width = 0;
    json_int(f->config, "num_attention_heads", 0, 0, INT32_MAX, &heads, NULL);
    json_int(f->config, "attention_head_dim", 0, 0, INT32_MAX, &width, NULL);
    return heads * width;
}

/* Of this rank's tokens of the unit. */
static uint64_t picture_bytes(const struct formula *f) {
    int64_t p = f->denoiser->patch_size, tokens = f->rows / p * (f->columns / p), n = formula_members(f), me = formula_me(f);
    int64_t mine = tokens * (me + 1) / n - tokens * me / n;
    return tensor_of_bytes(f->batch * mine * inner_channels(f) * (int64_t)dtype_size(f->dtype));
}

/* PixArt's conditioning holds the six modulations of a block, too. */
static uint64_t conditioning_bytes(const struct formula *f) {
    return tensor_of_bytes(f->batch * (is(f, "PixArt") ? 7 : 1) * inner_channels(f) * (int64_t)sizeof(float));
}

/* Text that blocks only read, and its mask: whole, or their digests. HunyuanDiT's masked tokens are
 * replaced before the first block. */
static uint64_t constants_bytes(const struct formula *f, bool whole) {
    int64_t channels = inner_channels(f), tokens = f->text_tokens + f->text_2_tokens;
    if (f->denoiser->text_stream) return 0;
    if (is(f, "Hunyuan")) json_int(f->config, "cross_attention_dim", 1024, 0, INT32_MAX, &channels, NULL);
    uint64_t text = tensor_of_bytes(whole ? f->batch * tokens * channels * (int64_t)dtype_size(f->dtype) : DIGEST);
    bool has_mask = is(f, "PixArt") && f->text_mask;
    return text + (has_mask ? tensor_of_bytes(whole ? f->batch * tokens * (int64_t)sizeof(float) : DIGEST) : 0);
}

/* HunyuanDiT's block i reads what enters block N - i, whose stage has it: how many of this stage's
 * are read by stage `to`. */
static int skips_to(const struct formula_pipeline *p, int to) {
    int blocks = p->f.denoiser->num_blocks, count = 0;
    if (!is(&p->f, "Hunyuan")) return 0;
    for (int i = p->first[to]; i < p->first[to + 1]; i++) {
        int maker = blocks - i;
        count += i > blocks / 2 && maker >= p->first[stage(p)] && maker < p->first[stage(p) + 1];
    }
    return count;
}

/* What goes to later stages. */
static uint64_t states_bytes(const struct formula_pipeline *p, const struct formula *f, int patch) {
    if (stage(p) == stages(p) - 1) return 0;
    uint64_t sum = HEAD + picture_bytes(f) + conditioning_bytes(f) + constants_bytes(f, false);
    if (f->denoiser->text_stream && patch <= 0)
        sum += tensor_of_bytes(f->batch * formula_text(f) * inner_channels(f) * (int64_t)dtype_size(f->dtype));
    for (int to = stage(p) + 1; to < stages(p); to++)
        if (skips_to(p, to) > 0) sum += HEAD + (uint64_t)skips_to(p, to) * picture_bytes(f);
    return sum;
}

static uint64_t latents_bytes(const struct formula_pipeline *p, int patch) {
    return (uint64_t)(rows_held(p, patch) * p->f.columns * p->channels) * sizeof(float);
}

/* Once a unit of both rows, on the last stage. */
static uint64_t prediction_bytes(const struct formula_pipeline *p, int patch, bool last_step) {
    uint64_t bytes = latents_bytes(p, patch), sum = 0;
    if (stage(p) < stages(p) - 1) return 0;
    if (p->guided) sum += formula_guidance_bytes(p->f.mesh, bytes);
    if (stages(p) > 1 && !last_step) sum += bytes;
    return sum;
}

/* What the first unit with certain predictions sends more: they go one by one where the picture
 * goes as a whole. */
static uint64_t first_bytes(const struct formula_pipeline *p) {
    struct formula f = p->f, row = p->f;
    if (stage(p) == stages(p) - 1) return 0;
    row.batch = 1;
    uint64_t both = constants_bytes(&f, true) - constants_bytes(&f, false),
             one = constants_bytes(&row, true) - constants_bytes(&row, false);
    if (f.batch == 1) return one;
    return (whole_steps(p) > 0 ? 2 * one : 0) + (whole_steps(p) < p->steps ? both : 0);
}

/* Members that this one sends to: v + 1, v + 2, v + 4, ... below v's lowest set bit, counted from
 * the root. */
static uint64_t result_bytes(const struct formula_pipeline *p) {
    int n = stages(p), v = (stage(p) + 1) % n, children = 0;
    for (int bit = 1; (v == 0 || bit < (v & -v)) && v + bit < n; bit *= 2) children++;
    return (uint64_t)children * latents_bytes(p, WHOLE);
}

bool formula_pipeline_bytes(const struct formula_pipeline *p, uint64_t *bytes) {
    *bytes = first_bytes(p) + result_bytes(p);
    for (int step = 0; step < p->steps; step++) {
        bool whole = step < whole_steps(p);
        int rows = stages(p) > 1 && whole && p->f.batch == 2 ? 2 : 1;
        for (int patch = whole ? WHOLE : 0; patch < (whole ? 0 : p->patches); patch++) {
            struct formula f = unit_of(p, patch);
            uint64_t blocks;
            f.batch /= rows;
            if (!formula_bytes(&f, &blocks)) return false;
            *bytes += (uint64_t)rows * (blocks + states_bytes(p, &f, patch)) + prediction_bytes(p, patch, step == p->steps - 1);
        }
    }
    return true;
}

/* ---- operations ---- */

/* What one rank repeats in a step. */
static double repeated_alone(const struct formula_pipeline *p, bool whole) {
    double sum = 0;
    for (int patch = whole ? WHOLE : 0; patch < (whole ? 0 : p->patches); patch++) {
        struct formula f = unit_of(p, patch);
        f.blocks = (struct span){0};
        struct formula_repeated all = formula_repeated_operations(&f, true);
        sum += all.text + all.conditioning;
    }
    return sum;
}

/* `times` steps of one kind. */
static void add_steps(const struct formula_pipeline *p, bool whole, int times, struct formula_pipeline_work *work) {
    double step = (whole ? p->alone_whole : p->alone_patches) - repeated_alone(p, whole);
    for (int patch = whole ? WHOLE : 0; patch < (whole ? 0 : p->patches); patch++) {
        struct formula f = unit_of(p, patch);
        struct formula_repeated mine = formula_repeated_operations(&f, false);
        double alone = step * (double)f.rows / (double)f.picture_rows;
        work->alone += times * alone;
        work->share += times * alone * formula_operations_share(&f, alone);
        work->repeated.text += times * mine.text;
        work->repeated.conditioning += times * mine.conditioning;
    }
}

struct formula_pipeline_work formula_pipeline_operations(const struct formula_pipeline *p) {
    struct formula_pipeline_work work = {0};
    add_steps(p, true, whole_steps(p), &work);
    if (p->steps > whole_steps(p)) add_steps(p, false, p->steps - whole_steps(p), &work);
    return work;
}
