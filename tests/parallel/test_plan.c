/* Plans against the numbers of docs/parallel.md, against weights as ranks load them, and against
 * what must hold of any cost model: more speed, bandwidth or memory never makes a plan worse. Bytes
 * of real runs: test_plan_bytes. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "models/registry.h"
#include "parallel/strategy.h"
#include "pipelines/plan_measure.h"
#include "pipelines/plan_model.h"

static const char embedded[] = "models/emoji";

static struct plan_model open_model(const char *name, tessera_dtype dtype, int pictures) {
    struct plan_model model = {0};
    tessera_model_options options = {.struct_size = sizeof(tessera_model_options), .dtype = dtype};
    struct plan_request request = {.pictures = pictures, .guidance_scale = -1, .max_sequence_length = -1, .has_negative_prompt = true};
    tessera_error error = {0};
    tessera_status status = plan_model_open(name, &options, &request, &model, &error);
    CHECK(status == TESSERA_OK, "%s: %s", name, error.message);
    return model;
}

static struct plan_machine machine_of(int ranks, int per_host) {
    return (struct plan_machine){
        .ranks = ranks, .per_host = per_host, .between = {1e-3, 125e6}, .inside = {20e-6, 2e9}, .operations = 1e11};
}

static struct plan_mesh mesh_of(enum mesh_axis axis, int degree) {
    struct plan_mesh mesh = {.degrees = {1, 1, 1, 1, 1, 1, 1}, .patches = 1};
    mesh.degrees[axis] = degree;
    return mesh;
}

/* Speeds are measured on the layers that have most of the work: of a UNet, those of the level where
 * most of its transformers are. */
static void test_busiest_layer(void) {
    const struct {
        const char *model;
        struct plan_layer layer;
        int64_t tokens; /* that are measured, of 2048 positions */
    } wanted[] = {{"tests/cases/pipeline_sdxl/model", {32, 4, 1}, 512}, {"tests/cases/pipeline_sd3/model", {32, 4, 0}, 1024}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        struct plan_model model = open_model(wanted[i].model, TESSERA_F32, 1);
        struct plan_layer layer = plan_busiest_layer(&model);
        CHECK(layer.width == wanted[i].layer.width && layer.heads == wanted[i].layer.heads && layer.level == wanted[i].layer.level,
              "%s: %lld channels, %lld heads, level %d", wanted[i].model, (long long)layer.width, (long long)layer.heads, layer.level);
        CHECK(plan_measured_tokens(layer, 2048) == wanted[i].tokens, "%s: %lld tokens", wanted[i].model,
              (long long)plan_measured_tokens(layer, 2048));
        plan_model_free(&model);
    }
}

/* The options that a plan names give its mesh: --parallelism patch alone would split guidance first. */
static void test_options(void) {
    struct plan_mesh patch = mesh_of(MESH_PATCH, 2), both = patch, pipeline = mesh_of(MESH_PIPEFUSION, 4), split = patch, pcpp = patch;
    pcpp.patch_strategy = strategy_place(&pcpp_strategy);
    split.split_text = true;
    both.degrees[MESH_CFG] = 2;
    pipeline.patches = 8;
    const struct {
        const struct plan_mesh *mesh;
        const char *options;
    } wanted[] = {{&patch, "--parallelism patch --no-split-batch"},
                  {&split, "--parallelism patch --no-split-batch --split-text"},
                  {&both, "--use-cfg-parallel --parallelism patch"},
                  {&pcpp, "--parallelism pcpp --no-split-batch"},
                  {&pipeline, "--pipefusion-parallel-degree 4 --num-pipeline-patch 8"}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        char text[256];
        plan_mesh_options(wanted[i].mesh, text, sizeof text);
        CHECK(strcmp(text, wanted[i].options) == 0, "\"%s\" instead of \"%s\"", text, wanted[i].options);
    }
}

/* The embedded model at 128x128, float32: docs/parallel.md, "What moves". */
static void test_documented_bytes(void) {
    struct plan_model model = open_model(embedded, TESSERA_F32, 1);
    const struct {
        enum mesh_axis axis;
        uint64_t sent;
    } documented[] = {{MESH_RING, 1081344 + 8192}, {MESH_ULYSSES, 1062912 + 8192}, {MESH_TENSOR, 2088960}, {MESH_CFG, 8192}};
    for (size_t i = 0; i < sizeof documented / sizeof *documented; i++) {
        struct plan_mesh mesh = mesh_of(documented[i].axis, 2);
        for (int rank = 0; rank < 2; rank++) {
            struct plan_bytes bytes = plan_step_bytes(&model, &mesh, rank);
            CHECK(bytes.sum == documented[i].sent && bytes.axis[documented[i].axis] == bytes.sum, "%s: %llu bytes",
                  mesh_axis_name(documented[i].axis), (unsigned long long)bytes.sum);
        }
    }
    struct plan_mesh data = mesh_of(MESH_DATA, 2);
    CHECK(plan_step_bytes(&model, &data, 1).sum == 0, "data parallel sends nothing");
    plan_model_free(&model);
}

/* Weights of the last of two tensor ranks, as it loads them. */
static void test_weights(const char *name, const char *denoiser) {
    struct plan_model model = open_model(name, TESSERA_F32, 1);
    struct plan_machine machine = machine_of(1, 1);
    struct plan_mesh mesh = mesh_of(MESH_DATA, 1);
    char folder[256];
    snprintf(folder, sizeof folder, "%s/%s", name, denoiser);
    for (int tensor = 1; tensor <= 2; tensor++) {
        struct component part = {0};
        tessera_error error = {0};
        struct component_source source = {.folder = folder, .scope = {.index = tensor - 1, .count = tensor}};
        CHECK(component_open(&source, DTYPE_F32, &part, &error) == TESSERA_OK, "%s", error.message);
        mesh.degrees[MESH_TENSOR] = machine.ranks = tensor;
        double predicted = plan_evaluate(&model, &machine, &mesh).memory.weights, loaded = (double)part.weight_bytes;
        CHECK(fabs(predicted - loaded) <= (tensor == 1 ? 1.0 : 0.03 * loaded),
              "%s, tensor %d: %.0f bytes of weights are predicted, %.0f loaded", name, tensor, predicted, loaded);
        component_close(&part);
    }
    plan_model_free(&model);
}

/* Stages of a pipeline share the weights, and each has a block. */
static void test_stages(void) {
    struct plan_model model = open_model(embedded, TESSERA_F32, 1);
    struct plan_machine machine = machine_of(4, 1);
    struct plan_mesh one = mesh_of(MESH_DATA, 1), four = mesh_of(MESH_PIPEFUSION, 4);
    int first[5];
    plan_stages(&model, 4, first);
    for (int s = 0; s < 4; s++) CHECK(first[s + 1] > first[s], "stage %d is empty", s);
    CHECK(first[0] == 0 && first[4] == model.num_blocks, "stages from %d to %d", first[0], first[4]);
    double whole = plan_evaluate(&model, &machine, &one).memory.weights, part = plan_evaluate(&model, &machine, &four).memory.weights;
    CHECK(part < 0.5 * whole && part > 0.2 * whole, "a stage of four has %.2f of the weights", part / whole);
    plan_model_free(&model);
}

/* Of the parts of the patch axis, those that attention sees. */
static int patches_seen(const struct plan_mesh *mesh) {
    return plan_mesh_patch_strategy(mesh) != NULL ? plan_mesh_patch_strategy(mesh)->patches_seen(mesh->degrees[MESH_PATCH]) : 1;
}

/* The first plan is as fast as any, and of those as fast as it none is exact where it is not, or
 * sends less. `fastest` is the second's. */
static void check_tie(const struct plan_model *model, const struct plan *first, const struct plan *other, double fastest) {
    fastest = fmin(fastest, first->picture_seconds);
    CHECK(first->picture_seconds <= PLAN_TIE * fastest, "the first takes %g s, another %g s", first->picture_seconds, fastest);
    if (other->picture_seconds > PLAN_TIE * fastest) return;
    bool exact = plan_mesh_is_exact(&first->mesh), other_exact = plan_mesh_is_exact(&other->mesh);
    double bytes = (double)plan_step_bytes(model, &first->mesh, 0).sum, other_bytes = (double)plan_step_bytes(model, &other->mesh, 0).sum;
    CHECK(exact >= other_exact, "a mesh that is not exact goes before an exact one as fast");
    bool whole = patches_seen(&first->mesh) == first->mesh.degrees[MESH_PATCH],
         other_whole = patches_seen(&other->mesh) == other->mesh.degrees[MESH_PATCH];
    CHECK(exact != other_exact || whole >= other_whole, "a mesh that sees neighbours only goes before one as fast that sees all");
    CHECK(exact != other_exact || whole != other_whole || bytes <= other_bytes, "a mesh that sends %g bytes goes before one as fast that sends %g", bytes,
          other_bytes);
}

/* All meshes of many ranks: possible, different, in order. */
static void test_ranking(const char *name, int ranks, bool allow_displaced) {
    struct plan_model model = open_model(name, TESSERA_BF16, ranks);
    struct plan_machine machine = machine_of(ranks, 4);
    struct plan *plans = NULL;
    tessera_error error = {0};
    int count = 0, inexact = 0, partial = 0;
    CHECK(plan_rank(&model, &machine, allow_displaced, &plans, &count, &error) == TESSERA_OK, "%s", error.message);
    for (int i = 0; i < count; i++) {
        CHECK(plan_mesh_ranks(&plans[i].mesh) == ranks, "%d ranks", plan_mesh_ranks(&plans[i].mesh));
        CHECK(plan_check(&model, &plans[i].mesh, &error) == TESSERA_OK, "%s", error.message);
        CHECK(i < 2 || plans[i].picture_seconds >= plans[i - 1].picture_seconds, "plan %d is out of order", i);
        check_tie(&model, &plans[0], &plans[i], plans[count > 1].picture_seconds);
        CHECK(i == 0 || memcmp(&plans[i].mesh, &plans[i - 1].mesh, sizeof plans->mesh) != 0, "plan %d comes twice", i);
        CHECK(plans[i].step_seconds > 0 && isfinite(plans[i].picture_seconds), "plan %d takes %g s", i, plans[i].picture_seconds);
        inexact += !plan_mesh_is_exact(&plans[i].mesh);
        partial += patches_seen(&plans[i].mesh) < plans[i].mesh.degrees[MESH_PATCH];
    }
    CHECK((inexact > 0) == (allow_displaced && ranks > 1), "%d plans that are not exact", inexact);
    CHECK((partial > 0) == (allow_displaced && ranks > 3), "%d plans that see neighbours only", partial);
    CHECK(ranks == 1 || count > 5, "%d plans", count);
    free(plans);
    plan_model_free(&model);
}

/* Over links that take no time, splitting guidance and rows are as fast: guidance goes first, which
 * sends next to nothing. */
static void test_tie(void) {
    struct plan_model model = open_model(embedded, TESSERA_BF16, 1);
    struct plan_machine machine = machine_of(2, 2);
    struct plan *plans = NULL;
    tessera_error error = {0};
    int count = 0;
    machine.inside.latency = 1e-9, machine.inside.bandwidth = 1e15;
    machine.operations = 1e9; /* so that the element-wise work of a split does not tell them apart */
    CHECK(plan_rank(&model, &machine, true, &plans, &count, &error) == TESSERA_OK, "%s", error.message);
    CHECK(count > 1 && plans[1].picture_seconds < PLAN_TIE * plans[0].picture_seconds, "nothing is as fast as the first");
    CHECK(count > 0 && plans[0].mesh.degrees[MESH_CFG] == 2, "guidance is not split");
    for (int i = 1; i < count; i++) check_tie(&model, &plans[0], &plans[i], plans[1].picture_seconds);
    free(plans);
    plan_model_free(&model);
}

/* What is better for every plan makes none slower. */
static void test_monotonous(void) {
    struct plan_model model = open_model(embedded, TESSERA_BF16, 2);
    struct plan_machine worse = machine_of(8, 2), better[3] = {worse, worse, worse};
    struct plan *plans = NULL;
    tessera_error error = {0};
    int count = 0;
    better[0].operations *= 2;
    better[1].between.bandwidth *= 2;
    better[2].between.latency /= 2;
    CHECK(plan_rank(&model, &worse, true, &plans, &count, &error) == TESSERA_OK, "%s", error.message);
    for (int i = 0; i < count; i++)
        for (int k = 0; k < 3; k++) {
            double seconds = plan_evaluate(&model, &better[k], &plans[i].mesh).picture_seconds;
            CHECK(seconds <= plans[i].picture_seconds * (1 + 1e-9), "plan %d, improvement %d: %g s instead of %g s", i, k, seconds,
                  plans[i].picture_seconds);
        }
    free(plans);
    plan_model_free(&model);
}

/* Talkative strategies stay inside hosts: with two hosts of two ranks, tensor across them costs
 * more than inside. */
static void test_hosts(void) {
    struct plan_model model = open_model(embedded, TESSERA_BF16, 1);
    struct plan_machine apart = machine_of(2, 1), together = machine_of(2, 2);
    struct plan_mesh mesh = mesh_of(MESH_TENSOR, 2);
    CHECK(plan_evaluate(&model, &apart, &mesh).step_seconds > 2 * plan_evaluate(&model, &together, &mesh).step_seconds,
          "a link of 1 ms costs no more than memory");
    plan_model_free(&model);
}

/* Each exchange waits for the link's latency once, and ranks of one host share its link. Nothing
 * hides behind computing that takes no time. */
static void test_links(void) {
    struct plan_model model = open_model(embedded, TESSERA_BF16, 1);
    struct plan_machine apart = machine_of(4, 1), paired = machine_of(4, 2);
    struct plan_mesh all = mesh_of(MESH_ULYSSES, 4), next = mesh_of(MESH_RING, 4), both = mesh_of(MESH_ULYSSES, 2);
    both.degrees[MESH_RING] = 2;
    apart.operations = paired.operations = 1e18;
    apart.inside = paired.inside = apart.between;
    struct plan by_all = plan_evaluate(&model, &apart, &all), by_next = plan_evaluate(&model, &apart, &next);
    CHECK(by_all.latency_seconds > 1e-3 && by_next.latency_seconds > 1e-3, "%g s and %g s of latency", by_all.latency_seconds,
          by_next.latency_seconds);
    double more = plan_evaluate(&model, &paired, &all).bandwidth_seconds / by_all.bandwidth_seconds;
    CHECK(fabs(more - 4.0 / 3) < 0.01, "2 ranks on each of 2 links, 2 of 3 others away: %g times as long as on 4 links", more);
    double crossing = plan_evaluate(&model, &paired, &both).bandwidth_seconds / plan_evaluate(&model, &apart, &both).bandwidth_seconds;
    CHECK(crossing > 1.2, "two rings over one link: %g times as long as over two", crossing);
    struct plan_machine quick = apart;
    quick.between.latency = 0;
    CHECK(plan_evaluate(&model, &quick, &all).latency_seconds == 0 && plan_evaluate(&model, &quick, &next).latency_seconds == 0,
          "latency where there is none");
    plan_model_free(&model);
}

/* Seconds and bytes worked out by hand, of 64 tokens and two predictions: docs/planner.md's
 * formulas with every constant. */
static void test_arithmetic(void) {
    struct meeting meetings[] = {{.kind = MEETING_ATTENTION, .count = 1, .of = MEETING_PICTURE, .text_asks = true, .units = 4, .width = 16},
                                 {.kind = MEETING_SUM, .count = 2, .of = MEETING_PICTURE, .units = 1, .width = 64}};
    struct plan_block block = {.picture_operations = 1e6, .pair_operations = 1e3, .weight_bytes = 4e6, .cut_bytes = 2e6, .work = 1,
                               .num_meetings = 2, .meetings = meetings};
    struct plan_model model = {.rows = 16, .columns = 16, .channels = 4, .out_channels = 4, .patch_size = 2, .heads = 4, .max_tensor = 4,
                               .width = 64, .predictions = 2, .element_bytes = 2, .steps = 10, .pictures = 1, .num_blocks = 1,
                               .blocks = &block, .first_bytes = 2e5, .last_bytes = 1e5, .shared_bytes = 1e6, .shared_cut_bytes = 4e5,
                               .end_operations = 1e5, .text_operations = 3e9, .longest_text_operations = 2e9, .decode_operations = 5e9};
    struct plan_machine machine = {.per_host = 1, .between = {1e-3, 1e8}, .inside = {1e-5, 1e9}, .operations = 1e10,
                                   .attention_share = 0.5, .elements = 1e9, .streaming = 1e10};
    const struct {
        enum mesh_axis axis;
        int ranks;
        double compute, step, picture, memory;
    } wanted[] = {
        /* attention, products, elements, weights, ends: 1.6384 + 12.8 + 0.196608 + 0.4 + 1.28 ms */
        {MESH_DATA, 1, 0.016315008, 0.016315008, 0.96315008, 5300000 + 294912},
        /* 0.8192 + 6.4 + 0.196608 + 0.3 + 1.28 ms, and 4 messages of 8192 bytes */
        {MESH_TENSOR, 2, 0.008995808, 0.013323488, 0.83323488, 4100000 + 253952},
        /* 0.8192 + 6.4 + 0.098304 + 0.4 + 0.64 ms, and one of 4096 bytes */
        {MESH_CFG, 2, 0.008357504, 0.009398464, 0.79398464, 5300000 + 163840},
        /* as much, one of 16384 bytes behind 0.4096 ms of attention, and one of 2048 */
        {MESH_RING, 2, 0.008357504, 0.010132224, 0.80132224, 5300000 + 163840},
        /* as much, and 12288, 4096 and 2048 bytes */
        {MESH_ULYSSES, 2, 0.008357504, 0.011541824, 0.81541824, 5300000 + 163840},
        /* as much as the ring while it warms up, then 2048 bytes alone; keys and values twice */
        {MESH_PATCH, 2, 0.008357504, 0.009377984, 0.79604256, 5300000 + 163840 + 65536},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        struct plan_mesh mesh = mesh_of(wanted[i].axis, wanted[i].ranks);
        mesh.warmup_steps = 3;
        machine.ranks = wanted[i].ranks;
        struct plan plan = plan_evaluate(&model, &machine, &mesh);
        const char *name = mesh_axis_name(wanted[i].axis);
        CHECK(fabs(plan.compute_seconds - wanted[i].compute) < 1e-12, "%s: %.12g s of computing", name, plan.compute_seconds);
        CHECK(fabs(plan.step_seconds - wanted[i].step) < 1e-12, "%s: %.12g s a step", name, plan.step_seconds);
        CHECK(fabs(plan.picture_seconds - wanted[i].picture) < 1e-12, "%s: %.12g s a picture", name, plan.picture_seconds);
        CHECK(fabs(plan.memory.most - wanted[i].memory) < 1e-3, "%s: %.12g bytes", name, plan.memory.most);
    }
}

/* Halos of 2048 bytes, statistics of 132 and the prediction's 2048, worked out by hand: all are
 * waited for, or, where patches are displaced, the last alone. */
static void test_rows(void) {
    struct meeting meetings[] = {{.kind = MEETING_HALO, .count = 3, .of = MEETING_PICTURE, .level = 1, .units = 64, .width = 1},
                                 {.kind = MEETING_NORM, .count = 2, .of = MEETING_PICTURE, .level = 1, .units = 8, .width = 1}};
    struct plan_block block = {.picture_operations = 1e6, .work = 1, .num_meetings = 2, .meetings = meetings};
    struct plan_model model = {.rows = 16, .columns = 16, .channels = 4, .out_channels = 4, .patch_size = 2, .heads = 4, .width = 64,
                               .predictions = 2, .element_bytes = 2, .steps = 10, .pictures = 1, .num_blocks = 1, .blocks = &block};
    struct plan_machine machine = {.ranks = 2, .per_host = 1, .between = {1e-3, 1e8}, .inside = {1e-5, 1e9}, .operations = 1e10};
    const double once = 1.02048e-3, all = 3 * 1.02048e-3 + 2 * 1.00132e-3 + once;
    static const enum mesh_axis exact[] = {MESH_RING, MESH_ULYSSES};
    for (int i = 0; i < 2; i++) {
        struct plan_mesh mesh = mesh_of(exact[i], 2);
        struct plan plan = plan_evaluate(&model, &machine, &mesh);
        CHECK(fabs(plan.step_seconds - plan.compute_seconds - all) < 1e-12, "%s: %.12g s of waiting", mesh_axis_name(exact[i]),
              plan.step_seconds - plan.compute_seconds);
    }
    struct plan_mesh mesh = mesh_of(MESH_PATCH, 2);
    struct plan plan = plan_evaluate(&model, &machine, &mesh);
    CHECK(fabs(plan.step_seconds - plan.compute_seconds - once) < 1e-12, "patch: %.12g s of waiting", plan.step_seconds - plan.compute_seconds);
    CHECK(fabs(plan.warmup_step_seconds - plan.compute_seconds - all) < 1e-12, "patch, warming up: %.12g s of waiting",
          plan.warmup_step_seconds - plan.compute_seconds);
}

/* Several pictures keep stages at work, and no more of them than there are stages: two of a guided
 * model over four. */
static void test_pictures_under_way(void) {
    static const double shares[] = {1, 1, 2, 2, 2};
    struct plan_mesh mesh = mesh_of(MESH_PIPEFUSION, 4);
    struct plan_machine machine = machine_of(4, 1);
    machine.between.latency = 10; /* so that a picture's way round takes longer than what a stage does */
    double one = 0;
    for (int pictures = 1; pictures <= 4; pictures++) {
        struct plan_model model = open_model(embedded, TESSERA_BF16, pictures);
        double step = plan_evaluate(&model, &machine, &mesh).step_seconds;
        if (pictures == 1) one = step;
        CHECK(fabs(step * shares[pictures] - one) < 1e-9 * one, "%d pictures: %g s a step, one: %g s", pictures, step, one);
        plan_model_free(&model);
    }
}

/* The slowest rank holds equal parts up. */
static void test_unequal(void) {
    struct plan_model model = open_model(embedded, TESSERA_BF16, 1);
    struct plan_machine machine = machine_of(2, 2);
    struct plan_mesh mesh = mesh_of(MESH_RING, 2);
    double alike = plan_evaluate(&model, &machine, &mesh).compute_seconds;
    machine.speeds = (const double[]){1.0, 0.5};
    double unlike = plan_evaluate(&model, &machine, &mesh).compute_seconds;
    CHECK(fabs(unlike - 2 * alike) < 1e-9, "%g s and %g s", alike, unlike);
    machine.proportional = true; /* together three quarters of two fast ones */
    double dealt = plan_evaluate(&model, &machine, &mesh).compute_seconds;
    CHECK(fabs(dealt - alike / 0.75) < 1e-9, "%g s and %g s", alike, dealt);
    mesh = mesh_of(MESH_PIPEFUSION, 2);
    machine.speeds = (const double[]){1.0, 0.5, 0.1, 0.1}; /* of two ranks: the others' are never looked at */
    double staged = plan_evaluate(&model, &machine, &mesh).compute_seconds;
    struct plan_machine even = machine;
    even.proportional = false;
    even.speeds = (const double[]){0.75, 0.75};
    CHECK(fabs(staged - plan_evaluate(&model, &even, &mesh).compute_seconds) < 1e-9, "%g s in stages of unequal ranks", staged);
    mesh = mesh_of(MESH_CFG, 2); /* a prediction each: nothing to deal out */
    CHECK(plan_evaluate(&model, &machine, &mesh).compute_seconds >
              1.9 * plan_evaluate(&model,
                                  &(struct plan_machine){
                                      .ranks = 2, .per_host = 2, .between = {1e-3, 1e8}, .inside = {1e-5, 1e9}, .operations = 1e11},
                                  &mesh)
                        .compute_seconds,
          "guidance cannot be cut unequally");
    plan_model_free(&model);
}

static void test_choice(void) {
    struct plan_model model = open_model(embedded, TESSERA_BF16, 1);
    struct plan_machine machine = machine_of(4, 4);
    struct plan plan;
    char reason[PLAN_REASON_LENGTH];
    tessera_error error = {0};
    CHECK(plan_choose(&model, &machine, false, &plan, reason, &error) == TESSERA_OK, "%s", error.message);
    int lines = 1;
    for (const char *c = reason; *c != 0; c++) lines += *c == '\n';
    CHECK(lines == 3 && plan_mesh_is_exact(&plan.mesh), "%d lines: %s", lines, reason);
    machine.memory = 1 << 20; /* a megabyte: nothing fits */
    CHECK(plan_choose(&model, &machine, true, &plan, reason, &error) == TESSERA_ERROR_MEMORY && plan.over > 0 &&
              plan.limit == PLAN_BY_MEMORY && strstr(error.message, "GiB more") != NULL,
          "%s", error.message);
    machine.memory = plan.memory.most + 1; /* exactly what the smallest plan needs */
    CHECK(plan_choose(&model, &machine, true, &plan, reason, &error) == TESSERA_OK && plan.over == 0, "%s", error.message);
    plan_model_free(&model);
}

/* Neighbours alone: fewer bytes and less attention than displaced patches, after warm-up; nothing
 * else differs. */
static void test_neighbours(void) {
    struct plan_model model = open_model(embedded, TESSERA_BF16, 1);
    struct plan_machine machine = machine_of(4, 1);
    struct plan_mesh all = mesh_of(MESH_PATCH, 4), neighbours = all, naive = all;
    tessera_error error = {0};
    neighbours.patch_strategy = strategy_place(&pcpp_strategy), naive.patch_strategy = strategy_place(&naive_patches_strategy);
    struct plan a = plan_evaluate(&model, &machine, &all), b = plan_evaluate(&model, &machine, &neighbours);
    CHECK(b.compute_seconds < a.compute_seconds && b.step_seconds < a.step_seconds, "a step of neighbours takes %g s, of all %g s",
          b.step_seconds, a.step_seconds);
    CHECK(b.warmup_step_seconds == a.warmup_step_seconds, "warm-up steps differ");
    CHECK(plan_check(&model, &naive, &error) == TESSERA_ERROR_ARGUMENT && strstr(error.message, "naive_patch") != NULL, "%s", error.message);
    plan_model_free(&model);
}

static void test_refusals(void) {
    struct plan_model model = open_model("tests/cases/pipeline_sd15/model", TESSERA_BF16, 1);
    struct plan_mesh pipeline = mesh_of(MESH_PIPEFUSION, 2), rows = mesh_of(MESH_RING, 64), cfg = mesh_of(MESH_CFG, 3);
    tessera_error error = {0};
    CHECK(plan_check(&model, &pipeline, &error) == TESSERA_OK, "a UNet goes through a pipeline as a whole: %s", error.message);
    pipeline.patches = 2;
    CHECK(plan_check(&model, &pipeline, &error) == TESSERA_ERROR_ARGUMENT, "a UNet does not go through a pipeline in parts");
    CHECK(plan_check(&model, &rows, &error) == TESSERA_ERROR_ARGUMENT, "16 rows cannot be cut over 64 ranks");
    CHECK(plan_check(&model, &cfg, &error) == TESSERA_ERROR_ARGUMENT, "guidance has two predictions");
    plan_model_free(&model);
}

/* Hosts that are emulated on one machine share its processors: a stage has them while another is
 * idle. */
static void test_crowd(void) {
    struct plan_model model = open_model(embedded, TESSERA_BF16, 1);
    struct plan_machine apart = machine_of(4, 1), together;
    struct plan_mesh mesh = mesh_of(MESH_PIPEFUSION, 4);
    apart.crowding = 2;
    together = apart;
    together.crowd = 4;
    double whole = plan_evaluate(&model, &apart, &mesh).compute_seconds, shared = plan_evaluate(&model, &together, &mesh).compute_seconds;
    CHECK(shared < 0.9 * whole, "%g s, and %g s where stages share processors", whole, shared);
    plan_model_free(&model);
}

int main(void) {
    test_busiest_layer();
    test_options();
    test_documented_bytes();
    test_weights(embedded, "transformer");
    test_weights("tests/cases/pipeline_flux/model", "transformer");
    test_weights("tests/cases/pipeline_sdxl/model", "unet");
    test_stages();
    test_ranking(embedded, 1, true);
    test_ranking(embedded, 24, false);
    test_ranking(embedded, 1024, true);
    test_ranking("tests/cases/pipeline_sdxl/model", 36, true);
    test_monotonous();
    test_tie();
    test_hosts();
    test_arithmetic();
    test_rows();
    test_pictures_under_way();
    test_links();
    test_crowd();
    test_neighbours();
    test_unequal();
    test_choice();
    test_refusals();
    return CHECK_REPORT();
}
