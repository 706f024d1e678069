/* See spread.h. All ranks go through the same meshes in the same order; after each, outcomes are
 * gathered, and the worst is printed by rank 0. */
#include "spread.h"

#include <stdio.h>

#include "check_cut.h"
#include "mesh_loop.h"

/* ---- a denoiser ---- */

void spread_cannot_have(struct conformance_case *c, const char *reason) {
    bool asked = false;
    for (int axis = 0; axis < MESH_AXES; axis++) asked = asked || c->world->wanted[axis] > 0;
    c->verdict = asked ? VERDICT_SKIP : VERDICT_LEFT_OUT;
    snprintf(c->reason, sizeof c->reason, "%s", reason);
}

/* Can the case have its mesh? */
static tessera_status check_mesh(const struct conformance_case *c, const struct denoiser *denoiser, bool guided, struct tensor latents,
                                 tessera_error *error) {
    const int *degrees = c->mesh->degrees;
    if (degrees[MESH_CFG] > 1 && !guided) return error_set(error, TESSERA_ERROR_ARGUMENT, "cfg degree 2: this case has no guidance");
    TRY(denoiser_check_degrees(denoiser, degrees[MESH_ULYSSES], degrees[MESH_TENSOR], error));
    return check_cut(denoiser, latents.shape[1], latents.shape[2], degrees[MESH_RING] * degrees[MESH_ULYSSES], error);
}

bool spread_open(struct conformance_case *c, bool guided, struct tensor latents, struct spread_denoiser *d) {
    memset(d, 0, sizeof *d);
    if (!case_component(c, &d->whole)) return false;
    d->denoiser = d->whole.denoiser;
    if (d->denoiser == NULL) case_fail(c, "model/ is no denoiser");
    if (d->denoiser == NULL || c->world->ranks == 1) return d->denoiser != NULL;
    tessera_error error = {0};
    if (check_mesh(c, d->denoiser, guided, latents, &error) != TESSERA_OK) {
        spread_cannot_have(c, error.message);
        return false;
    }
    char *folder = case_model_folder(c);
    struct component_source source = {
        .folder = folder, .backend = c->run.backend, .scope = {c->mesh->coordinate[MESH_TENSOR], c->mesh->degrees[MESH_TENSOR]}};
    if (component_open(&source, c->dtype, &d->mine, &error) != TESSERA_OK || component_load(&d->mine, &error) != TESSERA_OK)
        case_error(c, &error);
    free(folder);
    d->denoiser = d->mine.denoiser;
    return d->denoiser != NULL;
}

void spread_close(struct spread_denoiser *d) {
    component_close(&d->whole);
    component_close(&d->mine);
}

/* ---- work ---- */

static uint64_t bytes_sent(const struct conformance_case *c) {
    return comm_stats_read(c->world->comm, NULL).bytes_sent;
}

/* The same prediction by this rank alone, for its operations. */
static double count_alone(struct conformance_case *c, const struct spread_denoiser *d, const struct denoiser_inputs *inputs) {
    size_t mark = arena_mark(c->run.arena);
    struct run run = c->run;
    run.parallel = NULL;
    run.operations = 0;
    denoiser_forward(d->whole.denoiser, &run, inputs);
    arena_release(run.arena, mark);
    return run.operations * c->mesh->degrees[MESH_CFG];
}

void spread_check_work(struct conformance_case *c, const char *what) {
    const struct conformance_work *w = &c->work;
    if (!(w->operations <= w->operations_limit))
        case_fail(c, "operations are %.3g of one rank's, at most %.3g is right", w->operations, w->operations_limit);
    if (w->has_formula && w->bytes != w->bytes_formula)
        case_fail(c, "%llu bytes were sent %s, the formula gives %llu", (unsigned long long)w->bytes, what,
                  (unsigned long long)w->bytes_formula);
    if (!(w->weights <= w->weights_limit))
        case_fail(c, "its layers hold %.3g of the weights, at most %.3g is right", w->weights, w->weights_limit);
}

static void check_work(struct conformance_case *c, const struct spread_denoiser *d, const struct formula *f, double operations) {
    struct conformance_work *w = &c->work;
    struct formula_repeated mine = formula_repeated_operations(f, false), all = formula_repeated_operations(f, true);
    double alone = d->alone - all.text - all.conditioning;
    w->operations = (operations - mine.text - mine.conditioning) / alone;
    w->text = mine.text / d->alone;
    w->conditioning = mine.conditioning / d->alone;
    w->operations_limit = SPREAD_OPERATIONS_SLACK * formula_operations_share(f, alone);
    w->has_formula = formula_bytes(f, &w->bytes_formula);
    w->weights = (double)d->mine.weight_bytes / (double)d->whole.weight_bytes;
    w->weights_limit = SPREAD_WEIGHTS_SLACK * formula_weight_bytes(f) / (double)d->whole.weight_bytes;
    spread_check_work(c, "in a prediction");
}

struct tensor spread_predict(struct conformance_case *c, struct spread_denoiser *d, const struct denoiser_inputs *inputs) {
    bool alone = d->mine.denoiser == NULL;
    if (!alone && d->alone == 0) d->alone = count_alone(c, d, inputs);
    double before = c->run.operations;
    uint64_t sent = bytes_sent(c);
    struct tensor out = denoiser_forward(d->denoiser, &c->run, inputs);
    if (run_failed(&c->run)) {
        case_error(c, &c->run.error);
        if (c->world->ranks > 1 && c->run.error.status != TESSERA_ERROR_ARGUMENT) comm_abort(c->world->comm, &c->run.error);
        return (struct tensor){0};
    }
    if (alone) return case_host(c, out);
    struct formula f = {.mesh = c->mesh,
                        .config = d->whole.config,
                        .denoiser = d->whole.denoiser,
                        .weights = d->whole.weights,
                        .dtype = c->dtype,
                        .batch = inputs->latents.shape[0],
                        .rows = inputs->latents.shape[1],
                        .columns = inputs->latents.shape[2],
                        .text_tokens = inputs->text.shape[1],
                        .text_2_tokens = inputs->text_2.data != NULL ? inputs->text_2.shape[1] : 0};
    c->work.bytes = bytes_sent(c) - sent;
    if (c->world->weights == NULL) check_work(c, d, &f, c->run.operations - before);
    return case_host(c, out);
}

struct tensor spread_join(struct conformance_case *c, struct tensor mine) {
    struct comm *halves = c->mesh->group[MESH_CFG];
    int n = comm_size(halves);
    if (mine.data == NULL || n == 1) return mine;
    size_t bytes[n];
    for (int i = 0; i < n; i++) bytes[i] = tensor_bytes(&mine);
    struct tensor both = case_room(c, mine.dtype, SHAPE(n * mine.shape[0], mine.shape[1], mine.shape[2], mine.shape[3]));
    if (run_failed(&c->run)) return both;
    uint64_t sent = bytes_sent(c);
    comm_label(halves, "guidance");
    both = run_checked(&c->run, comm_all_gather(halves, mine.data, both.data, bytes, &c->run.error), both);
    c->work.bytes += bytes_sent(c) - sent;
    c->work.bytes_formula += formula_guidance_bytes(c->mesh, bytes[0]);
    if (run_failed(&c->run)) case_error(c, &c->run.error);
    if (c->work.has_formula && c->work.bytes != c->work.bytes_formula)
        case_fail(c, "the halves of guidance sent other bytes than (n - 1) of theirs");
    return both;
}

tessera_status spread_patches(struct conformance_case *c, const struct strategy_choice *choice, tessera_error *error) {
    struct strategy_choice patches = *choice;
    struct comm *group[MESH_GROUPS];
    memcpy(patches.degrees, c->mesh->degrees, sizeof patches.degrees);
    memcpy(group, c->mesh->group, sizeof group);
    patches.degrees[MESH_PATCH] = c->mesh->degrees[MESH_RING], patches.degrees[MESH_RING] = 1;
    group[MESH_PATCH] = group[MESH_RING], group[MESH_SEQUENCE] = group[MESH_RING] = NULL;
    parallel_free(&c->parallel);
    return parallel_compose(&patches, group, &c->parallel, error);
}

/* ---- meshes ---- */

/* What ranks tell each other of a case. */
struct outcome {
    enum verdict verdict;
    uint32_t bits;
    double worst, limit;
    struct conformance_work work;
    char reason[256];
};

/* One list of all ranks' values. */
static void print_work(const struct conformance_case *c, const struct outcome *all) {
    int n = c->world->ranks;
    printf("    operations");
    for (int i = 0; i < n; i++) printf("%c%.1f%%", i == 0 ? ' ' : '/', 100 * all[i].work.operations);
    printf(" (limit %.1f%%)", 100 * all[0].work.operations_limit);
    printf(" and repeated text %.1f%%, conditioning %.1f%%  sent", 100 * all[0].work.text, 100 * all[0].work.conditioning);
    for (int i = 0; i < n; i++) printf("%c%llu", i == 0 ? ' ' : '/', (unsigned long long)all[i].work.bytes);
    printf(" B (%s)  weights", all[0].work.has_formula ? "as the formula" : "no formula");
    for (int i = 0; i < n; i++) printf("%c%.1f%%", i == 0 ? ' ' : '/', 100 * all[i].work.weights);
    printf(" (limit %.1f%%)  bits %08x\n", 100 * all[0].work.weights_limit, (unsigned)all[0].bits);
}

/* Gathers the outcomes: the case gets the worst of all ranks. */
static bool merge_outcomes(struct conformance_case *c, struct outcome *all, tessera_error *error) {
    int n = c->world->ranks;
    size_t bytes[n];
    for (int i = 0; i < n; i++) bytes[i] = sizeof *all;
    struct outcome mine = {.verdict = c->verdict, .bits = c->bits, .worst = c->worst, .limit = c->limit, .work = c->work};
    snprintf(mine.reason, sizeof mine.reason, "%.255s", c->reason);
    if (comm_all_gather(c->world->comm, &mine, all, bytes, error) != TESSERA_OK) return false;
    for (int i = 0; i < n; i++) {
        if (!(all[i].worst <= c->worst)) c->worst = all[i].worst;
        if (all[i].verdict == VERDICT_FAIL && c->verdict != VERDICT_FAIL) case_fail(c, "rank %d: %s", i, all[i].reason);
        if (all[i].bits != all[0].bits) case_fail(c, "ranks 0 and %d hold different results", i);
    }
    return true;
}

/* One mesh. False after a failure of communication. */
static bool run_mesh(struct conformance_case *c, void (*run)(struct conformance_case *), void (*print)(const struct conformance_case *),
                     tessera_error *error) {
    struct outcome all[c->world->ranks];
    size_t mark = arena_mark(c->run.arena);
    struct strategy_choice choice = {.patches = 1};
    memcpy(choice.degrees, c->mesh->degrees, sizeof choice.degrees);
    if (parallel_compose(&choice, c->mesh->group, &c->parallel, error) != TESSERA_OK) return false;
    if (shares_open(c->mesh->degrees, c->world->weights, &c->shares, error) != TESSERA_OK) return false;
    c->parallel.shares = c->shares.rows;
    c->parallel.head_shares = c->shares.heads;
    c->run.parallel = &c->parallel;
    run(c);
    shares_free(&c->shares);
    if (c->verdict == VERDICT_PASS && c->compared == 0) case_fail(c, "nothing was compared");
    arena_release(c->run.arena, mark);
    parallel_free(&c->parallel);
    if (!merge_outcomes(c, all, error)) return false;
    if (c->world->rank != 0 || c->verdict == VERDICT_LEFT_OUT) return true;
    print(c);
    if (c->world->ranks > 1 && c->work.operations > 0)
        print_work(c, all);
    else if (c->world->ranks > 1 && c->compared > 0)
        printf("    bits %08x\n", (unsigned)c->bits);
    return true;
}

bool spread_run(struct conformance_case *c, void (*run)(struct conformance_case *), void (*print)(const struct conformance_case *),
                int counts[3]) {
    struct mesh_loop loop = {.ranks = c->world->ranks, .pipelines = strcmp(c->io.kind, "pipefusion") == 0};
    memcpy(loop.wanted, c->world->wanted, sizeof loop.wanted);
    tessera_error error = {0};
    struct conformance_case last = *c;
    int meshes = 0;
    while (mesh_loop_next(&loop)) {
        struct conformance_case one = *c;
        struct mesh *mesh = NULL;
        bool communicates = mesh_open(c->world->comm, loop.degrees, &mesh, &error) == TESSERA_OK;
        one.mesh = mesh;
        communicates = communicates && run_mesh(&one, run, print, &error);
        mesh_free(mesh);
        if (!communicates) {
            fprintf(stderr, "conformance: %s\n", error.message);
            return false;
        }
        last = one;
        if (one.verdict == VERDICT_LEFT_OUT) continue;
        meshes++;
        counts[one.verdict]++;
        if (one.verdict == VERDICT_SKIP) break; /* the same for every mesh */
    }
    if (meshes > 0) return true;
    last.verdict = VERDICT_SKIP;
    if (last.reason[0] == '\0') snprintf(last.reason, sizeof last.reason, "%d ranks are no such mesh", c->world->ranks);
    last.mesh = NULL;
    counts[VERDICT_SKIP]++;
    if (c->world->rank == 0) print(&last);
    return true;
}
