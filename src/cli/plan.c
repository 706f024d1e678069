/* `tessera plan`: which mesh suits a model and a network, or which rank would hold which components
 * and blocks of a model, without running anything and without the model's weights.
 *
 * Prints the ranking as a table or as JSON, and draws the best mesh as SVG: a client of
 * include/tessera_plan.h. */
#include "cli/command.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "cli/device_maps.h"
#include "cli/memory_options.h"
#include "cli/plan_options.h"
#include "cli/quantity.h"

enum { MAX_RANKS = 65536, DEFAULT_TOP = 10 };

enum plan_option {
    PLAN_MODEL,
    PLAN_RANKS,
    PLAN_BANDWIDTH,
    PLAN_LATENCY,
    PLAN_HOSTS,
    PLAN_HOST_BANDWIDTH,
    PLAN_HOST_LATENCY,
    PLAN_MEMORY_LIMIT,
    PLAN_DEVICE_MAP,
    PLAN_MAX_MEMORY,
    PLAN_OFFLOAD,
    PLAN_SPEED,
    PLAN_WIDTH,
    PLAN_HEIGHT,
    PLAN_SIZE,
    PLAN_STEPS,
    PLAN_GUIDANCE_SCALE,
    PLAN_NEGATIVE_PROMPT,
    PLAN_MAX_SEQUENCE_LENGTH,
    PLAN_NO_BINNING,
    PLAN_NUM_IMAGES,
    PLAN_DTYPE,
    PLAN_THREADS,
    PLAN_ALLOW_DISPLACED,
    PLAN_TOP,
    PLAN_JSON,
    PLAN_SVG,
    PLAN_OPTION_COUNT
};

static const struct option plan_options[PLAN_OPTION_COUNT] = {
    [PLAN_MODEL] = {.name = "model",
                    .letter = 'm',
                    .type = OPTION_TEXT,
                    .placeholder = "MODEL",
                    .help = "folder in diffusers' layout (its config files are enough), single file, OWNER/NAME on the hub, or a published "
                            "model's name: " TESSERA_PUBLISHED_MODELS " (default: the embedded emoji model)"},
    [PLAN_RANKS] = {.name = "ranks",
                    .type = OPTION_INTEGER,
                    .placeholder = "N",
                    .help = "processes; default: all of --hosts, or 1",
                    .low = 1,
                    .high = MAX_RANKS},
    [PLAN_BANDWIDTH] = {.name = "bandwidth", .type = OPTION_TEXT, .placeholder = "B", .help = "of a host's link: 1Gbit (default), 10GB/s"},
    [PLAN_LATENCY] = {.name = "latency", .type = OPTION_TEXT, .placeholder = "T", .help = "of it, one way: 100us (default), 1ms"},
    [PLAN_HOSTS] = {.name = "hosts",
                    .type = OPTION_TEXT,
                    .placeholder = "HxG",
                    .help = "H hosts of G ranks each, which share their host's link; default: each rank a host"},
    [PLAN_HOST_BANDWIDTH] = {.name = "host-bandwidth",
                             .type = OPTION_TEXT,
                             .placeholder = "B",
                             .help = "between two ranks of a host (default: 2GB/s)"},
    [PLAN_HOST_LATENCY] = {.name = "host-latency", .type = OPTION_TEXT, .placeholder = "T", .help = "of it (default: 20us)"},
    [PLAN_MEMORY_LIMIT] = {.name = "memory", .type = OPTION_TEXT, .placeholder = "M", .help = "of each rank: 16GiB; default: no limit"},
    [PLAN_DEVICE_MAP] = {.name = "device-map",
                         .type = OPTION_TEXT,
                         .placeholder = "MAP",
                         .help = "in place of meshes, which rank would hold which components and blocks: " TESSERA_DEVICE_MAPS
                                 ", or FILE.json (docs/small-devices.md)"},
    [PLAN_MAX_MEMORY] = {.name = "max-memory",
                         .type = OPTION_TEXT,
                         .placeholder = "BYTES",
                         .help = "of --device-map: what a process may hold: 6GiB, or of each rank 0:6GiB,1:10GiB"},
    [PLAN_OFFLOAD] = {.name = "offload",
                      .type = OPTION_CHOICE,
                      .placeholder = TESSERA_OFFLOADS,
                      .help = "of --device-map: what of the model is in memory at a time (default auto: what fits)"},
    [PLAN_SPEED] = {.name = "speed",
                    .type = OPTION_TEXT,
                    .placeholder = "X",
                    .help = "operations a second of a rank: 200G, 50T; default: this machine's, measured once"},
    [PLAN_WIDTH] =
        {.name = "width", .type = OPTION_INTEGER, .placeholder = "PIXELS", .help = "default: the model's", .low = 1, .high = 65536},
    [PLAN_HEIGHT] =
        {.name = "height", .type = OPTION_INTEGER, .placeholder = "PIXELS", .help = "default: the model's", .low = 1, .high = 65536},
    [PLAN_SIZE] = {.name = "size", .type = OPTION_TEXT, .placeholder = "WxH", .help = "both in one, such as 1024x1024"},
    [PLAN_STEPS] = PLAN_OPTION_STEPS,
    [PLAN_GUIDANCE_SCALE] = PLAN_OPTION_GUIDANCE_SCALE,
    [PLAN_NEGATIVE_PROMPT] = {.name = "negative-prompt",
                              .type = OPTION_FLAG,
                              .help = "of Flux: guided by a negative prompt (--true-cfg-scale), so two predictions a step"},
    [PLAN_MAX_SEQUENCE_LENGTH] = {.name = "max-sequence-length",
                                  .type = OPTION_INTEGER,
                                  .placeholder = "N",
                                  .help = "text tokens of the T5 encoder; default: the model's",
                                  .low = 0,
                                  .high = 65536},
    [PLAN_NO_BINNING] = {.name = "no-resolution-binning", .type = OPTION_FLAG, .help = "the size as it is given"},
    [PLAN_NUM_IMAGES] =
        {.name = "num-images", .type = OPTION_INTEGER, .placeholder = "N", .help = "pictures to make (default: 1)", .low = 1, .high = 1e6},
    [PLAN_DTYPE] = PLAN_OPTION_DTYPE,
    [PLAN_THREADS] = {.name = "threads",
                      .type = OPTION_INTEGER,
                      .placeholder = "N",
                      .help = "for the measured speed; default: all",
                      .low = 1,
                      .high = 1024},
    [PLAN_ALLOW_DISPLACED] = {.name = "allow-displaced",
                              .type = OPTION_FLAG,
                              .help = "also plans that are not exact: displaced patches, PCPP, PipeFusion with several patches"},
    [PLAN_TOP] =
        {.name = "top", .type = OPTION_INTEGER, .placeholder = "K", .help = "plans to show (default: 10; 0: all)", .low = 0, .high = 1e6},
    [PLAN_JSON] = {.name = "json", .type = OPTION_FLAG, .help = "one JSON object on standard output"},
    [PLAN_SVG] = {.name = "svg", .type = OPTION_TEXT, .placeholder = "FILE", .help = "draw the best mesh and who talks to whom"},
};

/* ---- options ---- */

static tessera_status read_quantity(struct option_value *values, enum plan_option option, enum quantity_kind kind, double *out,
                                    tessera_error *error) {
    if (!values[option].given) return TESSERA_OK;
    return quantity_read(plan_options[option].name, values[option].text, kind, out, error);
}

static tessera_status read_machine(struct option_value *values, tessera_plan_machine *m, tessera_error *error) {
    int hosts = 0;
    *m = (tessera_plan_machine)TESSERA_PLAN_MACHINE;
    m->threads = values[PLAN_THREADS].integer;
    if (values[PLAN_HOSTS].given) {
        TRY(quantity_read_pair("hosts", values[PLAN_HOSTS].text, &hosts, &m->per_host, error));
        m->ranks = hosts <= MAX_RANKS / m->per_host ? hosts * m->per_host : MAX_RANKS + 1;
    }
    if (values[PLAN_RANKS].given) m->ranks = values[PLAN_RANKS].integer;
    if (m->ranks > MAX_RANKS || (hosts > 0 && m->ranks > hosts * m->per_host))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--ranks %d: more than --hosts %s have, or than %d", m->ranks,
                         hosts > 0 ? values[PLAN_HOSTS].text : "", MAX_RANKS);
    TRY(read_quantity(values, PLAN_BANDWIDTH, QUANTITY_BANDWIDTH, &m->bandwidth, error));
    TRY(read_quantity(values, PLAN_LATENCY, QUANTITY_SECONDS, &m->latency, error));
    TRY(read_quantity(values, PLAN_HOST_BANDWIDTH, QUANTITY_BANDWIDTH, &m->host_bandwidth, error));
    TRY(read_quantity(values, PLAN_HOST_LATENCY, QUANTITY_SECONDS, &m->host_latency, error));
    TRY(read_quantity(values, PLAN_MEMORY_LIMIT, QUANTITY_BYTES, &m->memory, error));
    return read_quantity(values, PLAN_SPEED, QUANTITY_OPERATIONS, &m->operations, error);
}

/* --size WxH. */
static tessera_status read_size(struct option_value *values, tessera_error *error) {
    int width, height;
    if (!values[PLAN_SIZE].given) return TESSERA_OK;
    if (!quantity_read_size(values[PLAN_SIZE].text, &width, &height) || width > 65536 || height > 65536)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--size %s: must be WIDTHxHEIGHT, such as 1024x1024", values[PLAN_SIZE].text);
    values[PLAN_WIDTH] = (struct option_value){.given = true, .integer = width};
    values[PLAN_HEIGHT] = (struct option_value){.given = true, .integer = height};
    return TESSERA_OK;
}

static tessera_model_options model_options(const struct option_value *values) {
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    if (values[PLAN_DTYPE].given && strcmp(values[PLAN_DTYPE].text, "f32") == 0) options.dtype = TESSERA_F32;
    options.offload = values[PLAN_OFFLOAD].text;
    return options;
}

static const char *model_name(const struct option_value *values) {
    return values[PLAN_MODEL].given ? values[PLAN_MODEL].text : TESSERA_EMBEDDED_MODEL;
}

static tessera_plan_request plan_request(const struct option_value *values) {
    const struct plan_options pictures = {.width = &values[PLAN_WIDTH],
                                          .height = &values[PLAN_HEIGHT],
                                          .steps = &values[PLAN_STEPS],
                                          .max_sequence_length = &values[PLAN_MAX_SEQUENCE_LENGTH],
                                          .guidance_scale = &values[PLAN_GUIDANCE_SCALE],
                                          .has_negative_prompt = values[PLAN_NEGATIVE_PROMPT].flag,
                                          .no_binning = values[PLAN_NO_BINNING].flag,
                                          .num_images = values[PLAN_NUM_IMAGES].integer};
    return plan_options_request(&pictures);
}

static tessera_plans *open_plans(struct option_value *values, const tessera_plan_machine *machine, tessera_error *error) {
    tessera_model_options options = model_options(values);
    tessera_plan_request request = plan_request(values);
    return tessera_plans_open(model_name(values), &options, &request, machine, values[PLAN_ALLOW_DISPLACED].flag, error);
}

/* ---- output ---- */

static tessera_plan plan_of(const tessera_plans *plans, int i) {
    tessera_plan plan = TESSERA_PLAN;
    tessera_plans_get(plans, i, &plan);
    return plan;
}

static tessera_plan_model model_of(const tessera_plans *plans) {
    tessera_plan_model model = TESSERA_PLAN_MODEL;
    tessera_plans_model(plans, &model);
    return model;
}

/* Of all ranks in a step: together, and of the one that sends most. */
static void sum_bytes(const tessera_plans *plans, int i, double *all, double *most) {
    int ranks = model_of(plans).ranks;
    *all = *most = 0;
    for (int r = 0; r < ranks; r++) {
        double mine = (double)tessera_plans_step_bytes(plans, i, r);
        *all += mine;
        if (mine > *most) *most = mine;
    }
}

static void add_bytes(cJSON *entry, const tessera_plans *plans, int i) {
    double all, most;
    int ranks = model_of(plans).ranks;
    sum_bytes(plans, i, &all, &most);
    cJSON_AddNumberToObject(entry, "bytes_per_step", all);
    cJSON_AddNumberToObject(entry, "bytes_per_step_busiest_rank", most);
    cJSON *each = cJSON_AddArrayToObject(entry, "bytes_per_step_by_rank");
    for (int r = 0; r < ranks; r++) cJSON_AddItemToArray(each, cJSON_CreateNumber((double)tessera_plans_step_bytes(plans, i, r)));
    cJSON *first = cJSON_AddArrayToObject(entry, "bytes_per_warmup_step_by_rank");
    for (int r = 0; r < ranks; r++) cJSON_AddItemToArray(first, cJSON_CreateNumber((double)tessera_plans_warmup_bytes(plans, i, r)));
}

struct named_number {
    const char *name;
    double value;
};

static void add_numbers(cJSON *object, const struct named_number *numbers, size_t count) {
    for (size_t i = 0; i < count; i++) cJSON_AddNumberToObject(object, numbers[i].name, numbers[i].value);
}

static cJSON *plan_json(const tessera_plans *plans, int i) {
    tessera_plan p = plan_of(plans, i);
    const tessera_plan_degrees *d = &p.degrees;
    const struct named_number degrees[] = {{"data", d->data},   {"cfg", d->cfg},         {"pipefusion", d->pipefusion}, {"patch", d->patch},
                                           {"ring", d->ring},   {"ulysses", d->ulysses}, {"tensor", d->tensor}};
    const struct named_number numbers[] = {{"seconds_per_picture", p.picture_seconds},
                                           {"seconds_per_step", p.step_seconds},
                                           {"seconds_per_warmup_step", p.warmup_step_seconds},
                                           {"compute_seconds_per_step", p.compute_seconds},
                                           {"latency_seconds_per_step", p.latency_seconds},
                                           {"bandwidth_seconds_per_step", p.bandwidth_seconds},
                                           {"text_seconds", p.text_seconds},
                                           {"decode_seconds", p.decode_seconds},
                                           {"memory_bytes", p.memory_bytes},
                                           {"weight_bytes", p.weight_bytes},
                                           {"activation_bytes", p.activation_bytes},
                                           {"store_bytes", p.store_bytes},
                                           {"missing_bytes", p.missing_bytes}};
    cJSON *entry = cJSON_CreateObject();
    cJSON_AddStringToObject(entry, "mesh", p.mesh_text);
    add_numbers(cJSON_AddObjectToObject(entry, "degrees"), degrees, sizeof degrees / sizeof *degrees);
    cJSON_AddNumberToObject(entry, "patches", p.num_pipeline_patch);
    cJSON_AddNumberToObject(entry, "warmup_steps", p.warmup_steps);
    cJSON_AddBoolToObject(entry, "split_text", p.split_text);
    cJSON_AddBoolToObject(entry, "exact", p.exact);
    cJSON_AddStringToObject(entry, "options", p.options);
    add_numbers(entry, numbers, sizeof numbers / sizeof *numbers);
    cJSON_AddStringToObject(entry, "limited_by", p.limited_by);
    add_bytes(entry, plans, i);
    return entry;
}

static void print_json(const tessera_plans *plans, int shown) {
    tessera_plan_model model = model_of(plans);
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "model", model.name);
    cJSON_AddNumberToObject(root, "latent_rows", (double)model.latent_rows);
    cJSON_AddNumberToObject(root, "latent_columns", (double)model.latent_columns);
    cJSON_AddNumberToObject(root, "text_tokens", (double)model.text_tokens);
    cJSON_AddNumberToObject(root, "predictions_per_step", model.predictions_per_step);
    cJSON_AddNumberToObject(root, "steps", model.steps);
    cJSON_AddNumberToObject(root, "ranks", model.ranks);
    cJSON_AddNumberToObject(root, "operations_per_second", model.operations);
    cJSON_AddNumberToObject(root, "possible_meshes", tessera_plans_count(plans));
    cJSON *list = cJSON_AddArrayToObject(root, "plans");
    for (int i = 0; i < shown; i++) cJSON_AddItemToArray(list, plan_json(plans, i));
    char *text = cJSON_Print(root);
    if (text != NULL) puts(text);
    cJSON_free(text);
    cJSON_Delete(root);
}

static void print_row(const tessera_plans *plans, int i) {
    char name[160], all_text[24], most_text[24], memory[24], missing[40] = "";
    double all, most;
    tessera_plan plan = plan_of(plans, i);
    sum_bytes(plans, i, &all, &most);
    if (plan.missing_bytes > 0) {
        char over[24];
        snprintf(missing, sizeof missing, ": %s missing", quantity_bytes_text(plan.missing_bytes, false, over, sizeof over));
    }
    int used = snprintf(name, sizeof name, "%.120s", plan.mesh_text);
    if (!plan.exact) snprintf(name + used, sizeof name - (size_t)used, " (not exact)");
    printf("%-48s %10.4g %10.4g %9s %9s %10s  %s%s\n", name, plan.picture_seconds, plan.step_seconds,
           quantity_bytes_text(all, true, all_text, sizeof all_text), quantity_bytes_text(most, true, most_text, sizeof most_text),
           quantity_bytes_text(plan.memory_bytes, false, memory, sizeof memory), plan.limited_by, missing);
}

/* Text as one word of a shell. */
static void print_quoted(const char *text) {
    if (text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:=+-")] == 0 && *text != 0) {
        fputs(text, stdout);
        return;
    }
    putchar('\'');
    for (; *text != 0; text++) *text == '\'' ? (void)fputs("'\\''", stdout) : (void)putchar(*text);
    putchar('\'');
}

/* The command that makes pictures so, to be pasted: what was given of it, under the names that
 * generate has for it. */
static void print_command(const struct option_value *values, int ranks, const tessera_plan *plan) {
    static const struct {
        enum plan_option option;
        const char *name;
    } passed[] = {{PLAN_MODEL, "--model"},
                  {PLAN_STEPS, "--steps"},
                  {PLAN_NUM_IMAGES, "--num-images"},
                  {PLAN_DTYPE, "--dtype"},
                  {PLAN_MAX_SEQUENCE_LENGTH, "--max-sequence-length"},
                  {PLAN_GUIDANCE_SCALE, "--guidance-scale"},
                  {PLAN_WIDTH, "--width"},
                  {PLAN_HEIGHT, "--height"}};
    if (ranks > 1)
        printf("\nthe best: mpirun -n %d tessera generate", ranks);
    else
        printf("\nthe command: tessera generate");
    for (size_t i = 0; i < sizeof passed / sizeof *passed; i++) {
        const struct option *option = &plan_options[passed[i].option];
        const struct option_value *value = &values[passed[i].option];
        if (!value->given) continue;
        printf(" %s ", passed[i].name);
        if (option->type == OPTION_INTEGER) printf("%d", value->integer);
        if (option->type == OPTION_NUMBER) printf("%.9g", value->number);
        if (option->type == OPTION_TEXT || option->type == OPTION_CHOICE) print_quoted(value->text);
    }
    if (values[PLAN_NO_BINNING].flag) fputs(" --no-resolution-binning", stdout);
    if (values[PLAN_NEGATIVE_PROMPT].flag) fputs(" --true-cfg-scale 4 --negative-prompt blurry", stdout);
    printf(" --prompt 'a lion'");
    if (ranks > 1) printf(" %s", plan->options);
    putchar('\n');
}

static void print_table(const struct option_value *values, const tessera_plans *plans, const tessera_plan_machine *machine, int shown) {
    char bandwidth[24], inside[24];
    int count = tessera_plans_count(plans);
    tessera_plan_model model = model_of(plans);
    printf("%s, latents %lldx%lld, %lld text tokens, %d steps of %d prediction%s; %d rank%s of %.3g operations/s\n", model.name,
           (long long)model.latent_columns, (long long)model.latent_rows, (long long)model.text_tokens, model.steps,
           model.predictions_per_step, model.predictions_per_step == 1 ? "" : "s", model.ranks, model.ranks == 1 ? "" : "s",
           model.operations);
    printf("links: %s/s and %.3g ms between hosts of %d rank%s, %s/s and %.3g ms inside\n\n",
           quantity_bytes_text(machine->bandwidth, true, bandwidth, sizeof bandwidth), machine->latency * 1e3, machine->per_host,
           machine->per_host == 1 ? "" : "s", quantity_bytes_text(machine->host_bandwidth, true, inside, sizeof inside),
           machine->host_latency * 1e3);
    printf("%-48s %10s %10s %9s %9s %10s  %s\n", "", "seconds", "seconds", "sent/step", "sent/step", "memory", "");
    printf("%-48s %10s %10s %9s %9s %10s  %s\n", "mesh", "a picture", "a step", "by all", "by one", "a rank", "limited by");
    for (int i = 0; i < shown; i++) print_row(plans, i);
    if (shown < count) printf("... and %d more (--top 0 shows all)\n", count - shown);
    tessera_plan best = plan_of(plans, 0);
    if (best.missing_bytes == 0) print_command(values, model.ranks, &best);
}

static tessera_status write_svg(const char *path, const tessera_plans *plans, tessera_error *error) {
    struct file_output output;
    TRY(file_output_open(path, &output, error));
    tessera_plans_draw(plans, 0, output.stream, NULL); /* plan 0 is there */
    return file_output_commit(&output, error);
}

/* ---- device maps ---- */

/* What a step waits for most, in one line. */
static void print_limit(const tessera_map_times *t) {
    char bytes[24];
    if (t->disk_bytes > 0)
        printf("limited by: the memory of rank %d, which reads %s of its blocks from the disk in each step\n", t->disk_rank,
               quantity_bytes_text(t->disk_bytes, true, bytes, sizeof bytes));
    if (t->message_seconds > t->step_seconds / 2)
        printf("limited by: the link, %.3g s of a step of %.3g s\n", t->message_seconds, t->step_seconds);
    else
        printf("%s: the blocks of rank %d, %.3g s of a step of %.3g s; messages take %.3g s\n",
               t->disk_bytes > 0 ? "then by" : "limited by", t->slowest_rank, t->slowest_seconds, t->step_seconds, t->message_seconds);
}

static void print_map(const struct option_value *values, const tessera_map *map, const tessera_map_times *t) {
    device_maps_print(stdout, map, values[PLAN_DEVICE_MAP].text);
    printf("a picture takes %.4g s: text %.3g s, steps of %.4g s, decoding %.3g s; reading weights is not counted\n", t->picture_seconds,
           t->text_seconds, t->step_seconds, t->decode_seconds);
    print_limit(t);
}

static void print_map_json(const tessera_map *map, const tessera_map_times *t) {
    const struct named_number numbers[] = {{"seconds_per_picture", t->picture_seconds}, {"seconds_per_step", t->step_seconds},
                                           {"text_seconds", t->text_seconds},           {"decode_seconds", t->decode_seconds},
                                           {"slowest_rank", t->slowest_rank},           {"slowest_rank_seconds_per_step", t->slowest_seconds},
                                           {"message_seconds_per_step", t->message_seconds},
                                           {"disk_bytes_per_step", t->disk_bytes},      {"disk_rank", t->disk_rank}};
    cJSON *root = device_maps_json(map);
    add_numbers(root, numbers, sizeof numbers / sizeof *numbers);
    char *text = cJSON_Print(root);
    if (text != NULL) puts(text);
    cJSON_free(text);
    cJSON_Delete(root);
}

static tessera_status read_limits(const struct option_value *values, int ranks, uint64_t **out, tessera_error *error) {
    *out = calloc((size_t)ranks, sizeof **out);
    if (*out == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    return memory_options_read(values[PLAN_MAX_MEMORY].text, ranks, *out, error);
}

static int plan_map(const struct option_value *values, const tessera_plan_machine *machine) {
    tessera_map_times times = TESSERA_MAP_TIMES;
    tessera_error error = {0};
    uint64_t *limits = NULL;
    const tessera_model_options options = model_options(values);
    const tessera_plan_request request = plan_request(values);
    tessera_map *map = NULL;
    tessera_status status = read_limits(values, machine->ranks, &limits, &error);
    bool usage = status == TESSERA_ERROR_ARGUMENT;
    if (status == TESSERA_OK) {
        map = tessera_map_open(model_name(values), &options, &request, values[PLAN_DEVICE_MAP].text, machine->ranks, limits, &error);
        status = map != NULL ? tessera_map_time(map, machine, &times, &error) : error.status;
        usage = status == TESSERA_ERROR_ARGUMENT;
    }
    if (status == TESSERA_OK) {
        values[PLAN_JSON].flag ? print_map_json(map, &times) : print_map(values, map, &times);
        status = tessera_map_check(map, &error);
    }
    tessera_map_free(map);
    free(limits);
    return status == TESSERA_OK ? EXIT_DONE : command_fail(&error, usage);
}

/* ---- */

/* Nothing fits: how many ranks of the same memory would do, as far as MOST_RANKS. */
static tessera_status tell_what_fits(const tessera_plans *plans, double limit, tessera_error *error) {
    enum { MOST_RANKS = 256 };
    char mesh[128], over[24], memory[24];
    tessera_plan least = plan_of(plans, 0);
    int ranks = model_of(plans).ranks, more = tessera_plans_least_ranks(plans, MOST_RANKS, mesh, sizeof mesh);
    quantity_bytes_text(limit, false, memory, sizeof memory);
    quantity_bytes_text(least.missing_bytes, false, over, sizeof over);
    if (more > 0)
        return error_set(error, TESSERA_ERROR_MEMORY, "nothing fits --memory %s on %d rank%s (%s lacks %s): %d ranks would do, as %s", memory,
                         ranks, ranks == 1 ? "" : "s", least.mesh_text, over, more, mesh);
    return error_set(error, TESSERA_ERROR_MEMORY, "nothing fits --memory %s on %d rank%s (%s lacks %s), nor on any number up to %d", memory,
                     ranks, ranks == 1 ? "" : "s", least.mesh_text, over, (int)MOST_RANKS);
}

static tessera_status check_options(struct option_value *values, tessera_plan_machine *machine, tessera_error *error) {
    const int of_maps[] = {PLAN_MAX_MEMORY, PLAN_OFFLOAD}, of_meshes[] = {PLAN_ALLOW_DISPLACED, PLAN_TOP, PLAN_SVG, PLAN_MEMORY_LIMIT};
    bool maps = values[PLAN_DEVICE_MAP].given;
    TRY(read_machine(values, machine, error));
    TRY(read_size(values, error));
    for (size_t i = 0; i < sizeof of_maps / sizeof *of_maps && !maps; i++)
        if (values[of_maps[i]].given)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "--%s is of --device-map: for meshes give --memory", plan_options[of_maps[i]].name);
    for (size_t i = 0; i < sizeof of_meshes / sizeof *of_meshes && maps; i++)
        if (values[of_meshes[i]].given)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "--%s is of meshes: with --device-map leave it out, or give --max-memory",
                             plan_options[of_meshes[i]].name);
    return TESSERA_OK;
}

static int run_plan(const char *path, struct option_value *values) {
    tessera_plan_machine machine;
    tessera_error error = {0};
    (void)path;
    if (check_options(values, &machine, &error) != TESSERA_OK) return command_fail(&error, true);
    if (values[PLAN_DEVICE_MAP].given) return plan_map(values, &machine);
    tessera_plans *plans = open_plans(values, &machine, &error);
    if (plans == NULL) return command_fail(&error, error.status == TESSERA_ERROR_ARGUMENT);
    int count = tessera_plans_count(plans), top = values[PLAN_TOP].given ? values[PLAN_TOP].integer : DEFAULT_TOP;
    int shown = top > 0 && top < count ? top : count;
    if (values[PLAN_JSON].flag)
        print_json(plans, shown);
    else
        print_table(values, plans, &machine, shown);
    tessera_status status = values[PLAN_SVG].given ? write_svg(values[PLAN_SVG].text, plans, &error) : TESSERA_OK;
    if (status == TESSERA_OK && plan_of(plans, 0).missing_bytes > 0) status = tell_what_fits(plans, machine.memory, &error);
    tessera_plans_free(plans);
    return status == TESSERA_OK ? EXIT_DONE : command_fail(&error, false);
}

const struct command plan_command = {
    .name = "plan",
    .usage = "plan --model MODEL --ranks N --bandwidth B --latency T [--memory M] [--hosts HxG] [options]",
    .summary = "show which mesh of ranks suits a model and a network, without running it",
    .details =
        "Seconds are predicted (docs/planner.md says how); bytes are exact. Without --allow-displaced all plans give the picture of one\n"
        "rank. Where nothing fits the memory of a rank, the exit status is 1.\n",
    .examples = "  tessera plan --model models/emoji --ranks 8 --bandwidth 1Gbit --latency 1ms\n"
                "  tessera plan --model flux-dev --ranks 8 --memory 16GiB --size 1024x1024\n"
                "  tessera plan --model flux-dev --ranks 2 --device-map auto --max-memory 0:16GB,1:16GB --size 768x1360\n"
                "  tessera plan --model models/emoji --hosts 4x2 --bandwidth 10Gbit --latency 20us --json\n",
    .options = plan_options,
    .option_count = PLAN_OPTION_COUNT,
    .run = run_plan,
};
