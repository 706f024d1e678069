/* Every exact hybrid of a world against one rank: each denoiser case is run alone by every rank,
 * then by all together over every mesh that the world's size allows, and must agree within the
 * case's tolerance. Where a case has no text mask it is run once more with a longer text, of more
 * tokens than ranks (which joint attention cuts).
 *
 *     mpirun -n N test_hybrids CASE_FOLDER...
 *
 * Also checked: that the work is shared. A rank's operations are at most
 *
 *     1.15 (blocks / tensor + ends) / sequence * uneven
 *
 * where blocks and ends (embeddings and the last projection, which are not cut over `tensor`) are
 * what one rank counts alone, and uneven is what the largest span has above the mean, where heads,
 * rows or text do not divide. Where each rank holds the whole text (is_joint), the text's
 * operations and the ends do not count, on either side.
 *
 * Prints one line per case; exits 1 if one failed. Degrees that a model cannot have (more ranks
 * than heads) are left out. */
#include <stdlib.h>

#include "check_cut.h"
#include "comm/mesh.h"
#include "denoiser_test.h"
#include "mesh_loop.h"
#include "parallel/parallel.h"

enum { LONG_TEXT = 24 };
#define LARGEST_SHARE 1.15

struct world {
    struct comm *comm;
    int size, rank;
};

/* Operations of a pass. */
struct work {
    double blocks, ends;
    int64_t text; /* tokens of its state */
};

/* A case's inputs, and what one rank makes of them. */
struct subject {
    const struct case_io *c;
    const char *model;
    const struct denoiser_inputs *in;
    struct tensor alone;
    struct work work;
};

/* Over all meshes: errors in shares of the tolerance, operations in shares of an equal share. */
struct worst {
    double error, share;
    int meshes;
};

static struct tensor copy_of(struct tensor t) {
    struct tensor copy = t;
    copy.data = malloc(tensor_bytes(&t));
    memcpy(copy.data, t.data, tensor_bytes(&t));
    return copy;
}

/* ---- work ---- */

/* As denoiser_forward, with a look at what each step costs. */
static struct tensor forward(struct component_test *t, const struct denoiser_inputs *in, struct work *work) {
    const struct denoiser *m = t->component.denoiser;
    struct run *run = &t->run;
    size_t scope = run_enter(run);
    double start = run->operations;
    struct denoiser_state state = m->class->embed(m, run, in, DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT);
    double embedded = run->operations;
    work->text = state.text.shape[1];
    for (int i = 0; i < m->num_blocks && !run_failed(run); i++) state = m->class->block(m, run, i, state);
    work->blocks = run->operations - embedded;
    struct tensor out = run_leave(run, scope, m->class->finish(m, run, state));
    work->ends = run->operations - start - work->blocks;
    return out;
}

/* a / b, upwards */
static int64_t rounded_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* The largest span of `n` things that are cut over `ranks` between multiples of `unit`, in shares
 * of the mean. */
static double unevenness(int64_t n, int64_t unit, int64_t ranks) {
    return (double)(rounded_up(rounded_up(n, unit), ranks) * unit * ranks) / (double)n;
}

/* Does the text attend, too? Then it is cut if each rank can have some; a text that is only
 * attended to is whole on every rank. */
static bool is_joint(const struct denoiser *m) {
    return m->class == &sd3_transformer_class || m->class == &flux_transformer_class;
}

/* What blocks compute of so many text tokens where weights and heads are cut over `tensor` and
 * `heads` ranks. */
static double text_work(const struct denoiser *m, const struct denoiser_inputs *in, int64_t text, int tensor, int heads) {
    int64_t patches = in->latents.shape[1] * in->latents.shape[2] / (m->patch_size * m->patch_size);
    double sum = 0;
    for (int i = 0; i < m->num_blocks; i++) {
        struct denoiser_block_info info;
        m->class->describe(m, i, &info);
        sum += info.operations_per_text_token / tensor;
        if (is_joint(m)) sum += info.operations_per_token_pair * (double)(patches + text) / heads;
    }
    return (double)(in->latents.shape[0] * text) * sum;
}

/* A rank's operations in shares of an equal share. `m` has all weights. */
static double share_of(const struct denoiser *m, const struct subject *s, const struct mesh *mesh, struct work mine) {
    const struct tensor *latents = &s->in->latents;
    int tensor = mesh->degrees[MESH_TENSOR], heads = mesh->degrees[MESH_ULYSSES] * tensor;
    int sequence = mesh->degrees[MESH_RING] * mesh->degrees[MESH_ULYSSES];
    int64_t tokens = latents->shape[1] * latents->shape[2] / (m->patch_size * m->patch_size);
    double uneven = m->row_unit > 0 ? unevenness(latents->shape[1], m->row_unit, sequence) : unevenness(tokens, 1, sequence);
    struct work all = s->work;
    bool cuts_text = is_joint(m) && all.text >= sequence;
    if (cuts_text) uneven = (uneven * (double)tokens + unevenness(all.text, 1, sequence) * (double)all.text) / (double)(tokens + all.text);
    if (sequence > 1 && !cuts_text) {
        mine.blocks -= text_work(m, s->in, all.text, tensor, heads);
        all.blocks -= text_work(m, s->in, all.text, 1, 1);
        mine.ends = all.ends = 0;
    }
    double equal = (all.blocks / tensor + all.ends) / sequence * uneven * unevenness(m->num_heads, 1, heads);
    return (mine.blocks + mine.ends) / equal;
}

/* ---- runs ---- */

/* One mesh: this rank's share of the case. */
static void run_mesh(const struct denoiser *whole, const struct subject *s, const struct mesh *mesh, struct worst *worst) {
    const int *degrees = mesh->degrees;
    struct component_test t;
    struct load_scope scope = {mesh->coordinate[MESH_TENSOR], degrees[MESH_TENSOR], {0, 0}};
    tessera_error error = {0};
    bool opened = component_test_open_scope(&t, s->model, DTYPE_F32, scope, &error);
    CHECK(opened, "%s", error.message);
    if (!opened) return;
    struct strategy_choice choice = {.patches = 1};
    struct parallel parallel;
    memcpy(choice.degrees, degrees, sizeof choice.degrees);
    CHECK(parallel_compose(&choice, mesh->group, &parallel, &error) == TESSERA_OK, "%s", error.message);
    t.run.parallel = &parallel;
    struct work mine;
    struct tensor out = forward(&t, s->in, &mine);
    CHECK(!run_failed(&t.run), "%s", t.run.error.message);
    double e = run_failed(&t.run) ? INFINITY : case_compare(s->c, &out, &s->alone).worst;
    double work = share_of(whole, s, mesh, mine);
    CHECK(e <= 1.0, "ring %d ulysses %d tensor %d: %.3g of the tolerance", degrees[MESH_RING], degrees[MESH_ULYSSES], degrees[MESH_TENSOR],
          e);
    CHECK(work <= LARGEST_SHARE, "ring %d ulysses %d tensor %d: rank %d does %.3f of its share of the work", degrees[MESH_RING],
          degrees[MESH_ULYSSES], degrees[MESH_TENSOR], comm_rank(mesh->group[MESH_WORLD]), work);
    worst->error = fmax(worst->error, e);
    worst->share = fmax(worst->share, work);
    worst->meshes++;
    parallel_free(&parallel);
    component_test_close(&t);
}

/* Every mesh of ring x ulysses x tensor. */
static void run_meshes(const struct world *world, const struct denoiser *denoiser, const struct subject *s, struct worst *worst) {
    struct mesh_loop loop = {.ranks = world->size, .wanted[MESH_CFG] = 1};
    while (mesh_loop_next(&loop)) {
        tessera_error error = {0};
        struct mesh *mesh = NULL;
        const int *degrees = loop.degrees;
        const struct tensor *latents = &s->in->latents;
        int sequence = degrees[MESH_RING] * degrees[MESH_ULYSSES];
        if (denoiser_check_degrees(denoiser, degrees[MESH_ULYSSES], degrees[MESH_TENSOR], &error) != TESSERA_OK) continue;
        if (check_cut(denoiser, latents->shape[1], latents->shape[2], sequence, &error) != TESSERA_OK) continue;
        CHECK(mesh_open(world->comm, degrees, &mesh, &error) == TESSERA_OK, "%s", error.message);
        run_mesh(denoiser, s, mesh, worst);
        mesh_free(mesh);
    }
}

/* The inputs alone, then over every mesh. */
static void run_inputs(const struct world *world, struct component_test *t, struct subject s, struct worst *worst) {
    size_t scope = run_enter(&t->run);
    s.alone = copy_of(forward(t, s.in, &s.work));
    run_leave_all(&t->run, scope, NULL, 0);
    run_meshes(world, t->component.denoiser, &s, worst);
    free(s.alone.data);
}

/* The text [B, T, C] again and again until it has `tokens`. */
static struct tensor repeated(struct tensor text, int64_t tokens) {
    int64_t batch = text.shape[0], from = text.shape[1], width = text.shape[2];
    struct tensor out = tensor_of(malloc((size_t)(batch * tokens * width) * sizeof(float)), DTYPE_F32, SHAPE(batch, tokens, width));
    for (int64_t i = 0; i < batch * tokens; i++)
        memcpy((float *)out.data + i * width, (const float *)text.data + (i / tokens * from + i % tokens % from) * width,
               (size_t)width * sizeof(float));
    return out;
}

/* The worst of all ranks, on each. */
static double worst_of_all(const struct world *world, double mine) {
    double all[world->size], most = mine;
    size_t bytes[world->size];
    tessera_error error = {0};
    for (int i = 0; i < world->size; i++) bytes[i] = sizeof mine;
    CHECK(comm_all_gather(world->comm, &mine, all, bytes, &error) == TESSERA_OK, "%s", error.message);
    for (int i = 0; i < world->size; i++) most = fmax(most, all[i]);
    return most;
}

static void run_case(const struct world *world, const char *folder) {
    struct case_io c;
    struct component_test t;
    tessera_error error = {0};
    struct worst worst = {0};
    CHECK(case_open(folder, &c, &error) == TESSERA_OK, "%s", error.message);
    if (c.json == NULL) return;
    char *model = denoiser_case_model(&c, folder);
    if (!component_test_open(&t, model, DTYPE_F32)) return;
    struct denoiser_case d = denoiser_case_read(&c);
    struct subject subject = {.c = &c, .model = model, .in = &d.in};
    run_inputs(world, &t, subject, &worst);
    if (d.in.text_mask.data == NULL) {
        struct tensor text = repeated(d.in.text, LONG_TEXT);
        d.in.text = text;
        run_inputs(world, &t, subject, &worst);
        free(text.data);
    }
    component_test_close(&t);
    double most = worst_of_all(world, worst.error), share = worst_of_all(world, worst.share);
    if (world->rank == 0)
        printf("  %-30s %2d runs of %d ranks, worst %.3g of tolerance, %.3f of a rank's share of the work\n", folder, worst.meshes,
               world->size, most, share);
    denoiser_case_free(&d);
    free(model);
    case_close(&c);
}

int main(int argc, char **argv) {
    tessera_error error = {0};
    struct world world = {0};
    if (comm_world_open(NULL, &world.comm, &error) != TESSERA_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    world.size = comm_size(world.comm);
    world.rank = comm_rank(world.comm);
    for (int i = 1; i < argc; i++) run_case(&world, argv[i]);
    comm_finish(world.comm, &error);
    comm_free(world.comm);
    return CHECK_REPORT();
}
