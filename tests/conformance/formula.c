/* Bytes, operations and weights of exact strategies, written down a second time: from a model's
 * config and the mesh alone, without looking at what the engine does.
 *
 * With S tokens of the picture, S_i of them on rank i of n = R U (ring x Ulysses), T of the text, N
 * heads of D channels, N_j of them on member j of a Ulysses group, B pictures, e bytes per element,
 * all sent per rank and layer:
 *
 *     Ulysses           e B D (N - N_me) (q_me + 2 k_me)  +  e B D N_me sum_{j != me} q_j
 *     ring              e B D N_me 2 sum over R - 1 rounds of k of the group whose keys and values are passed on
 *     whole text        e B D N_me (U - 1) T              where it asks in a Ulysses group: the heads' outputs are gathered
 *     gather            e B (n - 1) S_me C                of the prediction, once
 *     tensor            e (count - slice_me) + e (t - 1) slice_me, about 2 (t - 1) / t of B S_me C
 *     halo              e B W C per row and neighbour
 *     group norm        4 (n - 1) (1 + 2 B groups)
 *     guidance          4 (n - 1) B H W C
 *
 * q_i and k_i are rank i's tokens among queries and keys: S_i, and, where T >= n, T_i of the text,
 * T (i + 1) / n - T i / n of them.
 *     side by side      e (t - 1) (positions) C_me         of a UNet's layers that give a share of channels and need no sum
 *
 * Where a picture goes through the blocks in patches (formula_pipeline.c), S is a patch's, T is 0
 * but for patch 0, the text is whole, and
 *
 *     ring              e B D N_me 2 (R - 1) k             of this rank's group: each member's keys and values to all
 *
 * Left out: classes that formula_bytes does not name. */
#include "formula.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

#include "nn/layers.h"

/* ---- the mesh ---- */

static int64_t span_first(int64_t total, int members, int i) {
    return total * i / members;
}

static int64_t span_count(int64_t total, int members, int i) {
    return span_first(total, members, i + 1) - span_first(total, members, i);
}

static int degree(const struct formula *f, enum mesh_axis axis) {
    return f->mesh->degrees[axis];
}

int formula_members(const struct formula *f) {
    return degree(f, MESH_RING) * degree(f, MESH_ULYSSES);
}

int formula_me(const struct formula *f) {
    return f->mesh->coordinate[MESH_RING] * degree(f, MESH_ULYSSES) + f->mesh->coordinate[MESH_ULYSSES];
}

static int64_t number(const struct formula *f, const char *field, int64_t fallback) {
    int64_t value = fallback;
    json_int(f->config, field, fallback, 0, INT32_MAX, &value, NULL);
    return value;
}

static bool is_unet(const struct formula *f) {
    return strcmp(f->denoiser->class->name, "UNet2DConditionModel") == 0;
}

/* Is this block of the rank's stage? */
static bool has_block(const struct formula *f, int block) {
    return f->blocks.count == 0 || (block >= f->blocks.first && block < f->blocks.first + f->blocks.count);
}

static bool has_last_block(const struct formula *f) {
    return has_block(f, f->denoiser->num_blocks - 1);
}

/* Is the text cut over the ranks of a sequence? */
static bool cuts_text(const struct formula *f, int64_t text) {
    return !f->in_patches && text >= formula_members(f);
}

/* ---- bytes ---- */

static int64_t tokens_of(const struct formula_sequence *s, const struct formula_attention *a, int member, bool keys) {
    bool cut = cuts_text(s->f, a->text) && (keys || a->asks);
    return s->bounds[member + 1] - s->bounds[member] + (cut ? span_count(a->text, formula_members(s->f), member) : 0);
}

uint64_t formula_attention_bytes(const struct formula_sequence *s, const struct formula_attention *a) {
    const struct formula *f = s->f;
    int ulysses = degree(f, MESH_ULYSSES), ring = degree(f, MESH_RING), round = formula_me(f) / ulysses, mine = formula_me(f) % ulysses;
    if (formula_members(f) == 1) return 0;
    int64_t heads = span_count(a->heads, ulysses, mine), sum = 0;
    sum += (a->heads - heads) * (tokens_of(s, a, formula_me(f), false) + 2 * tokens_of(s, a, formula_me(f), true));
    for (int j = 0; j < ulysses; j++)
        if (j != mine) sum += heads * tokens_of(s, a, round * ulysses + j, false);
    for (int t = 0; t + 1 < ring; t++)
        for (int j = 0; j < ulysses; j++)
            sum += 2 * heads * tokens_of(s, a, (f->in_patches ? round : (round - t + ring) % ring) * ulysses + j, true);
    if (!cuts_text(f, a->text) && a->asks) sum += heads * (ulysses - 1) * a->text;
    return (uint64_t)(sum * f->batch * a->width) * dtype_size(f->dtype);
}

uint64_t formula_gather_bytes(const struct formula_sequence *s, int64_t channels) {
    int64_t mine = s->bounds[formula_me(s->f) + 1] - s->bounds[formula_me(s->f)];
    return (uint64_t)((formula_members(s->f) - 1) * mine * s->f->batch * channels) * dtype_size(s->f->dtype);
}

/* The sum of `count` elements over the tensor axis. */
uint64_t formula_sum_bytes(const struct formula *f, int64_t count) {
    int t = degree(f, MESH_TENSOR);
    int64_t slice = span_count(count, t, f->mesh->coordinate[MESH_TENSOR]);
    return (uint64_t)(count - slice + (t - 1) * slice) * dtype_size(f->dtype);
}

uint64_t formula_guidance_bytes(const struct mesh *mesh, uint64_t mine) {
    return (uint64_t)(mesh->degrees[MESH_CFG] - 1) * mine;
}

/* This rank's tokens of the text. */
int64_t formula_text(const struct formula *f) {
    return cuts_text(f, f->text_tokens) ? span_count(f->text_tokens, formula_members(f), formula_me(f)) : f->text_tokens;
}

static int64_t head_width(const struct formula *f, int64_t fallback) {
    return number(f, "attention_head_dim", fallback);
}

int64_t formula_units(const struct formula *f, int64_t units) {
    return span_count(units, degree(f, MESH_TENSOR), f->mesh->coordinate[MESH_TENSOR]);
}

uint64_t formula_join_bytes(const struct formula *f, int64_t positions, int64_t channels) {
    return (uint64_t)((degree(f, MESH_TENSOR) - 1) * positions * formula_units(f, channels)) * dtype_size(f->dtype);
}

static bool is_dual(const struct formula *f, int64_t block) {
    const cJSON *list = json_find(f->config, "dual_attention_layers"), *index;
    cJSON_ArrayForEach(index, list) if (index->valueint == block) return true;
    return false;
}

/* SD3: joint attention and a feed-forward in both streams; the last block's text gives keys and
 * values only. */
static uint64_t sd3_bytes(const struct formula *f, const struct formula_sequence *s) {
    int64_t heads = number(f, "num_attention_heads", 18), width = head_width(f, 64), mine = formula_units(f, heads);
    int64_t picture = f->batch * (s->bounds[formula_me(f) + 1] - s->bounds[formula_me(f)]) * heads * width,
            text = f->batch * formula_text(f) * heads * width;
    uint64_t sum = 0;
    for (int i = 0; i < f->denoiser->num_blocks; i++) {
        if (!has_block(f, i)) continue;
        bool last = i == f->denoiser->num_blocks - 1;
        sum +=
            formula_attention_bytes(s, &(struct formula_attention){mine, width, f->text_tokens, !last}) + 2 * formula_sum_bytes(f, picture);
        if (!last) sum += 2 * formula_sum_bytes(f, text);
        if (is_dual(f, i))
            sum += formula_attention_bytes(s, &(struct formula_attention){.heads = mine, .width = width}) + formula_sum_bytes(f, picture);
    }
    return sum;
}

/* Flux: double blocks as SD3's; a single block sums attention and MLP of both streams at once. */
static uint64_t flux_bytes(const struct formula *f, const struct formula_sequence *s) {
    int64_t heads = number(f, "num_attention_heads", 24), width = head_width(f, 128), doubles = number(f, "num_layers", 19);
    int64_t picture = f->batch * (s->bounds[formula_me(f) + 1] - s->bounds[formula_me(f)]) * heads * width,
            text = f->batch * formula_text(f) * heads * width;
    uint64_t sum = 0;
    for (int i = 0; i < f->denoiser->num_blocks; i++) {
        if (!has_block(f, i)) continue;
        sum += formula_attention_bytes(s, &(struct formula_attention){formula_units(f, heads), width, f->text_tokens, true});
        sum += i < doubles ? 2 * formula_sum_bytes(f, picture) + 2 * formula_sum_bytes(f, text) : formula_sum_bytes(f, picture + text);
    }
    return sum;
}

/* PixArt and HunyuanDiT: self attention, attention to the text (which every rank has whole),
 * feed-forward. */
static uint64_t cross_bytes(const struct formula *f, const struct formula_sequence *s) {
    int64_t heads = number(f, "num_attention_heads", 16), width = head_width(f, 72);
    int64_t picture = f->batch * (s->bounds[formula_me(f) + 1] - s->bounds[formula_me(f)]) * heads * width;
    uint64_t self = formula_attention_bytes(s, &(struct formula_attention){.heads = formula_units(f, heads), .width = width});
    bool hunyuan = strncmp(f->denoiser->class->name, "Hunyuan", 7) == 0;
    uint64_t sum = 0;
    for (int i = 0; i < f->denoiser->num_blocks; i++) {
        bool mixes = hunyuan && i > f->denoiser->num_blocks / 2; /* a skip in, by a linear */
        if (has_block(f, i)) sum += self + (uint64_t)(mixes ? 4 : 3) * formula_sum_bytes(f, picture);
    }
    return sum;
}

bool formula_bytes(const struct formula *f, uint64_t *bytes) {
    static const struct {
        const char *name;
        uint64_t (*bytes)(const struct formula *, const struct formula_sequence *);
    } transformers[] = {{"SD3Transformer2DModel", sd3_bytes},
                        {"FluxTransformer2DModel", flux_bytes},
                        {"PixArtTransformer2DModel", cross_bytes},
                        {"HunyuanDiT2DModel", cross_bytes}};
    const struct denoiser *d = f->denoiser;
    if (is_unet(f)) *bytes = formula_unet_bytes(f);
    if (is_unet(f)) return true;
    int n = formula_members(f);
    int64_t bounds[n + 1], p = d->patch_size;
    for (int i = 0; i <= n; i++) bounds[i] = span_first(f->rows / p * (f->columns / p), n, i);
    struct formula_sequence s = {f, bounds};
    for (size_t i = 0; i < sizeof transformers / sizeof *transformers; i++) {
        if (strcmp(transformers[i].name, d->class->name) != 0) continue;
        *bytes = transformers[i].bytes(f, &s) + (has_last_block(f) ? formula_gather_bytes(&s, p * p * d->out_channels) : 0);
        return true;
    }
    return false;
}

/* ---- operations ---- */

/* Of the picture that a patch's tokens attend to. */
static int64_t picture_rows(const struct formula *f) {
    return f->picture_rows > 0 ? f->picture_rows : f->rows;
}

static double largest_span(int64_t total, int64_t members) {
    return (double)((total + members - 1) / members) / (double)total;
}

/* What is cut by heads or by groups of channels, of the layer that divides worst. */
static double largest_slice(const struct formula *f) {
    const struct denoiser *d = f->denoiser;
    double heads = largest_span(d->num_heads, degree(f, MESH_TENSOR));
    return d->max_tensor > 0 ? fmax(heads, largest_span(d->max_tensor, degree(f, MESH_TENSOR))) : heads;
}

/* Is one of the fragments, which end in NULL, in the name? */
static bool names(const char *const *fragments, const char *name) {
    while (*fragments != NULL && strstr(name, *fragments) == NULL) fragments++;
    return *fragments != NULL;
}

/* Does the rank's stage keep this weight? */
static bool keeps(const struct formula *f, const char *name) {
    static const char *const last[] = {"norm_out.", "proj_out.", "scale_shift_table", NULL};
    for (int i = 0; i < f->denoiser->num_blocks; i++) {
        struct denoiser_block_info info;
        f->denoiser->class->describe(f->denoiser, i, &info);
        size_t length = strlen(info.name);
        if (strncmp(name, info.name, length) == 0 && name[length] == '.') return has_block(f, i);
    }
    if (is_unet(f)) return true;
    return names(last, name) ? has_last_block(f) : has_block(f, 0);
}

/* Operations of a transformer's patch embedding and last projection, on one rank that has both
 * halves of guidance. */
static double end_operations(const struct formula *f) {
    static const char *const fragments[] = {"pos_embed.proj.", "x_embedder.", NULL};
    int64_t p = f->denoiser->patch_size;
    double elements = 0;
    for (int i = 0; i < weights_count(f->weights) && !is_unet(f); i++) {
        const struct safetensors_entry *entry = weights_at(f->weights, i);
        bool is_end =
            (has_block(f, 0) && names(fragments, entry->name)) || (has_last_block(f) && strncmp(entry->name, "proj_out.", 9) == 0);
        if (is_end && entry->tensor.ndim > 1) elements += (double)tensor_count(&entry->tensor);
    }
    return 2.0 * elements * (double)(f->rows / p * (f->columns / p) * f->batch * degree(f, MESH_CFG));
}

/* The largest span of a picture that is cut by rows in multiples of a unit. */
static double largest_rows(const struct formula *f) {
    int64_t unit = f->denoiser->row_unit, units = (f->rows + unit - 1) / unit, most = 0;
    int n = formula_members(f);
    for (int i = 0; i < n; i++) {
        int64_t end = i == n - 1 ? f->rows : span_first(units, n, i + 1) * unit, rows = end - span_first(units, n, i) * unit;
        if (rows > most) most = rows;
    }
    return (double)most / (double)f->rows;
}

/* Of the picture's tokens in the stage's blocks. */
static double block_operations(const struct formula *f) {
    int64_t p = f->denoiser->patch_size;
    double sum = 0;
    for (int i = 0; i < f->denoiser->num_blocks; i++) {
        struct denoiser_block_info info;
        f->denoiser->class->describe(f->denoiser, i, &info);
        double keys = (double)(picture_rows(f) / p * (f->columns / p));
        if (has_block(f, i)) sum += info.operations_per_picture_token + keys * info.operations_per_token_pair;
    }
    return sum;
}

double formula_operations_share(const struct formula *f, double alone) {
    const struct denoiser *d = f->denoiser;
    int64_t tensor = degree(f, MESH_TENSOR), ulysses = degree(f, MESH_ULYSSES), p = d->patch_size, unit = d->row_unit;
    int n = formula_members(f);
    struct formula all = *f;
    all.blocks = (struct span){0};
    double ends = end_operations(f) / alone, blocks = (1.0 - end_operations(&all) / alone) * block_operations(f) / block_operations(&all);
    double share = unit > 0 ? largest_rows(f) : largest_span(f->rows / p * (f->columns / p), n);
    share /= degree(f, MESH_CFG);
    share *= ends + blocks * (tensor > 1 ? largest_slice(f) : 1.0);
    if (ulysses > 1) share *= largest_span(d->num_heads / tensor, ulysses) * (double)ulysses;
    return share;
}

/* Is this matrix cut by heads, hidden channels or the channels of a convolution? All of a UNet's are. */
static bool is_cut(const struct formula *f, const struct safetensors_entry *entry) {
    static const char *const fragments[] = {".to_q.",
                                            ".to_k.",
                                            ".to_v.",
                                            ".to_out.",
                                            ".to_add_out.",
                                            ".add_q_proj.",
                                            ".add_k_proj.",
                                            ".add_v_proj.",
                                            ".ff.net.",
                                            ".ff_context.net.",
                                            ".proj_mlp.",
                                            ".skip_linear.",
                                            NULL};
    if (entry->tensor.ndim < 2) return false;
    if (strncmp(entry->name, "single_transformer_blocks.", 26) == 0 && strstr(entry->name, ".proj_out.") != NULL) return true;
    return is_unet(f) || names(fragments, entry->name);
}

/* Text tokens in the model's blocks: products with their weights, and, where the text asks,
 * attention. */
static double block_text_operations(const struct formula *f, bool alone) {
    const struct denoiser *d = f->denoiser;
    bool sd3 = strncmp(d->class->name, "SD3", 3) == 0, joint = sd3 || strncmp(d->class->name, "Flux", 4) == 0;
    int64_t p = d->patch_size, tokens = picture_rows(f) / p * (f->columns / p) + f->text_tokens;
    double inner = (double)number(f, "num_attention_heads", 0) * (double)head_width(f, 0), linears = 0, pairs = 0;
    for (int i = 0; i < d->num_blocks; i++) {
        struct denoiser_block_info info;
        if (!has_block(f, i)) continue;
        d->class->describe(d, i, &info);
        linears += info.operations_per_text_token;
        if (joint && !(sd3 && i == d->num_blocks - 1)) pairs += 4.0 * inner * (double)tokens;
    }
    double text = (double)(f->text_tokens * f->batch), mine = (double)(formula_text(f) * f->batch);
    if (alone) return text * (linears + pairs) * degree(f, MESH_CFG);
    double tensor = (double)formula_units(f, d->num_heads) / (double)d->num_heads;
    if (joint && cuts_text(f, f->text_tokens)) return mine * (linears + pairs) * tensor;
    return text * tensor * (linears + pairs / degree(f, MESH_ULYSSES));
}

struct formula_repeated formula_repeated_operations(const struct formula *f, bool alone) {
    static const char *const text[] = {"context_embedder.", "caption_projection.", NULL};
    static const char *const conditioning[] = {"norm1.linear.",
                                               "norm1_context.linear.",
                                               "norm_out.linear.",
                                               "norm.linear.",
                                               "time_text_embed.",
                                               "adaln_single.",
                                               "time_extra_emb.",
                                               "time_embedding.",
                                               "add_embedding.",
                                               "time_emb_proj.",
                                               NULL};
    struct formula_repeated sum = {block_text_operations(f, alone), 0};
    bool joint = strncmp(f->denoiser->class->name, "SD3", 3) == 0 || strncmp(f->denoiser->class->name, "Flux", 4) == 0;
    double text_tokens = (double)(!alone && joint ? formula_text(f) : f->text_tokens);
    for (int i = 0; i < weights_count(f->weights); i++) {
        const struct safetensors_entry *entry = weights_at(f->weights, i);
        if (entry->tensor.ndim < 2 || !keeps(f, entry->name)) continue;
        double once = 2.0 * (double)tensor_count(&entry->tensor) * (double)(f->batch * (alone ? degree(f, MESH_CFG) : 1));
        if (!alone && is_cut(f, entry)) once *= largest_slice(f);
        if (names(text, entry->name)) sum.text += once * text_tokens;
        bool of_text_2 = strncmp(entry->name, "text_embedder.", 14) == 0 || strstr(entry->name, ".pooler.") != NULL;
        if (of_text_2) sum.text += once * (double)f->text_2_tokens;
        if (!of_text_2 && names(conditioning, entry->name)) sum.conditioning += once;
    }
    return sum;
}

/* ---- weights ---- */

double formula_weight_bytes(const struct formula *f) {
    double sum = 0, slice = largest_slice(f);
    for (int i = 0; i < weights_count(f->weights); i++) {
        const struct safetensors_entry *entry = weights_at(f->weights, i);
        bool is_table = entry->tensor.ndim == 1 || strstr(entry->name, "embed") != NULL || strstr(entry->name, "table") != NULL;
        if (!keeps(f, entry->name)) continue;
        double bytes = (double)tensor_count(&entry->tensor) * (double)(is_table ? sizeof(float) : dtype_size(f->dtype));
        sum += is_cut(f, entry) ? bytes * slice : bytes;
    }
    return sum;
}
