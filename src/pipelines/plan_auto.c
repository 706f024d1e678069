/* See plan_auto.h. All ranks measure their speed at the same time, as they compute in a run. Then
 * they exchange the numbers, and rank 0 chooses for all.
 *
 *     speeds    products of the model's width, or this machine's entry in the cache file
 *     links     between all pairs; of a host's ranks the median, of hosts the slowest tenth, as exchanges wait for the last; where ranks
 *               crowd a machine's processors, among all of them at once
 *     memory    of a host, shared by its ranks */
#include "pipelines/plan_auto.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/order.h"
#include "comm/collectives.h"
#include "comm/ping.h"
#include "comm/stats.h"
#include "parallel/strategy.h"
#include "pipelines/plan_measure.h"
#include "pipelines/world.h"

/* What each rank tells of itself; its speed when all know the rest. */
struct rank_facts {
    struct plan_speed speed;
    double memory;
    int threads, processors;
    char kernel[KERNEL_ID_BYTES]; /* ranks that have the same share its processors, whatever their hosts are called */
};

/* ---- this rank ---- */

/* As pipeline.c deals a host's processors to its ranks. */
static int threads_of(const struct comm *comm, int given) {
    int mine = threads_available(), ranks = comm_local_size(comm);
    if (given > 0) return given;
    if (ranks == 1 || (long)mine * ranks <= sysconf(_SC_NPROCESSORS_ONLN)) return mine;
    return mine / ranks > 0 ? mine / ranks : 1;
}

static void look_at_self(const struct comm *comm, const struct plan_auto_options *options, struct rank_facts *out) {
    memset(out, 0, sizeof *out);
    out->threads = threads_of(comm, options->threads);
    out->processors = threads_available();
    out->memory = options->memory > 0 ? options->memory : (double)memory_total() / comm_local_size(comm);
    kernel_id(out->kernel);
}

/* ---- links ---- */

/* The number that a share of the sorted ones lies below. */
static double quantile(double *numbers, int count, double share) {
    qsort(numbers, (size_t)count, sizeof *numbers, order_doubles);
    int at = (int)(share * count);
    return numbers[at < count ? at : count - 1];
}

/* One link for all pairs of ranks that are (same) or are not on one host; false where there are
 * none. */
static bool one_link(const struct comm *comm, const struct ping_link *links, double *memory, bool same, double slow,
                     struct plan_link *out) {
    int n = comm_size(comm), count = 0;
    double *latencies = memory, *bandwidths = memory + (size_t)n * (size_t)n;
    for (int a = 0; a < n; a++)
        for (int b = 0; b < a; b++) {
            if ((strcmp(comm_host(comm, a), comm_host(comm, b)) == 0) != same) continue;
            latencies[count] = links[a * n + b].latency;
            bandwidths[count++] = links[a * n + b].bandwidth;
        }
    if (count == 0) return false;
    out->latency = quantile(latencies, count, slow);
    out->bandwidth = quantile(bandwidths, count, 1.0 - slow);
    return true;
}

/* Ranks on each host where they lie in blocks of one size, as launchers deal them; otherwise 1. */
static int block_size(const struct comm *comm) {
    int n = comm_size(comm), size = 1;
    while (size < n && strcmp(comm_host(comm, size), comm_host(comm, 0)) == 0) size++;
    for (int i = 0; i + 1 < n; i++) {
        bool same = strcmp(comm_host(comm, i), comm_host(comm, i + 1)) == 0;
        if (same != ((i + 1) % size != 0)) return 1;
    }
    return size;
}

static tessera_status measure_links(struct comm *comm, struct plan_machine *machine, tessera_error *error) {
    size_t n = (size_t)comm_size(comm);
    struct ping_link *links = calloc(n * n, sizeof *links);
    double *memory = calloc(2 * n * n, sizeof *memory);
    tessera_status status = links == NULL || memory == NULL ? error_set(error, TESSERA_ERROR_MEMORY, "out of memory") : TESSERA_OK;
    if (status == TESSERA_OK) status = ping_all(comm, links, error);
    machine->per_host = block_size(comm);
    machine->inside = machine->between = (struct plan_link){1e-6, 1e11}; /* nobody else: never used */
    if (status == TESSERA_OK) {
        bool inside = one_link(comm, links, memory, true, 0.5, &machine->inside);
        bool between = one_link(comm, links, memory, false, 0.9, &machine->between);
        if (!inside) machine->inside = machine->between;
        if (!between) machine->between = machine->inside;
    }
    free(memory);
    free(links);
    return status;
}

/* ---- all ranks ---- */

static bool same_machine(const struct rank_facts *a, const struct rank_facts *b) {
    return a == b || (a->kernel[0] != 0 && strcmp(a->kernel, b->kernel) == 0);
}

struct crowd {
    int ranks;       /* on one machine */
    double crowding; /* their threads for each of its processors */
};

/* Of a rank's machine. Ranks that are bound to some processors do not all have the same. */
static struct crowd crowd_of(const struct rank_facts *facts, int n, int rank) {
    struct crowd crowd = {0};
    long threads = 0, processors = 0, online = sysconf(_SC_NPROCESSORS_ONLN);
    for (int i = 0; i < n; i++) {
        if (!same_machine(&facts[i], &facts[rank])) continue;
        crowd.ranks++;
        threads += facts[i].threads;
        processors += facts[i].processors;
    }
    crowd.crowding = (double)threads / (double)(processors < online ? processors : online);
    return crowd;
}

/* The nearest rank on this one's host in a direction (1, -1), around the host; itself if it is
 * alone there. */
static int neighbour(const struct comm *comm, int direction) {
    int me = comm_rank(comm), n = comm_size(comm), i = me;
    do {
        i = (i + direction + n) % n;
    } while (i != me && strcmp(comm_host(comm, i), comm_host(comm, me)) != 0);
    return i;
}

/* The usual rank's latency, where all exchange with their neighbours at once. */
static tessera_status measure_together(struct comm *comm, int next, int previous, double crowding, struct plan_link *link,
                                       tessera_error *error) {
    int n = comm_size(comm);
    double mine = 0, all[n];
    size_t bytes[n];
    for (int i = 0; i < n; i++) bytes[i] = sizeof mine;
    TRY(ping_together(comm, next, previous, crowding, &mine, error));
    TRY(comm_all_gather(comm, &mine, all, bytes, error));
    link->latency = fmax(link->latency, quantile(all, n, 0.5));
    return TESSERA_OK;
}

/* Where ranks wait for processors, messages wait with them: those within hosts, and those between
 * them. */
static tessera_status measure_crowd(struct comm *comm, struct plan_machine *machine, tessera_error *error) {
    int n = comm_size(comm), me = comm_rank(comm), host = machine->per_host;
    if (machine->crowding <= 1) return TESSERA_OK;
    TRY(measure_together(comm, neighbour(comm, 1), neighbour(comm, -1), machine->crowding, &machine->inside, error));
    return measure_together(comm, (me + host) % n, (me - host + n) % n, machine->crowding, &machine->between, error);
}

/* Rank 0's rates are the unit. */
static void put_together(const struct rank_facts *facts, int n, struct plan_measured *out) {
    double *speeds = out->numbers, *memories = out->numbers + n;
    const struct plan_speed *first = &facts[0].speed;
    out->machine.operations = first->operations;
    out->machine.attention_share = first->attention_share;
    out->machine.elements = first->elements;
    out->machine.streaming = first->streaming;
    for (int i = 0; i < n; i++) {
        speeds[i] = facts[i].speed.operations / first->operations;
        memories[i] = facts[i].memory;
        out->machine.attention_share = fmin(out->machine.attention_share, facts[i].speed.attention_share);
    }
    out->machine.speeds = speeds;
    out->machine.memories = memories;
}

/* All ranks' facts, with their speeds; what *machine says of a crowd is of the fullest one. */
static tessera_status gather_facts(struct comm *comm, const struct plan_model *model, const struct plan_auto_options *options,
                                   struct rank_facts *facts, struct plan_machine *machine, tessera_error *error) {
    int n = comm_size(comm);
    int64_t tokens = model->rows / model->patch_size * (model->columns / model->patch_size) / n;
    struct rank_facts mine;
    size_t bytes[n];
    for (int i = 0; i < n; i++) bytes[i] = sizeof mine;
    look_at_self(comm, options, &mine);
    TRY(comm_all_gather(comm, &mine, facts, bytes, error));
    for (int i = 0; i < n; i++) {
        struct crowd crowd = crowd_of(facts, n, i);
        if (crowd.crowding > machine->crowding) machine->crowding = crowd.crowding, machine->crowd = crowd.ranks;
    }
    struct plan_measurer me = {mine.threads, crowd_of(facts, n, comm_rank(comm)).ranks, machine->crowding > 1};
    TRY(plan_known_speed(model, tokens, me, &mine.speed, error));
    return comm_all_gather(comm, &mine, facts, bytes, error);
}

tessera_status plan_measure_machine(struct comm *comm, const struct plan_model *model, const struct plan_auto_options *options,
                                    struct plan_measured *out, tessera_error *error) {
    int n = comm_size(comm);
    struct rank_facts *facts = calloc((size_t)n, sizeof *facts);
    *out = (struct plan_measured){.machine = {.ranks = n}, .numbers = calloc(2 * (size_t)n, sizeof *out->numbers)};
    bool ready = facts != NULL && out->numbers != NULL;
    tessera_status status = ready ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    if (status == TESSERA_OK) status = gather_facts(comm, model, options, facts, &out->machine, error);
    if (status == TESSERA_OK) status = measure_links(comm, &out->machine, error);
    if (status == TESSERA_OK) put_together(facts, n, out);
    if (status == TESSERA_OK) status = measure_crowd(comm, &out->machine, error);
    if (status != TESSERA_OK) plan_measured_free(out);
    free(facts);
    return status;
}

void plan_measured_free(struct plan_measured *measured) {
    free(measured->numbers);
    *measured = (struct plan_measured){0};
}

/* ---- the choice ---- */

void plan_mesh_choose(const struct plan_mesh *plan, tessera_mesh *mesh) {
    const int *d = plan->degrees;
    mesh->data = d[MESH_DATA], mesh->cfg = d[MESH_CFG], mesh->pipefusion = d[MESH_PIPEFUSION], mesh->patch = d[MESH_PATCH];
    mesh->ring = d[MESH_RING], mesh->ulysses = d[MESH_ULYSSES], mesh->tensor = d[MESH_TENSOR];
    mesh->split_text = plan->split_text;
    mesh->patch_strategy = d[MESH_PATCH] > 1 ? plan_mesh_patch_strategy(plan)->name : NULL;
    mesh->num_pipeline_patch = d[MESH_PIPEFUSION] > 1 ? plan->patches : 0;
}

/* Ranks whose speeds differ by no more are taken for equal: a measurement is no better. */
#define EQUAL_SPEEDS 0.85

static bool are_unequal(const struct plan_machine *machine) {
    double least = machine->speeds[0], most = least;
    for (int i = 1; i < machine->ranks; i++) {
        least = fmin(least, machine->speeds[i]);
        most = fmax(most, machine->speeds[i]);
    }
    return least < EQUAL_SPEEDS * most;
}

/* What rank 0 found out, for all. */
struct choice {
    tessera_error error;
    struct plan plan;
    bool unequal;
    char reason[PLAN_REASON_LENGTH];
};

/* `given`: speeds that count instead of measured ones, or NULL. */
static tessera_status decide(struct comm *comm, const struct plan_model *model, const struct plan_auto_options *options,
                             const double *given, struct choice *choice, tessera_error *error) {
    struct plan_measured measured;
    TRY(plan_measure_machine(comm, model, options, &measured, error));
    double *speeds = measured.numbers;
    for (int i = 0; i < comm_size(comm) && given != NULL; i++) speeds[i] = given[i] / given[0];
    choice->unequal = given == NULL && options->weights != NULL && are_unequal(&measured.machine);
    if (choice->unequal) memcpy(options->weights, speeds, (size_t)comm_size(comm) * sizeof *speeds);
    measured.machine.proportional = choice->unequal || given != NULL;
    if (!choice->unequal && !are_unequal(&measured.machine)) measured.machine.speeds = NULL; /* all as rank 0 */
    if (comm_rank(comm) == 0)
        plan_choose(model, &measured.machine, options->allow_displaced, &choice->plan, choice->reason, &choice->error);
    plan_measured_free(&measured);
    TRY(comm_broadcast(comm, 0, choice, sizeof *choice, error));
    if (choice->error.status == TESSERA_OK) return TESSERA_OK;
    return error_set(error, choice->error.status, "%s", choice->error.message);
}

tessera_status plan_auto(const char *model, const tessera_model_options *options, const struct plan_request *request,
                         const struct plan_auto_options *auto_options, tessera_mesh *mesh, char reason[PLAN_REASON_LENGTH],
                         tessera_error *error) {
    struct plan_model described;
    struct choice choice;
    if (options->mesh == NULL || tessera_world_size(options->mesh->world) == 1) {
        snprintf(reason, PLAN_REASON_LENGTH, "one rank: there is nothing to share\nseveral are started with mpirun -n N\nor srun");
        return TESSERA_OK;
    }
    memset(&choice, 0, sizeof choice);
    struct comm *comm = options->mesh->world->comm;
    const char *label = comm_label(comm, "set-up");
    tessera_status status = plan_model_open(model, options, request, &described, error);
    if (status == TESSERA_OK) status = decide(comm, &described, auto_options, options->mesh->rank_weights, &choice, error);
    comm_label(comm, label);
    plan_model_free(&described);
    if (status != TESSERA_OK) return status;
    plan_mesh_choose(&choice.plan.mesh, mesh);
    if (choice.unequal) mesh->rank_weights = auto_options->weights;
    memcpy(reason, choice.reason, PLAN_REASON_LENGTH);
    return TESSERA_OK;
}
