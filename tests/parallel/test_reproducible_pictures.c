/* Reproducible kernels: the SHA-256 of latents and pixels is one stored value, whatever computes them.
 *
 *     test_reproducible_pictures HASHES             every instruction set of this processor, 1, 2, 3 and 8 threads, batches of 1 and 3, strips
 *     mpirun -n N test_reproducible_pictures HASHES the strategies of N ranks that divide no sum
 *
 * HASHES has a line "SUBJECT SHA-256" for each subject. Where a line is wrong the message has the
 * value that was computed; a value changes only with the definition in docs/reproducible.md. The
 * strategies that divide sums must be refused. */
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "case_io.h"
#include "check.h"
#include "models/registry.h"
#include "parallel/reproducible_subjects.h"

enum { DIGEST = 32 };

/* ---- hashes ---- */

struct hashes {
    char *file;
};

static void hex_of(const unsigned char digest[DIGEST], char text[2 * DIGEST + 1]) {
    for (int i = 0; i < DIGEST; i++) snprintf(text + 2 * i, 3, "%02x", digest[i]);
}

/* Of a picture's latents and 8-bit pixels. */
static void hash_picture(const tessera_image *image, int index, char text[2 * DIGEST + 1]) {
    unsigned char digest[DIGEST];
    size_t latents = picture_latents(image), pixels = picture_pixels(image);
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    EVP_DigestInit_ex(hash, EVP_sha256(), NULL);
    EVP_DigestUpdate(hash, image->latents + (size_t)index * latents, latents * sizeof(float));
    EVP_DigestUpdate(hash, image->pixels + (size_t)index * pixels, pixels);
    EVP_DigestFinal_ex(hash, digest, NULL);
    EVP_MD_CTX_free(hash);
    hex_of(digest, text);
}

static void check_hash(const struct hashes *hashes, const char *name, int index, const char *how, const char *got) {
    char line[160];
    snprintf(line, sizeof line, "%s.%d %s\n", name, index, got);
    CHECK(strstr(hashes->file, line) != NULL, "%s: the hash is not the stored one: %s", how, line);
}

/* ---- pictures ---- */

struct way {
    const char *isa; /* NULL: the best one */
    int threads, pictures;
    tessera_mesh mesh;
};

/* Makes the subject's pictures in some way and checks those that this rank gets; false with `error`
 * where that fails. */
static bool make(const struct hashes *hashes, const struct subject *s, struct way way, const char *how, tessera_error *error) {
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    options.dtype = s->dtype, options.threads = way.threads, options.kernels = TESSERA_KERNELS_REPRODUCIBLE;
    way.mesh.struct_size = sizeof way.mesh;
    if (way.mesh.world != NULL) options.mesh = &way.mesh;
    if (way.isa != NULL) setenv("TESSERA_ISA", way.isa, 1);
    tessera_model *model = tessera_model_open(s->model, &options, error);
    unsetenv("TESSERA_ISA");
    if (model == NULL) return false;
    tessera_request r = subject_request(s, model, way.pictures);
    if (way.mesh.data > 1) r.first_image = tessera_model_group(model), r.made_images = 1;
    tessera_image image = TESSERA_IMAGE;
    bool good = tessera_generate(model, &r, &image, error) == TESSERA_OK;
    for (int i = 0; good && tessera_model_gets_pictures(model) && i < image.count; i++) {
        char text[2 * DIGEST + 1];
        hash_picture(&image, i, text);
        check_hash(hashes, s->name, r.first_image + i, how, text);
    }
    tessera_image_free(&image);
    tessera_model_free(model);
    return good;
}

static void must_make(const struct hashes *hashes, const struct subject *s, struct way way, const char *how) {
    tessera_error error = {0};
    bool good = make(hashes, s, way, how, &error);
    CHECK(good, "%s, %s: %s", s->name, how, error.message);
}

/* ---- one rank ---- */

static void run_alone(const struct hashes *hashes, const struct subject *s) {
    static const char *const isas[] = {"avx2", "avx512", "avx512bf16", "amx"};
    char how[64];
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        tessera_error error = {0};
        snprintf(how, sizeof how, "%s, 2 threads", isas[i]);
        bool made = make(hashes, s, (struct way){isas[i], 2, 1, {0}}, how, &error);
        CHECK(made || error.status == TESSERA_ERROR_UNSUPPORTED, "%s, %s: %s", s->name, how, error.message);
    }
    for (int threads = 1; threads <= 8; threads += threads == 3 ? 5 : 1) {
        snprintf(how, sizeof how, "%d threads", threads);
        must_make(hashes, s, (struct way){NULL, threads, 1, {0}}, how);
    }
    must_make(hashes, s, (struct way){NULL, 2, PICTURES, {0}}, "a batch of 3");
    must_make(hashes, s, (struct way){"plain", 2, 1, {0}}, "plain C");
}

/* The decoder of `folder` on its case, with its work in strips of so many bytes; the caller frees. */
static float *decode(const char *folder, size_t strip_bytes, int64_t *count) {
    struct case_io io;
    struct component vae = {0};
    tessera_error error = {0};
    char *model = file_join(folder, "model");
    struct run run = {.backend = cpu_backend_open(2, CPU_KERNELS_REPRODUCIBLE, &error), .dtype = DTYPE_F32, .strip_bytes = strip_bytes};
    run.arena = arena_new((size_t)1 << 30, &error);
    CHECK(case_open(folder, &io, &error) == TESSERA_OK, "%s", error.message);
    CHECK(component_open(&(struct component_source){.folder = model}, DTYPE_F32, &vae, &error) == TESSERA_OK, "%s", error.message);
    CHECK(component_load(&vae, &error) == TESSERA_OK, "%s", error.message);
    struct tensor given = case_tensor(&io, "in.latents"), latents = case_channels_last(&given);
    struct tensor picture = vae.autoencoder->class->decode(vae.autoencoder, &run, latents);
    CHECK(!run_failed(&run), "%s", run.error.message);
    float *out = malloc(tensor_bytes(&picture));
    memcpy(out, picture.data, tensor_bytes(&picture));
    *count = tensor_count(&picture);
    component_close(&vae);
    case_close(&io);
    arena_free(run.arena);
    backend_free(run.backend);
    free(latents.data);
    free(model);
    return out;
}

static void test_strips(void) {
    int64_t count, other;
    float *whole = decode("tests/cases/vae_sd", (size_t)1 << 30, &count);
    for (size_t bytes = 1; bytes < 1 << 20; bytes *= 32) {
        float *strips = decode("tests/cases/vae_sd", bytes, &other);
        CHECK(other == count && memcmp(whole, strips, (size_t)count * sizeof *whole) == 0, "strips of %zu bytes change bits", bytes);
        free(strips);
    }
    free(whole);
}

/* ---- several ranks ---- */

static const struct mesh_case {
    int ranks;
    tessera_mesh mesh;
    bool refused;
} meshes[] = {
    {2, {.cfg = 2}, false},
    {2, {.ulysses = 2}, false},
    {2, {.data = 2}, false},
    {2, {.pipefusion = 2, .num_pipeline_patch = 1}, false},
    {2, {.ring = 2}, false},
    {2, {.ulysses = 2, .parallel_vae = true}, false},
    {2, {.tensor = 2}, true},
    {2, {.patch = 2}, true},
    {3, {.data = 3}, false},
    {3, {.ulysses = 3}, false},
    {3, {.ring = 3, .parallel_vae = true}, false},
    {3, {.pipefusion = 3, .num_pipeline_patch = 1}, false},
    {4, {.cfg = 2, .ulysses = 2}, false},
    {4, {.ring = 2, .ulysses = 2, .parallel_vae = true}, false},
    {4, {.pipefusion = 2, .ulysses = 2, .num_pipeline_patch = 1}, false},
    {4, {.cfg = 2, .pipefusion = 2, .num_pipeline_patch = 1}, false},
};

static void run_mesh(const struct hashes *hashes, const struct subject *s, const struct mesh_case *c, tessera_world *world) {
    tessera_error error = {0};
    char how[96];
    struct way way = {NULL, 1, 1, c->mesh};
    way.mesh.world = world;
    snprintf(how, sizeof how, "data %d cfg %d pipefusion %d ring %d ulysses %d%s", c->mesh.data, c->mesh.cfg, c->mesh.pipefusion,
             c->mesh.ring, c->mesh.ulysses, c->mesh.parallel_vae ? ", parallel autoencoder" : "");
    bool good = make(hashes, s, way, how, &error);
    if (c->refused)
        CHECK(!good && error.status == TESSERA_ERROR_ARGUMENT && strstr(error.message, "reproducible") != NULL, "%s: not refused: %s",
              s->name, error.message);
    else /* a model may have too few heads or blocks for a degree */
        CHECK(good || error.status == TESSERA_ERROR_ARGUMENT, "%s, %s: %s", s->name, how, error.message);
    if (tessera_world_rank(world) == 0) printf("%s, %s: %s\n", s->name, how, good ? "made" : "refused");
}

/* A step cache decides by a sum over ranks. */
static void check_step_cache(tessera_world *world) {
    tessera_error error = {0};
    tessera_mesh mesh = TESSERA_MESH;
    mesh.world = world, mesh.ulysses = tessera_world_size(world);
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    options.mesh = &mesh, options.threads = 1, options.kernels = TESSERA_KERNELS_REPRODUCIBLE;
    tessera_model *model = tessera_model_open("models/emoji", &options, &error);
    tessera_request r = TESSERA_REQUEST;
    tessera_request_defaults(model, false, &r);
    r.num_inference_steps = 2, r.step_cache = "fbcache";
    tessera_image image = TESSERA_IMAGE;
    tessera_status status = tessera_generate(model, &r, &image, &error);
    CHECK(status == TESSERA_ERROR_UNSUPPORTED && strstr(error.message, "reproducible") != NULL, "a step cache: %s", error.message);
    tessera_image_free(&image);
    tessera_model_free(model);
}

int main(int argc, char **argv) {
    tessera_error error = {0};
    struct hashes hashes = {NULL};
    size_t length;
    if (argc != 2 || file_read(argv[1], 1 << 16, &hashes.file, &length, &error) != TESSERA_OK) return 2;
    tessera_world *world = tessera_world_open(&error);
    if (world == NULL) return 2;
    int ranks = tessera_world_size(world);
    for (int i = 0; i < SUBJECTS; i++) {
        if (ranks == 1) run_alone(&hashes, &subjects[i]);
        for (size_t m = 0; m < sizeof meshes / sizeof *meshes; m++)
            if (meshes[m].ranks == ranks) run_mesh(&hashes, &subjects[i], &meshes[m], world);
    }
    if (ranks == 1) test_strips();
    if (ranks == 2) check_step_cache(world);
    tessera_world_free(world);
    free(hashes.file);
    return CHECK_REPORT();
}
