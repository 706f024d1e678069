/* A whole checkpoint as a GGUF file: with the types of the safetensors file the picture is the same
 * to the bit, with matrices in Q8_0 it is close, and they stay Q8_0 in memory. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/f16.h"
#include "check.h"
#include "pipelines/pipeline.h"

#define CASES "tests/cases/"

static void put(FILE *file, int size, uint64_t value) {
    for (int i = 0; i < size; i++) fputc((int)(value >> 8 * i & 255), file);
}

static void pad(FILE *file) {
    while (ftell(file) % 32 != 0) fputc(0, file);
}

/* Is a tensor to become Q8_0? */
static bool is_small(const struct tensor *t, bool small) {
    return small && t->ndim == 2 && t->shape[1] % 32 == 0 && dtype_is_float(t->dtype);
}

static uint32_t type_of(const struct tensor *t, bool small) {
    if (is_small(t, small)) return 8;
    return t->dtype == DTYPE_F32 ? 0 : t->dtype == DTYPE_F16 ? 1 : t->dtype == DTYPE_BF16 ? 30 : 27;
}

static size_t bytes_of(const struct tensor *t, bool small) {
    return is_small(t, small) ? dtype_bytes(DTYPE_Q8_0, tensor_count(t)) : tensor_bytes(t);
}

/* x = d q with d = max |x| / 127 (ggml's quantize_row_q8_0). */
static void write_q8_0(FILE *file, const struct tensor *t) {
    float x[32];
    for (int64_t i = 0; i < tensor_count(t); i += 32) {
        float most = 0;
        dtype_convert(x, DTYPE_F32, (char *)t->data + dtype_bytes(t->dtype, i), t->dtype, 32);
        for (int j = 0; j < 32; j++) most = fmaxf(most, fabsf(x[j]));
        float d = most / 127;
        put(file, 2, f16_round(d));
        for (int j = 0; j < 32; j++) put(file, 1, (uint8_t)(int8_t)lroundf(d > 0 ? x[j] / d : 0));
    }
}

static void write_gguf(const char *path, const struct safetensors *from, bool small) {
    FILE *file = fopen(path, "wb");
    size_t offset = 0;
    if (file == NULL) return;
    fputs("GGUF", file), put(file, 4, 3), put(file, 8, (uint64_t)safetensors_count(from)), put(file, 8, 0);
    for (int i = 0; i < safetensors_count(from); i++) {
        const struct safetensors_entry *e = safetensors_at(from, i);
        put(file, 8, strlen(e->name)), fputs(e->name, file), put(file, 4, (uint64_t)e->tensor.ndim);
        for (int d = e->tensor.ndim - 1; d >= 0; d--) put(file, 8, (uint64_t)e->tensor.shape[d]);
        put(file, 4, type_of(&e->tensor, small)), put(file, 8, offset);
        offset += (bytes_of(&e->tensor, small) + 31) / 32 * 32;
    }
    for (int i = 0; i < safetensors_count(from); i++) {
        const struct tensor *t = &safetensors_at(from, i)->tensor;
        pad(file);
        if (is_small(t, small))
            write_q8_0(file, t);
        else
            fwrite(t->data, 1, tensor_bytes(t), file);
    }
    fclose(file);
}

/* With the denoiser from `transformer`, or NULL: the model's own. The caller frees the picture;
 * *held is how many bytes of the denoiser's weights are held. */
static tessera_image draw(const char *model, const char *transformer, size_t *held) {
    tessera_error error = {0};
    struct pipeline *p = NULL;
    tessera_image image = TESSERA_IMAGE;
    const tessera_model_options options = {.struct_size = sizeof(tessera_model_options),
                                           .config = CASES "pipeline_sd3/model",
                                           .transformer = transformer,
                                           .dtype = TESSERA_F32,
                                           .threads = 2};
    CHECK(pipeline_open(model, &options, &p, &error) == TESSERA_OK, "%s", error.message);
    if (p == NULL) return image;
    tessera_request request = p->defaults;
    request.prompt = "a lion", request.num_inference_steps = 3, request.seed = 1;
    const struct generation_control control = {0};
    CHECK(pipeline_generate(p, &request, &control, &image, &error) == TESSERA_OK, "%s", error.message);
    for (int i = 0; i < p->num_slots; i++)
        if (p->slots[i].is_open && strcmp(p->slots[i].name, p->denoiser) == 0) *held = p->slots[i].component.weight_bytes;
    pipeline_free(p);
    return image;
}

static double psnr(const tessera_image *a, const tessera_image *b) {
    double sum = 0, count = (double)a->width * a->height * 3;
    for (size_t i = 0; i < (size_t)count; i++) sum += pow((double)a->pixels[i] - (double)b->pixels[i], 2);
    return sum > 0 ? 10 * log10(255.0 * 255.0 * count / sum) : INFINITY;
}

int main(void) {
    static const char original[] = CASES "single_file/sd3.safetensors";
    char path[] = "/tmp/tessera-test-XXXXXX";
    struct safetensors *file = NULL;
    tessera_error error = {0};
    size_t wide = 0, same = 0, small = 0;
    int descriptor = mkstemp(path);
    CHECK(descriptor >= 0 && safetensors_open(original, &file, &error) == TESSERA_OK, "%s", error.message);
    if (file == NULL) return CHECK_REPORT();
    close(descriptor);
    tessera_image a = draw(original, NULL, &wide);
    write_gguf(path, file, false);
    tessera_image b = draw(path, NULL, &same);
    write_gguf(path, file, true);
    tessera_image c = draw(path, NULL, &small);
    tessera_image d = draw(CASES "pipeline_sd3/model", path, &small);
    bool drawn = a.pixels != NULL && b.pixels != NULL && c.pixels != NULL && d.pixels != NULL;
    CHECK(drawn && psnr(&a, &d) > 30, "the denoiser alone: %.1f dB", drawn ? psnr(&a, &d) : 0.0);
    CHECK(drawn && memcmp(a.pixels, b.pixels, (size_t)a.width * (size_t)a.height * 3) == 0 && same == wide, "another picture");
    CHECK(drawn && psnr(&a, &c) > 30, "Q8_0: %.1f dB", drawn ? psnr(&a, &c) : 0.0);
    CHECK(3 * small < 2 * wide, "Q8_0: %zu bytes of %zu in BF16 are held", small, wide);
    tessera_image_free(&a), tessera_image_free(&b), tessera_image_free(&c), tessera_image_free(&d);
    safetensors_close(file);
    unlink(path);
    return CHECK_REPORT();
}
