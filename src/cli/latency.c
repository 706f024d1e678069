/* `mpirun -n N tessera latency`: what a picture takes on every mesh of N ranks, beside what was
 * predicted.
 *
 * The meshes are those of a plan (parallel/plan.h), the fastest predicted first; ranks and links
 * are measured as `--parallel auto` does. Of each mesh --warmup-times pictures are made untimed,
 * then --test-times timed, of which the fastest counts: by the slowest rank's clock, from the
 * prompt to latents, as xDiT's benchmark/single_node_latency_test.py has it. Nothing is decoded or
 * written. A mesh that the model refuses is listed with the reason. docs/planner.md has tables made
 * with it. */
#include "cli/command.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/order.h"
#include "checkpoint/published.h"
#include "cli/binding.h"
#include "cli/plan_options.h"
#include "cli/progress.h"
#include "comm/collectives.h"
#include "pipelines/plan_auto.h"
#include "pipelines/world.h"

#define PROMPT "A small cat"
enum { MAX_SIDE = 65536, DEFAULT_TEST_TIMES = 3 };

enum latency_option {
    LATENCY_MODEL,
    LATENCY_SIZES,
    LATENCY_STEPS,
    LATENCY_GUIDANCE_SCALE,
    LATENCY_NO_BINNING,
    LATENCY_RANKS,
    LATENCY_NO_CFG,
    LATENCY_EXACT,
    LATENCY_WARMUP_TIMES,
    LATENCY_TEST_TIMES,
    LATENCY_DTYPE,
    LATENCY_THREADS,
    LATENCY_JSON,
    LATENCY_SCRIPT,
    LATENCY_OPTION_COUNT
};

static const struct option latency_options[LATENCY_OPTION_COUNT] = {
    [LATENCY_MODEL] = {.name = "model",
                       .aliases = {"model-id"},
                       .type = OPTION_TEXT,
                       .placeholder = "MODEL",
                       .help = "folder in diffusers' layout, single file, or OWNER/NAME on the hub (default: the embedded emoji model)"},
    [LATENCY_SIZES] = {.name = "sizes",
                       .aliases = {"size"},
                       .type = OPTION_TEXTS,
                       .placeholder = "PIXELS",
                       .help = "width and height of the pictures; several are measured one after the other (default: the model's)"},
    [LATENCY_STEPS] = PLAN_OPTION_STEPS,
    [LATENCY_GUIDANCE_SCALE] = PLAN_OPTION_GUIDANCE_SCALE,
    [LATENCY_NO_BINNING] = {.name = "no-resolution-binning",
                            .aliases = {"no-use-resolution-binning"},
                            .type = OPTION_FLAG,
                            .help = "the size as it is given"},
    [LATENCY_RANKS] = {.name = "ranks",
                       .aliases = {"n-gpus"},
                       .type = OPTION_INTEGER,
                       .placeholder = "N",
                       .help = "must be the number that mpirun starts",
                       .low = 1,
                       .high = 65536},
    [LATENCY_NO_CFG] = {.name = "no-use-cfg-parallel", .type = OPTION_FLAG, .help = "no meshes that split guidance"},
    [LATENCY_EXACT] = {.name = "exact", .type = OPTION_FLAG, .help = "only meshes that give the picture of one rank"},
    [LATENCY_WARMUP_TIMES] = {.name = "warmup-times",
                              .type = OPTION_INTEGER,
                              .placeholder = "N",
                              .help = "pictures of each mesh before time is taken (default: 1)",
                              .low = 0,
                              .high = 10000},
    [LATENCY_TEST_TIMES] = {.name = "test-times",
                            .type = OPTION_INTEGER,
                            .placeholder = "N",
                            .help = "pictures of each mesh with time taken, of which the fastest counts (default: 3)",
                            .low = 1,
                            .high = 10000},
    [LATENCY_DTYPE] = PLAN_OPTION_DTYPE,
    [LATENCY_THREADS] =
        {.name = "threads", .type = OPTION_INTEGER, .placeholder = "N", .help = "of each rank; default: its share", .low = 1, .high = 1024},
    [LATENCY_JSON] = {.name = "json", .type = OPTION_FLAG, .help = "one JSON object on standard output, at the end"},
    [LATENCY_SCRIPT] = {.name = "script",
                        .type = OPTION_TEXT,
                        .placeholder = "FILE",
                        .help = "xDiT's example of a model",
                        .ignored = "the model's folder says what it is"},
};

/* ---- what is measured ---- */

struct latency {
    struct option_value *values;
    bool usage; /* the error so far is one of the command line */
    tessera_world *world;
    int rank;
    char *model;
    tessera_dtype dtype;
    bool exact, cfg;
    int *sides, num_sides; /* in pixels; 0: the model's own */
    int warmup_times, test_times;
    double *runs;         /* [test_times] seconds of a picture, of one mesh */
    struct cJSON *report; /* a list: an entry per mesh */
    int measured;
    double began;
    tessera_error error;
};

/* Pictures of one size. */
struct subject {
    struct plan_request request;
    struct plan_model model;
    struct plan_measured machine;
    struct plan *plans;
    int count;
};

/* What a mesh took: the fastest of its runs. */
struct times {
    double picture, step, predicted_step;
};

static bool report_progress(void *user, tessera_phase phase, int done, int total) {
    (void)user, (void)phase, (void)done, (void)total;
    return progress_signal() == 0;
}

/* The most of all ranks. */
static tessera_status slowest(struct latency *l, double *seconds) {
    struct comm *comm = l->world->comm;
    double all[comm_size(comm)], mine = *seconds;
    size_t bytes[comm_size(comm)];
    for (int i = 0; i < comm_size(comm); i++) bytes[i] = sizeof mine;
    TRY(comm_all_gather(comm, &mine, all, bytes, &l->error));
    for (int i = 0; i < comm_size(comm); i++) *seconds = fmax(*seconds, all[i]);
    return TESSERA_OK;
}

/* Waits for all ranks; fails where one has left off, having refused the mesh by itself. */
static tessera_status meet(struct latency *l, const char *what) {
    return tessera_world_check_same(l->world, "stage of the measurement", what, &l->error);
}

static tessera_request request_of(const tessera_model *model, const struct subject *s) {
    tessera_request r = TESSERA_REQUEST;
    tessera_request_defaults(model, false, &r);
    r.prompt = PROMPT;
    if (s->request.width > 0) r.width = r.height = s->request.width;
    r.num_inference_steps = s->model.steps;
    if (s->request.guidance_scale >= 0) r.guidance_scale = (float)s->request.guidance_scale;
    if (s->request.no_binning) r.use_resolution_binning = false;
    r.latents_only = true;
    r.progress = report_progress;
    return r;
}

static tessera_status time_picture(struct latency *l, tessera_model *model, const tessera_request *request, double *picture, double *step) {
    tessera_image image = TESSERA_IMAGE;
    TRY(meet(l, "picture"));
    double start = clock_seconds();
    tessera_status status = tessera_generate(model, request, &image, &l->error);
    *picture = clock_seconds() - start;
    *step = image.seconds_denoise / request->num_inference_steps;
    tessera_image_free(&image);
    if (status != TESSERA_OK) return status;
    TRY(slowest(l, picture));
    return slowest(l, step);
}

static tessera_status time_runs(struct latency *l, tessera_model *model, const tessera_request *request, struct times *out) {
    out->picture = out->step = INFINITY;
    for (int run = -l->warmup_times; run < l->test_times; run++) {
        double picture, step;
        TRY(time_picture(l, model, request, &picture, &step));
        if (run < 0) continue;
        l->runs[run] = picture;
        out->picture = fmin(out->picture, picture);
        out->step = fmin(out->step, step);
    }
    return TESSERA_OK;
}

/* Models that draw after a control picture get a black one. */
static tessera_status time_model(struct latency *l, tessera_model *model, const struct subject *s, struct times *out) {
    tessera_request request = request_of(model, s);
    uint8_t *black = NULL;
    tessera_family family = TESSERA_FAMILY;
    tessera_family_describe(tessera_model_pipeline_class(model), &family);
    if (family.has_control) {
        request.control_image = black = calloc((size_t)request.width * (size_t)request.height, 3);
        if (black == NULL) return error_set(&l->error, TESSERA_ERROR_MEMORY, "out of memory for a control picture");
    }
    tessera_status status = time_runs(l, model, &request, out);
    free(black);
    return status;
}

/* tessera_mesh.warmup_steps for one synchronous step, which is all that is measured of them: of
 * pipefusion index 0, of patch those up to index 0. */
static int least_warmup(const struct plan_mesh *plan) {
    return plan->degrees[MESH_PIPEFUSION] > 1 ? 1 : -1;
}

static tessera_status time_mesh(struct latency *l, const struct subject *s, const struct plan_mesh *plan, struct times *out) {
    tessera_mesh mesh = {.struct_size = sizeof(tessera_mesh), .world = l->world};
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    options.mesh = &mesh;
    options.dtype = l->dtype;
    options.threads = l->values[LATENCY_THREADS].integer;
    plan_mesh_choose(plan, &mesh);
    mesh.warmup_steps = least_warmup(plan);
    TRY(binding_choose(l->world, &mesh, options.threads, &l->error));
    tessera_model *model = tessera_model_open(l->model, &options, &l->error);
    tessera_status status = model != NULL ? time_model(l, model, s, out) : l->error.status;
    tessera_model_free(model);
    binding_release();
    return status;
}

/* Seconds that are predicted for each step, the synchronous ones (one here, where a plan has them)
 * among them. */
static double predicted_step(const struct subject *s, const struct plan *plan) {
    struct plan_mesh mesh = plan->mesh;
    if (mesh.warmup_steps > 1) mesh.warmup_steps = 1;
    struct plan again = plan_evaluate(&s->model, &s->machine.machine, &mesh);
    return (again.picture_seconds - again.text_seconds - again.decode_seconds) / s->model.steps;
}

/* ---- what is said of it ---- */

static void print_machine(const struct latency *l, const struct subject *s) {
    const struct plan_machine *m = &s->machine.machine;
    if (l->rank > 0 || l->values[LATENCY_JSON].flag) return;
    if (s->request.width > 0) printf("%dx%d: ", s->request.width, s->request.height);
    printf("%d steps on %d rank%s of %.3g operations/s", s->model.steps, m->ranks, m->ranks == 1 ? "" : "s", m->operations);
    if (m->per_host > 1) printf(", %.3g ms and %.3g MB/s inside a host", m->inside.latency * 1e3, m->inside.bandwidth / 1e6);
    if (m->per_host < m->ranks) printf(", %.3g ms and %.3g MB/s between hosts", m->between.latency * 1e3, m->between.bandwidth / 1e6);
    printf("\n%-40s %10s %10s %10s  %s\n%-40s %10s %10s %10s  %s\n", "", "seconds", "seconds", "predicted", "", "mesh", "a picture",
           "a step", "a step", "limited by");
    fflush(stdout);
}

/* How far the work is, where a person waits for a table. */
static void print_state(const struct latency *l, int done, int total) {
    double passed = clock_seconds() - l->began;
    if (l->rank > 0 || done == 0) return;
    fprintf(stderr, "%d of %d meshes measured, about %.0f s left\n", done, total, passed / l->measured * (total - done));
}

static tessera_status add_entry(struct latency *l, const struct subject *s, const struct plan *plan, const struct times *times,
                                const char *refusal) {
    char text[256];
    cJSON *entry = cJSON_CreateObject();
    if (entry == NULL || !cJSON_AddItemToArray(l->report, entry))
        return error_set(&l->error, TESSERA_ERROR_MEMORY, "out of memory for the report");
    if (s->request.width > 0) cJSON_AddNumberToObject(entry, "size", s->request.width);
    cJSON_AddStringToObject(entry, "mesh", plan_mesh_text(&plan->mesh, text, sizeof text));
    cJSON_AddStringToObject(entry, "options", plan_mesh_options(&plan->mesh, text, sizeof text));
    cJSON_AddBoolToObject(entry, "exact", plan_mesh_is_exact(&plan->mesh));
    cJSON_AddNumberToObject(entry, "predicted_seconds_per_step", times->predicted_step);
    cJSON_AddStringToObject(entry, "limited_by", plan_limit_name(plan->limit));
    if (refusal != NULL) {
        cJSON_AddStringToObject(entry, "refused", refusal);
        return TESSERA_OK;
    }
    cJSON_AddNumberToObject(entry, "seconds_per_picture", times->picture);
    cJSON_AddNumberToObject(entry, "seconds_per_step", times->step);
    cJSON_AddItemToObject(entry, "seconds", cJSON_CreateDoubleArray(l->runs, l->test_times));
    return TESSERA_OK;
}

static tessera_status tell_mesh(struct latency *l, const struct subject *s, const struct plan *plan, const struct times *times,
                                const char *refusal) {
    char text[128];
    if (l->rank > 0) return TESSERA_OK;
    if (l->values[LATENCY_JSON].flag) return add_entry(l, s, plan, times, refusal);
    plan_mesh_text(&plan->mesh, text, sizeof text);
    if (refusal != NULL)
        printf("%-40s refused: %s\n", text, refusal);
    else
        printf("%-40s %10.4g %10.4g %10.4g  %s\n", text, times->picture, times->step, times->predicted_step, plan_limit_name(plan->limit));
    fflush(stdout);
    return TESSERA_OK;
}

/* `measured` and `predicted` [count] seconds of a step, the first the plan's choice; `least`: of
 * the fastest mesh, `best`. */
static void print_summary(const struct latency *l, const double *predicted, const double *measured, int count, double least,
                          const struct plan_mesh *best) {
    double errors[count];
    char text[128], options[256];
    if (l->rank > 0 || l->values[LATENCY_JSON].flag || count == 0) return;
    for (int i = 0; i < count; i++) errors[i] = fabs(predicted[i] / measured[i] - 1);
    qsort(errors, (size_t)count, sizeof *errors, order_doubles);
    printf("\nthe fastest: %s", plan_mesh_text(best, text, sizeof text));
    if (plan_mesh_ranks(best) > 1)
        printf(": mpirun -n %d tessera generate %s", plan_mesh_ranks(best), plan_mesh_options(best, options, sizeof options));
    printf("\nthe first predicted: %.2f of the fastest's time; error of the predictions: %.0f %% at the median, %.0f %% at most\n\n",
           measured[0] / least, 100 * errors[count / 2], 100 * errors[count - 1]);
    fflush(stdout);
}

/* ---- all meshes ---- */

/* A refusal is the model's of a mesh, on all ranks alike, before anything was sent; all else ends
 * the measurement. */
static bool is_refusal(const struct latency *l, tessera_status status) {
    return (status == TESSERA_ERROR_ARGUMENT || status == TESSERA_ERROR_UNSUPPORTED) && !tessera_world_failed(l->world);
}

static tessera_status measure_mesh(struct latency *l, const struct subject *s, const struct plan *plan, struct times *times) {
    *times = (struct times){.predicted_step = predicted_step(s, plan)};
    if (progress_signal() != 0) return error_set(&l->error, TESSERA_ERROR_CANCELLED, "stopped on request");
    tessera_status status = time_mesh(l, s, &plan->mesh, times);
    if (status != TESSERA_OK && !is_refusal(l, status)) return status;
    l->measured++;
    bool refused = status != TESSERA_OK;
    TRY(meet(l, refused ? "refused" : "measured"));
    return tell_mesh(l, s, plan, times, refused ? l->error.message : NULL);
}

/* The plans of these options, without idle groups: all ranks make one picture. */
static void keep_wanted(const struct latency *l, struct subject *s) {
    int kept = 0;
    for (int i = 0; i < s->count; i++) {
        const int *degrees = s->plans[i].mesh.degrees;
        if (degrees[MESH_DATA] == 1 && (l->cfg || degrees[MESH_CFG] == 1)) s->plans[kept++] = s->plans[i];
    }
    s->count = kept;
}

static tessera_status measure_meshes(struct latency *l, struct subject *s) {
    TRY(plan_rank(&s->model, &s->machine.machine, !l->exact, &s->plans, &s->count, &l->error));
    TRY(comm_broadcast(l->world->comm, 0, s->plans, (size_t)s->count * sizeof *s->plans, &l->error)); /* rank 0's order is everybody's */
    keep_wanted(l, s);
    double measured[s->count + 1], predicted[s->count + 1];
    int kept = 0;
    double least = INFINITY;
    struct plan_mesh fastest = {0};
    l->measured = 0;
    l->began = clock_seconds();
    print_machine(l, s);
    for (int i = 0; i < s->count; i++) {
        struct times times;
        print_state(l, i, s->count);
        TRY(measure_mesh(l, s, &s->plans[i], &times));
        if (!(times.step < INFINITY && times.step > 0)) continue;
        measured[kept] = times.step, predicted[kept] = times.predicted_step;
        if (times.step < least) least = times.step, fastest = s->plans[i].mesh;
        kept++;
    }
    print_summary(l, predicted, measured, kept, least, &fastest);
    if (kept > 0) return TESSERA_OK;
    return error_set(&l->error, TESSERA_ERROR_ARGUMENT, "%s: no mesh of %d rank%s can make this picture", l->model,
                     tessera_world_size(l->world), tessera_world_size(l->world) == 1 ? "" : "s");
}

static tessera_status measure_size(struct latency *l, int side) {
    const struct option_value *v = l->values;
    struct plan_auto_options auto_options = {.threads = v[LATENCY_THREADS].integer};
    tessera_model_options options = {.struct_size = sizeof(tessera_model_options), .dtype = l->dtype};
    struct subject s = {.request = {.width = side,
                                    .height = side,
                                    .steps = v[LATENCY_STEPS].integer,
                                    .max_sequence_length = -1,
                                    .guidance_scale = v[LATENCY_GUIDANCE_SCALE].given ? v[LATENCY_GUIDANCE_SCALE].number : -1,
                                    .no_binning = v[LATENCY_NO_BINNING].flag}};
    TRY(plan_model_open(l->model, &options, &s.request, &s.model, &l->error));
    tessera_status status = binding_choose(l->world, NULL, auto_options.threads, &l->error); /* as in a run */
    if (status == TESSERA_OK) status = plan_measure_machine(l->world->comm, &s.model, &auto_options, &s.machine, &l->error);
    binding_release();
    if (status == TESSERA_OK) status = measure_meshes(l, &s);
    plan_measured_free(&s.machine);
    free(s.plans);
    plan_model_free(&s.model);
    return status;
}

static tessera_status measure_sizes(struct latency *l) {
    for (int i = 0; i < l->num_sides; i++) TRY(measure_size(l, l->sides[i]));
    return TESSERA_OK;
}

/* ---- the command ---- */

/* --sizes, or the model's own size. */
static tessera_status read_sides(struct latency *l) {
    const struct option_value *sizes = &l->values[LATENCY_SIZES];
    l->num_sides = sizes->count > 0 ? sizes->count : 1;
    l->sides = calloc((size_t)l->num_sides, sizeof *l->sides);
    if (l->sides == NULL) return error_set(&l->error, TESSERA_ERROR_MEMORY, "out of memory for %d sizes", l->num_sides);
    for (int i = 0; i < sizes->count; i++) {
        char *end;
        long number = strtol(sizes->texts[i], &end, 10);
        l->usage = end == sizes->texts[i] || *end != 0 || number < 1 || number > MAX_SIDE;
        if (l->usage)
            return error_set(&l->error, TESSERA_ERROR_ARGUMENT, "--sizes takes whole numbers from 1 to %d, not '%s'", MAX_SIDE,
                             sizes->texts[i]);
        l->sides[i] = (int)number;
    }
    return TESSERA_OK;
}

/* Ranks that were started with other options would wait for each other in vain. */
static tessera_status check_same(struct latency *l) {
    const struct option_value *v = l->values, *sizes = &v[LATENCY_SIZES];
    char text[1024];
    int n = snprintf(text, sizeof text, "steps %d, guidance %g, %d + %d times, %s%s%s%s, model %s, sizes", v[LATENCY_STEPS].integer,
                     v[LATENCY_GUIDANCE_SCALE].number, l->warmup_times, l->test_times, l->dtype == TESSERA_F32 ? "f32" : "bf16",
                     l->exact ? ", exact" : "", l->cfg ? "" : ", no cfg", v[LATENCY_NO_BINNING].flag ? ", no bins" : "", l->model);
    for (int i = 0; i < sizes->count && n < (int)sizeof text; i++) n += snprintf(text + n, sizeof text - (size_t)n, " %s", sizes->texts[i]);
    return tessera_world_check_same(l->world, "latency's options", text, &l->error);
}

static tessera_status read_options(struct latency *l) {
    const struct option_value *v = l->values;
    int ranks = tessera_world_size(l->world);
    l->dtype = v[LATENCY_DTYPE].given && strcmp(v[LATENCY_DTYPE].text, "f32") == 0 ? TESSERA_F32 : TESSERA_BF16;
    l->exact = v[LATENCY_EXACT].flag;
    l->cfg = !v[LATENCY_NO_CFG].flag;
    l->warmup_times = v[LATENCY_WARMUP_TIMES].given ? v[LATENCY_WARMUP_TIMES].integer : 1;
    l->test_times = v[LATENCY_TEST_TIMES].given ? v[LATENCY_TEST_TIMES].integer : DEFAULT_TEST_TIMES;
    l->usage = v[LATENCY_RANKS].given && v[LATENCY_RANKS].integer != ranks;
    if (l->usage)
        return error_set(&l->error, TESSERA_ERROR_ARGUMENT, "--ranks %d, but %d %s started: mpirun -n %d tessera latency ...",
                         v[LATENCY_RANKS].integer, ranks, ranks == 1 ? "was" : "were", v[LATENCY_RANKS].integer);
    TRY(read_sides(l));
    l->report = cJSON_CreateArray();
    l->runs = calloc((size_t)l->test_times, sizeof *l->runs);
    if (l->report == NULL || l->runs == NULL) return error_set(&l->error, TESSERA_ERROR_MEMORY, "out of memory for the report");
    if (!v[LATENCY_MODEL].given) return embedded_model_find(TESSERA_EMBEDDED_MODEL, &l->model, &l->error);
    l->model = strdup(v[LATENCY_MODEL].text);
    return l->model != NULL ? TESSERA_OK : error_set(&l->error, TESSERA_ERROR_MEMORY, "out of memory");
}

static tessera_status print_json(struct latency *l) {
    if (l->rank > 0 || !l->values[LATENCY_JSON].flag) return TESSERA_OK;
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "model", l->model);
    cJSON_AddNumberToObject(root, "ranks", tessera_world_size(l->world));
    cJSON_AddStringToObject(root, "dtype", l->dtype == TESSERA_F32 ? "f32" : "bf16");
    cJSON_AddItemReferenceToObject(root, "meshes", l->report);
    char *text = cJSON_Print(root);
    cJSON_Delete(root);
    if (text == NULL) return error_set(&l->error, TESSERA_ERROR_MEMORY, "out of memory for the report");
    puts(text);
    cJSON_free(text);
    return TESSERA_OK;
}

static tessera_status measure(struct latency *l) {
    l->world = tessera_world_open(&l->error);
    if (l->world == NULL) return l->error.status;
    l->rank = tessera_world_rank(l->world);
    progress_catch_signals();
    if (l->rank == 0 && l->values[LATENCY_SCRIPT].given)
        fprintf(stderr, "tessera: --script has no effect: %s\n", latency_options[LATENCY_SCRIPT].ignored);
    TRY(read_options(l));
    TRY(check_same(l));
    TRY(measure_sizes(l));
    TRY(tessera_world_finish(l->world, &l->error));
    return print_json(l);
}

static int say(const struct latency *l, tessera_status status) {
    if (status == TESSERA_OK) return EXIT_DONE;
    if (status == TESSERA_ERROR_CANCELLED)
        return command_stopped(l->rank == 0, "%d mesh%s measured before that", l->measured, l->measured == 1 ? "" : "es");
    if (l->rank > 0) return l->usage ? EXIT_USAGE : EXIT_FAILED;
    return command_fail(&l->error, l->usage);
}

/* A failure is said before the world ends, as in generate.c. The others learn from the end that
 * this rank is gone, if they do not know of the failure already. */
static int finish(struct latency *l, tessera_status status) {
    int code = say(l, status);
    if (status != TESSERA_OK) tessera_world_finish(l->world, NULL);
    return code;
}

static int run_latency(const char *path, struct option_value *values) {
    (void)path;
    struct latency l = {.values = values};
    int code = finish(&l, measure(&l));
    cJSON_Delete(l.report);
    tessera_world_free(l.world);
    free(l.model);
    free(l.runs);
    free(l.sides);
    return code;
}

const struct command latency_command = {
    .name = "latency",
    .usage = "latency [--model MODEL] [--sizes PIXELS ...] [--steps N] [options], started by mpirun -n N",
    .summary = "measure what a picture takes on every mesh of the ranks, beside what was predicted",
    .details =
        "Time is taken from the prompt to latents; nothing is written. The first mesh is the one that --parallel auto would choose among\n"
        "these. Warm-up of PipeFusion and displaced patches is one step, the least there is.\n",
    .examples = "  mpirun -n 2 tessera latency --steps 6\n"
                "  mpirun -n 4 tessera latency --model sd3-medium --sizes 1024 2048 --steps 28 --exact --json > latency.json\n",
    .options = latency_options,
    .option_count = LATENCY_OPTION_COUNT,
    .run = run_latency,
};
