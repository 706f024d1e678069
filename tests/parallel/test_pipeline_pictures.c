/* Whole pictures that go through a pipeline of stages, against one rank with the same number of
 * patches, through the public API: over every mesh data x cfg x pipefusion x ring x ulysses x
 * tensor of a world.
 *
 *     mpirun -n N test_pipeline_pictures [thin=K] MODEL[,OPTION]...
 *
 *     thin=K                          of the meshes every K-th, others for each model and number of patches; and a pipeline of each model
 *     lora=FILE[:SCALE] config=FOLDER scheduler=CLASS images=N rescale=X guidance=X true_cfg=X strength=X
 *     patches=P[:P...]                  the numbers of patches (1:2:4; a U-Net has 1)
 *     warmup=N                        steps as a whole (1; -1: none)
 *     blocks=N                        of the model: stages are then uneven, one block each but for the last
 *     bf16 img2img control
 *
 * Every rank makes the pictures alone first. In float32 the latents must be equal up to rounding,
 * and the pictures reach 50 dB; in bfloat16 the pictures 35 dB. Meshes that a model cannot have
 * must be refused with an error that says what is possible. Prints a line per model. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "tessera.h"

enum { WIDTH = 96, HEIGHT = 128, STEPS = 4, MAX_PATCHES = 4, MAX_STAGES = 64, MAX_IMAGES = 8, LEAST_DECIBEL = 50, LEAST_DECIBEL_BF16 = 35 };
#define LATENTS_ERROR 1e-4  /* of their largest: rounding in other orders of sums */
/* The same of x_0 = (x - sigma e) / alpha, which a sampler's first steps predict with an alpha of
 * 1/15 and less: rounding of e grows as much. */
#define PREDICTED_ERROR (15 * LATENTS_ERROR)
#define LATENTS_SHOW 1.5e-4 /* patches change them by more: they are not whole pictures */

/* An argument: a model, with the options that belong to it. */
struct subject {
    const char *name, *model, *config, *scheduler;
    tessera_lora lora; /* path NULL: none */
    tessera_dtype dtype;
    int images, warmup, blocks, patches[MAX_PATCHES], num_patches;
    float rescale, guidance, true_cfg, strength;
    bool img2img, control;
    char text[512]; /* what the others point into */
};

/* ---- arguments ---- */

static bool read_patches(struct subject *s, const char *value) {
    for (s->num_patches = 0; s->num_patches < MAX_PATCHES && *value != '\0'; s->num_patches++) {
        char *end;
        s->patches[s->num_patches] = (int)strtol(value, &end, 10);
        if (end == value) return false;
        value = *end == ':' ? end + 1 : end;
    }
    return *value == '\0';
}

static bool read_lora(struct subject *s, char *value) {
    char *scale = strchr(value, ':');
    s->lora.path = value;
    if (scale != NULL) *scale = 0, s->lora.scale = strtof(scale + 1, NULL);
    return true;
}

static bool read_option(struct subject *s, char *option) {
    const struct {
        const char *name;
        const char **text;
        int *integer;
        float *number;
    } options[] = {
        {"config", &s->config, NULL, NULL},     {"scheduler", &s->scheduler, NULL, NULL}, {"images", NULL, &s->images, NULL},
        {"warmup", NULL, &s->warmup, NULL},     {"blocks", NULL, &s->blocks, NULL},       {"rescale", NULL, NULL, &s->rescale},
        {"guidance", NULL, NULL, &s->guidance}, {"true_cfg", NULL, NULL, &s->true_cfg},   {"strength", NULL, NULL, &s->strength}};
    if (strcmp(option, "bf16") == 0) return s->dtype = TESSERA_BF16, true;
    if (strcmp(option, "img2img") == 0) return s->img2img = true;
    if (strcmp(option, "control") == 0) return s->control = true;
    char *value = strchr(option, '=');
    if (value == NULL) return false;
    *value++ = '\0';
    if (strcmp(option, "lora") == 0) return read_lora(s, value);
    if (strcmp(option, "patches") == 0) return read_patches(s, value);
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        if (strcmp(option, options[i].name) != 0) continue;
        if (options[i].text != NULL) *options[i].text = value;
        if (options[i].integer != NULL) *options[i].integer = (int)strtol(value, NULL, 10);
        if (options[i].number != NULL) *options[i].number = strtof(value, NULL);
        return true;
    }
    return false;
}

static bool read_subject(const char *argument, struct subject *out) {
    *out =
        (struct subject){.name = argument, .lora = TESSERA_LORA, .dtype = TESSERA_F32, .images = 1, .patches = {1, 2, 4}, .num_patches = 3};
    if ((size_t)snprintf(out->text, sizeof out->text, "%s", argument) >= sizeof out->text) return false;
    out->model = strtok(out->text, ",");
    for (char *option = strtok(NULL, ","); option != NULL; option = strtok(NULL, ","))
        if (!read_option(out, option)) return false;
    return out->model != NULL;
}

/* ---- pictures ---- */

/* A picture to begin with: two gradients. */
static void draw_start(uint8_t *pixels) {
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++, pixels += 3)
            pixels[0] = (uint8_t)(2 * x), pixels[1] = (uint8_t)y, pixels[2] = (uint8_t)(255 - x - y);
}

static tessera_request request_of(const tessera_model *model, const struct subject *s, const uint8_t *start) {
    tessera_request r = TESSERA_REQUEST;
    tessera_request_defaults(model, false, &r);
    r.prompt = "a red apple", r.negative_prompt = "blue";
    r.width = WIDTH, r.height = HEIGHT;
    r.num_inference_steps = STEPS;
    r.use_resolution_binning = false;
    r.num_images = s->images;
    r.scheduler = s->scheduler;
    r.guidance_rescale = s->rescale;
    if (s->guidance > 0) r.guidance_scale = s->guidance;
    if (s->true_cfg > 0) r.true_cfg_scale = s->true_cfg;
    if (s->control) r.control_image = start;
    if (s->img2img) r.init_image = start, r.strength = s->strength > 0 ? s->strength : 0.75f;
    if (r.max_sequence_length > 32) r.max_sequence_length = 32;
    return r;
}

/* What the callback after each step was told: of each picture, how often, the latents of the last
 * time, and what every step predicted. */
struct steps {
    struct {
        int calls, wrong;
        float *latents, *x_0; /* [count], [STEPS + 1, count] */
        size_t count;
    } images[MAX_IMAGES];
};

static void see_step(void *user, const tessera_step *step) {
    struct steps *steps = user;
    if (step->image < 0 || step->image >= MAX_IMAGES) return;
    size_t count = (size_t)step->latent_channels * (size_t)step->latent_height * (size_t)step->latent_width;
    float **latents = &steps->images[step->image].latents;
    if (*latents == NULL) *latents = malloc(count * sizeof **latents);
    memcpy(*latents, step->latents, count * sizeof **latents);
    float **x_0 = &steps->images[step->image].x_0;
    if (*x_0 == NULL) *x_0 = calloc((STEPS + 1) * count, sizeof **x_0);
    if (step->done >= 1 && step->done <= STEPS + 1) memcpy(*x_0 + (size_t)(step->done - 1) * count, step->x_0, count * sizeof **x_0);
    steps->images[step->image].count = count;
    steps->images[step->image].calls++;
    if (step->done != steps->images[step->image].calls || step->done > step->total) steps->images[step->image].wrong++;
}

/* The last step's latents are the picture's, and every step was told. */
static void check_steps(const struct subject *s, struct steps *steps, const tessera_image *image, bool gets) {
    for (int i = 0; i < MAX_IMAGES; i++) {
        size_t count = steps->images[i].count;
        bool told = gets && i < image->count, all = steps->images[i].wrong == 0 && steps->images[i].calls > 0;
        bool same = told && count > 0 && memcmp(steps->images[i].latents, image->latents + i * count, count * sizeof(float)) == 0;
        CHECK(told ? all && same : steps->images[i].calls == 0, "%s: picture %d: %d steps were told, %d of them wrong, and the last is %s",
              s->name, i, steps->images[i].calls, steps->images[i].wrong, same ? "the picture's" : "another");
    }
}

static void free_steps(struct steps *steps) {
    for (int i = 0; i < MAX_IMAGES; i++) {
        free(steps->images[i].latents);
        free(steps->images[i].x_0);
    }
}

/* The largest difference of what steps predicted, in shares of the largest of b; 0 where a was told
 * nothing. */
static double x_0_difference(const struct steps *a, const struct steps *b) {
    double most = 0, largest = 0;
    for (int i = 0; i < MAX_IMAGES; i++) {
        if (a->images[i].calls == 0) continue;
        if (a->images[i].count != b->images[i].count) return INFINITY;
        for (size_t j = 0; j < (STEPS + 1) * a->images[i].count; j++) {
            double d = fabs((double)a->images[i].x_0[j] - (double)b->images[i].x_0[j]);
            if (!(d <= most)) most = d;
            largest = fmax(largest, fabs((double)b->images[i].x_0[j]));
        }
    }
    return most == 0 ? 0 : most / largest;
}

/* On this rank alone where mesh->world is NULL. */
static tessera_status make(const struct subject *s, const tessera_mesh *mesh, tessera_image *image, struct steps *steps, bool *gets,
                           tessera_error *error) {
    tessera_model_options options = {
        .struct_size = sizeof(tessera_model_options), .dtype = s->dtype, .threads = 1, .mesh = mesh, .config = s->config};
    uint8_t start[WIDTH * HEIGHT * 3];
    options.loras = &s->lora, options.num_loras = s->lora.path != NULL ? 1 : 0;
    tessera_model *model = tessera_model_open(s->model, &options, error);
    if (model == NULL) return error->status;
    draw_start(start);
    *steps = (struct steps){0};
    tessera_request request = request_of(model, s, start);
    request.step = see_step, request.step_user = steps;
    tessera_status status = tessera_generate(model, &request, image, error);
    *gets = tessera_model_gets_pictures(model);
    if (status == TESSERA_OK) check_steps(s, steps, image, *gets);
    tessera_model_free(model);
    return status;
}

static double decibel(const tessera_image *a, const tessera_image *b) {
    double sum = 0;
    size_t count = (size_t)a->count * (size_t)a->width * (size_t)a->height * 3;
    if (a->count != b->count || a->width != b->width || a->height != b->height) return 0;
    for (size_t i = 0; i < count; i++) {
        double d = (double)a->pixels_f32[i] - (double)b->pixels_f32[i];
        sum += d * d;
    }
    return sum == 0 ? 200 : -10 * log10(sum / (double)count);
}

/* The largest difference of latents, in shares of the largest of b. */
static double latents_difference(const tessera_image *a, const tessera_image *b) {
    double most = 0, largest = 0;
    size_t count = (size_t)a->count * (size_t)a->latent_channels * (size_t)a->latent_height * (size_t)a->latent_width;
    if (a->count != b->count || a->latent_channels != b->latent_channels || a->latent_height != b->latent_height) return INFINITY;
    for (size_t i = 0; i < count; i++) {
        double d = fabs((double)a->latents[i] - (double)b->latents[i]);
        if (!(d <= most)) most = d;
        largest = fmax(largest, fabs((double)b->latents[i]));
    }
    return most / largest;
}

/* ---- meshes ---- */

struct worst {
    double decibel, difference;
    int meshes;
};

static void describe(const struct subject *s, const tessera_mesh *m, char *text, size_t size) {
    snprintf(text, size, "%s: data %d cfg %d pipefusion %d ring %d ulysses %d tensor %d vae %d, %d patches", s->name, m->data, m->cfg,
             m->pipefusion, m->ring, m->ulysses, m->tensor, m->parallel_vae, m->num_pipeline_patch);
}

/* What one rank makes. */
struct alone {
    tessera_image image;
    struct steps steps;
};

static void run_mesh(const struct subject *s, tessera_mesh *mesh, const struct alone *alone, struct worst *worst) {
    tessera_image image = TESSERA_IMAGE;
    struct steps steps;
    tessera_error error = {0};
    bool gets = false;
    int stage_blocks[MAX_STAGES];
    char what[700];
    if (s->blocks > 0 && mesh->pipefusion > s->blocks) return;
    for (int i = 0; i < mesh->pipefusion; i++) stage_blocks[i] = i < mesh->pipefusion - 1 ? 1 : s->blocks - mesh->pipefusion + 1;
    if (s->blocks > 0) mesh->stage_blocks = stage_blocks;
    describe(s, mesh, what, sizeof what);
    tessera_status status = make(s, mesh, &image, &steps, &gets, &error);
    if (status != TESSERA_OK) {
        free_steps(&steps);
        CHECK(strstr(error.message, "possible") != NULL || strstr(error.message, "not guided") != NULL, "%s: %s", what, error.message);
        return;
    }
    CHECK(gets == (image.pixels_f32 != NULL), "%s: the rank that gets pictures has them", what);
    double db = gets ? decibel(&image, &alone->image) : 200, difference = image.latents != NULL ? latents_difference(&image, &alone->image) : 0;
    double predicted = x_0_difference(&steps, &alone->steps);
    CHECK(db >= (s->dtype == TESSERA_F32 ? LEAST_DECIBEL : LEAST_DECIBEL_BF16), "%s: %.1f dB", what, db);
    if (s->dtype == TESSERA_F32) CHECK(difference <= LATENTS_ERROR, "%s: latents differ by %.2g", what, difference);
    if (s->dtype == TESSERA_F32) CHECK(predicted <= PREDICTED_ERROR, "%s: what steps predict differs by %.2g", what, predicted);
    worst->decibel = fmin(worst->decibel, db);
    worst->difference = fmax(worst->difference, difference);
    worst->meshes++;
    tessera_image_free(&image);
    free_steps(&steps);
}

/* Every mesh of `size` ranks in which there is a pipeline or the picture is made in patches;
 * *count: of all of this program. */
static void run_meshes(const struct subject *s, tessera_mesh mesh, int size, int thin, int *count, const struct alone *alone,
                       struct worst *worst) {
    int *const axes[] = {&mesh.data, &mesh.cfg, &mesh.pipefusion, &mesh.ring, &mesh.ulysses, &mesh.tensor};
    enum { AXES = sizeof axes / sizeof *axes };
    int total = 1;
    for (int i = 0; i < AXES; i++) total *= size;
    for (int place = 0; place < total; place++) {
        int product = 1;
        for (int i = 0, rest = place; i < AXES; i++, rest /= size) product *= *axes[i] = rest % size + 1;
        if (product != size || mesh.cfg > 2 || mesh.pipefusion * mesh.num_pipeline_patch == 1) continue;
        mesh.parallel_vae = (mesh.ring + mesh.ulysses + mesh.tensor) % 2 == 0;
        bool first = worst->meshes == 0 && mesh.pipefusion > 1;
        if ((*count)++ % thin == 0 || first) run_mesh(s, &mesh, alone, worst);
    }
}

static void run_patches(tessera_world *world, const struct subject *s, int patches, int thin, int *count, struct worst *worst,
                        tessera_image *whole) {
    tessera_mesh mesh = {.struct_size = sizeof(tessera_mesh), .num_pipeline_patch = patches, .warmup_steps = s->warmup};
    struct alone alone = {.image = TESSERA_IMAGE};
    tessera_error error = {0};
    bool gets;
    CHECK(make(s, &mesh, &alone.image, &alone.steps, &gets, &error) == TESSERA_OK, "%s: %s", s->name, error.message);
    if (alone.image.pixels_f32 == NULL) return;
    double difference = whole->latents != NULL ? latents_difference(&alone.image, whole) : INFINITY;
    if (s->dtype == TESSERA_F32)
        CHECK(difference > LATENTS_SHOW, "%s: %d patches change the latents by %.1e only", s->name, patches, difference);
    mesh.world = world;
    run_meshes(s, mesh, tessera_world_size(world), thin, count, &alone, worst);
    if (patches == 1) *whole = alone.image;
    if (patches > 1) tessera_image_free(&alone.image);
    free_steps(&alone.steps);
}

static void run_subject(tessera_world *world, const struct subject *s, int thin, int *count) {
    struct worst worst = {.decibel = 200};
    tessera_image whole = TESSERA_IMAGE;
    for (int i = 0; i < s->num_patches; i++) run_patches(world, s, s->patches[i], thin, count, &worst, &whole);
    tessera_image_free(&whole);
    if (tessera_world_rank(world) == 0)
        printf("  %-44s %d meshes of %d ranks, %.1f dB at least, latents within %.1e\n", s->name, worst.meshes, tessera_world_size(world),
               worst.decibel, worst.difference);
    fflush(stdout);
}

int main(int argc, char **argv) {
    tessera_error error = {0};
    tessera_world *world = tessera_world_open(&error);
    if (world == NULL) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    int thin = 1, count = 0;
    for (int i = 1; i < argc; i++) {
        struct subject subject;
        bool is_thin = sscanf(argv[i], "thin=%d", &thin) == 1, good = is_thin || read_subject(argv[i], &subject);
        CHECK(good && thin > 0, "\"%s\" is no MODEL[,OPTION]...", argv[i]);
        if (good && !is_thin) run_subject(world, &subject, thin, &count);
    }
    CHECK(tessera_world_finish(world, &error) == TESSERA_OK, "%s", error.message);
    tessera_world_free(world);
    return CHECK_REPORT();
}
