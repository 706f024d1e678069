/* `tessera generate`: prompts to PNG files.
 *
 * The order is: everything that can be wrong with the command line, the outputs and the starting picture; then the model; then one library
 * call per picture, which is written as soon as the call returns. Each prompt starts from the given seed by itself, so its
 * pictures do not depend on which other prompts stand beside it (diffusers draws a list of prompts from one generator instead). */
#include "cli/generate.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "base/file.h"
#include "checkpoint/published.h"
#include "cli/benchmark.h"
#include "cli/binding.h"
#include "cli/command.h"
#include "cli/download.h"
#include "cli/given_pictures.h"
#include "cli/habits.h"
#include "cli/like.h"
#include "cli/lora_options.h"
#include "cli/mesh_options.h"
#include "cli/notice.h"
#include "cli/output.h"
#include "cli/parameters.h"
#include "cli/preview.h"
#include "cli/progress.h"
#include "cli/prompt_tags.h"
#include "cli/prompts.h"
#include "cli/record.h"
#include "cli/request_options.h"
#include "cli/schedule_options.h"
#include "cli/stage_files.h"
#include "comm/collectives.h"
#include "comm/mesh.h"
#include "pipelines/plan_auto.h"
#include "pipelines/world.h"

struct session {
    struct option_value *values;
    bool usage; /* the error so far is one of the command line */
    bool quiet, verbose;
    struct record_source source; /* of --from */
    struct prompt_files prompts;
    struct embeds_file embeds; /* of --prompt-embeds */
    struct prompt_tags tags;
    char *output_folder; /* of --output-root */
    struct given_pictures given;
    char *model_folder;
    bool model_is_given;     /* on the command line, and not by a record alone */
    const char *moved_model; /* the record's, which is no longer there; or NULL */
    tessera_lora *loras;     /* of --lora; the paths are owned */
    tessera_world *world;
    int rank;
    struct mesh_options mesh;
    int *copies;     /* [pictures of the run] the copy that each one's file name has (output.h); NULL: none has */
    uint64_t *peaks; /* [ranks] of resident memory, at the end */
    tessera_model *model;
    tessera_request request;
    struct record_facts facts;
    struct cJSON *record, *pictures;
    struct progress progress;
    struct notices notices;
    char *scheduler_config; /* of the request */
    struct benchmark benchmark;
    bool writes; /* false in runs whose pictures are not kept */
    double seconds_open, seconds[5], operations[3];
    int64_t blocks, blocks_skipped;
    uint64_t bytes_copied, bytes_moved; /* by this rank */
    int written;
    tessera_error error;
};

/* ---- the command line ---- */

/* --output-root is --output with a folder, which is made. */
static tessera_status read_output_root(struct session *s) {
    const char *root = s->values[GENERATE_OUTPUT_ROOT].text;
    struct option_value *output = &s->values[GENERATE_OUTPUT];
    if (root == NULL) return TESSERA_OK;
    if (output->given || *root == 0)
        return error_set(&s->error, TESSERA_ERROR_ARGUMENT,
                         output->given ? "--output and --output-root: give one of them" : "--output-root is empty");
    if (asprintf(&s->output_folder, "%s/", root) < 0) s->output_folder = NULL;
    if (s->output_folder == NULL) return error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for a file name");
    return options_read_value(&generate_options[GENERATE_OUTPUT], s->output_folder, output, &s->error);
}

/* --seed -1: one that the system draws, the same on all ranks. */
static tessera_status draw_seed(struct session *s) {
    struct option_value *seed = &s->values[GENERATE_SEED];
    if (!seed->negative) return TESSERA_OK;
    uint32_t drawn = 0; /* 32 bits: people copy it */
    if (s->rank == 0 && getrandom(&drawn, sizeof drawn, 0) != sizeof drawn)
        return error_set_errno(&s->error, "--seed -1: the system gives no random number");
    TRY(comm_broadcast(s->world->comm, 0, &drawn, sizeof drawn, &s->error));
    seed->seed = drawn;
    if (s->rank == 0 && !s->quiet) fprintf(stderr, "tessera: --seed %lu\n", (unsigned long)drawn);
    return TESSERA_OK;
}

/* What the command line says in other programs' words; before anything is read. */
static tessera_status translate_command_line(struct session *s) {
    s->usage = true;
    if (s->rank == 0 && !s->quiet) options_print_ignored(foreign_options, FOREIGN_OPTION_COUNT, s->values + GENERATE_OPTION_COUNT);
    TRY(read_output_root(s));
    TRY(habits_apply(s->values, &s->error));
    TRY(like_apply(s->values, &s->error));
    if (s->values[GENERATE_FBCACHE].flag && s->values[GENERATE_TEACACHE].flag)
        return error_set(&s->error, TESSERA_ERROR_ARGUMENT, "--use-fbcache and --use-teacache: a run has one step cache at most");
    s->usage = false;
    return draw_seed(s);
}

/* --from makes one picture of the num_images that its generator draws. */
static bool only_one(const struct session *s) {
    return s->source.json != NULL && s->values[GENERATE_PROMPT].count == 1;
}

/* How many pictures a run makes. */
static int count_pictures(const struct session *s) {
    const struct option_value *seeds = &s->values[GENERATE_BATCH_COUNT], *images = &s->values[GENERATE_NUM_IMAGES];
    if (only_one(s)) return 1;
    return s->values[GENERATE_PROMPT].count * (seeds->given ? seeds->integer : 1) * (images->given ? images->integer : 1);
}

/* One PNG file fits a stream, and nothing beside it. */
static tessera_status check_stream(struct session *s) {
    const struct option_value *v = s->values;
    tessera_error *error = &s->error;
    if (!output_is_stream(v[GENERATE_OUTPUT].text)) return TESSERA_OK;
    if (v[GENERATE_JSON].flag) return error_set(error, TESSERA_ERROR_ARGUMENT, "--output - and --json both write to standard output");
    if (v[GENERATE_OUTPUT_TYPE].text != NULL && strcmp(v[GENERATE_OUTPUT_TYPE].text, "latent") == 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--output - is for a PNG: give latents a file");
    if (count_pictures(s) > 1)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--output - takes one picture, not %d: give a folder", count_pictures(s));
    return TESSERA_OK;
}

/* --prompt-embeds gives the prompts' texts too: they name the file and stand in the picture's record. */
static tessera_status read_embeds(struct session *s) {
    struct option_value *v = s->values;
    const char *path = v[GENERATE_PROMPT_EMBEDS].text;
    const int others[] = {GENERATE_PROMPT, GENERATE_PROMPTS_FILE, GENERATE_DATASET_PATH, GENERATE_CAPTION_FILE, GENERATE_NEGATIVE_PROMPT};
    if (path == NULL) return TESSERA_OK;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (v[others[i]].given)
            return error_set(&s->error, TESSERA_ERROR_ARGUMENT, "--prompt-embeds and --%s: give one of them", generate_options[others[i]].name);
    TRY(embeds_open(path, &s->embeds, &s->error));
    const char *prompt = s->embeds.prompt != NULL ? s->embeds.prompt : "";
    TRY(options_read_value(&generate_options[GENERATE_PROMPT], prompt, &v[GENERATE_PROMPT], &s->error));
    if (s->embeds.negative_prompt == NULL) return TESSERA_OK;
    return options_read_value(&generate_options[GENERATE_NEGATIVE_PROMPT], s->embeds.negative_prompt, &v[GENERATE_NEGATIVE_PROMPT], &s->error);
}

static tessera_status check_command_line(struct session *s) {
    struct option_value *values = s->values;
    tessera_request unused = {0};
    if (values[GENERATE_STRENGTH].given && !values[GENERATE_INIT_IMAGE].given) {
        s->usage = !values[GENERATE_FROM].given;
        if (s->usage) return error_set(&s->error, TESSERA_ERROR_ARGUMENT, "--strength needs --init-image FILE.png");
    }
    tessera_status status = read_embeds(s);
    if (status == TESSERA_OK) status = prompts_read(values, s->world, &s->prompts, &s->error);
    if (status == TESSERA_OK) status = prompt_tags_take(values, &s->tags, &s->error);
    s->usage = status == TESSERA_ERROR_ARGUMENT;
    TRY(status);
    s->usage = true;
    TRY(prompts_check(values, &s->error));
    if (s->rank == 0 && !s->quiet && prompt_tags_weigh(&values[GENERATE_PROMPT]))
        fprintf(stderr, "tessera: a weight in a prompt, as in (red:1.3), is read as text: words have no weights here\n");
    TRY(mesh_options_read(values, s->world, &s->mesh, &s->error));
    TRY(request_options_read_sizes(values, &unused, &s->error));
    TRY(check_stream(s));
    status = output_check(values[GENERATE_OUTPUT].text, &s->error);
    s->usage = status == TESSERA_ERROR_ARGUMENT;
    TRY(status);
    return given_pictures_read(values, &s->given, &s->facts, &s->error);
}

/* ---- the model ---- */

static tessera_status choose_model(struct session *s) {
    const char *given = s->values[GENERATE_MODEL].text;
    if (given != NULL && !file_exists(given)) given = like_model(given);
    bool recorded = given != NULL && !s->model_is_given && s->source.json != NULL && !file_exists(given) && !hub_is_name(given);
    if (given != NULL && !recorded) {
        TRY(download_model(given, s->values[GENERATE_VARIANT].text, s->quiet || s->rank > 0, &s->model_folder, &s->error));
    } else {
        tessera_error missing = {0};
        tessera_status status = data_find(EMBEDDED_MODEL, &s->model_folder, &missing);
        if (status != TESSERA_OK) return error_set(&s->error, status, "no model: give --model FOLDER (%s)", missing.message);
        s->moved_model = recorded ? given : NULL;
        s->values[GENERATE_MODEL].text = s->model_folder;
    }
    return TESSERA_OK;
}

/* --from draws with the record's model alone, wherever it lies now, unless --model says otherwise. */
static tessera_status check_recorded_model(struct session *s) {
    const char *was = "";
    if (s->source.json == NULL || s->model_is_given) return TESSERA_OK;
    TRY(json_string(s->source.json, "model_fingerprint", "", &was, &s->error));
    if (strcmp(was, s->facts.model_fingerprint) == 0) return TESSERA_OK;
    if (s->moved_model != NULL)
        return error_set(&s->error, TESSERA_ERROR_IO, "%s, the model of %s, is not there: give --model where it is", s->moved_model,
                         s->source.path);
    return error_set(&s->error, TESSERA_ERROR_ARGUMENT,
                     "%s is not the model that made %s (fingerprint %s, was %s): give --model FOLDER, or --model %s to draw with this one",
                     s->model_folder, s->source.path, s->facts.model_fingerprint, was, s->model_folder);
}

/* Puts what is in force back into the values, from which the record is written. */
static void settle_values(struct session *s) {
    request_options_settle(&s->request, s->values);
    s->values[GENERATE_THREADS].integer = tessera_model_threads(s->model);
    s->values[GENERATE_THREADS].given = true;
    if (s->values[GENERATE_DTYPE].text == NULL) s->values[GENERATE_DTYPE].text = "bf16";
    const char *class = tessera_model_pipeline_class(s->model);
    bool unet = strncmp(class, "StableDiffusion", 15) == 0 && class[15] != '3';
    mesh_options_settle(&s->mesh, unet, s->values);
}

/* The ranks of a run must agree on what they are asked for. */
static tessera_status check_same_options(struct session *s) {
    struct record_facts none = {.kernel_path = "", .mesh = s->mesh.text, .ranks = s->mesh.ranks};
    cJSON *options = record_object(s->values, &none);
    if (options == NULL) return error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory");
    for (int i = 0; i < s->values[GENERATE_PROMPT].count; i++)
        cJSON_AddStringToObject(options, "prompt", s->values[GENERATE_PROMPT].texts[i]);
    char *text = cJSON_PrintUnformatted(options);
    tessera_status status = text != NULL ? tessera_world_check_same(s->world, "options", text, &s->error)
                                         : error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory");
    cJSON_free(text);
    cJSON_Delete(options);
    return status;
}

/* One line: what was chosen where no option says it. */
static void tell_choice(const struct session *s) {
    int data = mesh_degree(s->mesh.mesh.data);
    char pictures[32] = "";
    if (data > 1) snprintf(pictures, sizeof pictures, "data %d%s", data, s->mesh.ranks > 1 ? " x " : "");
    fprintf(stderr, "tessera: no option says how %d ranks share the work: chose %s%s, which is exact (--parallel auto says why)\n",
            tessera_world_size(s->world), pictures, data > 1 && s->mesh.ranks == 1 ? "" : s->mesh.text);
}

/* The mesh, by measuring, on --parallel auto or where no option says it; rank 0 says which, and on request why. */
static tessera_status choose_mesh(struct session *s, const tessera_model_options *options) {
    const struct option_value *v = s->values;
    bool silent = !v[GENERATE_PARALLEL].given;
    if (silent && (tessera_world_size(s->world) == 1 || mesh_options_given(v))) return TESSERA_OK;
    struct plan_request request = {.width = v[GENERATE_WIDTH].integer,
                                   .height = v[GENERATE_HEIGHT].integer,
                                   .steps = v[GENERATE_STEPS].integer,
                                   .pictures = count_pictures(s),
                                   .max_sequence_length =
                                       v[GENERATE_MAX_SEQUENCE_LENGTH].given ? v[GENERATE_MAX_SEQUENCE_LENGTH].integer : -1,
                                   .guidance_scale = v[GENERATE_GUIDANCE_SCALE].given ? v[GENERATE_GUIDANCE_SCALE].number : -1,
                                   .has_negative_prompt = v[GENERATE_NEGATIVE_PROMPT].given && v[GENERATE_TRUE_CFG_SCALE].number > 1,
                                   .no_binning = v[GENERATE_NO_RESOLUTION_BINNING].flag};
    struct plan_auto_options how = {.allow_displaced = v[GENERATE_ALLOW_DISPLACED].flag, .threads = v[GENERATE_THREADS].integer};
    char reason[PLAN_REASON_LENGTH];
    if (s->mesh.rank_weights == NULL && !silent) { /* not given: measured */
        how.weights = s->mesh.rank_weights = calloc((size_t)tessera_world_size(s->world), sizeof *how.weights);
        if (how.weights == NULL) return error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory");
    }
    TRY(binding_choose(s->world, &(tessera_mesh){0}, how.threads, &s->error)); /* measured as in a run */
    tessera_mesh chosen = s->mesh.mesh;
    TRY(plan_auto(s->model_folder, options, &request, &how, &chosen, reason, &s->error));
    mesh_options_choose(&s->mesh, &chosen);
    if (s->rank == 0 && silent && !s->quiet) tell_choice(s);
    if (s->rank == 0 && (!silent || s->verbose)) fprintf(stderr, "%s\n", reason);
    return TESSERA_OK;
}

static tessera_kernels kernels_of(const struct option_value *value) {
    if (value->text != NULL && strcmp(value->text, "reproducible") == 0) return TESSERA_KERNELS_REPRODUCIBLE;
    return value->text != NULL && strcmp(value->text, "own") == 0 ? TESSERA_KERNELS_OWN : TESSERA_KERNELS_BEST;
}

static tessera_status open_model(struct session *s) {
    const struct option_value *v = s->values;
    TRY(check_same_options(s));
    TRY(choose_model(s));
    TRY(lora_options_read(&v[GENERATE_LORA], &s->loras, &s->error));
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    options.mesh = &s->mesh.mesh;
    options.threads = v[GENERATE_THREADS].integer;
    options.vae_tiling = v[GENERATE_VAE_TILING].flag;
    options.config = v[GENERATE_CONFIG].text;
    options.variant = v[GENERATE_VARIANT].text;
    options.vae = v[GENERATE_VAE].text;
    options.transformer = v[GENERATE_TRANSFORMER].text;
    options.text_encoder = v[GENERATE_TEXT_ENCODER].text;
    options.text_encoder_2 = v[GENERATE_TEXT_ENCODER_2].text;
    options.text_encoder_3 = v[GENERATE_TEXT_ENCODER_3].text;
    options.offload = v[GENERATE_OFFLOAD].text;
    options.loras = s->loras;
    options.num_loras = v[GENERATE_LORA].count;
    options.dtype = v[GENERATE_DTYPE].text != NULL && strcmp(v[GENERATE_DTYPE].text, "f32") == 0 ? TESSERA_F32 : TESSERA_BF16;
    options.kernels = kernels_of(&v[GENERATE_KERNELS]);
    double start = clock_seconds();
    TRY(fingerprint_model(s->model_folder, s->facts.model_fingerprint, &s->error));
    TRY(check_recorded_model(s));
    if (options.num_loras > 0) TRY(fingerprint_loras(s->loras, options.num_loras, s->facts.lora_fingerprint, &s->error));
    TRY(tessera_world_check_same(s->world, "model files (fingerprint)", s->facts.model_fingerprint, &s->error));
    TRY(choose_mesh(s, &options));
    TRY(binding_choose(s->world, &s->mesh.mesh, options.threads, &s->error));
    s->model = tessera_model_open(s->model_folder, &options, &s->error);
    if (s->model == NULL) return s->error.status;
    for (int i = 0; s->rank == 0 && tessera_model_notice(s->model, i) != NULL; i++)
        fprintf(stderr, "tessera: note: %s\n", tessera_model_notice(s->model, i));
    if (s->embeds.file != NULL) TRY(embeds_check(&s->embeds, s->model, &s->error));
    s->seconds_open = clock_seconds() - start;
    s->facts.kernel_path = tessera_model_kernel_path(s->model);
    s->facts.mesh = s->mesh.text;
    s->facts.ranks = s->mesh.ranks;
    habits_apply_family(s->values, tessera_model_pipeline_class(s->model), s->rank == 0 && !s->quiet);
    int unit = tessera_model_size_unit(s->model, &s->error);
    if (unit == 0) return s->error.status;
    TRY(given_pictures_scale(v, unit, s->rank == 0, &s->given, &s->error));
    TRY(request_options_read(v, &s->given, s->model, &s->request, &s->error));
    TRY(schedule_options_read(v, &s->scheduler_config, &s->error));
    s->request.scheduler_config = s->scheduler_config;
    if (s->embeds.file != NULL) s->request.states = &s->embeds.states;
    if (s->verbose)
        fprintf(stderr, "tessera: model %s, %s; kernels %s, %d threads; mesh %s\n", s->model_folder, tessera_model_pipeline_class(s->model),
                s->facts.kernel_path, tessera_model_threads(s->model), s->facts.mesh);
    s->request.progress = progress_report;
    s->request.progress_user = &s->progress;
    s->notices.progress = &s->progress;
    s->request.notice = notice_print;
    s->request.notice_user = &s->notices;
    settle_values(s);
    s->record = record_object(s->values, &s->facts);
    s->pictures = cJSON_CreateArray();
    if (s->record == NULL || s->pictures == NULL)
        return error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for the picture's record");
    if (s->source.json != NULL && s->rank == 0) record_source_report(&s->source, s->values, &s->facts);
    return TESSERA_OK;
}

/* ---- pictures ---- */

/* Pictures to make in one call: `count` of prompt `place`, from its number `index` on, the run's from number `number` of `total` on. */
struct task {
    int place;
    const char *prompt;
    uint64_t seed;
    int index, number, total, count;
};

/* Picture i of a task. */
static struct task one_of(const struct task *task, int i) {
    return (struct task){task->place, task->prompt, task->seed, task->index + i, task->number + i, task->total, 1};
}

static char *name_output(struct session *s, const struct task *task) {
    const char *output = s->values[GENERATE_OUTPUT].text;
    char *name = NULL;
    if (s->prompts.captions.count > 0) return prompts_caption_path(s->values, &s->prompts, task->place, output, &s->error);
    if (output != NULL || s->source.path == NULL || !only_one(s))
        return output_name(output, task->prompt, task->seed, task->number, task->total, &s->error);
    size_t n = strlen(s->source.path);
    if (n > 4 && strcasecmp(s->source.path + n - 4, ".png") == 0) n -= 4;
    if (asprintf(&name, "%.*s-again.png", (int)n, s->source.path) >= 0) return name;
    error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for a file name");
    return NULL;
}

static tessera_status write_picture(struct session *s, const char *path, const tessera_image *image, const struct task *task) {
    if (!record_settle_size(s->record, image->width, image->height))
        return error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for the picture's record");
    char *record = record_text(s->record, task->prompt, task->seed, task->index);
    char *description = NULL;
    char *parameters = parameters_text(s->values, tessera_model_pipeline_class(s->model), task->prompt, task->seed);
    if (asprintf(&description, "%s; %dx%d, %d steps, guidance %g, seed %llu, picture %d of %d, %s", task->prompt, image->width,
                 image->height, s->request.num_inference_steps, (double)s->request.guidance_scale, (unsigned long long)task->seed,
                 task->index + 1, s->request.num_images, s->values[GENERATE_DTYPE].text) < 0)
        description = NULL;
    tessera_status status;
    if (record == NULL || description == NULL || parameters == NULL) {
        status = error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for the picture's record");
    } else {
        const struct png_text_entry text[] = {{"Title", task->prompt},
                                              {"Software", "Tessera " TESSERA_VERSION},
                                              {"Description", description},
                                              {PARAMETERS_KEY, parameters},
                                              {RECORD_KEY, record}};
        int count = (int)(sizeof text / sizeof *text);
        status = output_is_stream(path)
                     ? png_stream_write(stdout, "standard output", image->pixels, image->width, image->height, text, count, &s->error)
                     : png_file_write(path, image->pixels, image->width, image->height, text, count, &s->error);
    }
    free(parameters);
    free(description);
    free(record);
    return status;
}

static tessera_status note_picture(struct session *s, const char *path, const struct task *task) {
    cJSON *entry = cJSON_CreateObject();
    if (entry == NULL || !cJSON_AddItemToArray(s->pictures, entry) || cJSON_AddStringToObject(entry, "file", path) == NULL ||
        cJSON_AddStringToObject(entry, "prompt", task->prompt) == NULL || !cJSON_AddItemToObject(entry, "seed", record_seed(task->seed)) ||
        cJSON_AddNumberToObject(entry, "index", task->index) == NULL)
        return error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for the report");
    return TESSERA_OK;
}

/* "lion.png" becomes "lion.safetensors" where latents are wanted. The caller frees. */
static char *name_kind(struct session *s, const struct task *task) {
    char *name = name_output(s, task), *latents = NULL;
    if (name == NULL || !s->request.latents_only) return name;
    size_t n = strlen(name);
    if (n > 4 && strcasecmp(name + n - 4, ".png") == 0) n -= 4;
    if (n > 12 && strcasecmp(name + n - 12, ".safetensors") == 0) n -= 12;
    if (asprintf(&latents, "%.*s.safetensors", (int)n, name) < 0) latents = NULL;
    free(name);
    if (latents == NULL) error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for a file name");
    return latents;
}

/* The file of a task's first picture, with the number that keeps it from an existing one. The caller frees. */
static char *name_file(struct session *s, const struct task *task) {
    char *name = name_kind(s, task);
    if (name == NULL || s->copies == NULL) return name;
    char *copy = output_copy_name(name, s->copies[task->number], &s->error);
    free(name);
    return copy;
}

/* Shows the picture that was written to `path`, and says whether it is that of --from. With several ranks on request only: standard output
 * is then a terminal of mpirun's, whether or not a person has one. */
static void show_picture(struct session *s, const char *path, const tessera_image *image) {
    const struct option_value *v = s->values;
    const char *kind = v[GENERATE_PREVIEW].text != NULL ? v[GENERATE_PREVIEW].text : tessera_world_size(s->world) > 1 ? "none" : "auto";
    if (image->pixels == NULL) return;
    if (!v[GENERATE_JSON].flag && !v[GENERATE_NO_PREVIEW].flag && !output_is_stream(path))
        preview_show(kind, path, image->pixels, image->width, image->height);
    fflush(stdout);
    if (only_one(s)) record_source_compare(&s->source, image->pixels, image->width, image->height);
}

/* Writes, reports and shows the picture in `image`. */
static tessera_status deliver_picture(struct session *s, const tessera_image *image, const struct task *task) {
    char *path = name_file(s, task);
    if (path == NULL) return s->error.status;
    tessera_status status = s->request.latents_only ? latents_write(path, s->model, &s->request, image, &s->error)
                                                    : write_picture(s, path, image, task);
    if (status == TESSERA_OK) status = note_picture(s, path, task);
    if (status == TESSERA_OK) s->written++;
    if (status == TESSERA_OK && s->rank == 0) {
        if (!s->values[GENERATE_JSON].flag && !output_is_stream(path)) printf("%s\n", path);
        show_picture(s, path, image);
    }
    free(path);
    return status;
}

static void add_costs(struct session *s, const tessera_image *image) {
    const double seconds[] = {image->seconds_load, image->seconds_text, image->seconds_encode, image->seconds_denoise,
                              image->seconds_decode};
    const double operations[] = {image->operations_text, image->operations_denoise, image->operations_decode};
    for (int i = 0; i < 5; i++) s->seconds[i] += seconds[i];
    for (int i = 0; i < 3; i++) s->operations[i] += operations[i];
    s->blocks += image->blocks;
    s->blocks_skipped += image->blocks_skipped;
    s->bytes_copied += image->bytes_copied;
    s->bytes_moved += image->bytes_moved;
}

/* Picture i of those in `image`, whose memory it borrows. */
static tessera_image view_of(const tessera_image *image, int i) {
    tessera_image one = *image;
    size_t pixels = (size_t)image->width * (size_t)image->height * 3;
    one.count = 1;
    if (image->pixels != NULL) one.pixels += (size_t)i * pixels;
    if (image->pixels_f32 != NULL) one.pixels_f32 += (size_t)i * pixels;
    one.latents += (size_t)i * (size_t)image->latent_channels * (size_t)image->latent_height * (size_t)image->latent_width;
    return one;
}

/* A call of its own for as few pictures as keep all ranks busy, so that they are written as soon as they are done. */
static tessera_status make_task(struct session *s, const struct task *task) {
    tessera_image image = TESSERA_IMAGE;
    tessera_request request = s->request;
    request.prompt = task->prompt;
    request.seed = task->seed;
    request.first_image = task->index;
    request.made_images = task->count;
    tessera_status status = tessera_generate(s->model, &request, &image, &s->error);
    progress_clear(&s->progress);
    if (status == TESSERA_OK) add_costs(s, &image);
    for (int i = 0; i < image.count && status == TESSERA_OK && s->writes && tessera_model_gets_pictures(s->model); i++) {
        struct task one = one_of(task, i);
        tessera_image picture = view_of(&image, i);
        status = deliver_picture(s, &picture, &one);
    }
    tessera_image_free(&image);
    return status;
}

/* Rank 0 speaks of the pictures that other groups of ranks have written. */
static tessera_status tell_picture(struct session *s, const struct task *task) {
    char *path = name_file(s, task);
    if (path == NULL) return s->error.status;
    tessera_status status = note_picture(s, path, task);
    if (status == TESSERA_OK) s->written++;
    if (status == TESSERA_OK && !s->values[GENERATE_JSON].flag && !output_is_stream(path)) printf("%s\n", path);
    free(path);
    return status;
}

static tessera_status tell_task(struct session *s, const struct task *task) {
    for (int i = 0; i < task->count; i++) {
        struct task one = one_of(task, i);
        TRY(tell_picture(s, &one));
    }
    return TESSERA_OK;
}

/* All tasks, in order; each is one group's. `visit` is called for those that are (mine) or are not this group's. */
static tessera_status each_task(struct session *s, bool mine, tessera_status (*visit)(struct session *, const struct task *)) {
    const struct option_value *prompts = &s->values[GENERATE_PROMPT];
    int first = only_one(s) ? s->source.index : 0;
    int end = only_one(s) ? first + 1 : s->request.num_images;
    int together = only_one(s) ? 1 : tessera_pictures_at_once(s->model, &s->request), tasks = 0;
    int seeds = only_one(s) || !s->values[GENERATE_BATCH_COUNT].given ? 1 : s->values[GENERATE_BATCH_COUNT].integer;
    struct task task = {.total = prompts->count * seeds * (end - first)};
    for (int i = 0; i < prompts->count * seeds; i++) {
        const struct captions *captions = &s->prompts.captions;
        if (captions->count > 0 && captions->is_done[i]) continue;
        task.place = i / seeds;
        task.prompt = prompts->texts[task.place];
        task.seed = s->request.seed + (captions->count > 0 ? (uint64_t)captions->list[i].number : (uint64_t)(i % seeds));
        for (int k = first; k < end; k += task.count, task.number += task.count, tasks++) {
            task.count = end - k < together ? end - k : together;
            if ((tasks % tessera_model_groups(s->model) == tessera_model_group(s->model)) != mine) continue;
            if (progress_signal() != 0) return error_set(&s->error, TESSERA_ERROR_CANCELLED, "stopped");
            task.index = k;
            TRY(visit(s, &task));
        }
    }
    return TESSERA_OK;
}

static tessera_status choose_copies(struct session *s, const struct task *task) {
    for (int i = 0; i < task->count; i++) {
        struct task one = one_of(task, i);
        char *name = name_kind(s, &one);
        if (name == NULL) return s->error.status;
        tessera_status status = output_free_copy(name, &s->copies[one.number], &s->error);
        if (status == TESSERA_OK && s->copies[one.number] > 0 && !s->quiet)
            fprintf(stderr, "tessera: %s exists: this picture gets number %d (--overwrite replaces the file)\n", name,
                    s->copies[one.number]);
        free(name);
        TRY(status);
    }
    return TESSERA_OK;
}

/* No existing file is written over without --overwrite. Rank 0's files decide for all. */
static tessera_status spare_files(struct session *s) {
    const struct option_value *v = s->values;
    size_t count = (size_t)count_pictures(s);
    if (v[GENERATE_OVERWRITE].flag || s->prompts.captions.count > 0 || output_is_stream(v[GENERATE_OUTPUT].text)) return TESSERA_OK;
    s->copies = calloc(count, sizeof *s->copies);
    if (s->copies == NULL) return error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory");
    if (s->rank == 0) TRY(each_task(s, true, choose_copies));
    if (s->rank == 0) TRY(each_task(s, false, choose_copies));
    return comm_broadcast(s->world->comm, 0, s->copies, count * sizeof *s->copies, &s->error);
}

/* Captions whose pictures are there are not drawn again, so that an evaluation which was stopped goes on. Rank 0's files decide for all. */
static tessera_status leave_out_done(struct session *s) {
    struct captions *captions = &s->prompts.captions;
    int done = 0;
    const char *class = tessera_model_pipeline_class(s->model);
    bool keeps_size = strncmp(class, "Hunyuan", 7) != 0 && strncmp(class, "Flux", 4) != 0; /* the others may draw another one */
    if (captions->count == 0) return TESSERA_OK;
    for (int i = 0; i < captions->count; i++) {
        char *path = name_file(s, &(struct task){.place = i});
        if (path == NULL) return s->error.status;
        captions->is_done[i] = file_exists(path);
        tessera_status status = TESSERA_OK;
        if (captions->is_done[i] && s->rank == 0 && !s->request.latents_only)
            status = record_check_same(path, s->record, s->values[GENERATE_PROMPT].texts[i],
                                       s->request.seed + (uint64_t)captions->list[i].number, keeps_size, &s->error);
        free(path);
        if (status != TESSERA_OK) return status;
    }
    TRY(comm_broadcast(s->world->comm, 0, captions->is_done, (size_t)captions->count * sizeof *captions->is_done, &s->error));
    for (int i = 0; i < captions->count; i++) done += captions->is_done[i];
    if (done > 0 && s->rank == 0) fprintf(stderr, "tessera: %d of %d pictures are there already\n", done, captions->count);
    return TESSERA_OK;
}

/* Waits for all ranks. */
static tessera_status meet(struct session *s, int run) {
    char text[16];
    snprintf(text, sizeof text, "%d", run);
    return tessera_world_check_same(s->world, "run", text, &s->error);
}

/* All runs of this group's pictures: one, or as many as --warmup-times and --test-times say; those of the last are written. */
static tessera_status make_runs(struct session *s) {
    struct benchmark *b = &s->benchmark;
    int total = b->warmup_runs + b->runs;
    bool timed = benchmark_wanted(s->values);
    for (int run = 0; run < total; run++) {
        if (timed) TRY(meet(s, run));
        double start = clock_seconds();
        s->writes = run + 1 == total;
        s->blocks = s->blocks_skipped = 0;
        s->bytes_copied = s->bytes_moved = 0;
        memset(s->seconds, 0, sizeof s->seconds);
        memset(s->operations, 0, sizeof s->operations);
        TRY(each_task(s, true, make_task));
        if (timed) TRY(meet(s, run));
        if (run >= b->warmup_runs) b->seconds[run - b->warmup_runs] = clock_seconds() - start;
    }
    return TESSERA_OK;
}

/* Makes this group's pictures; when all ranks are done, tells of the others'. */
static tessera_status make_pictures(struct session *s) {
    TRY(leave_out_done(s));
    TRY(spare_files(s));
    TRY(make_runs(s));
    if (s->values[GENERATE_COMM_STATS].flag) TRY(tessera_world_print_stats(s->world, stderr, &s->error));
    s->peaks = calloc((size_t)tessera_world_size(s->world), sizeof *s->peaks);
    if (s->peaks == NULL) return error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory");
    TRY(tessera_world_peak_memory(s->world, s->peaks, &s->error));
    TRY(tessera_world_finish(s->world, &s->error));
    return s->rank == 0 ? each_task(s, false, tell_task) : TESSERA_OK;
}

/* ---- reports ---- */

static void print_summary(const struct session *s) {
    fprintf(stderr, "%d picture%s: open %.2f s, text %.2f s, ", s->written, s->written == 1 ? "" : "s", s->seconds_open + s->seconds[0],
            s->seconds[1]);
    if (s->seconds[2] > 0) fprintf(stderr, "encode %.2f s, ", s->seconds[2]);
    fprintf(stderr, "denoise %.2f s, decode %.2f s; %.1f GFLOP; peak resident memory ", s->seconds[3], s->seconds[4],
            (s->operations[0] + s->operations[1] + s->operations[2]) / 1e9);
    for (int i = 0; i < tessera_world_size(s->world); i++)
        fprintf(stderr, "%s%llu", i > 0 ? "/" : "", (unsigned long long)s->peaks[i] >> 20);
    fprintf(stderr, " MiB; %s, %d threads\n", s->facts.kernel_path, s->values[GENERATE_THREADS].integer);
    if (s->request.step_cache != NULL)
        fprintf(stderr, "step cache: left out %lld of %lld blocks\n", (long long)s->blocks_skipped, (long long)s->blocks);
}

static tessera_status print_json(struct session *s) {
    const char *second_names[] = {"load", "text", "encode", "denoise", "decode"}, *operation_names[] = {"text", "denoise", "decode"};
    cJSON *root = cJSON_CreateObject(), *seconds, *operations;
    cJSON_AddItemToObject(root, "pictures", s->pictures);
    cJSON_AddItemToObject(root, "parameters", s->record);
    s->pictures = s->record = NULL;
    cJSON_AddStringToObject(root, "pipeline_class", tessera_model_pipeline_class(s->model));
    cJSON_AddStringToObject(root, "kernel_path", s->facts.kernel_path);
    cJSON_AddNumberToObject(root, "threads", s->values[GENERATE_THREADS].integer);
    cJSON_AddStringToObject(root, "dtype", s->values[GENERATE_DTYPE].text);
    seconds = cJSON_AddObjectToObject(root, "seconds");
    cJSON_AddNumberToObject(seconds, "open", s->seconds_open);
    for (int i = 0; i < 5; i++) cJSON_AddNumberToObject(seconds, second_names[i], s->seconds[i]);
    operations = cJSON_AddObjectToObject(root, "operations");
    for (int i = 0; i < 3; i++) cJSON_AddNumberToObject(operations, operation_names[i], s->operations[i]);
    cJSON_AddNumberToObject(root, "peak_resident_memory_bytes", (double)s->peaks[0]);
    cJSON *peaks = cJSON_AddArrayToObject(root, "peak_resident_memory_bytes_of_ranks");
    for (int i = 0; i < tessera_world_size(s->world); i++) cJSON_AddItemToArray(peaks, cJSON_CreateNumber((double)s->peaks[i]));
    cJSON_AddNumberToObject(root, "bytes_copied", (double)s->bytes_copied);
    cJSON_AddNumberToObject(root, "bytes_moved", (double)s->bytes_moved);
    if (s->request.step_cache != NULL) {
        cJSON_AddNumberToObject(root, "blocks", (double)s->blocks);
        cJSON_AddNumberToObject(root, "blocks_skipped", (double)s->blocks_skipped);
    }
    if (benchmark_wanted(s->values)) benchmark_add_report(&s->benchmark, s->written, root);
    char *text = cJSON_Print(root);
    if (text != NULL) puts(text);
    cJSON_Delete(root);
    if (text == NULL) return error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for the report");
    cJSON_free(text);
    return TESSERA_OK;
}

/* Rank 0 alone talks; where it is the one that went silent, rank 1 does. */
static bool talks(const struct session *s) {
    const char *message = s->error.message;
    return s->rank == 0 || (s->rank == 1 && strncmp(message, "rank 0 ", 7) == 0 && strstr(message, "no sign of life") != NULL);
}

static int finish(struct session *s, tessera_status status) {
    progress_clear(&s->progress);
    if (status != TESSERA_OK) tessera_world_finish(s->world, NULL); /* ranks that wait for this one learn that it is gone */
    if (status == TESSERA_ERROR_CANCELLED)
        return command_stopped(talks(s), "%d picture%s written before that", s->written, s->written == 1 ? "" : "s");
    if (status == TESSERA_OK) return EXIT_DONE;
    if (talks(s)) return command_fail(&s->error, s->usage);
    return s->usage ? EXIT_USAGE : EXIT_FAILED;
}

static tessera_status open_world(struct session *s) {
    s->world = tessera_world_open(&s->error);
    if (s->world == NULL) return s->error.status;
    s->rank = tessera_world_rank(s->world);
    s->quiet = s->values[GENERATE_JSON].flag || command_common(&generate_command, s->values, COMMON_QUIET);
    s->verbose = command_common(&generate_command, s->values, COMMON_VERBOSE) && s->rank == 0;
    progress_init(&s->progress, s->quiet || s->rank > 0);
    progress_catch_signals();
    return TESSERA_OK;
}

/* How many ranks will make each picture, as far as that can be said before the mesh is. */
static int ranks_of_picture(const struct session *s) {
    return tessera_world_size(s->world) / mesh_degree(s->values[GENERATE_DATA_DEGREE].integer);
}

static tessera_status generate(struct session *s) {
    struct option_value *values = s->values;
    TRY(open_world(s));
    s->model_is_given = values[GENERATE_MODEL].given;
    if (values[GENERATE_FROM].given)
        TRY(record_source_open(values[GENERATE_FROM].text, values, ranks_of_picture(s), &s->source, &s->error));
    TRY(translate_command_line(s));
    TRY(check_command_line(s));
    TRY(benchmark_open(values, &s->benchmark, &s->error));
    s->usage = false;
    TRY(open_model(s));
    TRY(make_pictures(s));
    if (s->rank > 0) return TESSERA_OK;
    fflush(stdout);
    if (values[GENERATE_JSON].flag) return print_json(s);
    if (!s->quiet) print_summary(s);
    if (benchmark_wanted(values)) benchmark_print(&s->benchmark, s->written);
    return TESSERA_OK;
}

static int run_generate(const char *path, struct option_value *values) {
    (void)path;
    struct session s = {.values = values};
    int code = finish(&s, generate(&s));
    cJSON_Delete(s.record);
    cJSON_Delete(s.pictures);
    tessera_model_free(s.model);
    tessera_world_free(s.world);
    given_pictures_free(&s.given);
    record_source_close(&s.source);
    lora_options_free(s.loras, values[GENERATE_LORA].count);
    free(s.model_folder);
    free(s.scheduler_config);
    free(s.output_folder);
    prompts_free(&s.prompts);
    embeds_close(&s.embeds);
    prompt_tags_free(&s.tags);
    mesh_options_free(&s.mesh);
    free(s.copies);
    free(s.peaks);
    benchmark_free(&s.benchmark);
    return code;
}

const struct command generate_command = {
    .name = "generate",
    .usage = "generate --prompt TEXT [OPTIONS]",
    .summary = "make pictures from prompts",
    .details =
        "Output: FILE for one picture; several become FILE-0.png, FILE-1.png, ...; in a FOLDER (existing, or ending in '/') they are\n"
        "PROMPT_SEED_NUMBER.png. Paths of written pictures go to standard output, times and memory to standard error.\n"
        "Each prompt starts from the seed by itself. A picture carries a record of how it was made, which --from reads;\n"
        "other options override the record.\n",
    .examples = "  tessera generate --prompt \"a lion on a blue background\" --seed 2 -o lion.png\n"
                "  tessera generate --model sd3-medium --prompt \"a cat\" \"a dog\" --num-images 4 -o pictures/\n"
                "  tessera generate --prompt \"a red apple\" --init-image sketch.png --strength 0.6 -o apple.png\n"
                "  tessera generate --from lion.png -o again.png\n"
                "  mpirun -n 4 tessera generate --prompt \"a lion\" --use-cfg-parallel --pipefusion-parallel-degree 2 -o lion.png\n",
    .options = generate_options,
    .option_count = GENERATE_OPTION_COUNT,
    .foreign = foreign_options,
    .foreign_count = FOREIGN_OPTION_COUNT,
    .run = run_generate,
};
