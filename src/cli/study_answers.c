/* See study_answers.h. */
#include "cli/study_answers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bf16.h"
#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "checkpoint/convert.h"
#include "split/part.h"
#include "split/study.h"

enum { ALIGNMENT = 64, MOST_CONFIG_BYTES = 1 << 20, STATES = 2 * STUDY_STEPS }; /* each step that is studied, and the one before it */
enum { MODEL_STEPS = 20, MOST_LEFT_OUT = 3 };
static const int steps[STUDY_STEPS] = {2, 7, 12, 18};
static const char *const prompts[STUDY_PICTURES] = {"a lion on a blue background", "a red apple"};

struct message {
    uint8_t *bytes;
    size_t size;
};
/* The states of both pictures; [STATES]: 2 i is one step before 2 i + 1. */
struct inputs {
    struct split_range range;
    struct message states[STUDY_PICTURES][STATES];
};

/* ---- states: classes of denoisers that keep what enters a part, else the engine's ---- */

/* U-Nets are not among them: their blocks differ in shape, so that none can be left out. */
static const struct denoiser_class *const studied[] = {&sd3_transformer_class, &flux_transformer_class, &pixart_transformer_class,
                                                       &hunyuan_transformer_class};
enum { STUDIED = sizeof studied / sizeof *studied };
static struct denoiser_class watched[STUDIED];

/* A class has no place for a caller's data, so that this stands here. */
static struct {
    struct inputs *inputs;
    int picture, step;
    tessera_error error;
} watch;

static tessera_status pack(const struct denoiser *denoiser, struct backend *backend, const struct denoiser_state *state,
                           struct message *out, tessera_error *error) {
    struct state_message message = {.constants = denoiser_state_constants(denoiser)};
    out->size = denoiser_state_bytes(state, 0);
    out->bytes = aligned_alloc(ALIGNMENT, (out->size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (out->bytes == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a state");
    return denoiser_state_pack(state, &message, backend, out->bytes, error);
}

static struct denoiser_state watched_block(const struct denoiser *denoiser, struct run *run, int index, struct denoiser_state state) {
    struct inputs *in = watch.inputs;
    watch.step += index == 0;
    for (int i = 0; i < STATES && index == in->range.first; i++)
        if (steps[i / 2] - 1 + i % 2 == watch.step && watch.error.status == TESSERA_OK) {
            struct denoiser_state sent = split_request_state(denoiser, &in->range, &state);
            pack(denoiser, run->backend, &sent, &in->states[watch.picture][i], &watch.error);
        }
    return studied[denoiser->class - watched]->block(denoiser, run, index, state);
}

static struct denoiser *watched_open(const struct json *config, struct loader *loader) {
    const char *name = NULL;
    int class = 0;
    json_string(config, "_class_name", "", &name, NULL);
    while (class < STUDIED - 1 && strcmp(studied[class]->name, name) != 0) class ++;
    struct denoiser *denoiser = studied[class]->open(config, loader);
    if (denoiser == NULL) return NULL;
    denoiser->class = &watched[class];
    watch.inputs->range = (struct split_range){1, denoiser->num_blocks - 1, false};
    return denoiser;
}

/* A picture of the model, whose states `watch` keeps. */
static tessera_status make_picture(const struct study_model *study, tessera_model *model, int picture, tessera_error *error) {
    tessera_request request = TESSERA_REQUEST;
    tessera_image image = TESSERA_IMAGE;
    tessera_request_defaults(model, false, &request);
    request.prompt = prompts[picture];
    request.seed = (uint64_t)picture;
    request.latents_only = true;
    request.num_inference_steps = MODEL_STEPS;
    if (study->side > 0) request.width = request.height = study->side;
    watch.picture = picture;
    watch.step = -1;
    tessera_status status = tessera_generate(model, &request, &image, error);
    tessera_image_free(&image);
    if (status == TESSERA_OK && watch.error.status != TESSERA_OK) status = error_set(error, watch.error.status, "%s", watch.error.message);
    if (status == TESSERA_OK && watch.inputs->range.end - watch.inputs->range.first <= MOST_LEFT_OUT)
        status = error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: verify-study needs a transformer (no U-Net) of at least %d blocks",
                           study->folder, MOST_LEFT_OUT + 3);
    for (int s = 0; s < STATES && status == TESSERA_OK; s++)
        if (watch.inputs->states[picture][s].bytes == NULL)
            status =
                error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: its pictures have no %d steps", study->folder, steps[STUDY_STEPS - 1] + 1);
    return status;
}

static tessera_status make_inputs(const struct study_model *study, enum dtype dtype, struct inputs *inputs, tessera_error *error) {
    const struct denoiser_class *classes[STUDIED];
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    for (int i = 0; i < STUDIED; i++) {
        watched[i] = *studied[i];
        watched[i].open = watched_open;
        watched[i].block = watched_block;
        classes[i] = &watched[i];
    }
    options.denoisers = classes;
    options.num_denoisers = STUDIED;
    options.dtype = dtype == DTYPE_F32 ? TESSERA_F32 : TESSERA_BF16;
    watch.inputs = inputs;
    watch.error = (tessera_error){0};
    tessera_model *model = tessera_model_open(study->folder, &options, error);
    if (model == NULL) return error->status;
    tessera_status status = TESSERA_OK;
    for (int i = 0; i < STUDY_PICTURES && status == TESSERA_OK; i++) status = make_picture(study, model, i, error);
    tessera_model_free(model);
    return status;
}

/* ---- answers ---- */

static float *flatten(const struct denoiser_state *state, size_t *size) {
    const struct tensor *const fields[] = {&state->picture, &state->text};
    size_t count = 0, at = 0;
    for (int f = 0; f < 2; f++) count += fields[f]->ndim > 0 ? (size_t)tensor_count(fields[f]) : 0;
    float *out = malloc(count * sizeof *out);
    for (int f = 0; f < 2 && out != NULL; f++)
        for (int64_t i = 0; fields[f]->ndim > 0 && i < tensor_count(fields[f]); i++)
            out[at++] =
                fields[f]->dtype == DTYPE_F32 ? ((const float *)fields[f]->data)[i] : bf16_widen(((const uint16_t *)fields[f]->data)[i]);
    *size = count;
    return out;
}

/* What the part makes of a state; with fewer blocks where `end` is before its own. */
static tessera_status answer(struct split_part *part, const struct message *state, int end, float **out, size_t *size,
                             tessera_error *error) {
    struct split_range range = split_part_header(part)->range;
    struct state_store store = split_part_store(part);
    struct split_answer given = {0};
    struct denoiser_state sent, read;
    range.end = end;
    const struct split_request request = {.bytes = state->bytes, .size = state->size, .store = &store, .only = &range};
    tessera_status status = split_part_read(part, &request, &sent, error);
    struct split_shape shape = status == TESSERA_OK ? split_shape_of(&sent) : (struct split_shape){0};
    if (status == TESSERA_OK) status = split_part_compute(part, &request, &given, error);
    if (status == TESSERA_OK)
        status =
            split_answer_read(split_part_denoiser(part), split_part_run_of(part), &range, &shape, 0, given.bytes, given.size, &read, error);
    if (status == TESSERA_OK) *out = flatten(&read, size);
    if (status == TESSERA_OK && *out == NULL) status = error_set(error, TESSERA_ERROR_MEMORY, "out of memory for an answer");
    split_answer_free(&given);
    state_store_close(&store);
    return status;
}

static const struct message *state_of(const struct inputs *in, int input) {
    return &in->states[input / STUDY_STEPS][2 * (input % STUDY_STEPS) + 1];
}

static const struct message *state_before(const struct inputs *in, int input) {
    return &in->states[input / STUDY_STEPS][2 * (input % STUDY_STEPS)];
}

static tessera_status answer_all(struct split_part *part, const struct inputs *in, int end, struct study_source *source, size_t *size,
                                 tessera_error *error) {
    for (int i = 0; i < STUDY_INPUTS; i++) TRY(answer(part, state_of(in, i), end, &source->answers[i], size, error));
    return TESSERA_OK;
}

/* ---- honest workers ---- */

/* `isa` NULL: the best one. OK with *part NULL where this processor has no such path. */
static tessera_status open_path(const char *folder, const struct inputs *in, enum dtype dtype, const char *isa, tessera_kernels kernels,
                                struct split_part **part, tessera_error *error) {
    const struct split_part_options options = {.kernels = kernels, .dtype = dtype};
    *part = NULL;
    if (isa != NULL) setenv("TESSERA_ISA", isa, 1);
    tessera_status status = split_part_open_model(folder, &in->range, &options, part, error);
    unsetenv("TESSERA_ISA");
    return status == TESSERA_ERROR_UNSUPPORTED && isa != NULL ? TESSERA_OK : status;
}

static tessera_status make_honest(const struct study_model *study, const struct inputs *in, enum dtype dtype, struct study_answers *out,
                                  tessera_error *error) {
    static const struct {
        const char *name, *isa;
        tessera_kernels kernels;
        bool bf16, plain, instead; /* has instructions of its own for bfloat16 alone; is plain C; takes its place */
    } paths[] = {{"reproducible", NULL, TESSERA_KERNELS_REPRODUCIBLE, .bf16 = false},
                 {"reproducible, plain", "plain", TESSERA_KERNELS_REPRODUCIBLE, .plain = true},
                 {"reproducible, avx2", "avx2", TESSERA_KERNELS_REPRODUCIBLE, .instead = true},
                 {"fastest", NULL, TESSERA_KERNELS_BEST, .bf16 = false},
                 {"plain", "plain", TESSERA_KERNELS_OWN, .plain = true},
                 {"avx2", "avx2", TESSERA_KERNELS_OWN, .bf16 = false},
                 {"avx512", "avx512", TESSERA_KERNELS_OWN, .bf16 = false},
                 {"avx512bf16", "avx512bf16", TESSERA_KERNELS_OWN, .bf16 = true},
                 {"amx", "amx", TESSERA_KERNELS_OWN, .bf16 = true}};
    for (size_t p = 0; p < sizeof paths / sizeof *paths; p++) {
        struct split_part *part;
        if ((paths[p].bf16 && dtype == DTYPE_F32) || (study->no_plain ? paths[p].plain : paths[p].instead)) continue;
        TRY(open_path(study->folder, in, dtype, paths[p].isa, paths[p].kernels, &part, error));
        if (part == NULL) continue;
        struct study_source *source = &out->honest[out->num_honest++];
        snprintf(source->name, sizeof source->name, "%s", paths[p].name);
        tessera_status status = answer_all(part, in, in->range.end, source, &out->size, error);
        split_part_close(part);
        if (status != TESSERA_OK) return status;
    }
    for (int i = 0; i < STUDY_INPUTS; i++) {
        for (int p = 1; p < out->num_honest && strncmp(out->honest[p].name, "reproducible", strlen("reproducible")) == 0; p++) {
            out->equal += memcmp(out->honest[0].answers[i], out->honest[p].answers[i], out->size * sizeof(float)) == 0;
            out->compared++;
        }
        for (int a = 0; a < out->num_honest; a++)
            for (int b = 0; b < out->num_honest; b++)
                out->honest_distance =
                    fmax(out->honest_distance, study_exact_distance(out->honest[a].answers[i], out->honest[b].answers[i], out->size));
    }
    return TESSERA_OK;
}

/* ---- cheats ---- */

static struct study_source *new_cheat(struct study_answers *out, const char *name) {
    struct study_source *source = &out->cheats[out->num_cheats++];
    snprintf(source->name, sizeof source->name, "%s", name);
    return source;
}

/* The tensors of `from` as `type`, in the file `to`. */
static tessera_status convert(const char *from, const char *to, enum dtype type, tessera_error *error) {
    struct convert_types types = {.given = true, .dtype = type};
    struct convert_report report = {.types = &types};
    return convert_tensors(from, to, &report, error);
}

/* The transformer with weights that were rounded to `type`, in the folder `to`, with its
 * configuration. Parts hold no blocks, so that the rounded numbers are stored as float32. */
static tessera_status write_weights(const char *folder, enum dtype type, const char *to, tessera_error *error) {
    char *inside = NULL, *text = NULL, small[64], name[4096];
    size_t length = 0;
    struct file_output file;
    TRY(part_file_denoiser_folder(folder, &inside, error));
    snprintf(small, sizeof small, "%s/small.safetensors", to);
    snprintf(name, sizeof name, "%s/diffusion_pytorch_model.safetensors", to);
    tessera_status status = convert(inside, small, type, error);
    if (status == TESSERA_OK) status = convert(small, name, DTYPE_F32, error);
    unlink(small);
    snprintf(name, sizeof name, "%s/config.json", inside);
    if (status == TESSERA_OK) status = file_read(name, MOST_CONFIG_BYTES, &text, &length, error);
    snprintf(name, sizeof name, "%s/config.json", to);
    if (status == TESSERA_OK) status = file_output_open(name, &file, error);
    if (status == TESSERA_OK) {
        fwrite(text, 1, length, file.stream);
        status = file_output_commit(&file, error);
    }
    free(text);
    free(inside);
    return status;
}

static tessera_status cheat_with_weights(const char *folder, const struct inputs *in, enum dtype dtype, const char *name, enum dtype type,
                                         struct study_answers *out, tessera_error *error) {
    char to[] = "/tmp/tessera-study-XXXXXX", path[64];
    struct split_part *part = NULL;
    if (mkdtemp(to) == NULL) return error_set_errno(error, "%s: cannot make a folder", to);
    tessera_status status = write_weights(folder, type, to, error);
    if (status == TESSERA_OK) status = open_path(to, in, dtype, NULL, TESSERA_KERNELS_BEST, &part, error);
    if (status == TESSERA_OK) status = answer_all(part, in, in->range.end, new_cheat(out, name), &out->size, error);
    split_part_close(part);
    snprintf(path, sizeof path, "%s/config.json", to);
    unlink(path);
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", to);
    unlink(path);
    rmdir(to);
    return status;
}

/* The state of a step with the conditioning (so the time) of the one before it. */
static tessera_status answer_wrong_time(struct split_part *part, const struct inputs *in, int input, float **out, size_t *size,
                                        tessera_error *error) {
    struct state_store store = split_part_store(part);
    struct denoiser_state state, before;
    struct message mixed = {0};
    const struct message *now = state_of(in, input), *old = state_before(in, input);
    tessera_status status =
        split_part_read(part, &(struct split_request){.bytes = now->bytes, .size = now->size, .store = &store}, &state, error);
    if (status == TESSERA_OK)
        status = split_part_read(part, &(struct split_request){.bytes = old->bytes, .size = old->size, .store = &store}, &before, error);
    if (status == TESSERA_OK) {
        state.cond = before.cond;
        status = pack(split_part_denoiser(part), NULL, &state, &mixed, error);
    }
    if (status == TESSERA_OK) status = answer(part, &mixed, in->range.end, out, size, error);
    free(mixed.bytes);
    state_store_close(&store);
    return status;
}

/* Honest arithmetic on the wrong thing. */
static tessera_status cheat_with_work(const char *folder, const struct inputs *in, enum dtype dtype, struct study_answers *out,
                                      tessera_error *error) {
    struct split_part *part;
    TRY(open_path(folder, in, dtype, NULL, TESSERA_KERNELS_BEST, &part, error));
    tessera_status status = TESSERA_OK;
    for (int fewer = 1; fewer <= MOST_LEFT_OUT && status == TESSERA_OK; fewer++) {
        char name[32];
        snprintf(name, sizeof name, "%d of %d blocks left out", fewer, in->range.end - in->range.first);
        status = answer_all(part, in, in->range.end - fewer, new_cheat(out, name), &out->size, error);
    }
    struct study_source *old = new_cheat(out, "old answer, of the step before"), *other = new_cheat(out, "answer of another picture");
    struct study_source *wrong = new_cheat(out, "wrong step's time");
    for (int i = 0; i < STUDY_INPUTS && status == TESSERA_OK; i++) {
        status = answer(part, state_before(in, i), in->range.end, &old->answers[i], &out->size, error);
        if (status == TESSERA_OK)
            status = answer(part, state_of(in, (i + STUDY_STEPS) % STUDY_INPUTS), in->range.end, &other->answers[i], &out->size, error);
        if (status == TESSERA_OK) status = answer_wrong_time(part, in, i, &wrong->answers[i], &out->size, error);
    }
    split_part_close(part);
    return status;
}

/* Noise of a relative length, on the first path's answers. */
static tessera_status cheat_with_noise(double strength, const char *name, struct study_answers *out, tessera_error *error) {
    struct study_source *source = new_cheat(out, name);
    struct random_generator random;
    random_seed(&random, 1);
    for (int i = 0; i < STUDY_INPUTS; i++) {
        const float *honest = out->honest[0].answers[i];
        float *noise = malloc(out->size * sizeof *noise);
        double square = 0, length = 0;
        source->answers[i] = noise;
        if (noise == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for noise");
        random_normal(&random, noise, out->size);
        for (size_t j = 0; j < out->size; j++) {
            square += (double)honest[j] * (double)honest[j];
            length += (double)noise[j] * (double)noise[j];
        }
        for (size_t j = 0; j < out->size; j++) noise[j] = (float)((double)honest[j] + strength * sqrt(square / length) * (double)noise[j]);
    }
    return TESSERA_OK;
}

static tessera_status make_cheats(const char *folder, const struct inputs *in, enum dtype dtype, struct study_answers *out,
                                  tessera_error *error) {
    TRY(cheat_with_noise(4 * out->honest_distance, "noise, 4 x the honest distance", out, error));
    TRY(cheat_with_noise(10 * out->honest_distance, "noise, 10 x the honest distance", out, error));
    TRY(cheat_with_noise(0.1, "noise, 10 %", out, error));
    TRY(cheat_with_weights(folder, in, dtype, "q8_0 weights", DTYPE_Q8_0, out, error));
    TRY(cheat_with_weights(folder, in, dtype, "float8 weights", DTYPE_F8_E4M3, out, error));
    TRY(cheat_with_weights(folder, in, dtype, "q4_0 weights", DTYPE_Q4_0, out, error));
    return cheat_with_work(folder, in, dtype, out, error);
}

tessera_status study_answers_make(const struct study_model *study, enum dtype dtype, struct study_answers *out, tessera_error *error) {
    struct inputs inputs = {0};
    *out = (struct study_answers){0};
    unsetenv("TESSERA_ISA");
    tessera_status status = make_inputs(study, dtype, &inputs, error);
    if (status == TESSERA_OK) status = make_honest(study, &inputs, dtype, out, error);
    if (status == TESSERA_OK) status = make_cheats(study->folder, &inputs, dtype, out, error);
    for (int i = 0; i < STUDY_PICTURES * STATES; i++) free(inputs.states[i / STATES][i % STATES].bytes);
    return status;
}

void study_answers_free(struct study_answers *answers) {
    for (int i = 0; i < STUDY_INPUTS; i++) {
        for (int p = 0; p < answers->num_honest; p++) free(answers->honest[p].answers[i]);
        for (int c = 0; c < answers->num_cheats; c++) free(answers->cheats[c].answers[i]);
    }
    *answers = (struct study_answers){0};
}
