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
#include <unistd.h>
#include <utf8proc.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "checkpoint/published.h"
#include "cli/command.h"
#include "cli/download.h"
#include "cli/output.h"
#include "cli/preview.h"
#include "cli/progress.h"
#include "cli/record.h"

#define EMBEDDED_MODEL "models/emoji"
#define PROMPTS_FILE_BYTES ((size_t)16 << 20)

struct session {
    struct option_value *values;
    bool usage;                  /* the error so far is one of the command line */
    struct record_source source; /* of --from */
    char *prompts_text;          /* the prompts file, cut into lines */
    struct png_picture init;
    char *model_folder;
    tessera_lora *loras; /* of --lora; the paths are owned */
    tessera_world *world;
    int rank;
    tessera_model *model;
    tessera_request request;
    struct record_facts facts;
    struct cJSON *record, *pictures;
    struct progress progress;
    double seconds_open, seconds[4], operations[3];
    int written;
    tessera_error error;
};

/* ---- the command line ---- */

static tessera_status read_prompts_file(struct session *s) {
    const char *path = s->values[GENERATE_PROMPTS_FILE].text;
    size_t length;
    if (path == NULL) return TESSERA_OK;
    TRY(file_read(path, PROMPTS_FILE_BYTES, &s->prompts_text, &length, &s->error));
    char *rest = s->prompts_text, *line;
    while ((line = strsep(&rest, "\n")) != NULL) {
        line[strcspn(line, "\r")] = 0;
        if (*line != 0) TRY(options_read_value(&generate_options[GENERATE_PROMPT], line, &s->values[GENERATE_PROMPT], &s->error));
    }
    return TESSERA_OK;
}

static bool is_utf8(const char *text) {
    utf8proc_int32_t point;
    utf8proc_ssize_t n;
    for (const char *c = text; *c != 0; c += n)
        if ((n = utf8proc_iterate((const utf8proc_uint8_t *)c, -1, &point)) < 1) return false;
    return true;
}

static tessera_status check_prompts(struct session *s) {
    const struct option_value *prompts = &s->values[GENERATE_PROMPT];
    if (prompts->count == 0)
        return error_set(&s->error, TESSERA_ERROR_ARGUMENT,
                         "there is no prompt: give --prompt \"TEXT\", --prompts-file FILE or --from PICTURE.png");
    for (int i = 0; i < prompts->count; i++)
        if (!is_utf8(prompts->texts[i])) return error_set(&s->error, TESSERA_ERROR_ARGUMENT, "prompt %d is not UTF-8 text", i + 1);
    const char *negative = s->values[GENERATE_NEGATIVE_PROMPT].text;
    if (negative != NULL && !is_utf8(negative)) return error_set(&s->error, TESSERA_ERROR_ARGUMENT, "--negative-prompt is not UTF-8 text");
    return TESSERA_OK;
}

/* A given width or height must be the starting picture's. */
static tessera_status check_init_side(struct session *s, int option, int side) {
    const struct option_value *value = &s->values[option];
    if (!value->given || value->integer == side) return TESSERA_OK;
    return error_set(
        &s->error, TESSERA_ERROR_ARGUMENT, "--init-image %s has %s %d but --%s asks for %d: leave it out or scale the picture first",
        s->values[GENERATE_INIT_IMAGE].text, generate_options[option].name, side, generate_options[option].name, value->integer);
}

static tessera_status read_init_image(struct session *s) {
    const char *path = s->values[GENERATE_INIT_IMAGE].text;
    if (path == NULL) return TESSERA_OK;
    TRY(png_file_read(path, RECORD_KEY, &s->init, &s->error));
    fingerprint_bytes(s->init.pixels, (size_t)s->init.width * (size_t)s->init.height * 3, s->facts.init_image_fingerprint);
    s->usage = true;
    TRY(check_init_side(s, GENERATE_WIDTH, s->init.width));
    TRY(check_init_side(s, GENERATE_HEIGHT, s->init.height));
    s->usage = false;
    return TESSERA_OK;
}

/* Two whole numbers with `separator` between them, each from `low` to 2^20; neither is touched where the option was not given. */
static tessera_status read_pair(struct session *s, int option, char separator, int low, int *first, int *second) {
    const char *text = s->values[option].text;
    char between, rest;
    int a, b;
    if (text == NULL) return TESSERA_OK;
    if (sscanf(text, "%d%c%d%c", &a, &between, &b, &rest) != 3 || between != separator || a < low || b < low || a > 1 << 20 || b > 1 << 20)
        return error_set(&s->error, TESSERA_ERROR_ARGUMENT, "--%s %s: it must be two whole numbers from %d: %s",
                         generate_options[option].name, text, low, generate_options[option].placeholder);
    *first = a;
    *second = b;
    return TESSERA_OK;
}

/* SDXL's micro-conditions into a request. */
static tessera_status read_size_conditions(struct session *s, tessera_request *r) {
    TRY(read_pair(s, GENERATE_ORIGINAL_SIZE, 'x', 1, &r->original_width, &r->original_height));
    TRY(read_pair(s, GENERATE_CROPS, ',', 0, &r->crop_top, &r->crop_left));
    return read_pair(s, GENERATE_TARGET_SIZE, 'x', 1, &r->target_width, &r->target_height);
}

static tessera_status check_command_line(struct session *s) {
    struct option_value *values = s->values;
    tessera_request unused = {0};
    if (values[GENERATE_STRENGTH].given && !values[GENERATE_INIT_IMAGE].given) {
        s->usage = !values[GENERATE_FROM].given;
        if (s->usage) return error_set(&s->error, TESSERA_ERROR_ARGUMENT, "--strength needs --init-image FILE.png");
    }
    TRY(read_prompts_file(s));
    s->usage = true;
    TRY(check_prompts(s));
    TRY(read_size_conditions(s, &unused));
    tessera_status status = output_check(values[GENERATE_OUTPUT].text, &s->error);
    s->usage = status == TESSERA_ERROR_ARGUMENT;
    TRY(status);
    return read_init_image(s);
}

/* ---- the model ---- */

static tessera_status choose_model(struct session *s) {
    const char *given = s->values[GENERATE_MODEL].text;
    bool recorded = given != NULL && s->source.json != NULL && !file_exists(given) && !hub_is_name(given);
    if (given != NULL && !recorded) {
        TRY(download_model(given, s->values[GENERATE_JSON].flag || s->rank > 0, &s->model_folder, &s->error));
    } else {
        tessera_error missing = {0};
        tessera_status status = data_find(EMBEDDED_MODEL, &s->model_folder, &missing);
        if (status != TESSERA_OK) return error_set(&s->error, status, "no model: give --model FOLDER (%s)", missing.message);
        if (recorded) fprintf(stderr, "tessera: %s is not there; using %s\n", given, s->model_folder);
        s->values[GENERATE_MODEL].text = s->model_folder;
    }
    return TESSERA_OK;
}

/* The request: the model's defaults, the starting picture's size, then what was given. */
static tessera_status fill_request(struct session *s) {
    const struct option_value *v = s->values;
    tessera_request *r = &s->request;
    *r = tessera_request_default(s->model);
    if (s->init.pixels != NULL) {
        r->init_image = s->init.pixels;
        r->width = s->init.width;
        r->height = s->init.height;
    }
    if (v[GENERATE_WIDTH].given) r->width = v[GENERATE_WIDTH].integer;
    if (v[GENERATE_HEIGHT].given) r->height = v[GENERATE_HEIGHT].integer;
    if (v[GENERATE_STEPS].given) r->num_inference_steps = v[GENERATE_STEPS].integer;
    if (v[GENERATE_GUIDANCE_SCALE].given) r->guidance_scale = (float)v[GENERATE_GUIDANCE_SCALE].number;
    if (v[GENERATE_GUIDANCE_RESCALE].given) r->guidance_rescale = (float)v[GENERATE_GUIDANCE_RESCALE].number;
    if (v[GENERATE_TRUE_CFG_SCALE].given) r->true_cfg_scale = (float)v[GENERATE_TRUE_CFG_SCALE].number;
    if (v[GENERATE_CLIP_SKIP].given) r->clip_skip = v[GENERATE_CLIP_SKIP].integer;
    if (v[GENERATE_RESOLUTION_BINNING].given) r->use_resolution_binning = v[GENERATE_RESOLUTION_BINNING].flag;
    if (v[GENERATE_NO_RESOLUTION_BINNING].flag) r->use_resolution_binning = false;
    if (v[GENERATE_NUM_IMAGES].given) r->num_images = v[GENERATE_NUM_IMAGES].integer;
    if (v[GENERATE_MAX_SEQUENCE_LENGTH].given) r->max_sequence_length = v[GENERATE_MAX_SEQUENCE_LENGTH].integer;
    if (v[GENERATE_STRENGTH].given) r->strength = (float)v[GENERATE_STRENGTH].number;
    r->seed = v[GENERATE_SEED].seed;
    r->negative_prompt = v[GENERATE_NEGATIVE_PROMPT].text;
    r->scheduler = v[GENERATE_SCHEDULER].text;
    r->progress = progress_report;
    r->progress_user = &s->progress;
    return read_size_conditions(s, r);
}

/* Puts what is in force back into the values, from which the record is written. */
static void settle_values(struct session *s) {
    struct option_value *v = s->values;
    const tessera_request *r = &s->request;
    v[GENERATE_WIDTH].integer = r->width;
    v[GENERATE_HEIGHT].integer = r->height;
    v[GENERATE_STEPS].integer = r->num_inference_steps;
    v[GENERATE_GUIDANCE_SCALE].number = (double)r->guidance_scale;
    v[GENERATE_GUIDANCE_RESCALE].number = (double)r->guidance_rescale;
    v[GENERATE_TRUE_CFG_SCALE].number = (double)r->true_cfg_scale;
    v[GENERATE_CLIP_SKIP].integer = r->clip_skip;
    v[GENERATE_RESOLUTION_BINNING].flag = r->use_resolution_binning;
    v[GENERATE_NUM_IMAGES].integer = r->num_images;
    v[GENERATE_MAX_SEQUENCE_LENGTH].integer = r->max_sequence_length;
    v[GENERATE_STRENGTH].number = (double)r->strength;
    v[GENERATE_THREADS].integer = tessera_model_threads(s->model);
    if (v[GENERATE_DTYPE].text == NULL) v[GENERATE_DTYPE].text = "bf16";
}

/* FILE[:SCALE], each; only a number after the last colon is a scale. */
static tessera_status read_loras(struct session *s) {
    const struct option_value *v = &s->values[GENERATE_LORA];
    s->loras = calloc((size_t)v->count + 1, sizeof *s->loras);
    for (int i = 0; s->loras != NULL && i < v->count; i++) {
        char *path = strdup(v->texts[i]), *end;
        if (path == NULL) return error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory");
        s->loras[i] = (tessera_lora){.path = path, .scale = 1};
        char *colon = strrchr(path, ':');
        if (colon == NULL || colon == path) continue;
        float scale = strtof(colon + 1, &end);
        if (end == colon + 1 || *end != 0) continue;
        s->loras[i].scale = scale;
        *colon = 0;
    }
    return s->loras != NULL ? TESSERA_OK : error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory");
}

static void free_loras(struct session *s) {
    for (int i = 0; s->loras != NULL && i < s->values[GENERATE_LORA].count; i++) free((char *)s->loras[i].path);
    free(s->loras);
}

/* The ranks of a run must agree on what they are asked for. */
static tessera_status check_same_options(struct session *s) {
    struct record_facts none = {.kernel_path = ""};
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

/* DistriFusion's --parallelism: the ranks that are left, split by guidance where they are even, go to one axis. */
static void apply_parallelism(const struct session *s, tessera_mesh *mesh) {
    const struct option_value *v = s->values;
    const char *kind = v[GENERATE_PARALLELISM].text;
    if (kind == NULL) return;
    int *axis = strcmp(kind, "tensor") == 0 ? &mesh->tensor : &mesh->patch;
    const int claimed[] = {mesh->data, mesh->cfg, mesh->ring, mesh->ulysses, mesh->tensor};
    int left = tessera_world_size(s->world);
    for (size_t i = 0; i < sizeof claimed / sizeof *claimed; i++) left /= claimed[i] > 0 ? claimed[i] : 1;
    if (mesh->cfg == 1 && left % 2 == 0 && !v[GENERATE_NO_SPLIT_BATCH].flag) {
        mesh->cfg = 2;
        left /= 2;
    }
    if (left > 1) *axis = left;
    mesh->naive_patch = strcmp(kind, "naive_patch") == 0;
    mesh->split_scheme = v[GENERATE_SPLIT_SCHEME].text;
    mesh->sync_mode = v[GENERATE_SYNC_MODE].text;
    mesh->published_group_norm = v[GENERATE_PUBLISHED_GROUP_NORM].flag;
    if (v[GENERATE_WARMUP_STEPS].given) mesh->warmup_steps = v[GENERATE_WARMUP_STEPS].integer > 0 ? v[GENERATE_WARMUP_STEPS].integer : -1;
}

static tessera_mesh mesh_of(const struct session *s) {
    const struct option_value *v = s->values;
    tessera_mesh mesh = {.world = s->world,
                         .data = v[GENERATE_DATA_DEGREE].integer,
                         .cfg = v[GENERATE_CFG_PARALLEL].flag ? 2 : 1,
                         .ring = v[GENERATE_RING_DEGREE].integer,
                         .ulysses = v[GENERATE_ULYSSES_DEGREE].integer,
                         .tensor = v[GENERATE_TENSOR_DEGREE].integer,
                         .parallel_vae = v[GENERATE_PARALLEL_VAE].flag};
    apply_parallelism(s, &mesh);
    return mesh;
}

static tessera_status open_model(struct session *s) {
    const struct option_value *v = s->values;
    TRY(check_same_options(s));
    TRY(choose_model(s));
    TRY(read_loras(s));
    tessera_model_options options = {.mesh = mesh_of(s), .threads = v[GENERATE_THREADS].integer, .vae_tiling = v[GENERATE_VAE_TILING].flag};
    options.config = v[GENERATE_CONFIG].text;
    options.vae = v[GENERATE_VAE].text;
    options.text_encoder = v[GENERATE_TEXT_ENCODER].text;
    options.text_encoder_2 = v[GENERATE_TEXT_ENCODER_2].text;
    options.text_encoder_3 = v[GENERATE_TEXT_ENCODER_3].text;
    options.loras = s->loras;
    options.num_loras = v[GENERATE_LORA].count;
    options.dtype = v[GENERATE_DTYPE].text != NULL && strcmp(v[GENERATE_DTYPE].text, "f32") == 0 ? TESSERA_F32 : TESSERA_BF16;
    double start = clock_seconds();
    TRY(fingerprint_model(s->model_folder, s->facts.model_fingerprint, &s->error));
    if (options.num_loras > 0) TRY(fingerprint_loras(s->loras, options.num_loras, s->facts.lora_fingerprint, &s->error));
    TRY(tessera_world_check_same(s->world, "model files (fingerprint)", s->facts.model_fingerprint, &s->error));
    s->model = tessera_model_open(s->model_folder, &options, &s->error);
    if (s->model == NULL) return s->error.status;
    s->seconds_open = clock_seconds() - start;
    s->facts.kernel_path = tessera_model_kernel_path(s->model);
    TRY(fill_request(s));
    settle_values(s);
    s->record = record_object(s->values, &s->facts);
    s->pictures = cJSON_CreateArray();
    if (s->record == NULL || s->pictures == NULL)
        return error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for the picture's record");
    if (s->source.json != NULL && s->rank == 0) record_source_report(&s->source, s->values, &s->facts);
    return TESSERA_OK;
}

/* ---- pictures ---- */

/* --from makes one picture of the num_images that its generator draws. */
static bool only_one(const struct session *s) {
    return s->source.json != NULL && s->values[GENERATE_PROMPT].count == 1;
}

static char *name_output(struct session *s, const char *prompt, int number, int total) {
    const char *output = s->values[GENERATE_OUTPUT].text;
    char *name = NULL;
    if (output != NULL || s->source.path == NULL || !only_one(s))
        return output_name(output, prompt, s->request.seed, number, total, &s->error);
    size_t n = strlen(s->source.path);
    if (n > 4 && strcasecmp(s->source.path + n - 4, ".png") == 0) n -= 4;
    if (asprintf(&name, "%.*s-again.png", (int)n, s->source.path) >= 0) return name;
    error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for a file name");
    return NULL;
}

static tessera_status write_picture(struct session *s, const char *path, const tessera_image *image, const char *prompt, int index) {
    char *record = record_text(s->record, prompt, index);
    char *description = NULL;
    if (asprintf(&description, "%s; %dx%d, %d steps, guidance %g, seed %llu, picture %d of %d, %s", prompt, image->width, image->height,
                 s->request.num_inference_steps, (double)s->request.guidance_scale, (unsigned long long)s->request.seed, index + 1,
                 s->request.num_images, s->values[GENERATE_DTYPE].text) < 0)
        description = NULL;
    tessera_status status;
    if (record == NULL || description == NULL) {
        status = error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for the picture's record");
    } else {
        const struct png_text_entry text[] = {
            {"Title", prompt}, {"Software", "Tessera " TESSERA_VERSION}, {"Description", description}, {RECORD_KEY, record}};
        status = png_file_write(path, image->pixels, image->width, image->height, text, sizeof text / sizeof *text, &s->error);
    }
    free(description);
    free(record);
    return status;
}

static tessera_status note_picture(struct session *s, const char *path, const char *prompt, int index) {
    cJSON *entry = cJSON_CreateObject();
    if (entry == NULL || !cJSON_AddItemToArray(s->pictures, entry) || cJSON_AddStringToObject(entry, "file", path) == NULL ||
        cJSON_AddStringToObject(entry, "prompt", prompt) == NULL ||
        cJSON_AddItemReferenceToObject(entry, "seed", cJSON_GetObjectItem(s->record, "seed")) == 0 ||
        cJSON_AddNumberToObject(entry, "index", index) == NULL)
        return error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for the report");
    return TESSERA_OK;
}

/* A picture to make: one prompt's number `index`, the run's number `number` of `total`. */
struct task {
    const char *prompt;
    int index, number, total;
};

/* Writes, reports and shows the picture in `image`. */
static tessera_status deliver_picture(struct session *s, const tessera_image *image, const struct task *task) {
    const uint8_t *pixels = image->pixels;
    const struct option_value *v = s->values;
    char *path = name_output(s, task->prompt, task->number, task->total);
    if (path == NULL) return s->error.status;
    tessera_status status = write_picture(s, path, image, task->prompt, task->index);
    if (status == TESSERA_OK) status = note_picture(s, path, task->prompt, task->index);
    if (status == TESSERA_OK) s->written++;
    if (status == TESSERA_OK && s->rank == 0) {
        if (!v[GENERATE_JSON].flag) printf("%s\n", path);
        if (!v[GENERATE_JSON].flag && !v[GENERATE_NO_PREVIEW].flag)
            preview_show(v[GENERATE_PREVIEW].text != NULL ? v[GENERATE_PREVIEW].text : "auto", path, pixels, image->width, image->height);
        fflush(stdout);
        if (only_one(s)) record_source_compare(&s->source, pixels, image->width, image->height);
    }
    free(path);
    return status;
}

static void add_costs(struct session *s, const tessera_image *image) {
    const double seconds[] = {image->seconds_text, image->seconds_encode, image->seconds_denoise, image->seconds_decode};
    const double operations[] = {image->operations_text, image->operations_denoise, image->operations_decode};
    for (int i = 0; i < 4; i++) s->seconds[i] += seconds[i];
    for (int i = 0; i < 3; i++) s->operations[i] += operations[i];
}

/* A call of its own for each picture, so that it is written as soon as it is done. */
static tessera_status make_picture(struct session *s, const struct task *task) {
    tessera_image image = {0};
    tessera_request request = s->request;
    request.prompt = task->prompt;
    request.first_image = task->index;
    request.made_images = 1;
    tessera_status status = tessera_generate(s->model, &request, &image, &s->error);
    progress_clear(&s->progress);
    if (status == TESSERA_OK) add_costs(s, &image);
    if (status == TESSERA_OK && tessera_model_gets_pictures(s->model)) status = deliver_picture(s, &image, task);
    tessera_image_free(&image);
    return status;
}

/* Rank 0 speaks of the pictures that other groups of ranks have written. */
static tessera_status tell_picture(struct session *s, const struct task *task) {
    char *path = name_output(s, task->prompt, task->number, task->total);
    if (path == NULL) return s->error.status;
    tessera_status status = note_picture(s, path, task->prompt, task->index);
    if (status == TESSERA_OK) s->written++;
    if (status == TESSERA_OK && !s->values[GENERATE_JSON].flag) printf("%s\n", path);
    free(path);
    return status;
}

/* All tasks, in order; each is one group's. `visit` is called for those that are (mine) or are not this group's. */
static tessera_status each_task(struct session *s, bool mine, tessera_status (*visit)(struct session *, const struct task *)) {
    const struct option_value *prompts = &s->values[GENERATE_PROMPT];
    int first = only_one(s) ? s->source.index : 0;
    int end = only_one(s) ? first + 1 : s->request.num_images;
    struct task task = {.total = prompts->count * (end - first)};
    for (int i = 0; i < prompts->count; i++)
        for (int k = first; k < end; k++, task.number++) {
            if ((task.number % tessera_model_groups(s->model) == tessera_model_group(s->model)) != mine) continue;
            if (progress_signal() != 0) return error_set(&s->error, TESSERA_ERROR_CANCELLED, "stopped");
            task.prompt = prompts->texts[i];
            task.index = k;
            TRY(visit(s, &task));
        }
    return TESSERA_OK;
}

/* Makes this group's pictures; when all ranks are done, tells of the others'. */
static tessera_status make_pictures(struct session *s) {
    TRY(each_task(s, true, make_picture));
    if (s->values[GENERATE_COMM_STATS].flag) TRY(tessera_world_print_stats(s->world, stderr, &s->error));
    TRY(tessera_world_finish(s->world, &s->error));
    return s->rank == 0 ? each_task(s, false, tell_picture) : TESSERA_OK;
}

/* ---- reports ---- */

static void print_summary(const struct session *s) {
    fprintf(stderr, "%d picture%s: open %.2f s, text %.2f s, ", s->written, s->written == 1 ? "" : "s", s->seconds_open, s->seconds[0]);
    if (s->seconds[1] > 0) fprintf(stderr, "encode %.2f s, ", s->seconds[1]);
    fprintf(stderr, "denoise %.2f s, decode %.2f s; %.1f GFLOP; peak resident memory %zu MiB; %s, %d threads\n", s->seconds[2],
            s->seconds[3], (s->operations[0] + s->operations[1] + s->operations[2]) / 1e9, memory_peak_resident() >> 20,
            s->facts.kernel_path, s->values[GENERATE_THREADS].integer);
}

static tessera_status print_json(struct session *s) {
    const char *second_names[] = {"text", "encode", "denoise", "decode"}, *operation_names[] = {"text", "denoise", "decode"};
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
    for (int i = 0; i < 4; i++) cJSON_AddNumberToObject(seconds, second_names[i], s->seconds[i]);
    operations = cJSON_AddObjectToObject(root, "operations");
    for (int i = 0; i < 3; i++) cJSON_AddNumberToObject(operations, operation_names[i], s->operations[i]);
    cJSON_AddNumberToObject(root, "peak_resident_memory_bytes", (double)memory_peak_resident());
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

/* Tells the other ranks of a failure that is this one's own. */
static void tell_failure(struct session *s) {
    if (s->world == NULL || tessera_world_size(s->world) == 1 || tessera_world_failed(s->world)) return;
    tessera_world_abort(s->world, &s->error);
}

static int finish(struct session *s, tessera_status status) {
    progress_clear(&s->progress);
    if (status != TESSERA_OK) tell_failure(s);
    if (status == TESSERA_ERROR_CANCELLED) {
        if (talks(s)) fprintf(stderr, "tessera: stopped; %d picture%s written before that\n", s->written, s->written == 1 ? "" : "s");
        return 128 + (progress_signal() != 0 ? progress_signal() : 2);
    }
    if (status == TESSERA_OK) return EXIT_DONE;
    if (talks(s)) return command_fail(&s->error, s->usage);
    return s->usage ? EXIT_USAGE : EXIT_FAILED;
}

static tessera_status open_world(struct session *s) {
    s->world = tessera_world_open(&s->error);
    if (s->world == NULL) return s->error.status;
    s->rank = tessera_world_rank(s->world);
    progress_init(&s->progress, s->values[GENERATE_JSON].flag || s->rank > 0);
    progress_catch_signals();
    return TESSERA_OK;
}

static tessera_status generate(struct session *s) {
    struct option_value *values = s->values;
    TRY(open_world(s));
    if (values[GENERATE_FROM].given) TRY(record_source_open(values[GENERATE_FROM].text, values, &s->source, &s->error));
    TRY(check_command_line(s));
    s->usage = false;
    TRY(open_model(s));
    TRY(make_pictures(s));
    if (s->rank > 0) return TESSERA_OK;
    fflush(stdout);
    if (values[GENERATE_JSON].flag) return print_json(s);
    print_summary(s);
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
    png_picture_free(&s.init);
    record_source_close(&s.source);
    free_loras(&s);
    free(s.model_folder);
    free(s.prompts_text);
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
                "  tessera generate --from lion.png -o again.png\n",
    .options = generate_options,
    .option_count = GENERATE_OPTION_COUNT,
    .run = run_generate,
};
