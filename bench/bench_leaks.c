/* What one worker learns: the embedded model's prompts and pictures, recovered from the states that
 * enter a part (docs/leaks.md).
 *
 *     bench_leaks [SUBJECTS [MODEL_FOLDER]]          default: 32 subjects, models/emoji; a Markdown table on standard output
 *
 * For each subject, a name from names.txt, it makes pictures of `a NAME on a COLOUR background`
 * with seeds of their own:
 *
 *     known    4 colours x 2 pictures   the attacker has made these itself, and knows prompt, states and latents
 *     asked    4 colours x 1            the same prompts with other seeds: which prompt is it?
 *     new      1 colour  x 1            a prompt that the attacker has not tried: which subject is it?
 *
 * Before block 1, 3, 5 and 7, at four steps, the state is kept of the prediction that has the
 * prompt: tokens of text and picture, and the conditioning. Each pair of block and step is attacked
 * alone:
 *
 *     prompt     the known vector that is nearest: all text tokens, or the mean of the picture's tokens
 *     subject    ridge regression from the same vectors
 *     picture    ridge regression from each picture token, with the mean token, to the final latents of its patch; decoded, PSNR in
 * pixels */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "base/error.h"
#include "leak_probe.h"
#include "models/denoiser.h"
#include "tessera.h"
#include "tessera_stages.h"

enum { CUTS = 4, STEPS = 4, COLOURS = 5, OLD_COLOURS = 4, OLD_SEEDS = 2, MOST_SUBJECTS = 256, NAME = 96, DECODED = 8, PATCH = 2 };
static const int cuts[CUTS] = {1, 3, 5, 7}, steps[STEPS] = {0, 5, 10, 19};
static const char *const colours[COLOURS] = {"white", "red", "green", "yellow", "blue"}; /* the last one is new */

enum kind { KIND_KNOWN, KIND_ASKED, KIND_NEW };
enum field { FIELD_PICTURE, FIELD_TEXT, FIELD_COND, FIELDS };
struct sample {
    enum kind kind;
    int subject, colour;
    float *latents; /* [channels, side, side] */
    float *views[CUTS][STEPS][FIELDS];
};
struct study {
    int subjects, count, known; /* samples: the known ones come first */
    char names[MOST_SUBJECTS][NAME];
    struct sample *samples;
    tessera_model *model;
    tessera_request request;
    float *pixels[DECODED]; /* of asked pictures that were made; owned */
    size_t latent_values;
    int channels, side;       /* of the latents */
    int sizes[FIELDS], width; /* numbers of a field; of a token */
};

/* ---- the worker's view: a class of denoisers that is SD3's, and writes down what enters its blocks
 * ---- */

/* A class has no place for a caller's data, so that this stands here. */
static struct {
    struct study *study;
    struct sample *sample; /* being made */
    int step;
    bool failed;
} spy;

static float *row_of(const struct tensor *t, int64_t row, int *size) {
    int64_t count = 1;
    for (int i = 1; i < t->ndim; i++) count *= t->shape[i];
    float *out = malloc((size_t)count * sizeof *out);
    for (int64_t i = 0; i < count && out != NULL; i++)
        out[i] =
            t->dtype == DTYPE_F32 ? ((const float *)t->data)[row * count + i] : bf16_widen(((const uint16_t *)t->data)[row * count + i]);
    *size = (int)count;
    return out;
}

static void keep(int cut, int step, const struct denoiser_state *state) {
    const struct tensor *fields[FIELDS] = {&state->picture, &state->text, &state->cond};
    spy.study->width = (int)state->picture.shape[2];
    for (int f = 0; f < FIELDS; f++) {
        float *row = row_of(fields[f], fields[f]->shape[0] - 1, &spy.study->sizes[f]); /* [negative, prompt] */
        spy.failed |= row == NULL || spy.sample->views[cut][step][f] != NULL;
        free(spy.sample->views[cut][step][f]);
        spy.sample->views[cut][step][f] = row;
    }
}

static struct denoiser_state spying_block(const struct denoiser *denoiser, struct run *run, int index, struct denoiser_state state) {
    spy.step += index == 0;
    for (int c = 0; c < CUTS && spy.sample != NULL; c++)
        for (int s = 0; s < STEPS; s++)
            if (cuts[c] == index && steps[s] == spy.step) keep(c, s, &state);
    return sd3_transformer_class.block(denoiser, run, index, state);
}

static struct denoiser_class spying_class;
static struct denoiser *spying_open(const struct json *config, struct loader *loader) {
    struct denoiser *denoiser = sd3_transformer_class.open(config, loader);
    if (denoiser != NULL) denoiser->class = &spying_class;
    return denoiser;
}

/* ---- pictures ---- */

static tessera_status make(struct study *s, struct sample *sample, int seed, tessera_error *error) {
    char prompt[NAME + 40];
    tessera_image image = TESSERA_IMAGE;
    snprintf(prompt, sizeof prompt, "a %s on a %s background", s->names[sample->subject], colours[sample->colour]);
    s->request.prompt = prompt;
    s->request.seed = (uint64_t)seed;
    spy.sample = sample;
    spy.step = -1;
    tessera_status status = tessera_generate(s->model, &s->request, &image, error);
    s->latent_values = (size_t)image.latent_channels * (size_t)image.latent_height * (size_t)image.latent_width;
    s->channels = image.latent_channels;
    s->side = image.latent_width;
    sample->latents = image.latents;
    image.latents = NULL;
    tessera_image_free(&image);
    if (status == TESSERA_OK && (spy.failed || sample->views[CUTS - 1][STEPS - 1][FIELD_COND] == NULL))
        status = error_set(error, TESSERA_ERROR_INTERNAL, "not one state for each block and step, or no memory");
    return status;
}

static void plan(struct study *s) {
    s->count = 0;
    for (int kind = KIND_KNOWN; kind <= KIND_NEW; kind++) {
        for (int subject = 0; subject < s->subjects; subject++)
            for (int colour = kind == KIND_NEW ? OLD_COLOURS : 0; colour < (kind == KIND_NEW ? COLOURS : OLD_COLOURS); colour++)
                for (int seed = 0; seed < (kind == KIND_KNOWN ? OLD_SEEDS : 1); seed++)
                    s->samples[s->count++] = (struct sample){.kind = (enum kind)kind, .subject = subject, .colour = colour};
        if (kind == KIND_KNOWN) s->known = s->count;
    }
}

static tessera_status read_names(struct study *s, const char *folder, tessera_error *error) {
    char path[4096], line[NAME];
    static char all[1024][NAME];
    int count = 0;
    snprintf(path, sizeof path, "%s/names.txt", folder);
    FILE *stream = fopen(path, "r");
    if (stream == NULL) return error_set_errno(error, "%s: cannot open", path);
    while (count < 1024 && fgets(line, sizeof line, stream) != NULL) {
        line[strcspn(line, "\n")] = 0;
        strcpy(all[count++], line);
    }
    fclose(stream);
    if (count < s->subjects) return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: %d names; give at most so many subjects", path, count);
    for (int i = 0; i < s->subjects; i++) strcpy(s->names[i], all[i * count / s->subjects]);
    return TESSERA_OK;
}

/* ---- attacks on the prompt ---- */

/* A row per sample: all numbers of the field, or the mean of the picture's tokens. NULL: memory is
 * out. */
static float *vectors_of(const struct study *s, int cut, int step, enum field field, int *dims) {
    bool mean = field == FIELD_PICTURE;
    int size = s->sizes[field];
    *dims = mean ? s->width : size;
    size_t width = (size_t)*dims;
    float *x = calloc((size_t)s->count * width, sizeof *x);
    for (int i = 0; i < s->count && x != NULL; i++)
        for (int d = 0; d < size; d++) x[(size_t)i * width + (size_t)d % width] += s->samples[i].views[cut][step][field][d];
    return x;
}

struct figures {
    double prompt, subject, new_subject; /* shares that were recovered, in percent */
};

static struct figures count_hits(const struct study *s, const int *nearest, const int *subject) {
    struct figures hits = {0};
    int asked = 0, fresh = 0;
    for (int i = s->known; i < s->count; i++) {
        const struct sample *sample = &s->samples[i], *near = &s->samples[nearest[i - s->known]];
        bool right = subject[i - s->known] == sample->subject;
        if (sample->kind == KIND_ASKED) {
            hits.prompt += near->subject == sample->subject && near->colour == sample->colour;
            hits.subject += right;
            asked++;
        } else {
            hits.new_subject += right;
            fresh++;
        }
    }
    return (struct figures){100 * hits.prompt / asked, 100 * hits.subject / asked, 100 * hits.new_subject / fresh};
}

static tessera_status attack_prompt(const struct study *s, int cut, int step, enum field field, struct figures *out, tessera_error *error) {
    int dims, asked = s->count - s->known;
    float *x = vectors_of(s, cut, step, field, &dims);
    int *found = calloc(2 * (size_t)asked, sizeof *found), *class_of = calloc((size_t)s->known, sizeof *class_of);
    double *products = NULL;
    bool good = x != NULL && found != NULL && class_of != NULL;
    if (good) {
        for (int i = 0; i < s->known; i++) class_of[i] = s->samples[i].subject;
        leak_standardise(x, s->known, asked, dims);
        products = leak_products(x, s->known, asked, dims);
        good = products != NULL;
    }
    if (good) leak_nearest(products, s->known, asked, found);
    good = good && leak_classify(products, s->known, asked, class_of, s->subjects, found + asked);
    if (good) *out = count_hits(s, found, found + asked);
    free(x);
    free(found);
    free(class_of);
    free(products);
    return good ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "no memory for the probes");
}

/* ---- attack on the picture ---- */

/* Of a sample's tokens: x [tokens, 2 width + 1]: the token, the mean token, 1. */
static void features_of(const struct study *s, const float *tokens, double *x) {
    int width = s->width, count = s->sizes[FIELD_PICTURE] / width, dims = 2 * width + 1;
    for (int d = 0; d < width; d++) {
        double mean = 0;
        for (int i = 0; i < count; i++) mean += (double)tokens[i * width + d] / count;
        for (int i = 0; i < count; i++) {
            x[i * dims + d] = (double)tokens[i * width + d];
            x[i * dims + width + d] = mean;
        }
    }
    for (int i = 0; i < count; i++) x[i * dims + 2 * width] = 1;
}

/* Latents [channels, side, side] to or from y [tokens, channels * PATCH * PATCH]. */
static void patches(const struct study *s, float *latents, double *y, bool to_latents) {
    int side = s->side / PATCH;
    for (int c = 0; c < s->channels; c++)
        for (int row = 0; row < s->side; row++)
            for (int column = 0; column < s->side; column++) {
                int token = row / PATCH * side + column / PATCH, place = (row % PATCH) * PATCH + column % PATCH;
                double *value = &y[(token * s->channels + c) * PATCH * PATCH + place];
                float *latent = &latents[(c * s->side + row) * s->side + column];
                if (to_latents)
                    *latent = (float)*value;
                else
                    *value = (double)*latent;
            }
}

/* The asked pictures that are compared. */
static const struct sample *decoded_sample(const struct study *s, int i) {
    return &s->samples[s->known + i * ((s->count - s->known) / DECODED)];
}

/* Pixels of `guesses` [DECODED, latents], or (NULL) of the latents that were made; the caller frees
 * each. */
static tessera_status decode(const struct study *s, const float *guesses, float *pixels[DECODED], tessera_error *error) {
    for (int i = 0; i < DECODED; i++) {
        tessera_image image = TESSERA_IMAGE;
        const float *latents = guesses != NULL ? guesses + (size_t)i * s->latent_values : decoded_sample(s, i)->latents;
        TRY(tessera_decode(s->model, &s->request, latents, s->latent_values, &image, error));
        pixels[i] = image.pixels_f32;
        image.pixels_f32 = NULL;
        tessera_image_free(&image);
    }
    return TESSERA_OK;
}

/* Mean PSNR in dB of guesses to the pictures that were made. */
static tessera_status decibel_of(const struct study *s, const float *guesses, double *out, tessera_error *error) {
    float *pixels[DECODED] = {0};
    size_t count = 3 * (size_t)s->request.width * (size_t)s->request.height;
    tessera_status status = decode(s, guesses, pixels, error);
    *out = 0;
    for (int i = 0; i < DECODED && status == TESSERA_OK; i++) {
        double sum = 0;
        for (size_t j = 0; j < count; j++) sum += pow((double)pixels[i][j] - (double)s->pixels[i][j], 2);
        *out += -10 * log10(sum / (double)count) / DECODED;
    }
    for (int i = 0; i < DECODED; i++) free(pixels[i]);
    return status;
}

/* The guesses of one block and step: [DECODED, latents]. False: memory is out. */
static bool guess_pictures(const struct study *s, int cut, int step, float *guesses) {
    int tokens = s->sizes[FIELD_PICTURE] / s->width, dims = 2 * s->width + 1, targets = s->channels * PATCH * PATCH;
    struct leak_fit fit;
    double *x = malloc((size_t)(tokens * dims) * sizeof *x), *y = malloc((size_t)(tokens * targets) * sizeof *y);
    bool good = leak_fit_open(&fit, dims, targets) && x != NULL && y != NULL;
    for (int i = 0; i < s->known && good; i++) {
        features_of(s, s->samples[i].views[cut][step][FIELD_PICTURE], x);
        patches(s, s->samples[i].latents, y, false);
        leak_fit_add(&fit, x, y, tokens);
    }
    good = good && leak_fit_solve(&fit);
    for (int i = 0; i < DECODED && good; i++) {
        features_of(s, decoded_sample(s, i)->views[cut][step][FIELD_PICTURE], x);
        leak_fit_apply(&fit, x, y, tokens);
        patches(s, guesses + (size_t)i * s->latent_values, y, true);
    }
    leak_fit_close(&fit);
    free(x);
    free(y);
    return good;
}

/* What the mean of all known latents is worth, at each place its own. */
static void guess_mean(const struct study *s, float *guesses) {
    for (size_t j = 0; j < s->latent_values; j++) {
        double mean = 0;
        for (int i = 0; i < s->known; i++) mean += (double)s->samples[i].latents[j] / s->known;
        for (size_t i = 0; i < DECODED; i++) guesses[i * s->latent_values + j] = (float)mean;
    }
}

/* ---- the table ---- */

static tessera_status print_table(struct study *s, tessera_error *error) {
    float *guesses = malloc(DECODED * s->latent_values * sizeof *guesses);
    double mean = 0, db = 0;
    if (guesses == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for pictures");
    guess_mean(s, guesses);
    tessera_status status = decibel_of(s, guesses, &mean, error);
    if (status == TESSERA_OK)
        printf("%d prompts of %d subjects are known, by guess %.1f %% and %.1f %%; the mean picture has %.1f dB\n\n"
               "| before block | step | prompt: text | picture | conditioning | subject: text | picture | subject of a new prompt: text | "
               "picture | picture, dB |\n"
               "|---|---|---|---|---|---|---|---|---|---|\n",
               s->subjects * OLD_COLOURS, s->subjects, 100.0 / (s->subjects * OLD_COLOURS), 100.0 / s->subjects, mean);
    for (int c = 0; c < CUTS; c++)
        for (int t = 0; t < STEPS && status == TESSERA_OK; t++) {
            struct figures of[FIELDS];
            for (int f = 0; f < FIELDS && status == TESSERA_OK; f++) status = attack_prompt(s, c, t, (enum field)f, &of[f], error);
            if (status == TESSERA_OK && !guess_pictures(s, c, t, guesses))
                status = error_set(error, TESSERA_ERROR_MEMORY, "no memory for the probe");
            if (status == TESSERA_OK) status = decibel_of(s, guesses, &db, error);
            if (status != TESSERA_OK) break;
            printf("| %d | %d | %.0f %% | %.0f %% | %.0f %% | %.0f %% | %.0f %% | %.0f %% | %.0f %% | %.1f |\n", cuts[c], steps[t] + 1,
                   of[FIELD_TEXT].prompt, of[FIELD_PICTURE].prompt, of[FIELD_COND].prompt, of[FIELD_TEXT].subject,
                   of[FIELD_PICTURE].subject, of[FIELD_TEXT].new_subject, of[FIELD_PICTURE].new_subject, db);
            fflush(stdout);
        }
    free(guesses);
    return status;
}

static void study_close(struct study *s) {
    for (int i = 0; i < s->count; i++) {
        for (int v = 0; v < CUTS * STEPS * FIELDS; v++) free(s->samples[i].views[v / (STEPS * FIELDS)][v / FIELDS % STEPS][v % FIELDS]);
        free(s->samples[i].latents);
    }
    for (int i = 0; i < DECODED; i++) free(s->pixels[i]);
    free(s->samples);
    tessera_model_free(s->model);
}

static tessera_status run(struct study *s, const char *folder, tessera_error *error) {
    static const struct denoiser_class *const classes[] = {&spying_class};
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    if (s->subjects < 4 || s->subjects > MOST_SUBJECTS)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "SUBJECTS must be 4 to %d", MOST_SUBJECTS);
    s->samples = calloc((size_t)s->subjects * (OLD_COLOURS * (OLD_SEEDS + 1) + 1), sizeof *s->samples);
    if (s->samples == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for samples");
    tessera_status status = read_names(s, folder, error);
    if (status != TESSERA_OK) return status;
    plan(s);
    spying_class = sd3_transformer_class;
    spying_class.open = spying_open;
    spying_class.block = spying_block;
    options.denoisers = classes;
    options.num_denoisers = options.threads = 1;
    s->model = tessera_model_open(folder, &options, error);
    if (s->model == NULL) return error->status;
    tessera_request_defaults(s->model, false, &s->request);
    s->request.latents_only = true;
    spy.study = s;
    for (int i = 0; i < s->count && status == TESSERA_OK; i++) {
        status = make(s, &s->samples[i], i, error);
        if (i % 32 == 31) fprintf(stderr, "bench_leaks: %d of %d pictures\n", i + 1, s->count);
    }
    s->request.latents_only = false;
    if (status == TESSERA_OK) status = decode(s, NULL, s->pixels, error);
    return status == TESSERA_OK ? print_table(s, error) : status;
}

int main(int argc, char **argv) {
    struct study study = {.subjects = argc > 1 ? atoi(argv[1]) : 32, .request = TESSERA_REQUEST};
    tessera_error error = {0};
    tessera_status status = run(&study, argc > 2 ? argv[2] : "models/emoji", &error);
    if (status != TESSERA_OK) fprintf(stderr, "bench_leaks: %s\n", error.message);
    study_close(&study);
    return status == TESSERA_OK ? 0 : 1;
}
