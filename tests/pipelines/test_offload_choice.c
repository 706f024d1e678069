/* Which way offload.c chooses, what it refuses and how much memory it leaves for weights, with
 * components whose sizes are made up here. Each limit is tried at the byte where the choice
 * changes.
 *
 *     test_offload_choice                        one rank
 *     mpirun -n 2 test_offload_choice ranks      a picture for each rank: they share the host's
 * memory */
#include "pipelines/offload.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "check.h"
#include "pipelines/device_map.h"
#include "pipelines/pipeline.h"

#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

enum { SIDE = 2048, SLOTS = 4, ALL_ROLES = 1 << ROLE_TEXT | 1 << ROLE_DENOISER | 1 << ROLE_AUTOENCODER };
static const char model[] = "tests/cases/pipeline_flux/model";
static const char *const names[SLOTS] = {"text_encoder", "text_encoder_2", "transformer", "vae"};
static const size_t wholes[SLOTS] = {1 * GIB, 8 * GIB, 12 * GIB, 2 * GIB}, windows[SLOTS] = {64 * MIB, 96 * MIB, 3 * GIB, 32 * MIB};
static const size_t base = 2 * GIB; /* the program */
static size_t reserved;             /* what is held back for libraries */

static const struct way {
    const char *name;
    enum offload way;
    bool by_rows;
} ways[] = {{"none", OFFLOAD_NONE, false},     {"none by rows", OFFLOAD_NONE, true},
            {"stages", OFFLOAD_STAGES, false}, {"stages by rows", OFFLOAD_STAGES, true},
            {"blocks", OFFLOAD_BLOCKS, false}, {"blocks by rows", OFFLOAD_BLOCKS, true}};
enum { WAYS = sizeof ways / sizeof *ways };

static const size_t machine = 64 * GIB; /* its memory, where no limit is given */

static struct pipeline_slot *slot_of(struct pipeline *p, int i) {
    return &p->slots[pipeline_slot_index(p, names[i])];
}

/* The model as it is after it was opened with this limit (0: none). */
static void set_up(struct pipeline *p, enum offload asked, size_t limit) {
    p->offload_asked = asked, p->memory_limit = limit, p->base_memory = base, p->stays_whole = p->is_judged = false;
    p->machine_memory = machine, p->is_large = true;
    for (int i = 0; i < SLOTS; i++) slot_of(p, i)->whole = wholes[i], slot_of(p, i)->window = windows[i];
}

static tessera_status choose(struct pipeline *p, unsigned roles, tessera_error *error) {
    tessera_request r = p->defaults;
    r.num_images = 3;
    return offload_choose(p, &r, roles, SIDE, SIDE, error);
}

static void check_way(const struct pipeline *p, const char *what, const struct way *want) {
    CHECK(p->offload == want->way && p->by_rows == want->by_rows, "%s: way %d, by rows %d; not %s", what, p->offload, p->by_rows,
          want->name);
}

static size_t max(size_t a, size_t b) {
    return a > b ? a : b;
}

/* What a picture takes in a way, from the sizes above and the request's needs. */
static size_t peak_of(const struct offload_needs *n, const struct way *w) {
    size_t denoise = w->by_rows ? n->denoise_by_rows : n->denoise, decode = w->by_rows ? n->decode_by_rows : n->decode;
    size_t needs[SLOTS] = {n->text, n->text, denoise, decode}, all = 0, most = 0, most_needs = 0, loading = 0;
    for (int i = 0; i < SLOTS; i++) {
        all += wholes[i];
        most = max(most, (w->way == OFFLOAD_BLOCKS ? windows[i] : wholes[i]) + needs[i]);
        most_needs = max(most_needs, needs[i]);
        if (w->way != OFFLOAD_BLOCKS) loading = max(loading, windows[i]); /* the largest segment on its way from the file */
    }
    return base + n->pictures + reserved + loading + (w->way == OFFLOAD_NONE ? all + most_needs : most);
}

/* Each way is taken from the limit on that it needs, and one byte below the next one is. */
static void test_limits(struct pipeline *p) {
    tessera_error error = {0};
    set_up(p, OFFLOAD_AUTO, 100 * GIB);
    CHECK(choose(p, ALL_ROLES, &error) == TESSERA_OK, "%s", error.message);
    const struct offload_needs n = p->needs;
    CHECK(n.pictures == (size_t)3 * SIDE * SIDE * 15, "three pictures take %zu bytes", n.pictures);
    CHECK(n.text > 0 && n.denoise_by_rows < n.denoise && n.decode_by_rows < n.decode, "needs: %zu, %zu or %zu, %zu or %zu", n.text,
          n.denoise, n.denoise_by_rows, n.decode, n.decode_by_rows);
    for (int i = 0; i < WAYS; i++) {
        size_t peak = peak_of(&n, &ways[i]);
        CHECK(i == 0 || peak < peak_of(&n, &ways[i - 1]), "%s takes no less than %s", ways[i].name, ways[i > 0 ? i - 1 : 0].name);
        set_up(p, OFFLOAD_AUTO, peak);
        CHECK(choose(p, ALL_ROLES, &error) == TESSERA_OK, "%s in %zu: %s", ways[i].name, peak, error.message);
        check_way(p, "the limit that it needs", &ways[i]);
        set_up(p, OFFLOAD_AUTO, peak - 1);
        CHECK(choose(p, ALL_ROLES, &error) == (i == WAYS - 1 ? TESSERA_ERROR_MEMORY : TESSERA_OK), "%s in %zu", ways[i].name, peak - 1);
        check_way(p, "a byte less", &ways[i < WAYS - 1 ? i + 1 : i]);
        set_up(p, ways[i].way, peak);
        CHECK(choose(p, ALL_ROLES, &error) == TESSERA_OK, "only %s in %zu: %s", ways[i].name, peak, error.message);
        check_way(p, "no other way is allowed", &ways[i]);
    }
}

/* The message has the whole MiB that hold the peak, and names --offload auto where that is another
 * way. */
static void test_refused(struct pipeline *p) {
    static const enum offload asked[] = {OFFLOAD_NONE, OFFLOAD_STAGES, OFFLOAD_BLOCKS, OFFLOAD_AUTO};
    char want[128];
    for (int i = 0; i < 4; i++) {
        tessera_error error = {0};
        set_up(p, asked[i], 20 * MIB);
        CHECK(choose(p, ALL_ROLES, &error) == TESSERA_ERROR_MEMORY, "offload %d in 20 MiB", asked[i]);
        size_t peak = peak_of(&p->needs, &ways[i < 3 ? 2 * i + 1 : 5]), needed = peak / MIB + (peak % MIB > 0);
        snprintf(want, sizeof want, "2048x2048 takes %zu MiB, which is %zu MiB more than the limit of 20 MiB", needed, needed - 20);
        CHECK(strstr(error.message, want) != NULL, "\"%s\" is not in: %s", want, error.message);
        CHECK((strstr(error.message, "--offload auto") != NULL) == (i < 2), "offload %d: %s", asked[i], error.message);
    }
}

/* Only the components of the stages that work count, and pictures only where one is decoded. */
static void test_roles(struct pipeline *p) {
    tessera_error error = {0};
    set_up(p, OFFLOAD_AUTO, 100 * GIB);
    CHECK(choose(p, 1 << ROLE_TEXT, &error) == TESSERA_OK && p->needs.pictures == 0, "%zu bytes of pictures: %s", p->needs.pictures,
          error.message);
    size_t peak = base + reserved + wholes[0] + wholes[1] + windows[1] + p->needs.text;
    for (size_t less = 0; less < 2; less++) {
        set_up(p, OFFLOAD_AUTO, peak - less);
        CHECK(choose(p, 1 << ROLE_TEXT, &error) == TESSERA_OK, "%s", error.message);
        check_way(p, "prompts alone", &ways[2 * less]);
    }
}

static tessera_status deliver(void *user, int image, const tessera_image *picture, tessera_error *error) {
    (void)user, (void)image, (void)picture, (void)error;
    return TESSERA_OK;
}

static void test_pictures(struct pipeline *p) {
    tessera_error error = {0};
    tessera_request r = p->defaults;
    set_up(p, OFFLOAD_AUTO, 100 * GIB);
    for (int is_delivered = 0; is_delivered < 2; is_delivered++) {
        r.num_images = is_delivered ? 7 : 0;
        r.deliver = is_delivered ? deliver : NULL;
        CHECK(offload_choose(p, &r, ALL_ROLES, SIDE, SIDE, &error) == TESSERA_OK, "%s", error.message);
        CHECK(p->needs.pictures == (size_t)SIDE * SIDE * 15, "one picture at a time: %zu bytes", p->needs.pictures);
    }
}

/* What a device map has on another rank is not counted. */
static void test_map(struct pipeline *p) {
    struct tessera_map map = {.modules = {.num_encoders = 2, .encoders = {names[0], names[1]}, .autoencoder = names[3]},
                              .placement = {.encoders = {1, 1}, .autoencoder = 1}};
    tessera_error error = {0};
    set_up(p, OFFLOAD_AUTO, 100 * GIB);
    CHECK(choose(p, ALL_ROLES, &error) == TESSERA_OK, "%s", error.message);
    size_t peak = base + reserved + p->needs.pictures + wholes[2] + windows[2] + p->needs.denoise_by_rows;
    p->map = &map;
    for (size_t less = 0; less < 2; less++) {
        set_up(p, OFFLOAD_NONE, peak - less);
        CHECK(choose(p, ALL_ROLES, &error) == (less == 0 ? TESSERA_OK : TESSERA_ERROR_MEMORY), "blocks alone in %zu bytes: %s", peak - less,
              error.message);
        CHECK(p->by_rows, "all rows fit into %zu", peak - less);
    }
    p->map = NULL;
}

/* Without a limit a tenth of the machine's memory, or of its control group's, stays free; a model
 * that is not small is not kept whole, a small one is as long as it fits. */
static void test_machine(struct pipeline *p) {
    size_t nine = machine - machine / 10;
    for (int is_large = 0; is_large < 2; is_large++) {
        tessera_error error = {0};
        set_up(p, OFFLOAD_AUTO, 0);
        p->is_large = is_large;
        CHECK(choose(p, ALL_ROLES, &error) == TESSERA_OK, "%s", error.message);
        check_way(p, "all fits", &ways[is_large ? 2 : 0]);
        const struct offload_needs n = p->needs;
        for (int i = is_large ? 2 : 0; i < WAYS; i++)
            for (size_t more = 0; more < 2 && i + more < WAYS; more++) {
                set_up(p, OFFLOAD_AUTO, 0);
                p->is_large = is_large, p->base_memory += nine - peak_of(&n, &ways[i]) + more;
                CHECK(choose(p, ALL_ROLES, &error) == TESSERA_OK, "%s", error.message);
                check_way(p, "nine tenths", &ways[i + (int)more]);
            }
    }
}

/* What does not fit the whole of it in any way is refused; where a user wants weights to stay,
 * mapped, they do not count. */
static void test_machine_refuses(struct pipeline *p) {
    tessera_error error = {0};
    set_up(p, OFFLOAD_AUTO, 0);
    CHECK(choose(p, ALL_ROLES, &error) == TESSERA_OK, "%s", error.message);
    size_t peak = peak_of(&p->needs, &ways[WAYS - 1]);
    for (int asked = OFFLOAD_NONE; asked <= OFFLOAD_AUTO; asked++)
        for (size_t more = 0; more < 2; more++) {
            size_t counted = asked == OFFLOAD_STAGES ? peak_of(&p->needs, &ways[3]) : peak;
            set_up(p, (enum offload)asked, 0);
            p->base_memory += machine - counted + more;
            CHECK(choose(p, ALL_ROLES, &error) == (more > 0 ? TESSERA_ERROR_MEMORY : TESSERA_OK), "offload %d, %zu bytes too many: %s", asked, more,
                  error.message);
            check_way(p, "the last that may be taken", &ways[asked == OFFLOAD_NONE ? 1 : asked == OFFLOAD_STAGES ? 3 : 5]);
            for (int i = 0; i < SLOTS && asked == OFFLOAD_AUTO && more == 0; i++)
                CHECK(offload_budget(p, slot_of(p, i)) >= windows[i], "%s: its largest segment does not fit %zu", names[i],
                      offload_budget(p, slot_of(p, i)));
        }
    CHECK(strstr(error.message, "takes 65537 MiB, which is 1 MiB more than the memory of 65536 MiB (of this machine or its control group)") != NULL, "%s",
          error.message);
    p->stays_whole = true;
    CHECK(choose(p, ALL_ROLES, &error) == TESSERA_OK, "on another device: %s", error.message);
    check_way(p, "it stays whole", &ways[0]);
}

/* What was found for a size counts for the next request of that size, until another one has come in
 * between. */
static void test_again(struct pipeline *p) {
    tessera_error error = {0};
    set_up(p, OFFLOAD_AUTO, 0);
    CHECK(choose(p, ALL_ROLES, &error) == TESSERA_OK, "%s", error.message);
    p->base_memory += machine - machine / 10 - peak_of(&p->needs, &ways[2]) + 1; /* as if other memory were held now */
    CHECK(choose(p, ALL_ROLES, &error) == TESSERA_OK, "%s", error.message);
    check_way(p, "the same size", &ways[2]);
    CHECK(offload_choose(p, &p->defaults, ALL_ROLES, SIDE, SIDE / 2, &error) == TESSERA_OK, "%s", error.message);
    CHECK(choose(p, ALL_ROLES, &error) == TESSERA_OK, "%s", error.message);
    check_way(p, "after another size", &ways[3]);
}

/* What is decided when a model is opened: half of the machine is where it stops to be small. */
static void test_open(struct pipeline *p) {
    static const struct {
        const char *offload;
        size_t max_memory, less; /* than half of the machine */
    } cases[] = {{"auto", 0, 1}, {"auto", 0, 0}, {"none", 0, 0}, {"stages", 5 * GIB, 1}, {NULL, 5 * GIB, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tessera_error error = {0};
        tessera_model_options options = TESSERA_MODEL_OPTIONS;
        options.offload = cases[i].offload, options.max_memory = cases[i].max_memory;
        size_t share = memory_total() / (p->team.mesh != NULL ? (size_t)p->team.mesh->degrees[MESH_DATA] : 1);
        for (int k = 0; k < SLOTS; k++) slot_of(p, k)->bytes = k == 0 ? share / 2 - cases[i].less - 3 : 1;
        CHECK(offload_open(p, &options, &error) == TESSERA_OK, "%s", error.message);
        CHECK(p->is_large == (cases[i].less == 0) && p->memory_limit == cases[i].max_memory && p->machine_memory == share && !p->stays_whole,
              "case %zu: large %d, limit %zu, memory %zu", i, p->is_large, p->memory_limit, p->machine_memory);
    }
}

/* What a component may take, where its memory is counted: the limit less the program, libraries,
 * the stage's needs and pictures. */
static void test_budget(struct pipeline *p) {
    static const struct offload_needs needs = {.text = 10 * MIB,
                                               .denoise = 300 * MIB,
                                               .decode = 500 * MIB,
                                               .denoise_by_rows = 200 * MIB,
                                               .decode_by_rows = 400 * MIB,
                                               .pictures = 7 * MIB};
    static const size_t want[2][SLOTS] = {{10 * MIB, 10 * MIB, 300 * MIB, 500 * MIB}, {10 * MIB, 10 * MIB, 200 * MIB, 400 * MIB}};
    size_t nine = machine - machine / 10, budget;
    p->needs = needs, p->offload = OFFLOAD_BLOCKS;
    for (int i = 0; i < 2 * SLOTS; i++) {
        size_t taken = base + reserved + want[i / SLOTS][i % SLOTS] + needs.pictures;
        p->by_rows = i / SLOTS == 1;
        set_up(p, OFFLOAD_AUTO, 9 * GIB);
        budget = offload_budget(p, slot_of(p, i % SLOTS));
        CHECK(budget == 9 * GIB - taken, "%s: %zu of 9 GiB, not %zu", names[i % SLOTS], budget, 9 * GIB - taken);
        set_up(p, OFFLOAD_AUTO, 0);
        budget = offload_budget(p, slot_of(p, i % SLOTS));
        CHECK(budget == nine - taken, "%s: %zu without a limit, not %zu", names[i % SLOTS], budget, nine - taken);
    }
    set_up(p, OFFLOAD_BLOCKS, GIB);
    CHECK(offload_budget(p, slot_of(p, 0)) == 0, "nothing is left: %zu", offload_budget(p, slot_of(p, 0)));
    char *held = malloc(128 * MIB);
    if (held == NULL) return;
    for (size_t i = 0; i < 128 * MIB; i += 512) ((volatile char *)held)[i] = 1;
    p->base_memory = 0;
    budget = offload_budget(p, slot_of(p, 0));
    CHECK(budget > 0 && budget < GIB - (128 + 10 + 7) * MIB - reserved / 4, "128 MiB are held now: %zu", budget);
    set_up(p, OFFLOAD_BLOCKS, reserved + needs.pictures + needs.decode_by_rows + windows[SLOTS - 1]); /* just enough, by the estimate */
    p->needs.denoise_by_rows = p->base_memory = 0, p->needs.roles = 1 << ROLE_AUTOENCODER;
    budget = offload_budget(p, slot_of(p, SLOTS - 1));
    CHECK(budget == windows[SLOTS - 1], "the last phase of a picture that fits: %zu", budget);
    p->memory_limit--;
    budget = offload_budget(p, slot_of(p, SLOTS - 1));
    CHECK(budget == 0, "the last phase of one that does not: %zu", budget);
    free(held);
    p->offload = OFFLOAD_STAGES;
    CHECK(offload_budget(p, slot_of(p, 0)) == SIZE_MAX, "a stage is loaded whole");
}

/* Of components as they are: all segments as they are stored or as they are computed with, and the
 * largest segment on its way. */
static void test_weights(struct pipeline *p) {
    tessera_error error = {0};
    set_up(p, OFFLOAD_BLOCKS, 100 * GIB);
    for (int i = 0; i < SLOTS; i++) slot_of(p, i)->whole = slot_of(p, i)->window = 0;
    CHECK(choose(p, ALL_ROLES, &error) == TESSERA_OK, "%s", error.message);
    for (int i = 0; i < SLOTS; i++) {
        struct pipeline_slot *slot = slot_of(p, i);
        const struct component *c = &slot->component;
        size_t held = 0, stored = 0;
        CHECK(slot->is_open && !slot->is_loaded, "%s: open %d, loaded %d", names[i], slot->is_open, slot->is_loaded);
        for (int segment = 0; segment < c->num_blocks + 2; segment++)
            if (component_has_segment(c, segment - 1))
                held += max(c->segments[segment].stored, c->segments[segment].bytes), stored += c->segments[segment].stored;
        size_t least = component_stream_least(c);
        CHECK(held != stored, "%s: stored as it is computed with", names[i]);
        CHECK(slot->window == least && slot->whole == held, "%s: %zu and %zu", names[i], slot->window, slot->whole);
        p->memory_limit = 0, p->offload = OFFLOAD_BLOCKS; /* asked for without a limit: a segment at work and the next one */
        CHECK(offload_budget(p, slot) == 2 * least, "%s: a budget of %zu, not twice %zu", names[i], offload_budget(p, slot), least);
        pipeline_close_slot(p, slot);
    }
}

static void test_run(struct pipeline *p) {
    struct run run = {0};
    p->by_rows = true;
    offload_set_run(p, &run);
    CHECK(run.chunk_bytes == 16 * MIB && run.strip_bytes == 8 * MIB, "by rows: %zu and %zu", run.chunk_bytes, run.strip_bytes);
    p->by_rows = false;
    offload_set_run(p, &run);
    CHECK(run.chunk_bytes == 0 && run.strip_bytes == 64 * MIB, "all rows: %zu and %zu", run.chunk_bytes, run.strip_bytes);
}

/* All ranks of the world, a picture for each. */
static tessera_status open_ranks(struct comm **world, struct mesh **mesh, tessera_error *error) {
    int degrees[MESH_AXES];
    TRY(comm_world_open(NULL, world, error));
    for (int axis = 0; axis < MESH_AXES; axis++) degrees[axis] = axis == MESH_DATA ? comm_size(*world) : 1;
    return mesh_open(*world, degrees, mesh, error);
}

int main(int argc, char **argv) {
    static void (*const tests[])(struct pipeline *) = {test_limits, test_refused, test_roles,   test_pictures, test_map, test_machine, test_machine_refuses,
                                                       test_again,  test_open,    test_budget, test_weights,  test_run};
    tessera_error error = {0};
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    struct pipeline *p = NULL;
    struct comm *world = NULL;
    struct mesh *mesh = NULL;
    reserved = cpu_library_bytes();
    if (argc > 1 && strcmp(argv[1], "ranks") == 0) CHECK(open_ranks(&world, &mesh, &error) == TESSERA_OK, "%s", error.message);
    options.dtype = TESSERA_BF16, options.threads = 1;
    CHECK(pipeline_open(model, &options, &p, &error) == TESSERA_OK, "%s", error.message);
    if (p != NULL) p->team.mesh = mesh;
    for (size_t i = 0; p != NULL && i < sizeof tests / sizeof *tests; i++) tests[i](p);
    if (p != NULL) p->team.mesh = NULL;
    pipeline_free(p);
    mesh_free(mesh);
    if (world != NULL) comm_finish(world, &error);
    comm_free(world);
    return CHECK_REPORT();
}
