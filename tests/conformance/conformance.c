/* conformance [--backend cpu|cuda] [--dtype f32|bf16] CASE_DIR...
 *
 * Computes what each case folder asks for and compares with what the reference implementations gave. One line per case: name, worst
 * error, limit, pass, FAIL or SKIP with the reason. Exit status 0 if all pass, 1 if one fails, 2 if none fails but one was skipped
 * (or the command line is wrong).
 *
 * The error of float32 is the largest |a - b| / (atol + rtol |b|) with the case's tolerance, so the limit is 1; that of bfloat16 is the
 * largest relative L2 error of an output. Pipelines in bfloat16 are judged by the picture's PSNR. */
#include "conformance.h"

#include <stdarg.h>
#include <stdio.h>

static const struct kind {
    const char *name;
    void (*run)(struct conformance_case *);
} kinds[] = {
    {"rng", conform_rng}, {"scheduler", conform_scheduler}, {"tokenizer", conform_tokenizer}, {"text_encoder", conform_text_encoder},
    {"vae", conform_vae}, {"denoiser", conform_denoiser},   {"pipeline", conform_pipeline},
};

void case_fail(struct conformance_case *c, const char *format, ...) {
    if (c->verdict == VERDICT_FAIL) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(c->reason, sizeof c->reason, format, arguments);
    va_end(arguments);
    c->verdict = VERDICT_FAIL;
}

void case_error(struct conformance_case *c, const tessera_error *error) {
    case_fail(c, "%s", error->message);
    if (error->status == TESSERA_ERROR_UNSUPPORTED) c->verdict = VERDICT_SKIP;
}

/* Drops leading ones, so that [1, 16] compares with [16]. */
static struct tensor without_leading_ones(struct tensor t) {
    int skip = 0;
    while (skip < t.ndim - 1 && t.shape[skip] == 1) skip++;
    return t.data == NULL ? t : tensor_reshape(t, t.ndim - skip, t.shape + skip);
}

void case_check(struct conformance_case *c, const char *name, struct tensor got, struct tensor want) {
    struct tensor a = without_leading_ones(got), b = without_leading_ones(want);
    struct case_difference d = case_compare(&c->io, &a, &b);
    double error = c->dtype == DTYPE_F32 ? d.worst : d.relative_l2;
    c->compared++;
    c->limit = c->dtype == DTYPE_F32 ? 1.0 : BF16_RELATIVE_L2;
    if (!(error <= c->worst)) c->worst = error;
    if (!(error <= c->limit)) case_fail(c, "%s: error %.3g", name, error);
}

char *case_model_folder(const struct conformance_case *c) {
    const char *relative = "model";
    tessera_error error;
    if (json_string(c->io.json, "model", "model", &relative, &error) != TESSERA_OK) return NULL;
    return file_join(c->folder, relative);
}

bool case_component(struct conformance_case *c, struct component *component) {
    tessera_error error = {0};
    char *folder = case_model_folder(c);
    tessera_status status = folder == NULL ? error_set(&error, TESSERA_ERROR_FORMAT, "field model: not a string")
                                           : component_open(&(struct component_source){.folder = folder}, c->dtype, component, &error);
    free(folder);
    if (status != TESSERA_OK) case_error(c, &error);
    return status == TESSERA_OK;
}

static void run_case(struct conformance_case *c) {
    tessera_error error = {0};
    if (case_open(c->folder, &c->io, &error) != TESSERA_OK) {
        case_fail(c, "%s", error.message);
        return;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, c->io.kind) != 0) continue;
        kinds[i].run(c);
        if (c->verdict == VERDICT_PASS && c->compared == 0) case_fail(c, "nothing was compared");
        case_close(&c->io);
        return;
    }
    c->verdict = VERDICT_SKIP;
    snprintf(c->reason, sizeof c->reason, "no kind \"%s\" in this build", c->io.kind);
    case_close(&c->io);
}

static void print_case(const struct conformance_case *c) {
    static const char *const words[] = {"pass", "FAIL", "SKIP"};
    size_t length = strlen(c->folder);
    while (length > 0 && c->folder[length - 1] == '/') length--;
    size_t start = length;
    while (start > 0 && c->folder[start - 1] != '/') start--;
    printf("%-36.*s ", (int)(length - start), c->folder + start);
    if (c->psnr > 0 && c->dtype == DTYPE_BF16)
        printf("%-30s", "at least 35 dB:");
    else
        printf("error %-10.3g limit %-6.3g ", c->worst, c->limit);
    if (c->psnr > 0) printf("%.1f dB ", c->psnr);
    printf("%s%s%s\n", words[c->verdict], c->reason[0] ? ": " : "", c->reason);
    fflush(stdout);
}

static int usage(void) {
    fprintf(stderr, "usage: conformance [--backend cpu|cuda] [--dtype f32|bf16] CASE_DIR...\n");
    return 2;
}

int main(int argc, char **argv) {
    enum dtype dtype = DTYPE_F32;
    int first = 1, counts[3] = {0};
    for (; first + 1 < argc && strncmp(argv[first], "--", 2) == 0; first += 2) {
        if (strcmp(argv[first], "--dtype") == 0 && strcmp(argv[first + 1], "bf16") == 0)
            dtype = DTYPE_BF16;
        else if (strcmp(argv[first], "--dtype") == 0 && strcmp(argv[first + 1], "f32") == 0)
            dtype = DTYPE_F32;
        else if (strcmp(argv[first], "--backend") == 0 && strcmp(argv[first + 1], "cpu") == 0)
            continue;
        else if (strcmp(argv[first], "--backend") == 0 && strcmp(argv[first + 1], "cuda") == 0) {
            fprintf(stderr, "conformance: this build has no CUDA backend\n");
            return 2;
        } else
            return usage();
    }
    if (first >= argc) return usage();
    tessera_error error = {0};
    struct backend *backend = cpu_backend_open(0, CPU_KERNELS_BEST, &error);
    struct arena *arena = backend != NULL ? arena_new(0, &error) : NULL;
    if (arena == NULL) {
        fprintf(stderr, "conformance: %s\n", error.message);
        return 1;
    }
    for (int i = first; i < argc; i++) {
        struct conformance_case c = {.folder = argv[i], .dtype = dtype, .limit = 1.0};
        c.run = (struct run){.backend = backend, .arena = arena, .dtype = dtype, .strip_bytes = (size_t)64 << 20};
        run_case(&c);
        arena_release(arena, 0);
        print_case(&c);
        counts[c.verdict]++;
    }
    arena_free(arena);
    backend_free(backend);
    printf("%d passed, %d failed, %d skipped\n", counts[VERDICT_PASS], counts[VERDICT_FAIL], counts[VERDICT_SKIP]);
    return counts[VERDICT_FAIL] > 0 ? 1 : counts[VERDICT_SKIP] > 0 ? 2 : 0;
}
