/* AutoencoderKL against diffusers' results; strips against the whole, in result and in memory;
 * tiles; and folders that are wrong.
 *
 * Strips change sums only through the merging of a norm's statistics and the kernels' own blocking,
 * so results agree to rounding, not bit by bit. */
#include <unistd.h>

#include "component_test.h"
#include "models/autoencoder_kl.h"
#include "safetensors_write.h"

#define SD "tests/cases/vae_sd"
#define SD3 "tests/cases/vae_sd3"

enum { HUGE_STRIP = 1 << 30 };

static void check_encode(const struct case_io *c, struct component_test *t) {
    struct tensor image = case_tensor(c, "in.image"), mean = case_tensor(c, "out.mean"), logvar = case_tensor(c, "out.logvar");
    struct tensor in = case_channels_last(&image), want_mean = case_channels_last(&mean), want_logvar = case_channels_last(&logvar);
    struct tensor moments = autoencoder_kl_encode(t->component.autoencoder, &t->run, in);
    CHECK(t->run.error.status == TESSERA_OK, "%s", t->run.error.message);
    check_close(c, "mean", t->run.dtype, nn_chunk(&t->run, moments, 2, 0), want_mean);
    check_close(c, "logvar", t->run.dtype, nn_chunk(&t->run, moments, 2, 1), want_logvar);
    free(in.data);
    free(want_mean.data);
    free(want_logvar.data);
}

static void check_decode(const struct case_io *c, struct component_test *t) {
    struct tensor latents = case_tensor(c, "in.latents"), image = case_tensor(c, "out.image");
    struct tensor in = case_channels_last(&latents), want = case_channels_last(&image);
    size_t scope = run_enter(&t->run);
    struct tensor picture = autoencoder_kl_decode(t->component.autoencoder, &t->run, in);
    CHECK(t->run.error.status == TESSERA_OK, "%s", t->run.error.message);
    CHECK(arena_mark(t->run.arena) - scope <= tensor_bytes(&want) + 64, "a decode leaves its picture only");
    check_close(c, "image", t->run.dtype, picture, want);
    free(in.data);
    free(want.data);
}

static void test_case(const char *folder, enum dtype dtype, size_t strip_bytes) {
    struct case_io c;
    struct component_test t;
    tessera_error error = {0};
    char *model = file_join(folder, "model");
    printf("%s, strips of %zu bytes\n", folder, strip_bytes);
    CHECK(case_open(folder, &c, &error) == TESSERA_OK, "%s", error.message);
    if (component_test_open(&t, model, dtype)) {
        t.run.strip_bytes = strip_bytes;
        check_encode(&c, &t);
        check_decode(&c, &t);
        CHECK(t.run.operations > 0, "operations are counted");
    }
    component_test_close(&t);
    case_close(&c);
    free(model);
}

/* ---- Strips ---- */

/* Smooth numbers around 0 that differ everywhere; the caller frees .data. */
static struct tensor make_input(int64_t batch, int64_t rows, int64_t columns, int64_t channels) {
    struct tensor t = tensor_of(NULL, DTYPE_F32, SHAPE(batch, rows, columns, channels));
    t.data = malloc(tensor_bytes(&t));
    for (int64_t i = 0; i < tensor_count(&t); i++) ((float *)t.data)[i] = sinf(0.37f * (float)i) + 0.5f * cosf(0.011f * (float)i);
    return t;
}

static double relative_l2(const struct tensor *got, const struct tensor *want) {
    const struct case_io any = {.atol = 1.0};
    return case_compare(&any, got, want).relative_l2;
}

typedef struct tensor pass(const struct autoencoder *, struct run *, struct tensor);

/* The same pass in strips of several sizes: one row, a few, many. */
static void check_strips(struct component_test *t, pass *run_pass, const char *name, struct tensor in, double tolerance) {
    const size_t sizes[] = {1, 3000, 10000, 40000, 150000};
    size_t scope = run_enter(&t->run);
    t->run.strip_bytes = HUGE_STRIP;
    struct tensor whole = run_pass(t->component.autoencoder, &t->run, in);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        t->run.strip_bytes = sizes[i];
        size_t before = run_enter(&t->run);
        double operations = t->run.operations;
        struct tensor strips = run_pass(t->component.autoencoder, &t->run, in);
        double difference = relative_l2(&strips, &whole);
        printf("  %s %s of %lld rows, strips of %zu bytes: relative L2 %.3g\n", dtype_name(t->run.dtype), name, (long long)in.shape[1],
               sizes[i], difference);
        CHECK(t->run.error.status == TESSERA_OK, "%s", t->run.error.message);
        CHECK(difference <= tolerance, "%s of %lld rows in strips of %zu bytes differs by %g", name, (long long)in.shape[1], sizes[i],
              difference);
        CHECK(t->run.operations > operations, "operations are counted in strips");
        arena_release(t->run.arena, before);
    }
    arena_release(t->run.arena, scope);
}

/* Odd numbers of rows, batches, and pictures of fewer rows than a kernel has. */
static void test_strips(const char *model, enum dtype dtype, double tolerance) {
    struct component_test t;
    if (component_test_open(&t, model, dtype)) {
        const int64_t latent_rows[] = {1, 2, 7, 13}, picture_rows[] = {4, 20, 44, 61};
        for (int i = 0; i < 4; i++) {
            struct tensor z = make_input(i == 2 ? 2 : 1, latent_rows[i], 9, t.component.autoencoder->latent_channels);
            struct tensor image = make_input(i == 2 ? 2 : 1, picture_rows[i], 36, 3);
            check_strips(&t, autoencoder_kl_decode, "decode", z, tolerance);
            check_strips(&t, autoencoder_kl_encode, "encode", image, tolerance);
            free(z.data);
            free(image.data);
        }
    }
    component_test_close(&t);
}

/* Arena bytes of a pass in a new arena; 0 on failure. */
static size_t peak_of(struct component_test *t, pass *run_pass, struct tensor in, size_t strip_bytes) {
    tessera_error error = {0};
    struct run run = t->run;
    run.arena = arena_new((size_t)1 << 30, &error);
    run.strip_bytes = strip_bytes;
    run_pass(t->component.autoencoder, &run, in);
    CHECK(run.error.status == TESSERA_OK, "%s", run.error.message);
    size_t peak = run.error.status == TESSERA_OK ? arena_peak(run.arena) : 0;
    arena_free(run.arena);
    return peak;
}

/* The header's bound at a tall size: the case's widest full-resolution map has 32 channels, its
 * last block goes from 32 to 16. */
static void test_memory(void) {
    struct component_test t;
    if (component_test_open(&t, SD "/model", DTYPE_F32)) {
        enum { ROWS = 512, COLUMNS = 8, SIDE = 4, STRIP = 32 << 10 };
        const double map = 32.0 * ROWS * SIDE * COLUMNS * SIDE * sizeof(float);
        struct tensor z = make_input(1, ROWS, COLUMNS, 4), image = make_input(1, ROWS * SIDE, COLUMNS * SIDE, 3);
        double strips = (double)peak_of(&t, autoencoder_kl_decode, z, STRIP),
               whole = (double)peak_of(&t, autoencoder_kl_decode, z, HUGE_STRIP);
        printf("  decode: %.3f widest maps in strips, %.3f without\n", strips / map, whole / map);
        CHECK(strips > 0 && strips <= 1.5 * map + 3.0 * STRIP, "%.3f maps", strips / map);
        CHECK(whole >= 1.5 * strips, "strips save little: %.0f of %.0f", strips, whole);
        /* The encoder's widest map has 16 channels: half of `map`. */
        strips = (double)peak_of(&t, autoencoder_kl_encode, image, STRIP),
        whole = (double)peak_of(&t, autoencoder_kl_encode, image, HUGE_STRIP);
        printf("  encode: %.3f widest maps in strips, %.3f without\n", 2.0 * strips / map, 2.0 * whole / map);
        CHECK(strips > 0 && strips <= 2.0 * map / 2.0 + 3.0 * STRIP, "%.3f maps", 2.0 * strips / map);
        CHECK(whole >= 1.4 * strips, "strips save little: %.0f of %.0f", strips, whole);
        free(z.data);
        free(image.data);
    }
    component_test_close(&t);
}

/* ---- Tiles ---- */

/* Three rows of two columns of tiles of 16 latents, 12 apart. The top left tile shows its own
 * decoding up to its first seam, 48 pixels from its corner; the statistics of a norm are those of a
 * tile, so beyond that the whole is close, not equal. */
static void test_tiles(void) {
    struct component_test t;
    if (component_test_open(&t, SD "/model", DTYPE_F32)) {
        const struct autoencoder *vae = t.component.autoencoder;
        struct tensor z = make_input(2, 36, 24, 4), corner = make_input(1, 16, 16, 4);
        for (int64_t r = 0; r < 16; r++) memcpy((float *)corner.data + r * 16 * 4, (float *)z.data + r * 24 * 4, 16 * 4 * sizeof(float));
        struct tensor exact = autoencoder_kl_decode(vae, &t.run, z), tiled = autoencoder_kl_decode_tiled(vae, &t.run, z);
        struct tensor tile = autoencoder_kl_decode(vae, &t.run, corner);
        CHECK(t.run.error.status == TESSERA_OK, "%s", t.run.error.message);
        CHECK(tiled.data != NULL && tiled.shape[0] == 2 && tiled.shape[1] == 144 && tiled.shape[2] == 96, "the picture's shape");
        double difference = relative_l2(&tiled, &exact);
        printf("  tiled decode: relative L2 %.4f\n", difference);
        CHECK(difference <= 0.26, "relative L2 %.4f", difference);
        for (int64_t r = 0; r < 48 && tiled.data != NULL && tile.data != NULL; r++) {
            const float *got = (const float *)tiled.data + r * 96 * 3, *want = (const float *)tile.data + r * 64 * 3;
            CHECK(memcmp(got, want, 48 * 3 * sizeof *got) == 0, "row %lld of the first tile", (long long)r);
        }
        struct tensor small = make_input(1, 16, 11, 4);
        exact = autoencoder_kl_decode(vae, &t.run, small), tiled = autoencoder_kl_decode_tiled(vae, &t.run, small);
        CHECK(relative_l2(&tiled, &exact) == 0.0, "a latent within a tile is decoded as it is");
        free(z.data);
        free(corner.data);
        free(small.data);
    }
    component_test_close(&t);
}

/* ---- What is wrong with a folder ---- */

/* Opens the SD case's weights without those whose name is `leave_out` (NULL: all), under another
 * config. */
static void check_refused(const char *config, const char *leave_out, tessera_status status, const char *names) {
    char folder[] = "/tmp/tessera-test-XXXXXX";
    tessera_error error = {0};
    struct safetensors *stored = NULL;
    CHECK(mkdtemp(folder) != NULL, "no temporary folder");
    char *weights = file_join(folder, "diffusion_pytorch_model.safetensors"), *config_path = file_join(folder, "config.json");
    CHECK(safetensors_open(SD "/model/diffusion_pytorch_model.safetensors", &stored, &error) == TESSERA_OK, "%s", error.message);
    struct safetensors_entry entries[512];
    int count = 0;
    for (int i = 0; stored != NULL && i < safetensors_count(stored) && count < 512; i++) {
        entries[count] = *safetensors_at(stored, i);
        if (leave_out == NULL || strcmp(entries[count].name, leave_out) != 0) count++;
    }
    CHECK(safetensors_write(weights, entries, count, &error) == TESSERA_OK, "%s", error.message);
    write_text(folder, "config.json", config);
    struct component component;
    tessera_status got = component_open(&(struct component_source){.folder = folder}, DTYPE_F32, &component, &error);
    CHECK(got == status && (names == NULL || strstr(error.message, names) != NULL), "status %d, wanted %d and \"%s\": %s", got, status,
          names != NULL ? names : "", error.message);
    if (got == TESSERA_OK && leave_out != NULL) CHECK(!component.autoencoder->has_encoder, "no encoder is found");
    component_close(&component);
    if (stored != NULL) safetensors_close(stored);
    unlink(weights);
    unlink(config_path);
    rmdir(folder);
    free(weights);
    free(config_path);
}

#define CONFIG(down, channels, latent, rest)                                                                                               \
    "{\"_class_name\": \"AutoencoderKL\", \"block_out_channels\": " channels ", \"layers_per_block\": 2, \"norm_num_groups\": 8, "         \
    "\"down_block_types\": [\"DownEncoderBlock2D\", \"" down "\", \"DownEncoderBlock2D\"], \"up_block_types\": [\"UpDecoderBlock2D\", "    \
    "\"UpDecoderBlock2D\", \"UpDecoderBlock2D\"], \"latent_channels\": " latent rest "}"
#define GOOD CONFIG("DownEncoderBlock2D", "[16, 32, 32]", "4", "")

static void test_wrong_folders(void) {
    check_refused(GOOD, NULL, TESSERA_OK, NULL);
    check_refused(GOOD, "encoder.conv_in.weight", TESSERA_OK, NULL);
    check_refused(CONFIG("AttnDownEncoderBlock2D", "[16, 32, 32]", "4", ""), NULL, TESSERA_ERROR_UNSUPPORTED, "AttnDownEncoderBlock2D");
    check_refused(GOOD, "decoder.mid_block.resnets.1.conv2.weight", TESSERA_ERROR_FORMAT, "decoder.mid_block.resnets.1.conv2.weight");
    check_refused(GOOD, "decoder.up_blocks.1.upsamplers.0.conv.bias", TESSERA_ERROR_FORMAT, "decoder.up_blocks.1.upsamplers.0.conv.bias");
    check_refused(GOOD, "post_quant_conv.weight", TESSERA_ERROR_FORMAT, "post_quant_conv.weight");
    check_refused(CONFIG("DownEncoderBlock2D", "[16, 32, 64]", "4", ""), NULL, TESSERA_ERROR_FORMAT, "resnets.0.conv1.weight");
    check_refused(CONFIG("DownEncoderBlock2D", "[16, 32, 32]", "5", ""), NULL, TESSERA_ERROR_FORMAT, "encoder.conv_out.weight");
    check_refused(CONFIG("DownEncoderBlock2D", "[16, 32, 36]", "4", ""), NULL, TESSERA_ERROR_FORMAT, "block_out_channels");
    check_refused(CONFIG("DownEncoderBlock2D", "[16, 32, 32]", "4", ", \"scaling_factor\": 0"), NULL, TESSERA_ERROR_FORMAT,
                  "scaling_factor");
    check_refused(CONFIG("DownEncoderBlock2D", "[16, 32, 32]", "4", ", \"in_channels\": 4"), NULL, TESSERA_ERROR_UNSUPPORTED,
                  "in_channels");
}

/* An encode without an encoder, and a pass without memory, end with a message and an empty tensor. */
static void test_failed_runs(void) {
    struct component_test t;
    if (component_test_open(&t, SD "/model", DTYPE_F32)) {
        struct autoencoder *vae = t.component.autoencoder;
        struct tensor image = make_input(1, 8, 8, 3), z = make_input(1, 8, 8, 4);
        vae->has_encoder = false;
        struct tensor out = autoencoder_kl_encode(vae, &t.run, image);
        CHECK(out.data == NULL && t.run.error.status == TESSERA_ERROR_UNSUPPORTED && strstr(t.run.error.message, "encoder") != NULL, "%s",
              t.run.error.message);
        for (size_t limit = 1 << 10; limit <= 1 << 17; limit *= 2) {
            struct run run = t.run;
            run.error = (tessera_error){0};
            run.strip_bytes = 1;
            run.arena = arena_new(limit, &run.error);
            out = autoencoder_kl_decode(vae, &run, z);
            CHECK(out.data == NULL && run.error.status == TESSERA_ERROR_MEMORY && strstr(run.error.message, "memory") != NULL,
                  "%zu bytes: %s", limit, run.error.message);
            arena_free(run.arena);
        }
        free(image.data);
        free(z.data);
    }
    component_test_close(&t);
}

int main(void) {
    const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16};
    for (int i = 0; i < 2; i++) {
        test_case(SD, dtypes[i], HUGE_STRIP);
        test_case(SD3, dtypes[i], HUGE_STRIP);
        test_case(SD, dtypes[i], 1);
        test_case(SD3, dtypes[i], 20000);
    }
    test_strips(SD "/model", DTYPE_F32, 1e-5);
    test_strips(SD3 "/model", DTYPE_F32, 1e-5);
    test_strips(SD "/model", DTYPE_BF16, 0.02);
    test_memory();
    test_tiles();
    test_wrong_folders();
    test_failed_runs();
    return CHECK_REPORT();
}
