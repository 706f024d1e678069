/* Which meshes there are, and which of them is best. See plan.h.
 *
 * Degrees are divisors of the number of ranks, so thousands of ranks have a few thousand meshes,
 * and each is judged in microseconds. */
#include "parallel/plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "parallel/strategy.h"

enum { PIPEFUSION_WARMUP = 1, DISPLACED_WARMUP = 5 }; /* synchronous steps: PipeFusion's default; DistriFusion's 4, counted from 0 */

void plan_model_free(struct plan_model *model) {
    for (int i = 0; i < model->num_blocks && model->blocks != NULL; i++) free(model->blocks[i].meetings);
    free(model->blocks);
    *model = (struct plan_model){0};
}

/* Does a rank's attention see the whole picture? */
static bool sees_all(const struct plan_mesh *mesh) {
    const struct strategy *patch = plan_mesh_patch_strategy(mesh);
    return patch == NULL || patch->patches_seen(mesh->degrees[MESH_PATCH]) == mesh->degrees[MESH_PATCH];
}

const char *plan_limit_name(enum plan_limit limit) {
    static const char *const names[PLAN_LIMITS] = {"compute", "bandwidth", "latency", "memory"};
    return names[limit];
}

/* ---- what is possible ---- */

static tessera_status check_positions(const struct plan_model *m, const struct plan_mesh *mesh, tessera_error *error) {
    int members = plan_cut_members(mesh);
    int64_t p = m->patch_size, rows = m->rows / p;
    bool by_rows = m->row_unit == 0 && mesh->degrees[MESH_PATCH] > 1;
    int64_t most = by_rows ? rows : m->row_unit > 0 ? (m->rows + m->row_unit - 1) / m->row_unit : rows / mesh->patches * (m->columns / p);
    if (members > most)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "patch, ring and ulysses together %d: this picture can be cut over %lld ranks at most", members, (long long)most);
    if (mesh->patches > rows)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "%d patches: this picture has %lld rows of tokens", mesh->patches, (long long)rows);
    return TESSERA_OK;
}

tessera_status plan_check(const struct plan_model *m, const struct plan_mesh *mesh, tessera_error *error) {
    const int *degrees = mesh->degrees;
    if (degrees[MESH_CFG] > m->predictions)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "cfg %d: a step has %d prediction%s", degrees[MESH_CFG], m->predictions,
                         m->predictions == 1 ? "" : "s");
    int sequence = degrees[MESH_RING] * degrees[MESH_ULYSSES];
    if (degrees[MESH_PATCH] > 1 && (sequence > 1 || degrees[MESH_PIPEFUSION] > 1 || degrees[MESH_TENSOR] > 1 || mesh->patches > 1))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "patch excludes pipefusion, ring, ulysses and tensor in a plan");
    if (plan_mesh_patch_strategy(mesh) != NULL && plan_mesh_patch_strategy(mesh)->patches_seen == NULL)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: no plan has it", plan_mesh_patch_strategy(mesh)->name);
    int64_t most = m->max_tensor > 0 && m->max_tensor < m->heads ? m->max_tensor : m->heads;
    if (degrees[MESH_TENSOR] > most)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "tensor %d: 1 to %lld are possible", degrees[MESH_TENSOR], (long long)most);
    if (degrees[MESH_ULYSSES] > m->heads / degrees[MESH_TENSOR])
        return error_set(error, TESSERA_ERROR_ARGUMENT, "ulysses %d: this model has %lld heads on a rank", degrees[MESH_ULYSSES],
                         (long long)(m->heads / degrees[MESH_TENSOR]));
    if (mesh->patches > 1 && m->row_unit > 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "%d patches: a U-Net goes through a pipeline as a whole", mesh->patches);
    if (degrees[MESH_PIPEFUSION] > m->num_blocks)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "pipefusion %d: this model has %d blocks", degrees[MESH_PIPEFUSION], m->num_blocks);
    return check_positions(m, mesh, error);
}

/* ---- all of them ---- */

struct list {
    const struct plan_model *model;
    const struct plan_machine *machine;
    bool allow_displaced, failed;
    struct plan *plans;
    int count, capacity;
};

static void consider(struct list *list, const struct plan_mesh *mesh) {
    bool divides_sums = mesh->degrees[MESH_TENSOR] > 1 || !plan_mesh_is_exact(mesh);
    if (list->failed || (!plan_mesh_is_exact(mesh) && !list->allow_displaced)) return;
    if (list->model->divides_no_sum && divides_sums) return;
    if (plan_check(list->model, mesh, NULL) != TESSERA_OK) return;
    if (list->count == list->capacity) {
        int capacity = list->capacity == 0 ? 256 : 2 * list->capacity;
        struct plan *plans = realloc(list->plans, (size_t)capacity * sizeof *plans);
        list->failed = plans == NULL;
        if (list->failed) return;
        list->plans = plans;
        list->capacity = capacity;
    }
    list->plans[list->count++] = plan_evaluate(list->model, list->machine, mesh);
}

/* Adds the mesh with each strategy of the patch axis: with the whole text on each rank, and with
 * the text split if that differs. A strategy that sees as much as displaced patches on so many
 * ranks equals them and is left out. */
static void consider_displaced(struct list *list, struct plan_mesh mesh) {
    int patches = mesh.degrees[MESH_PATCH];
    mesh.warmup_steps = DISPLACED_WARMUP;
    for (int i = 0; strategy_at(i) != NULL; i++) {
        const struct strategy *s = strategy_at(i);
        mesh.patch_strategy = i;
        if (s->patches_seen == NULL || (s->patches_seen(patches) == patches && s != strategy_of_patches(NULL))) continue;
        mesh.split_text = false;
        consider(list, &mesh);
        mesh.split_text = true;
        if (plan_cuts_text(list->model, &mesh)) consider(list, &mesh);
    }
}

/* The whole picture, as many patches as stages, and twice as many: then a patch's messages are
 * hidden behind another's computing. */
static void consider_patches(struct list *list, struct plan_mesh mesh) {
    int stages = mesh.degrees[MESH_PIPEFUSION];
    mesh.patches = 1;
    if (mesh.degrees[MESH_PATCH] > 1) {
        consider_displaced(list, mesh);
        return;
    }
    mesh.warmup_steps = 0;
    consider(list, &mesh);
    if (stages == 1) return;
    mesh.warmup_steps = PIPEFUSION_WARMUP;
    for (mesh.patches = stages; mesh.patches <= 2 * stages; mesh.patches += stages) consider(list, &mesh);
}

/* Adds every way to divide `left` ranks over the axes from `axis` on. */
static void share_out(struct list *list, struct plan_mesh *mesh, int axis, int left) {
    if (axis == MESH_AXES - 1) {
        mesh->degrees[axis] = left;
        consider_patches(list, *mesh);
        return;
    }
    for (int degree = 1; degree <= left; degree++) {
        if (left % degree != 0 || (axis == MESH_CFG && degree > list->model->predictions)) continue;
        if (axis == MESH_DATA && degree > list->model->pictures) continue; /* ranks would idle */
        if (axis == MESH_PIPEFUSION && degree > list->model->num_blocks) continue;
        if (axis == MESH_PATCH && degree > 1 && !list->allow_displaced) continue;
        mesh->degrees[axis] = degree;
        share_out(list, mesh, axis + 1, left / degree);
    }
}

static int compare(const void *a, const void *b) {
    const struct plan *p = a, *q = b;
    double x = p->over > 0 || q->over > 0 ? p->over : p->picture_seconds, y = p->over > 0 || q->over > 0 ? q->over : q->picture_seconds;
    return x < y ? -1 : x > y ? 1 : 0;
}

/* Is p better than q, which takes as long? An exact mesh is, then one that sees the whole picture,
 * then the one whose first rank sends less. */
static bool is_better(const struct plan_model *model, const struct plan *p, const struct plan *q) {
    bool exact = plan_mesh_is_exact(&p->mesh);
    if (exact != plan_mesh_is_exact(&q->mesh)) return exact;
    if (sees_all(&p->mesh) != sees_all(&q->mesh)) return sees_all(&p->mesh);
    return plan_step_bytes(model, &p->mesh, 0).sum < plan_step_bytes(model, &q->mesh, 0).sum;
}

/* Moves the best of those that are as fast as the first, as far as predictions tell, to the front.
 */
static void settle_ties(struct list *list) {
    struct plan *plans = list->plans, best;
    int at = 0;
    for (int i = 1; i < list->count && plans[i].over == 0 && plans[i].picture_seconds <= PLAN_TIE * plans[0].picture_seconds; i++)
        if (is_better(list->model, &plans[i], &plans[at])) at = i;
    best = plans[at];
    memmove(plans + 1, plans, (size_t)at * sizeof *plans);
    plans[0] = best;
}

tessera_status plan_rank(const struct plan_model *model, const struct plan_machine *machine, bool allow_displaced, struct plan **out,
                         int *count, tessera_error *error) {
    struct list list = {.model = model, .machine = machine, .allow_displaced = allow_displaced};
    struct plan_mesh mesh = {.patches = 1};
    share_out(&list, &mesh, 0, machine->ranks);
    *out = list.plans;
    *count = list.count;
    if (list.failed || list.count == 0) {
        free(list.plans);
        *out = NULL;
        return list.failed
                   ? error_set(error, TESSERA_ERROR_MEMORY, "out of memory for plans")
                   : error_set(error, TESSERA_ERROR_ARGUMENT,
                               "%s at %lldx%lld latents cannot be cut over %d ranks: another number, or more pictures (data), is needed",
                               model->name, (long long)model->columns, (long long)model->rows, machine->ranks);
    }
    qsort(list.plans, (size_t)list.count, sizeof *list.plans, compare);
    settle_ties(&list);
    return TESSERA_OK;
}

/* ---- the best ---- */

/* The fastest plan without one strategy of `best`: how much slower it is tells why `best` has that
 * strategy. */
static const struct plan *without(const struct plan *plans, int count, const struct plan_mesh *best, enum mesh_axis axis) {
    for (int i = 0; i < count; i++)
        if (plans[i].over == 0 && plans[i].mesh.degrees[axis] < best->degrees[axis]) return &plans[i];
    return NULL;
}

static void explain(const struct plan_model *model, const struct plan_machine *machine, const struct plan *plans, int count,
                    char reason[PLAN_REASON_LENGTH]) {
    const struct plan *best = &plans[0], *next = count > 1 ? &plans[1] : NULL;
    char name[128], other[128], left_out[256] = "";
    size_t used = 0;
    for (int a = 0; a < MESH_AXES; a++) {
        const struct plan *worse = best->mesh.degrees[a] > 1 ? without(plans, count, &best->mesh, (enum mesh_axis)a) : NULL;
        if (worse == NULL || used >= sizeof left_out) continue;
        used += (size_t)snprintf(left_out + used, sizeof left_out - used, "; with less %s %.3g s", mesh_axis_name((enum mesh_axis)a),
                                 worse->picture_seconds);
    }
    int n = snprintf(reason, PLAN_REASON_LENGTH, "%s of %d possible meshes of %d ranks: %.3g s a picture, %.3g s a step, limited by %s\n",
                     plan_mesh_text(&best->mesh, name, sizeof name), count, machine->ranks, best->picture_seconds, best->step_seconds,
                     plan_limit_name(best->limit));
    if (n > 0 && n < PLAN_REASON_LENGTH)
        n += snprintf(reason + n, PLAN_REASON_LENGTH - (size_t)n,
                      "of a step %.3g s compute, %.3g s wait for latency, %.3g s for bandwidth\n", best->compute_seconds,
                      best->latency_seconds, best->bandwidth_seconds);
    if (n > 0 && n < PLAN_REASON_LENGTH)
        snprintf(reason + n, PLAN_REASON_LENGTH - (size_t)n, "next: %s, %.3g s%s; %.2f GiB a rank%s",
                 next != NULL ? plan_mesh_text(&next->mesh, other, sizeof other) : "none", next != NULL ? next->picture_seconds : 0.0,
                 left_out, best->memory.most / (double)(1 << 30), model->predictions > 1 ? ", guided" : "");
}

tessera_status plan_choose(const struct plan_model *model, const struct plan_machine *machine, bool allow_displaced, struct plan *out,
                           char reason[PLAN_REASON_LENGTH], tessera_error *error) {
    struct plan *plans = NULL;
    int count = 0;
    TRY(plan_rank(model, machine, allow_displaced, &plans, &count, error));
    tessera_status status = TESSERA_OK;
    char name[128];
    *out = plans[0];
    explain(model, machine, plans, count, reason);
    if (out->over > 0)
        status = error_set(error, TESSERA_ERROR_MEMORY,
                           "%s does not fit: %s needs least, and that is %.2f GiB more on a rank than there are: use more ranks, --dtype "
                           "bf16, or a smaller picture",
                           model->name, plan_mesh_text(&out->mesh, name, sizeof name), out->over / (double)(1 << 30));
    free(plans);
    return status;
}
