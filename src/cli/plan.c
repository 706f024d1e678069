/* `tessera plan`: which mesh suits a model and a network, without running anything and without the model's weights.
 *
 * Prints the ranking as a table or as JSON, and draws the best mesh as SVG. The cost model is parallel/plan.h's. */
#include "cli/command.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/published.h"
#include "cli/quantity.h"
#include "pipelines/plan_measure.h"
#include "pipelines/plan_model.h"

enum { MAX_RANKS = 65536, DEFAULT_TOP = 10 };
/* Links of ranks on one host where none are given: shared memory. */
static const struct plan_link shared_memory = {20e-6, 2e9};

enum plan_option {
    PLAN_MODEL,
    PLAN_RANKS,
    PLAN_BANDWIDTH,
    PLAN_LATENCY,
    PLAN_HOSTS,
    PLAN_HOST_BANDWIDTH,
    PLAN_HOST_LATENCY,
    PLAN_MEMORY_LIMIT,
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
                            "model's name: " PUBLISHED_CHOICES " (default: the embedded emoji model)"},
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
    [PLAN_SPEED] = {.name = "speed",
                    .type = OPTION_TEXT,
                    .placeholder = "X",
                    .help = "operations a second of a rank: 200G, 50T; default: this machine's, measured once"},
    [PLAN_WIDTH] =
        {.name = "width", .type = OPTION_INTEGER, .placeholder = "PIXELS", .help = "default: the model's", .low = 1, .high = 65536},
    [PLAN_HEIGHT] =
        {.name = "height", .type = OPTION_INTEGER, .placeholder = "PIXELS", .help = "default: the model's", .low = 1, .high = 65536},
    [PLAN_SIZE] = {.name = "size", .type = OPTION_TEXT, .placeholder = "WxH", .help = "both in one, such as 1024x1024"},
    [PLAN_STEPS] = {.name = "steps",
                    .aliases = {"num-inference-steps"},
                    .type = OPTION_INTEGER,
                    .placeholder = "N",
                    .help = "default: the model's",
                    .low = 1,
                    .high = 10000},
    [PLAN_GUIDANCE_SCALE] = {.name = "guidance-scale",
                             .type = OPTION_NUMBER,
                             .placeholder = "X",
                             .help = "up to 1: one prediction a step; default: the model's",
                             .low = 0,
                             .high = 1000},
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
    [PLAN_DTYPE] = {.name = "dtype", .type = OPTION_CHOICE, .placeholder = "bf16|f32", .help = "what products are computed in"},
    [PLAN_THREADS] = {.name = "threads",
                      .type = OPTION_INTEGER,
                      .placeholder = "N",
                      .help = "for the measured speed; default: all",
                      .low = 1,
                      .high = 1024},
    [PLAN_ALLOW_DISPLACED] = {.name = "allow-displaced",
                              .type = OPTION_FLAG,
                              .help = "also plans that are not exact: displaced patches, PipeFusion with several patches"},
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

static tessera_status read_machine(struct option_value *values, struct plan_machine *m, tessera_error *error) {
    int hosts = 0;
    *m = (struct plan_machine){.ranks = 1, .per_host = 1, .between = {100e-6, 125e6}, .inside = shared_memory};
    if (values[PLAN_HOSTS].given) {
        TRY(quantity_read_pair("hosts", values[PLAN_HOSTS].text, &hosts, &m->per_host, error));
        m->ranks = hosts <= MAX_RANKS / m->per_host ? hosts * m->per_host : MAX_RANKS + 1;
    }
    if (values[PLAN_RANKS].given) m->ranks = values[PLAN_RANKS].integer;
    if (m->ranks > MAX_RANKS || (hosts > 0 && m->ranks > hosts * m->per_host))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--ranks %d: more than --hosts %s have, or than %d", m->ranks,
                         hosts > 0 ? values[PLAN_HOSTS].text : "", MAX_RANKS);
    TRY(read_quantity(values, PLAN_BANDWIDTH, QUANTITY_BANDWIDTH, &m->between.bandwidth, error));
    TRY(read_quantity(values, PLAN_LATENCY, QUANTITY_SECONDS, &m->between.latency, error));
    TRY(read_quantity(values, PLAN_HOST_BANDWIDTH, QUANTITY_BANDWIDTH, &m->inside.bandwidth, error));
    TRY(read_quantity(values, PLAN_HOST_LATENCY, QUANTITY_SECONDS, &m->inside.latency, error));
    TRY(read_quantity(values, PLAN_MEMORY_LIMIT, QUANTITY_BYTES, &m->memory, error));
    return read_quantity(values, PLAN_SPEED, QUANTITY_OPERATIONS, &m->operations, error);
}

/* A published model by its name: its configurations come with the engine, and a plan needs no more. */
static bool is_published(const char *name) {
    for (const char *const *names = published_names(); *names != NULL; names++)
        if (strcmp(*names, name) == 0) return true;
    return false;
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

static tessera_status read_model(struct option_value *values, struct plan_model *model, tessera_error *error) {
    tessera_model_options options = {.dtype = TESSERA_BF16};
    if (values[PLAN_DTYPE].given && strcmp(values[PLAN_DTYPE].text, "f32") == 0) options.dtype = TESSERA_F32;
    const struct option_value *length = &values[PLAN_MAX_SEQUENCE_LENGTH];
    struct plan_request request = {.width = values[PLAN_WIDTH].integer,
                                   .height = values[PLAN_HEIGHT].integer,
                                   .steps = values[PLAN_STEPS].integer,
                                   .pictures = values[PLAN_NUM_IMAGES].integer,
                                   .max_sequence_length = length->given ? length->integer : -1,
                                   .no_binning = values[PLAN_NO_BINNING].flag,
                                   .guidance_scale = values[PLAN_GUIDANCE_SCALE].given ? values[PLAN_GUIDANCE_SCALE].number : -1,
                                   .has_negative_prompt = values[PLAN_NEGATIVE_PROMPT].flag};
    const char *given = values[PLAN_MODEL].text;
    char *folder = NULL;
    if (given == NULL)
        TRY(data_find(EMBEDDED_MODEL, &folder, error));
    else if (!file_exists(given) && is_published(given))
        TRY(published_folder(given, &folder, error));
    tessera_status status = plan_model_open(folder != NULL ? folder : given, &options, &request, model, error);
    free(folder);
    return status;
}

/* ---- output ---- */

/* Of all ranks in a step: together, and of the one that sends most. */
static void sum_bytes(const struct plan_model *model, const struct plan *plan, double *all, double *most) {
    *all = *most = 0;
    for (int r = 0; r < plan_mesh_ranks(&plan->mesh); r++) {
        double mine = (double)plan_step_bytes(model, &plan->mesh, r).sum;
        *all += mine;
        if (mine > *most) *most = mine;
    }
}

static void add_bytes(cJSON *entry, const struct plan_model *model, const struct plan *plan) {
    double all, most;
    sum_bytes(model, plan, &all, &most);
    cJSON_AddNumberToObject(entry, "bytes_per_step", all);
    cJSON_AddNumberToObject(entry, "bytes_per_step_busiest_rank", most);
    cJSON *ranks = cJSON_AddArrayToObject(entry, "bytes_per_step_by_rank");
    for (int r = 0; r < plan_mesh_ranks(&plan->mesh); r++)
        cJSON_AddItemToArray(ranks, cJSON_CreateNumber((double)plan_step_bytes(model, &plan->mesh, r).sum));
    cJSON *first = cJSON_AddArrayToObject(entry, "bytes_per_warmup_step_by_rank");
    for (int r = 0; r < plan_mesh_ranks(&plan->mesh); r++)
        cJSON_AddItemToArray(first, cJSON_CreateNumber((double)plan_warmup_bytes(model, &plan->mesh, r).sum));
}

static cJSON *plan_json(const struct plan_model *model, const struct plan *plan) {
    char text[256];
    const struct {
        const char *name;
        double value;
    } numbers[] = {{"seconds_per_picture", plan->picture_seconds},
                   {"seconds_per_step", plan->step_seconds},
                   {"seconds_per_warmup_step", plan->warmup_step_seconds},
                   {"compute_seconds_per_step", plan->compute_seconds},
                   {"latency_seconds_per_step", plan->latency_seconds},
                   {"bandwidth_seconds_per_step", plan->bandwidth_seconds},
                   {"text_seconds", plan->text_seconds},
                   {"decode_seconds", plan->decode_seconds},
                   {"memory_bytes", plan->memory.most},
                   {"weight_bytes", plan->memory.weights},
                   {"activation_bytes", plan->memory.activations},
                   {"store_bytes", plan->memory.stores},
                   {"missing_bytes", plan->over}};
    cJSON *entry = cJSON_CreateObject(), *degrees = cJSON_CreateObject();
    cJSON_AddStringToObject(entry, "mesh", plan_mesh_text(&plan->mesh, text, sizeof text));
    cJSON_AddItemToObject(entry, "degrees", degrees);
    for (int a = 0; a < MESH_AXES; a++) cJSON_AddNumberToObject(degrees, mesh_axis_name((enum mesh_axis)a), plan->mesh.degrees[a]);
    cJSON_AddNumberToObject(entry, "patches", plan->mesh.patches);
    cJSON_AddNumberToObject(entry, "warmup_steps", plan->mesh.warmup_steps);
    cJSON_AddBoolToObject(entry, "split_text", plan->mesh.split_text);
    cJSON_AddBoolToObject(entry, "exact", plan_mesh_is_exact(&plan->mesh));
    cJSON_AddStringToObject(entry, "options", plan_mesh_options(&plan->mesh, text, sizeof text));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) cJSON_AddNumberToObject(entry, numbers[i].name, numbers[i].value);
    cJSON_AddStringToObject(entry, "limited_by", plan_limit_name(plan->limit));
    add_bytes(entry, model, plan);
    return entry;
}

static void print_json(const struct plan_model *model, const struct plan_machine *machine, const struct plan *plans, int shown, int count) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "model", model->name);
    cJSON_AddNumberToObject(root, "latent_rows", (double)model->rows);
    cJSON_AddNumberToObject(root, "latent_columns", (double)model->columns);
    cJSON_AddNumberToObject(root, "text_tokens", (double)model->text_tokens);
    cJSON_AddNumberToObject(root, "predictions_per_step", model->predictions);
    cJSON_AddNumberToObject(root, "steps", model->steps);
    cJSON_AddNumberToObject(root, "ranks", machine->ranks);
    cJSON_AddNumberToObject(root, "operations_per_second", machine->operations);
    cJSON_AddNumberToObject(root, "possible_meshes", count);
    cJSON *list = cJSON_AddArrayToObject(root, "plans");
    for (int i = 0; i < shown; i++) cJSON_AddItemToArray(list, plan_json(model, &plans[i]));
    char *text = cJSON_Print(root);
    if (text != NULL) puts(text);
    cJSON_free(text);
    cJSON_Delete(root);
}

static void print_row(const struct plan_model *model, const struct plan *plan) {
    char name[128], all_text[24], most_text[24], memory[24], missing[40] = "";
    double all, most;
    sum_bytes(model, plan, &all, &most);
    if (plan->over > 0) {
        char over[24];
        snprintf(missing, sizeof missing, ": %s missing", quantity_bytes_text(plan->over, false, over, sizeof over));
    }
    plan_mesh_text(&plan->mesh, name, sizeof name);
    size_t used = strlen(name);
    if (!plan_mesh_is_exact(&plan->mesh)) snprintf(name + used, sizeof name - used, " (not exact)");
    printf("%-48s %10.4g %10.4g %9s %9s %10s  %s%s\n", name, plan->picture_seconds, plan->step_seconds,
           quantity_bytes_text(all, true, all_text, sizeof all_text), quantity_bytes_text(most, true, most_text, sizeof most_text),
           quantity_bytes_text(plan->memory.most, false, memory, sizeof memory), plan_limit_name(plan->limit), missing);
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

/* The command that makes pictures so, to be pasted: what was given of it, under the names that generate has for it. */
static void print_command(const struct option_value *values, const struct plan_machine *machine, const struct plan *plan) {
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
    char options[256];
    if (machine->ranks > 1)
        printf("\nthe best: mpirun -n %d tessera generate", machine->ranks);
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
    plan_mesh_options(&plan->mesh, options, sizeof options);
    if (machine->ranks > 1) printf(" %s", options);
    putchar('\n');
}

static void print_table(const struct option_value *values, const struct plan_model *model, const struct plan_machine *machine,
                        const struct plan *plans, int shown, int count) {
    char bandwidth[24], inside[24];
    printf("%s, latents %lldx%lld, %lld text tokens, %d steps of %d prediction%s; %d rank%s of %.3g operations/s\n", model->name,
           (long long)model->columns, (long long)model->rows, (long long)model->text_tokens, model->steps, model->predictions,
           model->predictions == 1 ? "" : "s", machine->ranks, machine->ranks == 1 ? "" : "s", machine->operations);
    printf("links: %s/s and %.3g ms between hosts of %d rank%s, %s/s and %.3g ms inside\n\n",
           quantity_bytes_text(machine->between.bandwidth, true, bandwidth, sizeof bandwidth), machine->between.latency * 1e3,
           machine->per_host, machine->per_host == 1 ? "" : "s",
           quantity_bytes_text(machine->inside.bandwidth, true, inside, sizeof inside), machine->inside.latency * 1e3);
    printf("%-48s %10s %10s %9s %9s %10s  %s\n", "", "seconds", "seconds", "sent/step", "sent/step", "memory", "");
    printf("%-48s %10s %10s %9s %9s %10s  %s\n", "mesh", "a picture", "a step", "by all", "by one", "a rank", "limited by");
    for (int i = 0; i < shown; i++) print_row(model, &plans[i]);
    if (shown < count) printf("... and %d more (--top 0 shows all)\n", count - shown);
    if (plans[0].over == 0) print_command(values, machine, &plans[0]);
}

static tessera_status write_svg(const char *path, const struct plan_model *model, const struct plan_machine *machine,
                                const struct plan *plan, tessera_error *error) {
    struct file_output output;
    TRY(file_output_open(path, &output, error));
    plan_draw(output.stream, model, machine, plan);
    return file_output_commit(&output, error);
}

/* ---- */

/* Nothing fits: how many ranks of the same memory would do, as far as MOST_RANKS. */
static tessera_status tell_what_fits(const struct plan_model *model, const struct plan_machine *machine, bool allow_displaced,
                                     const struct plan *least, tessera_error *error) {
    enum { MOST_RANKS = 256 };
    char name[128], over[24], memory[24];
    struct plan_machine more = *machine;
    tessera_error why;
    quantity_bytes_text(machine->memory, false, memory, sizeof memory);
    quantity_bytes_text(least->over, false, over, sizeof over);
    plan_mesh_text(&least->mesh, name, sizeof name);
    for (more.ranks = machine->ranks + 1; more.ranks <= MOST_RANKS; more.ranks++) {
        struct plan *plans = NULL;
        int count = 0;
        if (plan_rank(model, &more, allow_displaced, &plans, &count, &why) != TESSERA_OK) continue;
        bool fits = plans[0].over == 0;
        if (fits)
            error_set(error, TESSERA_ERROR_MEMORY, "nothing fits --memory %s on %d rank%s (%s lacks %s): %d ranks would do, as %s", memory,
                      machine->ranks, machine->ranks == 1 ? "" : "s", name, over, more.ranks,
                      plan_mesh_text(&plans[0].mesh, (char[128]){0}, 128));
        free(plans);
        if (fits) return error->status;
    }
    return error_set(error, TESSERA_ERROR_MEMORY, "nothing fits --memory %s on %d rank%s (%s lacks %s), nor on any number up to %d", memory,
                     machine->ranks, machine->ranks == 1 ? "" : "s", name, over, (int)MOST_RANKS);
}

static tessera_status rank_and_print(struct option_value *values, const struct plan_model *model, const struct plan_machine *machine,
                                     tessera_error *error) {
    struct plan *plans = NULL;
    int count = 0, top = values[PLAN_TOP].given ? values[PLAN_TOP].integer : DEFAULT_TOP;
    TRY(plan_rank(model, machine, values[PLAN_ALLOW_DISPLACED].flag, &plans, &count, error));
    int shown = top > 0 && top < count ? top : count;
    if (values[PLAN_JSON].flag)
        print_json(model, machine, plans, shown, count);
    else
        print_table(values, model, machine, plans, shown, count);
    tessera_status status = values[PLAN_SVG].given ? write_svg(values[PLAN_SVG].text, model, machine, &plans[0], error) : TESSERA_OK;
    if (status == TESSERA_OK && plans[0].over > 0)
        status = tell_what_fits(model, machine, values[PLAN_ALLOW_DISPLACED].flag, &plans[0], error);
    free(plans);
    return status;
}

static int run_plan(const char *path, struct option_value *values) {
    struct plan_machine machine;
    struct plan_model model = {0};
    tessera_error error = {0};
    if (read_machine(values, &machine, &error) != TESSERA_OK || read_size(values, &error) != TESSERA_OK) return command_fail(&error, true);
    tessera_status status = read_model(values, &model, &error);
    if (status == TESSERA_OK && machine.operations == 0) {
        struct plan_speed speed;
        int64_t tokens = model.rows / model.patch_size * (model.columns / model.patch_size) / machine.ranks;
        status = plan_known_speed(&model, tokens, (struct plan_measurer){values[PLAN_THREADS].integer, 1, false}, &speed, &error);
        machine.operations = speed.operations;
        machine.attention_share = speed.attention_share;
        machine.elements = speed.elements;
        machine.streaming = speed.streaming;
    }
    if (status == TESSERA_OK) status = rank_and_print(values, &model, &machine, &error);
    plan_model_free(&model);
    return status == TESSERA_OK ? EXIT_DONE : command_fail(&error, status == TESSERA_ERROR_ARGUMENT);
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
                "  tessera plan --model models/emoji --hosts 4x2 --bandwidth 10Gbit --latency 20us --json\n",
    .options = plan_options,
    .option_count = PLAN_OPTION_COUNT,
    .run = run_plan,
};
