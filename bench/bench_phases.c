/* Times a picture phase by phase and sets each against what this machine can do, measured in the
 * same run.
 *
 *     bench_phases MODEL_FOLDER [--threads N] [--runs N] [--width W --height H --steps S] [--bf16-only 1] [--warm 0]
 *
 * For each element type (or bfloat16 alone): one picture to warm up (unless --warm 0), then the
 * median of N runs (default 3) of text, denoising per step and decoding: milliseconds, operations
 * per second (a multiplication and an addition are two), share of peak, and at the end the peak
 * resident memory of the process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "machine_peak.h"
#include "tensor/tensor.h"
#include "tessera.h"

#define MAX_RUNS 100

struct settings {
    const char *folder;
    int threads, runs, width, height, steps, bf16_only, warm;
};

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, compare);
    return values[count / 2];
}

static void print_phase(const char *name, double seconds, double operations, double peak) {
    printf("  %-18s %10.2f ms %10.1f GFLOP/s %6.1f %% of peak\n", name, seconds * 1e3, operations / seconds * 1e-9,
           100.0 * operations / seconds / peak);
}

static int bench_dtype(const struct settings *s, tessera_dtype dtype) {
    tessera_error error = {0};
    tessera_model_options options = {.struct_size = sizeof(tessera_model_options), .dtype = dtype, .threads = s->threads};
    tessera_model *model = tessera_model_open(s->folder, &options, &error);
    if (model == NULL) {
        fprintf(stderr, "bench_phases: %s\n", error.message);
        return 1;
    }
    tessera_request request = TESSERA_REQUEST;
    tessera_request_defaults(model, false, &request);
    request.prompt = "a lion on a blue background";
    request.seed = 2;
    if (s->width > 0) request.width = s->width;
    if (s->height > 0) request.height = s->height;
    if (s->steps > 0) request.num_inference_steps = s->steps;
    double text[MAX_RUNS], denoise[MAX_RUNS], decode[MAX_RUNS];
    tessera_image image = TESSERA_IMAGE;
    for (int run = s->warm ? -1 : 0; run < s->runs; run++) {
        tessera_image_free(&image);
        if (tessera_generate(model, &request, &image, &error) != TESSERA_OK) {
            fprintf(stderr, "bench_phases: %s\n", error.message);
            tessera_model_free(model);
            return 1;
        }
        if (run < 0) continue;
        text[run] = image.seconds_text, denoise[run] = image.seconds_denoise, decode[run] = image.seconds_decode;
    }
    double peak = machine_peak_flops(dtype == TESSERA_F32 ? DTYPE_F32 : DTYPE_BF16, tessera_model_threads(model));
    printf("%s, %s, %d threads, %dx%d, %d steps; peak %.1f GFLOP/s\n", dtype == TESSERA_F32 ? "float32" : "bfloat16",
           tessera_model_kernel_path(model), tessera_model_threads(model), request.width, request.height, request.num_inference_steps,
           peak * 1e-9);
    double steps = request.num_inference_steps;
    print_phase("text", median(text, s->runs), image.operations_text, peak);
    print_phase("denoise, per step", median(denoise, s->runs) / steps, image.operations_denoise / steps, peak);
    print_phase("decode", median(decode, s->runs), image.operations_decode, peak);
    tessera_image_free(&image);
    tessera_model_free(model);
    return 0;
}

int main(int argc, char **argv) {
    struct settings s = {.folder = argc > 1 ? argv[1] : "models/emoji", .runs = 3, .warm = 1};
    struct {
        const char *name;
        int *value;
    } options[] = {{"--threads", &s.threads}, {"--runs", &s.runs},           {"--width", &s.width}, {"--height", &s.height},
                   {"--steps", &s.steps},     {"--bf16-only", &s.bf16_only}, {"--warm", &s.warm}};
    for (int i = 2; i + 1 < argc; i += 2)
        for (size_t k = 0; k < sizeof options / sizeof *options; k++)
            if (strcmp(argv[i], options[k].name) == 0) *options[k].value = atoi(argv[i + 1]);
    if (s.runs < 1 || s.runs > MAX_RUNS) {
        fprintf(stderr, "bench_phases: --runs must be 1 to %d\n", MAX_RUNS);
        return 2;
    }
    int failed = bench_dtype(&s, TESSERA_BF16) || (!s.bf16_only && bench_dtype(&s, TESSERA_F32));
    printf("peak resident memory %.0f MiB\n", (double)memory_peak_resident() / (1 << 20));
    return failed;
}
