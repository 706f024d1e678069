/* See lpips.h. */
#include "metrics/lpips.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "metrics/network.h"

enum { LAYERS = 5 };
#define EPS 1e-8

/* torchvision's names; a pool of 3x3 with stride 2 stands before the second and the third. */
static const struct network_conv shapes[LAYERS] = {{"features.0", 11, 11, 4, 2, 2},
                                                   {"features.3", 5, 5, 1, 2, 2},
                                                   {"features.6", 3, 3, 1, 1, 1},
                                                   {"features.8", 3, 3, 1, 1, 1},
                                                   {"features.10", 3, 3, 1, 1, 1}};
static const bool pool_before[LAYERS] = {false, true, true, false, false};

/* The scaling layer of LPIPS, for values from -1 to 1. */
static const float shift[3] = {-0.030f, -0.088f, -0.188f}, scale[3] = {0.458f, 0.448f, 0.450f};

struct lpips {
    struct arena *arena;
    struct conv layers[LAYERS];
    float *weights[LAYERS]; /* w_l [channels] */
};

static tessera_status load_weights(struct lpips *net, const struct safetensors *file, tessera_error *error) {
    for (int l = 0; l < LAYERS; l++) {
        char name[32];
        snprintf(name, sizeof name, "lin%d.model.1.weight", l);
        const struct safetensors_entry *entry = safetensors_find(file, name);
        int64_t channels = net->layers[l].weight.shape[0];
        if (entry == NULL || entry->tensor.dtype != DTYPE_F32 || tensor_count(&entry->tensor) != channels)
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: %s is not there as %lld numbers of type F32", safetensors_path(file), name,
                             (long long)channels);
        net->weights[l] = arena_alloc(net->arena, tensor_bytes(&entry->tensor));
        if (net->weights[l] == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
        memcpy(net->weights[l], entry->tensor.data, tensor_bytes(&entry->tensor));
    }
    return TESSERA_OK;
}

static tessera_status load(struct lpips *net, const char *alexnet_path, const char *linear_path, tessera_error *error) {
    struct safetensors *file = NULL;
    TRY(safetensors_open(alexnet_path, &file, error));
    tessera_status status = TESSERA_OK;
    for (int l = 0; l < LAYERS && status == TESSERA_OK; l++)
        status = network_conv_load(&shapes[l], false, 0, file, net->arena, &net->layers[l], error);
    safetensors_close(file);
    TRY(status);
    TRY(safetensors_open(linear_path, &file, error));
    status = load_weights(net, file, error);
    safetensors_close(file);
    return status;
}

tessera_status lpips_open(const char *alexnet_path, const char *linear_path, struct lpips **out, tessera_error *error) {
    *out = NULL;
    struct lpips *net = calloc(1, sizeof *net);
    if (net == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    tessera_status status = (net->arena = arena_new(0, error)) != NULL ? TESSERA_OK : TESSERA_ERROR_MEMORY;
    if (status == TESSERA_OK) status = load(net, alexnet_path, linear_path, error);
    if (status == TESSERA_OK)
        *out = net;
    else
        lpips_free(net);
    return status;
}

void lpips_free(struct lpips *net) {
    if (net == NULL) return;
    if (net->arena != NULL) arena_free(net->arena);
    free(net);
}

/* Both pictures as a batch [2, height, width, 3]. */
static struct tensor prepare(struct run *run, const struct image *a, const struct image *b) {
    struct tensor x = run_tensor(run, DTYPE_F32, SHAPE(2, a->height, a->width, 3));
    size_t values = image_values(a);
    for (size_t i = 0; i < 2 * values && !run_failed(run); i++) {
        uint8_t pixel = i < values ? a->pixels[i] : b->pixels[i - values];
        ((float *)x.data)[i] = ((float)pixel / 255.0f * 2 - 1 - shift[i % 3]) / scale[i % 3];
    }
    return x;
}

/* f [2, h, w, C]: the layer's part of the distance. */
static double layer_distance(const float *weights, struct tensor f) {
    int64_t pixels = f.shape[1] * f.shape[2], channels = f.shape[3];
    double sum = 0;
    for (int64_t i = 0; i < pixels; i++) {
        const float *a = (const float *)f.data + i * channels, *b = a + pixels * channels;
        double square_a = EPS, square_b = EPS;
        for (int64_t c = 0; c < channels; c++) square_a += (double)a[c] * a[c], square_b += (double)b[c] * b[c];
        for (int64_t c = 0; c < channels; c++) {
            double difference = a[c] / sqrt(square_a) - b[c] / sqrt(square_b);
            sum += (double)weights[c] * difference * difference;
        }
    }
    return sum / (double)pixels;
}

tessera_status lpips_distance(const struct lpips *net, struct run *run, const struct image *a, const struct image *b, double *distance,
                              tessera_error *error) {
    if (a->width != b->width || a->height != b->height)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "LPIPS compares pictures of one size, not %dx%d and %dx%d", a->width, a->height,
                         b->width, b->height);
    size_t scope = run_enter(run);
    struct tensor x = prepare(run, a, b);
    *distance = 0;
    for (int l = 0; l < LAYERS && !run_failed(run); l++) {
        if (pool_before[l]) x = network_max_pool(run, x, 2);
        x = network_conv(run, &shapes[l], &net->layers[l], x);
        if (!run_failed(run)) *distance += layer_distance(net->weights[l], x);
    }
    arena_release(run->arena, scope);
    return run_status(run, error);
}
