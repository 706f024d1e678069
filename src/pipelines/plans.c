/* The public API of include/tessera_plan.h over parallel/plan.h. */
#include "tessera_plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/published.h"
#include "pipelines/options.h"
#include "pipelines/plan_auto.h"
#include "pipelines/plan_measure.h"
#include "pipelines/plan_model.h"
#include "pipelines/plans.h"
#include "pipelines/sized.h"
#include "pipelines/world.h"

enum { MAX_RANKS = 65536 };

struct names {
    char mesh[128], options[256];
};

struct tessera_plans {
    struct plan_model model;
    struct plan_machine machine;
    struct plan *list; /* [count] */
    struct names *names;
    int count;
    bool allow_displaced;
};

tessera_status plans_read_machine(const tessera_plan_machine *given, struct plan_machine *out, int *threads, tessera_error *error) {
    tessera_plan_machine m = TESSERA_PLAN_MACHINE;
    if (given != NULL) TRY(sized_read(&m, sizeof m, given, offsetof(tessera_plan_machine, threads) + sizeof m.threads, "machine", error));
    if (m.ranks < 1 || m.ranks > MAX_RANKS || m.per_host < 1)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "machine: ranks %d, per_host %d: from 1 to %d ranks, at least 1 on a host", m.ranks,
                         m.per_host, MAX_RANKS);
    const double numbers[] = {m.latency, m.bandwidth, m.host_latency, m.host_bandwidth, m.memory, m.operations};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!(numbers[i] >= 0) || (i % 2 == 1 && i < 4 && numbers[i] == 0))
            return error_set(error, TESSERA_ERROR_ARGUMENT, "machine: %g: latencies, memory and operations are not negative, bandwidths above 0",
                             numbers[i]);
    *threads = m.threads;
    *out = (struct plan_machine){.ranks = m.ranks,
                                 .per_host = m.per_host,
                                 .between = {m.latency, m.bandwidth},
                                 .inside = {m.host_latency, m.host_bandwidth},
                                 .memory = m.memory,
                                 .operations = m.operations};
    return TESSERA_OK;
}

tessera_status plans_read_request(const tessera_plan_request *given, struct plan_request *out, tessera_error *error) {
    tessera_plan_request r = TESSERA_PLAN_REQUEST;
    if (given != NULL)
        TRY(sized_read(&r, sizeof r, given, offsetof(tessera_plan_request, no_resolution_binning) + sizeof r.no_resolution_binning, "request",
                       error));
    *out = (struct plan_request){.width = r.width,
                                 .height = r.height,
                                 .steps = r.steps,
                                 .pictures = r.num_images,
                                 .max_sequence_length = r.max_sequence_length,
                                 .guidance_scale = r.guidance_scale,
                                 .has_negative_prompt = r.has_negative_prompt,
                                 .no_binning = r.no_resolution_binning};
    return TESSERA_OK;
}

/* A published model by its name: its configurations come with the library, and a plan needs no
 * more. */
static bool is_published(const char *name) {
    for (const char *const *names = published_names(); *names != NULL; names++)
        if (strcmp(*names, name) == 0) return true;
    return false;
}

tessera_status plans_find_model(const char *model, char **folder, tessera_error *error) {
    *folder = NULL;
    return !file_exists(model) && is_published(model) ? published_folder(model, folder, error) : TESSERA_OK;
}

static tessera_status open_model(const char *model, const tessera_model_options *options, const struct plan_request *request,
                                 struct plan_model *out, tessera_error *error) {
    char *folder = NULL;
    TRY(plans_find_model(model, &folder, error));
    tessera_status status = plan_model_open(folder != NULL ? folder : model, options, request, out, error);
    free(folder);
    return status;
}

/* The rates of this machine, where none was given. */
tessera_status plans_measure(const struct plan_model *model, int threads, struct plan_machine *machine, tessera_error *error) {
    struct plan_speed speed;
    int64_t tokens = model->rows / model->patch_size * (model->columns / model->patch_size) / machine->ranks;
    if (machine->operations > 0) return TESSERA_OK;
    TRY(plan_known_speed(model, tokens, (struct plan_measurer){threads, 1, false}, &speed, error));
    machine->operations = speed.operations;
    machine->attention_share = speed.attention_share;
    machine->elements = speed.elements;
    machine->streaming = speed.streaming;
    return TESSERA_OK;
}

static tessera_status name_plans(tessera_plans *plans, tessera_error *error) {
    plans->names = calloc((size_t)plans->count + 1, sizeof *plans->names);
    if (plans->names == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for %d plans", plans->count);
    for (int i = 0; i < plans->count; i++) {
        plan_mesh_text(&plans->list[i].mesh, plans->names[i].mesh, sizeof plans->names[i].mesh);
        plan_mesh_options(&plans->list[i].mesh, plans->names[i].options, sizeof plans->names[i].options);
    }
    return TESSERA_OK;
}

static tessera_status fill(tessera_plans *plans, const char *model, const tessera_model_options *options,
                           const tessera_plan_request *request, const tessera_plan_machine *machine, bool allow_displaced,
                           tessera_error *error) {
    struct plan_request wanted;
    int threads = 0;
    plans->allow_displaced = allow_displaced;
    TRY(plans_read_machine(machine, &plans->machine, &threads, error));
    TRY(plans_read_request(request, &wanted, error));
    TRY(open_model(model, options, &wanted, &plans->model, error));
    TRY(plans_measure(&plans->model, threads, &plans->machine, error));
    TRY(plan_rank(&plans->model, &plans->machine, allow_displaced, &plans->list, &plans->count, error));
    return name_plans(plans, error);
}

tessera_plans *tessera_plans_open(const char *model, const tessera_model_options *options, const tessera_plan_request *request,
                                  const tessera_plan_machine *machine, bool allow_displaced, tessera_error *error) {
    tessera_error own;
    if (error == NULL) error = &own;
    *error = (tessera_error){0};
    if (model == NULL || model[0] == 0) {
        error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_plans_open: no model is named");
        return NULL;
    }
    tessera_plans *plans = calloc(1, sizeof *plans);
    if (plans == NULL) {
        error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
        return NULL;
    }
    struct model_options known;
    tessera_status status = model_options_read(options, &known, error);
    if (status == TESSERA_OK) status = fill(plans, model, &known.own, request, machine, allow_displaced, error);
    model_options_free(&known);
    if (status == TESSERA_OK) return plans;
    tessera_plans_free(plans);
    return NULL;
}

static tessera_status choose(const char *model, const struct model_options *options, const tessera_plan_request *request,
                             const struct plan_auto_options *how, tessera_mesh *mesh, char reason[PLAN_REASON_LENGTH],
                             tessera_error *error) {
    struct plan_request wanted;
    if (model == NULL || model[0] == 0) return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_mesh_choose: no model is named");
    TRY(plans_read_request(request, &wanted, error));
    return plan_auto(model, &options->own, &wanted, how, mesh, reason, error);
}

/* A job of all ranks: where one cannot read the model, none chooses. */
tessera_status tessera_mesh_choose(const char *model, const tessera_model_options *given, const tessera_plan_request *request,
                                   bool allow_displaced, tessera_mesh *mesh, double *rank_weights, char *reason, size_t capacity,
                                   tessera_error *error) {
    tessera_error own = {0};
    struct model_options options;
    char why[PLAN_REASON_LENGTH] = "";
    if (error == NULL) error = &own;
    tessera_status readable = model_options_read(given, &options, error);
    const struct plan_auto_options how = {.allow_displaced = allow_displaced, .threads = options.own.threads, .weights = rank_weights};
    struct comm *world = options.mesh.world != NULL ? options.mesh.world->comm : NULL;
    tessera_mesh chosen = TESSERA_MESH;
    tessera_status status = comm_job_begin(world, error);
    if (status == TESSERA_OK) status = readable;
    if (status == TESSERA_OK && mesh == NULL) status = error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_mesh_choose: mesh is NULL");
    if (status == TESSERA_OK) status = mesh_read(mesh, &chosen, error);
    if (status == TESSERA_OK) status = choose(model, &options, request, &how, &chosen, why, error);
    status = comm_job_end(world, status, error);
    model_options_free(&options);
    if (status != TESSERA_OK) return status;
    sized_write(mesh, &chosen, sizeof chosen, sizeof chosen.struct_size);
    if (reason != NULL && capacity > 0) snprintf(reason, capacity, "%s", why);
    return TESSERA_OK;
}

void tessera_plans_free(tessera_plans *plans) {
    if (plans == NULL) return;
    plan_model_free(&plans->model);
    free(plans->names);
    free(plans->list);
    free(plans);
}

int tessera_plans_count(const tessera_plans *plans) {
    return plans != NULL ? plans->count : 0;
}

static const struct plan *plan_at(const tessera_plans *plans, int i) {
    return plans != NULL && i >= 0 && i < plans->count ? &plans->list[i] : NULL;
}

bool tessera_plans_get(const tessera_plans *plans, int i, tessera_plan *out) {
    const struct plan *p = plan_at(plans, i);
    if (p == NULL || out == NULL) return false;
    const int *d = p->mesh.degrees;
    const tessera_plan plan = {
        .degrees = {d[MESH_DATA], d[MESH_CFG], d[MESH_PIPEFUSION], d[MESH_PATCH], d[MESH_RING], d[MESH_ULYSSES], d[MESH_TENSOR]},
        .num_pipeline_patch = p->mesh.patches,
        .warmup_steps = p->mesh.warmup_steps,
        .split_text = p->mesh.split_text,
        .exact = plan_mesh_is_exact(&p->mesh),
        .mesh_text = plans->names[i].mesh,
        .options = plans->names[i].options,
        .limited_by = plan_limit_name(p->limit),
        .picture_seconds = p->picture_seconds,
        .step_seconds = p->step_seconds,
        .warmup_step_seconds = p->warmup_step_seconds,
        .text_seconds = p->text_seconds,
        .decode_seconds = p->decode_seconds,
        .compute_seconds = p->compute_seconds,
        .latency_seconds = p->latency_seconds,
        .bandwidth_seconds = p->bandwidth_seconds,
        .memory_bytes = p->memory.most,
        .weight_bytes = p->memory.weights,
        .activation_bytes = p->memory.activations,
        .store_bytes = p->memory.stores,
        .missing_bytes = p->over,
    };
    return sized_write(out, &plan, sizeof plan, sizeof plan.struct_size);
}

bool tessera_plans_model(const tessera_plans *plans, tessera_plan_model *out) {
    if (plans == NULL || out == NULL) return false;
    const struct plan_model *m = &plans->model;
    const tessera_plan_model model = {.name = m->name,
                                      .latent_rows = m->rows,
                                      .latent_columns = m->columns,
                                      .text_tokens = m->text_tokens,
                                      .predictions_per_step = m->predictions,
                                      .steps = m->steps,
                                      .num_images = m->pictures,
                                      .ranks = plans->machine.ranks,
                                      .operations = plans->machine.operations};
    return sized_write(out, &model, sizeof model, sizeof model.struct_size);
}

int tessera_plans_least_ranks(const tessera_plans *plans, int most, char *mesh_text, size_t capacity) {
    if (plans == NULL || mesh_text == NULL || most > MAX_RANKS) return 0;
    struct plan_machine more = plans->machine;
    for (more.ranks = plans->machine.ranks + 1; more.ranks <= most; more.ranks++) {
        struct plan *list = NULL;
        int count = 0;
        tessera_error none_possible;
        if (plan_rank(&plans->model, &more, plans->allow_displaced, &list, &count, &none_possible) != TESSERA_OK) continue;
        bool fits = list[0].over == 0;
        if (fits) plan_mesh_text(&list[0].mesh, mesh_text, capacity);
        free(list);
        if (fits) return more.ranks;
    }
    return 0;
}

static bool has_rank(const tessera_plans *plans, int i, int rank) {
    return plan_at(plans, i) != NULL && rank >= 0 && rank < plans->machine.ranks;
}

uint64_t tessera_plans_step_bytes(const tessera_plans *plans, int i, int rank) {
    return has_rank(plans, i, rank) ? plan_step_bytes(&plans->model, &plans->list[i].mesh, rank).sum : 0;
}

uint64_t tessera_plans_warmup_bytes(const tessera_plans *plans, int i, int rank) {
    return has_rank(plans, i, rank) ? plan_warmup_bytes(&plans->model, &plans->list[i].mesh, rank).sum : 0;
}

tessera_status tessera_plans_draw(const tessera_plans *plans, int i, void *stream, tessera_error *error) {
    if (plan_at(plans, i) == NULL || stream == NULL)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_plans_draw: there is no plan %d, or stream is NULL", i);
    plan_draw(stream, &plans->model, &plans->machine, &plans->list[i]);
    return TESSERA_OK;
}
