/* The autoencoder over ranks against one rank: results, bytes sent, operations and memory.
 *
 *     mpirun -n N test_autoencoder [large]
 *
 * Memory is measured twice: with a tall picture that is computed, and with one of 4096 x 4096
 * ("large") whose operators do nothing, so that only the arena moves. */
#include "models/autoencoder_kl.h"
#include "models/component_test.h"
#include "parallel/strategy.h"

#define SD "tests/cases/vae_sd/model"
#define SD3 "tests/cases/vae_sd3/model"
#define EMOJI "models/emoji/vae"

enum { HUGE_STRIP = 1 << 30 };

struct world {
    struct comm *comm, *alone;
    int size, rank;
    struct parallel parallel;
};

/* ---- Inputs and comparison; tensors on the heap, the caller frees .data ---- */

static struct tensor make_input(int64_t batch, int64_t rows, int64_t columns, int64_t channels) {
    struct tensor t = tensor_of(NULL, DTYPE_F32, SHAPE(batch, rows, columns, channels));
    t.data = malloc(tensor_bytes(&t));
    for (int64_t i = 0; i < tensor_count(&t); i++) ((float *)t.data)[i] = sinf(0.37f * (float)i) + 0.5f * cosf(0.011f * (float)i);
    return t;
}

static struct tensor copy_rows(struct tensor x, struct span rows) {
    struct tensor out = x;
    size_t row = (size_t)(x.shape[2] * x.shape[3]) * sizeof(float);
    out.shape[1] = rows.count;
    out.data = malloc(tensor_bytes(&out) + 1);
    for (int64_t b = 0; b < x.shape[0] && x.data != NULL; b++) {
        const char *from = (const char *)x.data + (size_t)(b * x.shape[1] + rows.first) * row;
        memcpy((char *)out.data + (size_t)(b * rows.count) * row, from, (size_t)rows.count * row);
    }
    return out;
}

static void check_same(const struct case_io *c, const char *what, struct tensor got, struct tensor want) {
    bool shaped = got.data != NULL && got.ndim == want.ndim;
    for (int i = 0; shaped && i < want.ndim; i++) shaped = got.shape[i] == want.shape[i];
    CHECK(shaped, "%s has another shape", what);
    if (!shaped) return;
    struct case_difference d = case_compare(c, &got, &want);
    CHECK(d.worst <= 1.0, "%s: %.3g times the tolerance", what, d.worst);
}

/* ---- What is sent: models/autoencoder_kl.h's formulas for blocks of 16, 32 and 32 channels, two resnets each
 * ---- */

enum { LEVELS = 3, SCALE = 4, GROUPS = 8, MIDDLE = 32 };
static const int64_t channels[LEVELS] = {16, 32, 32};

/* Elements of a row that one neighbour gets; those of halving convolutions go up only. */
struct halo_row {
    int64_t both, up;
};

static int64_t resnet_rows(int64_t in, int64_t out, int count, int64_t width) {
    return ((in + out) + (count - 1) * 2 * out) * width;
}

static struct halo_row encode_halo(int64_t width) {
    struct halo_row h = {.both = 3 * width};
    for (int i = 0; i < LEVELS; i++, width = i < LEVELS ? width / 2 : width) {
        h.both += resnet_rows(channels[i > 0 ? i - 1 : 0], channels[i], 2, width);
        if (i + 1 < LEVELS) h.up += channels[i] * width;
    }
    h.both += 2 * resnet_rows(MIDDLE, MIDDLE, 1, width) + MIDDLE * width;
    return h;
}

static struct halo_row decode_halo(int64_t latent, int64_t width) {
    struct halo_row h = {.both = latent * width + 2 * resnet_rows(MIDDLE, MIDDLE, 1, width)};
    for (int i = LEVELS - 1; i >= 0; i--, width = i >= 0 ? width * 2 : width) {
        h.both += resnet_rows(channels[i + 1 < LEVELS ? i + 1 : i], channels[i], 3, width);
        if (i > 0) h.both += channels[i] * width;
    }
    h.both += channels[0] * width;
    return h;
}

static void check_label(const struct world *w, const char *label, int64_t want) {
    int64_t sent = (int64_t)comm_stats_read(w->comm, label).bytes_sent;
    CHECK(sent == want, "%s: %lld bytes sent, %lld by the formula", label, (long long)sent, (long long)want);
}

/* Since the counts were reset: `norms` norms, a gather of so many bytes. */
static void check_sent(const struct world *w, struct halo_row halo, int norms, int64_t gathered, int64_t batch, int64_t rows,
                       int64_t columns) {
    int64_t others = w->size - 1, next = (w->rank + 1) % w->size, number = (int64_t)sizeof(float);
    int64_t kept = (rows * (next + 1) / w->size - rows * next / w->size) * columns; /* the next rank's own tokens never come back to it */
    int64_t up = w->rank > 0 ? halo.both + halo.up : 0, down = w->rank < w->size - 1 ? halo.both : 0;
    check_label(w, "halo", (up + down) * batch * number);
    check_label(w, "group norm", others * norms * (2 * batch * GROUPS + 1) * number);
    check_label(w, "attention", w->size > 1 ? 2 * (rows * columns - kept) * batch * MIDDLE * number : 0);
    check_label(w, "gather", gathered);
}

/* ---- Results ---- */

static void check_decode(const struct world *w, const struct case_io *c, struct component_test *t, struct tensor z) {
    const struct autoencoder *vae = t->component.autoencoder;
    size_t scope = run_enter(&t->run);
    int64_t rows = z.shape[1], columns = z.shape[2];
    t->run.parallel = NULL;
    struct tensor alone = autoencoder_kl_decode(vae, &t->run, z);
    double operations = t->run.operations;
    struct parallel parallel = w->parallel;
    t->run.parallel = &parallel;
    t->run.operations = 0;
    struct span mine = autoencoder_kl_rows(vae, &t->run, rows * SCALE, columns * SCALE);
    struct tensor want = copy_rows(alone, mine);
    comm_stats_reset(w->comm);
    struct tensor got = autoencoder_kl_decode(vae, &t->run, z);
    check_sent(w, decode_halo(z.shape[3], columns), 24, 0, z.shape[0], rows, columns);
    CHECK(!run_failed(&t->run), "%s", t->run.error.message);
    check_same(c, "decode", got, want);
    if (rows % w->size == 0) CHECK(t->run.operations <= 1.001 * operations / w->size, "operations are not cut");
    for (int root = 0; root<w->size; root += w->size> 1 ? w->size - 1 : 1) {
        struct tensor whole = exchange_gather_rows(&t->run, got, root);
        CHECK((whole.data != NULL) == (w->rank == root) && !run_failed(&t->run), "the picture is on rank %d only", root);
        if (whole.data != NULL) check_same(c, "gathered", whole, alone);
    }
    free(want.data);
    t->run.parallel = NULL;
    t->run.operations = 0;
    parallel_free(&parallel);
    arena_release(t->run.arena, scope);
}

static void check_encode(const struct world *w, const struct case_io *c, struct component_test *t, struct tensor image) {
    const struct autoencoder *vae = t->component.autoencoder;
    size_t scope = run_enter(&t->run);
    t->run.parallel = NULL;
    t->run.operations = 0;
    struct tensor alone = autoencoder_kl_encode(vae, &t->run, image);
    double operations = t->run.operations;
    struct parallel parallel = w->parallel;
    t->run.parallel = &parallel;
    t->run.operations = 0;
    struct tensor mine = copy_rows(image, autoencoder_kl_rows(vae, &t->run, image.shape[1], image.shape[2]));
    comm_stats_reset(w->comm);
    struct tensor moments = autoencoder_kl_encode(vae, &t->run, mine);
    int64_t rows = image.shape[1] / SCALE, columns = image.shape[2] / SCALE;
    int64_t my_rows = rows * (w->rank + 1) / w->size - rows * w->rank / w->size;
    int64_t gathered = (w->size - 1) * (8 + image.shape[0] * my_rows * columns * 2 * vae->latent_channels * 4);
    check_sent(w, encode_halo(image.shape[2]), 18, gathered, image.shape[0], rows, columns);
    CHECK(!run_failed(&t->run), "%s", t->run.error.message);
    check_same(c, "encode", moments, alone);
    if (image.shape[1] % (SCALE * w->size) == 0) CHECK(t->run.operations <= 1.001 * operations / w->size, "operations are not cut");
    free(mine.data);
    t->run.parallel = NULL;
    t->run.operations = 0;
    parallel_free(&parallel);
    arena_release(t->run.arena, scope);
}

static void test_case(const struct world *w, const char *folder, const char *model) {
    const size_t strips[] = {HUGE_STRIP, 40000, 1};
    struct case_io c;
    struct component_test t;
    tessera_error error = {0};
    CHECK(case_open(folder, &c, &error) == TESSERA_OK, "%s", error.message);
    if (c.json == NULL) return;
    if (component_test_open(&t, model, DTYPE_F32)) {
        struct tensor latents = case_tensor(&c, "in.latents"), image = case_tensor(&c, "in.image");
        struct tensor z = case_channels_last(&latents), pixels = case_channels_last(&image);
        for (int i = 0; i < 3; i++) {
            t.run.strip_bytes = strips[i];
            check_decode(w, &c, &t, z);
            check_encode(w, &c, &t, pixels);
        }
        free(z.data);
        free(pixels.data);
        if (w->rank == 0) printf("  %s over %d ranks\n", folder, w->size);
    }
    component_test_close(&t);
    case_close(&c);
}

/* Batches; as many rows as ranks, and numbers that do not divide; pixel rows beyond the last latent
 * row; strips of a few rows. */
static void test_sizes(const struct world *w) {
    const struct case_io close = {.atol = 2e-4, .rtol = 2e-3};
    const int64_t latent_rows[] = {w->size, 2 * w->size + 1, 5 * w->size - 1}, spare_rows[] = {0, 3, 1};
    struct component_test t;
    if (component_test_open(&t, SD, DTYPE_F32)) {
        for (int i = 0; i < 3; i++) {
            struct tensor z = make_input(1 + i % 2, latent_rows[i], 9, 4);
            struct tensor image = make_input(1 + i % 2, latent_rows[i] * SCALE + spare_rows[i], 36, 3);
            const size_t strips[] = {HUGE_STRIP, 30000 * (size_t)w->size, 1};
            for (int s = 0; s < 3; s++) {
                t.run.strip_bytes = strips[s];
                check_decode(w, &close, &t, z);
                check_encode(w, &close, &t, image);
            }
            free(z.data);
            free(image.data);
        }
    }
    component_test_close(&t);
}

/* One row too few for all ranks: the same error on each; tiles are decoded whole by each. */
static void test_limits(const struct world *w) {
    struct component_test t;
    if (component_test_open(&t, SD, DTYPE_F32)) {
        struct parallel parallel = w->parallel;
        struct tensor z = make_input(1, 20, 8, 4), few = make_input(1, w->size - 1, 8, 4);
        t.run.parallel = &parallel;
        struct tensor tiled = autoencoder_kl_decode_tiled(t.component.autoencoder, &t.run, z);
        CHECK(tiled.data != NULL && tiled.shape[1] == 80 && t.run.parallel == &parallel, "tiles make the whole picture");
        if (w->size > 1) {
            struct tensor out = autoencoder_kl_decode(t.component.autoencoder, &t.run, few);
            CHECK(out.data == NULL && t.run.error.status == TESSERA_ERROR_ARGUMENT && strstr(t.run.error.message, "at most") != NULL, "%s",
                  t.run.error.message);
        }
        free(z.data);
        free(few.data);
        parallel_free(&parallel);
    }
    component_test_close(&t);
}

/* ---- Memory ---- */

typedef struct tensor pass(const struct autoencoder *, struct run *, struct tensor);

/* Arena bytes of a pass in a new arena; 0 on failure. */
static size_t peak_of(const struct component_test *t, struct backend *backend, enum dtype dtype, struct parallel *parallel, pass *run_pass,
                      struct tensor in, size_t strip_bytes) {
    tessera_error error = {0};
    struct run run = {.backend = backend, .arena = arena_new((size_t)32 << 30, &error), .dtype = dtype, .strip_bytes = strip_bytes};
    run.parallel = parallel;
    CHECK(run.arena != NULL, "%s", error.message);
    if (run.arena == NULL) return 0;
    run_pass(t->component.autoencoder, &run, in);
    CHECK(run.error.status == TESSERA_OK, "%s", run.error.message);
    size_t peak = run.error.status == TESSERA_OK ? arena_peak(run.arena) : 0;
    arena_free(run.arena);
    return peak;
}

/* A pass by rank 0 alone, then by all: the highest peak is at most 1.25 / N of one rank's. `in` is
 * one rank's input, `mine` this rank's. */
static void check_peak(const struct world *w, const struct component_test *t, struct backend *backend, enum dtype dtype, const char *name,
                       pass *run_pass, struct tensor in, struct tensor mine, size_t strip_bytes) {
    tessera_error error = {0};
    struct parallel parallel = w->parallel;
    size_t alone = w->rank == 0 ? peak_of(t, backend, dtype, NULL, run_pass, in, strip_bytes) : 0;
    CHECK(comm_broadcast(w->comm, 0, &alone, sizeof alone, &error) == TESSERA_OK, "%s", error.message);
    size_t peak = peak_of(t, backend, dtype, &parallel, run_pass, mine, strip_bytes);
    double share = (double)peak / (double)alone;
    if (w->rank == 0)
        printf("  %s: %.1f MiB alone, %.1f MiB on %d ranks: %.3f / N\n", name, (double)alone / 0x1p20, (double)peak / 0x1p20, w->size,
               share * w->size);
    CHECK(peak > 0 && share <= 1.25 / w->size, "%s: a rank holds %.3f of what one holds alone", name, share);
    parallel_free(&parallel);
}

static void check_peaks(const struct world *w, const struct component_test *t, struct backend *backend, enum dtype dtype, int64_t rows,
                        int64_t columns, size_t strip_bytes) {
    const struct autoencoder *vae = t->component.autoencoder;
    struct parallel parallel = w->parallel;
    struct run run = {.parallel = &parallel};
    struct tensor z = make_input(1, rows, columns, vae->latent_channels);
    struct tensor image = make_input(1, rows * vae->scale, columns * vae->scale, 3);
    struct tensor mine = copy_rows(image, autoencoder_kl_rows(vae, &run, image.shape[1], image.shape[2]));
    check_peak(w, t, backend, dtype, "decode", autoencoder_kl_decode, z, z, strip_bytes);
    check_peak(w, t, backend, dtype, "encode", autoencoder_kl_encode, image, mine, strip_bytes);
    free(z.data);
    free(image.data);
    free(mine.data);
    parallel_free(&parallel);
}

static void test_memory(const struct world *w) {
    struct component_test t;
    if (component_test_open(&t, SD, DTYPE_F32)) check_peaks(w, &t, t.backend, DTYPE_F32, 512, 8, 128 << 10);
    component_test_close(&t);
}

/* Operators that do nothing. */
static bool supports_all(const struct backend *b, enum backend_product product, enum dtype x, enum dtype w) {
    (void)b, (void)product, (void)x, (void)w;
    return true;
}
static tessera_status no_linear(struct backend *b, struct tensor *out, const struct tensor *x, const struct tensor *w,
                                const struct tensor *bias, enum activation act, tessera_error *error) {
    return TESSERA_OK;
}
static tessera_status no_conv2d(struct backend *b, struct tensor *out, const struct tensor *x, const struct tensor *w,
                                const struct tensor *bias, const struct tensor *residual, struct conv2d_geometry g, tessera_error *error) {
    return TESSERA_OK;
}
static tessera_status no_attention(struct backend *b, struct tensor *out, struct tensor *lse, const struct attention_args *args,
                                   tessera_error *error) {
    return TESSERA_OK;
}
static void no_merge(struct backend *b, struct tensor *sum, struct tensor *lse, const struct tensor *part, const struct tensor *more_lse) {
}
static void no_stats(struct backend *b, struct tensor *stats, const struct tensor *x) {
    memset(stats->data, 0, tensor_bytes(stats));
}
static void no_group_norm(struct backend *b, struct tensor *out, const struct tensor *x, const struct tensor *stats,
                          const struct tensor *weight, const struct tensor *bias, float eps, enum activation act) {
}
static void no_add(struct backend *b, struct tensor *out, const struct tensor *x, const struct tensor *y) {
}
static void no_change(struct backend *b, struct tensor *out, const struct tensor *x) {
}
static void no_copy(struct backend *b, struct tensor *out, int64_t to, const struct tensor *x, int64_t from, int64_t rows) {
}

/* The embedded model's 4096 x 4096, with the strips that pictures are made with. */
static void test_large(const struct world *w) {
    struct backend_ops ops = {.supports = supports_all,
                              .linear = no_linear,
                              .conv2d = no_conv2d,
                              .attention = no_attention,
                              .merge_attention = no_merge,
                              .group_stats = no_stats,
                              .group_norm = no_group_norm,
                              .add = no_add,
                              .upsample = no_change,
                              .cast = no_change,
                              .copy_rows = no_copy};
    struct backend idle = {.ops = &ops, .shares_host = true, .threads = 1};
    backend_fill_host_memory(&ops);
    struct component_test t;
    if (component_test_open(&t, EMOJI, DTYPE_BF16)) check_peaks(w, &t, &idle, DTYPE_BF16, 512, 512, (size_t)64 << 20);
    component_test_close(&t);
}

int main(int argc, char **argv) {
    tessera_error error = {0};
    struct world w = {0};
    if (comm_world_open(NULL, &w.comm, &error) != TESSERA_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    w.size = comm_size(w.comm);
    w.rank = comm_rank(w.comm);
    CHECK(comm_split(w.comm, w.rank, 0, &w.alone, &error) == TESSERA_OK, "%s", error.message);
    w.parallel = (struct parallel){.cut_group = w.comm, .tensor = w.alone};
    parallel_add(&w.parallel, &ring_strategy, w.comm, NULL);
    parallel_add(&w.parallel, &rows_strategy, w.comm, NULL);
    if (argc > 1 && strcmp(argv[1], "large") == 0) {
        test_large(&w);
    } else {
        test_case(&w, "tests/cases/vae_sd", SD);
        test_case(&w, "tests/cases/vae_sd3", SD3);
        test_case(&w, "tests/cases/vae_large", SD);
        test_sizes(&w);
        test_limits(&w);
        test_memory(&w);
    }
    comm_finish(w.comm, &error);
    comm_free(w.alone);
    comm_free(w.comm);
    return CHECK_REPORT();
}
