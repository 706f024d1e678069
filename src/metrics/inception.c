/* See inception.h. The network is a list of convolutions in the order in which they are computed; a
 * walk takes one after the other, so that each kind of block is a few lines of chains and joins. */
#include "metrics/inception.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/resample.h"
#include "metrics/network.h"

enum { SIDE = 299, CONVS = 94, NAME_LENGTH = 48 };
#define EPS 0.001f

/* ---- the network as data ---- */

static const struct network_conv stem[] = {{"Conv2d_1a_3x3", 3, 3, 2, 0, 0},
                                           {"Conv2d_2a_3x3", 3, 3, 1, 0, 0},
                                           {"Conv2d_2b_3x3", 3, 3, 1, 1, 1},
                                           {"Conv2d_3b_1x1", 1, 1, 1, 0, 0},
                                           {"Conv2d_4a_3x3", 3, 3, 1, 0, 0}};
static const struct network_conv block_a[] = {
    {"branch1x1", 1, 1, 1, 0, 0},      {"branch5x5_1", 1, 1, 1, 0, 0},    {"branch5x5_2", 5, 5, 1, 2, 2}, {"branch3x3dbl_1", 1, 1, 1, 0, 0},
    {"branch3x3dbl_2", 3, 3, 1, 1, 1}, {"branch3x3dbl_3", 3, 3, 1, 1, 1}, {"branch_pool", 1, 1, 1, 0, 0}};
static const struct network_conv block_b[] = {
    {"branch3x3", 3, 3, 2, 0, 0}, {"branch3x3dbl_1", 1, 1, 1, 0, 0}, {"branch3x3dbl_2", 3, 3, 1, 1, 1}, {"branch3x3dbl_3", 3, 3, 2, 0, 0}};
static const struct network_conv block_c[] = {{"branch1x1", 1, 1, 1, 0, 0},      {"branch7x7_1", 1, 1, 1, 0, 0},
                                              {"branch7x7_2", 1, 7, 1, 0, 3},    {"branch7x7_3", 7, 1, 1, 3, 0},
                                              {"branch7x7dbl_1", 1, 1, 1, 0, 0}, {"branch7x7dbl_2", 7, 1, 1, 3, 0},
                                              {"branch7x7dbl_3", 1, 7, 1, 0, 3}, {"branch7x7dbl_4", 7, 1, 1, 3, 0},
                                              {"branch7x7dbl_5", 1, 7, 1, 0, 3}, {"branch_pool", 1, 1, 1, 0, 0}};
static const struct network_conv block_d[] = {{"branch3x3_1", 1, 1, 1, 0, 0},   {"branch3x3_2", 3, 3, 2, 0, 0},
                                              {"branch7x7x3_1", 1, 1, 1, 0, 0}, {"branch7x7x3_2", 1, 7, 1, 0, 3},
                                              {"branch7x7x3_3", 7, 1, 1, 3, 0}, {"branch7x7x3_4", 3, 3, 2, 0, 0}};
static const struct network_conv block_e[] = {
    {"branch1x1", 1, 1, 1, 0, 0},       {"branch3x3_1", 1, 1, 1, 0, 0},     {"branch3x3_2a", 1, 3, 1, 0, 1},
    {"branch3x3_2b", 3, 1, 1, 1, 0},    {"branch3x3dbl_1", 1, 1, 1, 0, 0},  {"branch3x3dbl_2", 3, 3, 1, 1, 1},
    {"branch3x3dbl_3a", 1, 3, 1, 0, 1}, {"branch3x3dbl_3b", 3, 1, 1, 1, 0}, {"branch_pool", 1, 1, 1, 0, 0}};

#define BLOCK(prefix, convs)                                                                                                               \
    { prefix, convs, sizeof(convs) / sizeof *(convs) }
static const struct {
    const char *prefix;
    const struct network_conv *convs;
    size_t count;
} blocks[] = {BLOCK("", stem),
              BLOCK("Mixed_5b.", block_a),
              BLOCK("Mixed_5c.", block_a),
              BLOCK("Mixed_5d.", block_a),
              BLOCK("Mixed_6a.", block_b),
              BLOCK("Mixed_6b.", block_c),
              BLOCK("Mixed_6c.", block_c),
              BLOCK("Mixed_6d.", block_c),
              BLOCK("Mixed_6e.", block_c),
              BLOCK("Mixed_7a.", block_d),
              BLOCK("Mixed_7b.", block_e),
              BLOCK("Mixed_7c.", block_e)};

struct inception {
    struct arena *arena;
    char names[CONVS][NAME_LENGTH];
    struct network_conv shapes[CONVS];
    struct conv layers[CONVS];
};

static tessera_status load(struct inception *net, const struct safetensors *file, tessera_error *error) {
    int n = 0;
    for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++)
        for (size_t i = 0; i < blocks[b].count; i++, n++) {
            assert(n < CONVS);
            snprintf(net->names[n], NAME_LENGTH, "%s%s", blocks[b].prefix, blocks[b].convs[i].name);
            net->shapes[n] = blocks[b].convs[i];
            net->shapes[n].name = net->names[n];
            TRY(network_conv_load(&net->shapes[n], true, EPS, file, net->arena, &net->layers[n], error));
        }
    assert(n == CONVS);
    return TESSERA_OK;
}

tessera_status inception_open(const char *path, struct inception **out, tessera_error *error) {
    struct safetensors *file = NULL;
    *out = NULL;
    TRY(safetensors_open(path, &file, error));
    struct inception *net = calloc(1, sizeof *net);
    tessera_status status = net != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    if (status == TESSERA_OK && (net->arena = arena_new(0, error)) == NULL) status = TESSERA_ERROR_MEMORY;
    if (status == TESSERA_OK) status = load(net, file, error);
    safetensors_close(file);
    if (status == TESSERA_OK)
        *out = net;
    else
        inception_free(net);
    return status;
}

void inception_free(struct inception *net) {
    if (net == NULL) return;
    if (net->arena != NULL) arena_free(net->arena);
    free(net);
}

/* Of the last block all but the two that lead into others, and each of the pairs of one input. */
int inception_dims(const struct inception *net) {
    const int last[] = {0, 2, 3, 6, 7, 8};
    int dims = 0;
    for (int i = 0; i < 6; i++) dims += (int)net->layers[CONVS - 9 + last[i]].weight.shape[0];
    return dims;
}

/* ---- walking through it ---- */

struct walk {
    const struct inception *net;
    struct run *run;
    int next; /* convolution */
};

/* The next `count` convolutions, one behind the other. */
static struct tensor chain(struct walk *w, struct tensor x, int count) {
    for (int i = 0; i < count; i++, w->next++) x = network_conv(w->run, &w->net->shapes[w->next], &w->net->layers[w->next], x);
    return x;
}

static struct tensor join(struct walk *w, struct tensor a, struct tensor b) {
    if (run_failed(w->run)) return (struct tensor){0};
    return nn_concat_channels(w->run, a, b);
}

/* Blocks A and C: one convolution, two chains, and one behind a mean. */
static struct tensor walk_wide(struct walk *w, struct tensor x, int second, int third) {
    struct tensor a = chain(w, x, 1), b = chain(w, x, second), c = chain(w, x, third), pool = chain(w, network_mean_pool(w->run, x), 1);
    return join(w, join(w, a, b), join(w, c, pool));
}

/* Blocks B and D, which halve: two chains and the largest values. */
static struct tensor walk_halving(struct walk *w, struct tensor x, int first, int second) {
    struct tensor a = chain(w, x, first), b = chain(w, x, second);
    return join(w, join(w, a, b), network_max_pool(w->run, x, 2));
}

/* Two convolutions of the same input. */
static struct tensor both_of(struct walk *w, struct tensor x) {
    struct tensor a = chain(w, x, 1), b = chain(w, x, 1);
    return join(w, a, b);
}

static struct tensor walk_e(struct walk *w, struct tensor x, bool largest) {
    struct tensor one = chain(w, x, 1), three = both_of(w, chain(w, x, 1)), twice = both_of(w, chain(w, x, 2));
    struct tensor pooled = largest ? network_max_pool(w->run, x, 1) : network_mean_pool(w->run, x);
    return join(w, join(w, one, three), join(w, twice, chain(w, pooled, 1)));
}

/* x [1, 299, 299, 3] -> [1, h, w, dims] */
static struct tensor forward(struct walk *w, struct tensor x) {
    x = network_max_pool(w->run, chain(w, x, 3), 2);
    x = network_max_pool(w->run, chain(w, x, 2), 2);
    for (int i = 0; i < 3; i++) x = walk_wide(w, x, 2, 3);
    x = walk_halving(w, x, 1, 3);
    for (int i = 0; i < 4; i++) x = walk_wide(w, x, 3, 5);
    x = walk_halving(w, x, 2, 4);
    return walk_e(w, walk_e(w, x, false), true);
}

/* The picture as the network wants it: (p - 128) / 128. */
static struct tensor prepare(struct run *run, const struct image *picture) {
    struct tensor x = run_tensor(run, DTYPE_F32, SHAPE(1, SIDE, SIDE, 3));
    if (run_failed(run)) return x;
    tessera_status status = resample_floats(picture, SIDE, SIDE, RESAMPLE_BICUBIC, x.data, &run->error);
    for (int64_t i = 0; i < tensor_count(&x); i++) {
        float *value = (float *)x.data + i, cut = *value < 0 ? 0 : *value > 255 ? 255 : *value;
        *value = (cut - 128) / 128;
    }
    return run_checked(run, status, x);
}

tessera_status inception_features(const struct inception *net, struct run *run, const struct image *picture, float *features,
                                  tessera_error *error) {
    size_t scope = run_enter(run);
    struct walk walk = {net, run, 0};
    struct tensor x = forward(&walk, prepare(run, picture));
    int64_t dims = inception_dims(net), pixels = run_failed(run) ? 0 : x.shape[1] * x.shape[2];
    assert(run_failed(run) || x.shape[3] == dims);
    for (int64_t c = 0; c < dims; c++) {
        double sum = 0;
        for (int64_t i = 0; i < pixels; i++) sum += (double)((const float *)x.data)[i * dims + c];
        features[c] = pixels > 0 ? (float)(sum / (double)pixels) : 0;
    }
    arena_release(run->arena, scope);
    return run_status(run, error);
}
