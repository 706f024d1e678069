/* conformance [--backend cpu|fenced|cuda] [--kernels best|own|reproducible] [--threads N] [--dtype f32|bf16] [--cfg N] [--pipefusion N] [--ring N] [--ulysses N] [--tensor N] [--rank-weights
 * N,N,...] CASE_DIR...
 *
 * fenced: a device that the host cannot read and whose operators run late (tests/fenced).
 * Reproducible kernels add a hash of the results' bits to each line, the same on every machine
 * (docs/reproducible.md).
 *
 * Computes what each case folder asks for and compares with what the reference implementations
 * gave. One line per case: name, worst error, limit, pass, FAIL or SKIP with the reason. Exit
 * status 0 if all pass, 1 if one fails, 2 if none fails but one was skipped (or the command line is
 * wrong).
 *
 * The error of float32 is the largest |a - b| / (atol + rtol |b|) with the case's tolerance, so the limit is 1; that of bfloat16 is the
 * largest relative L2 error of an output. Pipelines in bfloat16 are judged by the picture's PSNR.
 *
 * Under `mpirun -n N`, kinds vae, denoiser, distrifusion, pipefusion and step_cache run on every
 * exact mesh of N ranks (or on those with the degrees that are given), with a line and the work of
 * each rank per mesh; the other kinds run on rank 0. */
#include "conformance.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/memory.h"
#include "fenced/fenced.h"
#include "spread.h"

static const struct kind {
    const char *name;
    void (*run)(struct conformance_case *);
    bool spreads; /* over the ranks of the world */
} kinds[] = {
    {"rng", conform_rng, false},
    {"scheduler", conform_scheduler, false},
    {"tokenizer", conform_tokenizer, false},
    {"text_encoder", conform_text_encoder, false},
    {"vae", conform_vae, true},
    {"denoiser", conform_denoiser, true},
    {"pipeline", conform_pipeline, false},
    {"distrifusion", conform_distrifusion, true},
    {"displaced", conform_displaced, true},
    {"pipefusion", conform_pipefusion, true},
    {"step_cache", conform_step_cache, true},
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

/* Fowler, Noll and Vo's hash of the numbers' bits, begun with `bits`. */
static uint32_t hash_of(uint32_t bits, const struct tensor *t) {
    size_t count = t->data != NULL ? tensor_bytes(t) : 0;
    for (size_t i = 0; i < count; i++) bits = (bits ^ ((const uint8_t *)t->data)[i]) * 16777619u;
    return bits;
}

void case_check(struct conformance_case *c, const char *name, struct tensor got, struct tensor want) {
    struct tensor a = without_leading_ones(got), b = without_leading_ones(want);
    struct case_difference d = case_compare(&c->io, &a, &b);
    double error = c->dtype == DTYPE_F32 ? d.worst : d.relative_l2;
    c->compared++;
    c->bits = hash_of(c->bits, &a);
    c->limit = c->dtype == DTYPE_F32 ? 1.0 : BF16_RELATIVE_L2;
    if (!(error <= c->worst)) c->worst = error;
    if (!(error <= c->limit)) case_fail(c, "%s: error %.3g", name, error);
}

struct tensor case_room(struct conformance_case *c, enum dtype dtype, int ndim, const int64_t *shape) {
    struct tensor t = tensor_of(NULL, dtype, ndim, shape);
    if (!run_failed(&c->run)) t.data = arena_alloc(c->host, tensor_bytes(&t));
    return t.data != NULL ? t : (struct tensor){0};
}

struct tensor case_host(struct conformance_case *c, struct tensor t) {
    if (t.data == NULL || c->run.backend->shares_host || !backend_holds(c->run.backend, &t)) return t;
    struct tensor host = case_room(c, t.dtype, t.ndim, t.shape);
    if (host.data == NULL) return host;
    return run_checked(&c->run, backend_download(c->run.backend, host.data, &t, &c->run.error), host);
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
                                           : component_open(&(struct component_source){.folder = folder, .backend = c->run.backend},
                                                            c->dtype, component, &error);
    if (status == TESSERA_OK) status = component_load(component, &error);
    free(folder);
    if (status != TESSERA_OK) case_error(c, &error);
    return status == TESSERA_OK;
}

static void print_case(const struct conformance_case *c) {
    static const char *const words[] = {"pass", "FAIL", "SKIP", "left out"};
    size_t length = strlen(c->folder);
    while (length > 0 && c->folder[length - 1] == '/') length--;
    size_t start = length;
    while (start > 0 && c->folder[start - 1] != '/') start--;
    printf("%-36.*s ", (int)(length - start), c->folder + start);
    if (c->world->ranks > 1 && c->mesh != NULL) {
        const int *degrees = c->mesh->degrees;
        printf("cfg %d ", degrees[MESH_CFG]);
        if (degrees[MESH_PIPEFUSION] > 1) printf("pipefusion %d ", degrees[MESH_PIPEFUSION]);
        printf("ring %d ulysses %d tensor %d  ", degrees[MESH_RING], degrees[MESH_ULYSSES], degrees[MESH_TENSOR]);
    }
    if (c->psnr > 0 && c->dtype == DTYPE_BF16)
        printf("%-30s", "at least 35 dB:");
    else
        printf("error %-10.3g limit %-6.3g ", c->worst, c->limit);
    if (c->psnr > 0) printf("%.1f dB ", c->psnr);
    if (c->run.backend->reproducible) printf("bits %08x ", (unsigned)c->bits);
    printf("%s%s%s\n", words[c->verdict], c->reason[0] ? ": " : "", c->reason);
    fflush(stdout);
}

/* A kind that knows nothing of other ranks. */
static void run_alone(struct conformance_case *c, const struct kind *kind, int counts[3]) {
    if (c->world->rank != 0) return;
    kind->run(c);
    if (c->verdict == VERDICT_PASS && c->compared == 0) case_fail(c, "nothing was compared");
    print_case(c);
    counts[c->verdict]++;
}

/* False after a failure of communication. */
static bool run_case(struct conformance_case *c, int counts[3]) {
    static const struct kind none = {0};
    const struct kind *kind = &none;
    tessera_error error = {0};
    if (case_open(c->folder, &c->io, &error) != TESSERA_OK) case_fail(c, "%s", error.message);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds && c->verdict == VERDICT_PASS; i++)
        if (strcmp(kinds[i].name, c->io.kind) == 0) kind = &kinds[i];
    bool communicates = true;
    if (kind->run != NULL && kind->spreads) {
        communicates = spread_run(c, kind->run, print_case, counts);
    } else if (kind->run != NULL) {
        run_alone(c, kind, counts);
    } else {
        if (c->verdict == VERDICT_PASS) snprintf(c->reason, sizeof c->reason, "no kind \"%s\" in this build", c->io.kind);
        if (c->verdict == VERDICT_PASS) c->verdict = VERDICT_SKIP;
        if (c->world->rank == 0) print_case(c);
        counts[c->verdict]++;
    }
    case_close(&c->io);
    return communicates;
}

/* What the command line says. */
struct command {
    enum dtype dtype;
    bool fenced;
    enum cpu_kernels kernels;
    int threads;
    int first; /* of the cases */
    struct conformance_world world;
};

static int usage(void) {
    fprintf(stderr, "usage: conformance [--backend cpu|fenced|cuda] [--kernels best|own|reproducible] [--threads N] [--dtype f32|bf16] "
                    "[--cfg N] [--pipefusion N] [--ring N] [--ulysses N] [--tensor N] [--rank-weights N,N,...] CASE_DIR...\n");
    return 2;
}

/* "3,1": speeds of the ranks, the last one also of those after it. */
static bool read_weights(const char *text, struct conformance_world *world) {
    enum { MOST = 64 };
    world->weights = calloc(MOST, sizeof *world->weights);
    for (int i = 0; i < MOST && world->weights != NULL; i++) {
        char *end;
        double number = strtod(text, &end);
        world->weights[i] = end != text ? number : world->weights[i - (i > 0)];
        text = *end == ',' ? end + 1 : end;
    }
    return world->weights != NULL && *text == 0;
}

/* One option with its value; false if there is no such. */
static bool read_option(const char *name, const char *value, struct command *command) {
    static const struct {
        const char *name;
        enum mesh_axis axis;
    } degrees[] = {{"--cfg", MESH_CFG},
                   {"--pipefusion", MESH_PIPEFUSION},
                   {"--ring", MESH_RING},
                   {"--ulysses", MESH_ULYSSES},
                   {"--tensor", MESH_TENSOR}};
    for (size_t i = 0; i < sizeof degrees / sizeof *degrees; i++) {
        if (strcmp(name, degrees[i].name) != 0) continue;
        command->world.wanted[degrees[i].axis] = atoi(value);
        return atoi(value) > 0;
    }
    if (strcmp(name, "--threads") == 0) return (command->threads = atoi(value)) > 0;
    if (strcmp(name, "--kernels") == 0) return cpu_kernels_from_name(value, &command->kernels);
    if (strcmp(name, "--rank-weights") == 0) return read_weights(value, &command->world);
    command->dtype = strcmp(value, "bf16") == 0 ? DTYPE_BF16 : command->dtype;
    if (strcmp(name, "--dtype") == 0) return strcmp(value, "bf16") == 0 || strcmp(value, "f32") == 0;
    if (strcmp(name, "--backend") != 0) return false;
    if (strcmp(value, "cuda") == 0) fprintf(stderr, "conformance: this build has no CUDA backend\n");
    command->fenced = strcmp(value, "fenced") == 0;
    return command->fenced || strcmp(value, "cpu") == 0;
}

static int run_cases(const struct command *command, char **folders, struct run run, struct arena *host) {
    const struct conformance_world *world = &command->world;
    int counts[3] = {0};
    for (; *folders != NULL; folders++) {
        struct conformance_case c = {.folder = *folders, .dtype = command->dtype, .limit = 1.0, .world = world, .run = run, .host = host};
        if (!run_case(&c, counts)) return 1;
        arena_release(run.arena, 0);
        arena_release(host, 0);
    }
    if (world->rank == 0) printf("%d passed, %d failed, %d skipped\n", counts[VERDICT_PASS], counts[VERDICT_FAIL], counts[VERDICT_SKIP]);
    fflush(stdout);
    return counts[VERDICT_FAIL] > 0 ? 1 : counts[VERDICT_SKIP] > 0 ? 2 : 0;
}

int main(int argc, char **argv) {
    struct command command = {.dtype = DTYPE_F32, .first = 1};
    for (; command.first + 1 < argc && strncmp(argv[command.first], "--", 2) == 0; command.first += 2)
        if (!read_option(argv[command.first], argv[command.first + 1], &command)) return usage();
    if (command.first >= argc) return usage();
    tessera_error error = {0};
    struct conformance_world *world = &command.world;
    if (comm_world_open(NULL, &world->comm, &error) != TESSERA_OK) {
        fprintf(stderr, "conformance: %s\n", error.message);
        return 1;
    }
    world->ranks = comm_size(world->comm);
    world->rank = comm_rank(world->comm);
    int threads = command.threads > 0 || world->ranks == 1 ? command.threads : 1;
    struct backend *backend =
        command.fenced ? fenced_backend_open(threads, true, &error) : cpu_backend_open(threads, command.kernels, &error);
    struct arena *arena = backend != NULL ? backend->ops->arena(backend, 0, &error) : NULL, *host = arena_new(0, &error);
    int status = 1;
    if (arena != NULL && host != NULL)
        status = run_cases(&command, argv + command.first,
                           (struct run){.backend = backend, .arena = arena, .dtype = command.dtype, .strip_bytes = (size_t)64 << 20}, host);
    else
        comm_abort(world->comm, &error);
    if (comm_finish(world->comm, &error) != TESSERA_OK) status = 1;
    if (status == 1 && error.status != TESSERA_OK) fprintf(stderr, "conformance: %s\n", error.message);
    arena_free(arena);
    arena_free(host);
    backend_free(backend);
    comm_free(world->comm);
    free(world->weights);
    return status;
}
