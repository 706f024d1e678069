/* Stages of blocks: they are as equal as they can be, given numbers of blocks are taken or refused,
 * and skips get to the blocks that read them: a model's stack of skips, stage by stage, against the
 * stack of one rank. Models are described by their configs, at the published models' numbers of
 * blocks. */
#include "pipelines/stages.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "models/registry.h"
#include "parallel/balance.h"

enum { MAX_STAGES = 9, MAX_BLOCKS = 128, SIDE = 128, TEXT = 256 };

/* ---- models ---- */

/* A component by its config alone; `config` NULL: the folder's. */
static struct component described(const char *folder, const char *config) {
    struct component_source source = {.folder = folder};
    struct component component = {0};
    tessera_error error = {0};
    if (config != NULL) CHECK(json_parse("config.json", config, strlen(config), &source.config, &error) == TESSERA_OK, "%s", error.message);
    CHECK(component_describe(&source, DTYPE_F32, &component, &error) == TESSERA_OK, "%s: %s", folder, error.message);
    return component;
}

static struct denoiser_block_info info_of(const struct denoiser *d, int block) {
    struct denoiser_block_info info;
    d->class->describe(d, block, &info);
    return info;
}

static struct stages opened(const struct denoiser *d, int count, int me, const int *given, const double *speeds) {
    struct stages stages;
    tessera_error error = {0};
    CHECK(stages_open(d, count, me, given, speeds, &stages, &error) == TESSERA_OK, "%s", error.message);
    return stages;
}

/* ---- balance ---- */

static const double equal[MAX_STAGES] = {1, 1, 1, 1, 1, 1, 1, 1, 1}, unequal[MAX_STAGES] = {1, 3, 2, 0.5, 1, 4, 1, 2, 1};

/* Operations of a block for a picture of the model's own size. */
static double work_of(const struct denoiser *d, int block) {
    struct denoiser_block_info info = info_of(d, block);
    double side = (double)((d->sample_size > 0 ? d->sample_size : SIDE) / d->patch_size), picture = side * side;
    double tokens = d->text_stream ? picture + TEXT : picture;
    return picture * info.operations_per_picture_token + TEXT * info.operations_per_text_token +
           tokens * tokens * info.operations_per_token_pair;
}

/* The smallest possible time of the slowest of `count` stages: best[s][b], the first b blocks in s
 * stages. */
static double smallest_bound(const double *work, int blocks, const double *speeds, int count) {
    double best[MAX_STAGES + 1][MAX_BLOCKS + 1];
    for (int s = 0; s <= count; s++)
        for (int b = 0; b <= blocks; b++) {
            double sum = 0;
            best[s][b] = s == 0 && b == 0 ? 0 : INFINITY;
            for (int from = b - 1; s > 0 && from >= 0; from--) {
                sum += work[from];
                best[s][b] = fmin(best[s][b], fmax(best[s - 1][from], sum / speeds[s - 1]));
            }
        }
    return best[count][blocks];
}

static void check_balance(const struct denoiser *d, int count, const double *speeds) {
    double work[MAX_BLOCKS], most = 0;
    struct stages stages = opened(d, count, 0, NULL, speeds == equal ? NULL : speeds);
    for (int i = 0; i < d->num_blocks; i++) work[i] = work_of(d, i);
    CHECK(stages.first[0] == 0 && stages.first[count] == d->num_blocks, "%s, %d stages: blocks are left out", d->class->name, count);
    for (int s = 0; s < count; s++) {
        double sum = 0;
        for (int i = stages.first[s]; i < stages.first[s + 1]; i++) sum += work[i];
        CHECK(stages.first[s] < stages.first[s + 1], "%s, %d stages: stage %d is empty", d->class->name, count, s);
        most = fmax(most, sum / speeds[s]);
    }
    double bound = smallest_bound(work, d->num_blocks, speeds, count);
    CHECK(most <= bound * (1 + 1e-9), "%s, %d stages: the largest has %.4g operations, %.4g is possible", d->class->name, count, most,
          bound);
    stages_free(&stages);
}

/* ---- skips ---- */

/* A stack of skips, each known by the block that made it and its place among that block's. */
struct stack {
    int height, skips[DENOISER_MAX_SKIPS];
};

static void push_all(const struct denoiser *d, int block, struct stack *stack) {
    for (int k = 0; k < info_of(d, block).pushes && stack->height < DENOISER_MAX_SKIPS; k++)
        stack->skips[stack->height++] = block * DENOISER_MAX_SKIPS + k;
}

/* What each block pops, in the order of all pops, where one rank has all blocks. */
static int pops_of_one_rank(const struct denoiser *d, int *popped) {
    struct stack stack = {0};
    int count = 0;
    for (int i = 0; i < d->num_blocks; i++) {
        for (int k = 0; k < info_of(d, i).pops && stack.height > 0; k++) popped[count++] = stack.skips[--stack.height];
        push_all(d, i, &stack);
    }
    return count;
}

/* The skips that stage `s` sends to stage `to`, bottom first. */
static int sent_to(const struct stages *s, const struct stack *left, int to, int *out) {
    int count = 0;
    for (int i = 0; i < s->num_leaves && i < left->height; i++)
        if (s->goes[i] == to) out[count++] = left->skips[i];
    return count;
}

/* Every stage's blocks over what earlier stages send it, by their views. */
static void check_views(const struct denoiser *d, int count, const struct stages *plans) {
    struct stack left[MAX_BLOCKS] = {0};
    int want[MAX_BLOCKS * 2], pops = pops_of_one_rank(d, want), at = 0;
    for (int s = 0; s < count; s++) {
        for (int from = 0; from < s; from++) {
            int sent = sent_to(&plans[from], &left[from], s, left[s].skips + left[s].height);
            CHECK(sent == plans[s].comes[from], "%s, %d stages: stage %d sends %d skips, stage %d takes %d", d->class->name, count, from,
                  sent, s, plans[s].comes[from]);
            left[s].height += sent;
        }
        struct span blocks = stages_blocks(&plans[s]);
        for (int64_t i = blocks.first; i < blocks.first + blocks.count; i++) {
            for (int k = 0; k < info_of(d, (int)i).pops && at < pops; k++, at++) {
                int got = left[s].height > 0 ? left[s].skips[--left[s].height] : -1;
                CHECK(got == want[at], "%s, %d stages: block %d reads the skip %d, not %d", d->class->name, count, (int)i, got, want[at]);
            }
            push_all(d, (int)i, &left[s]);
        }
        CHECK(left[s].height == plans[s].num_leaves, "%s, %d stages: stage %d leaves %d skips, by its plan %d", d->class->name, count, s,
              left[s].height, plans[s].num_leaves);
    }
    CHECK(at == pops, "%s, %d stages: %d of %d skips were read", d->class->name, count, at, pops);
}

static void check_skips(const struct denoiser *d, int count, const int *given) {
    struct stages plans[MAX_STAGES];
    for (int s = 0; s < count; s++) plans[s] = opened(d, count, s, given, NULL);
    check_views(d, count, plans);
    for (int s = 0; s < count; s++) stages_free(&plans[s]);
}

/* Runs of `run` blocks on `members` in turn: each member has its own stages, in their order, and
 * one beside them has none. */
static void check_placed(const struct denoiser *d, int members, int run) {
    struct stages plans[MAX_BLOCKS], *held[MAX_STAGES] = {NULL};
    int blocks[MAX_BLOCKS], count = (d->num_blocks + run - 1) / run, counts[MAX_STAGES], seen = 0;
    tessera_error error = {0};
    for (int i = 0; i < d->num_blocks; i++) blocks[i] = i / run % members;
    for (int m = 0; m <= members; m++) {
        CHECK(stages_open_placed(d, blocks, m, &held[m], &counts[m], &error) == TESSERA_OK, "%s", error.message);
        for (int k = 0; held[m] != NULL && k < counts[m] && held[m][k].me >= 0; k++, seen++) {
            const struct stages *s = &held[m][k];
            CHECK(s->count == count && s->me == m + k * members && s->ranks[s->me] == m, "%s: member %d has stage %d of %d", d->class->name, m, s->me,
                  s->count);
            CHECK(s->returns == (count > members), "%s: %d stages on %d members return: %d", d->class->name, count, members, s->returns);
            plans[s->me] = *s;
        }
    }
    CHECK(seen == count && counts[members] == 1 && held[members][0].me == -1, "%s: %d of %d stages", d->class->name, seen, count);
    struct span extent = stages_extent(held[0], counts[0]), none = stages_extent(held[members], 1);
    CHECK(extent.first == 0 && extent.count == stages_blocks(&held[0][counts[0] - 1]).first + stages_blocks(&held[0][counts[0] - 1]).count && none.count == 0,
          "%s: from %d on %d blocks", d->class->name, (int)extent.first, (int)extent.count);
    if (seen == count) check_views(d, count, plans);
    for (int m = 0; m <= members; m++) {
        for (int k = 0; k < counts[m]; k++) stages_free(&held[m][k]);
        free(held[m]);
    }
}

/* ---- tests ---- */

static void test_model(const char *folder, const char *config, int blocks, int skips) {
    struct component component = described(folder, config);
    const struct denoiser *d = component.denoiser;
    int popped[MAX_BLOCKS * 2];
    if (d == NULL) return;
    CHECK(d->num_blocks == blocks, "%s: %d blocks", d->class->name, d->num_blocks);
    CHECK(pops_of_one_rank(d, popped) == skips, "%s: skips", d->class->name);
    for (int count = 1; count < MAX_STAGES && count <= blocks; count++) {
        check_balance(d, count, equal);
        if (d->row_unit == 0) check_balance(d, count, unequal); /* a U-Net's blocks are too unlike: filling up is not the best there */
        check_skips(d, count, NULL);
    }
    for (int members = 1; members <= 3; members++)
        for (int run = 1; run <= 3; run++)
            if (members * run <= blocks && (members > 1 || run == 1)) check_placed(d, members, members == 1 ? blocks : run);
    component_close(&component);
}

/* Numbers of blocks that a user gives. */
static void test_given(const struct denoiser *d) {
    static const int uneven[][4] = {{1, 1, 1, 37}, {37, 1, 1, 1}, {1, 19, 19, 1}, {18, 4, 4, 14}, {10, 10, 10, 10}};
    for (size_t i = 0; i < sizeof uneven / sizeof *uneven; i++) {
        struct stages stages = opened(d, 4, 2, uneven[i], NULL);
        CHECK(stages_blocks(&stages).first == uneven[i][0] + uneven[i][1] && stages_blocks(&stages).count == uneven[i][2], "given stages");
        stages_free(&stages);
        check_skips(d, 4, uneven[i]);
    }
}

static void check_refused(const struct denoiser *d, int count, const int *given, const char *says) {
    struct stages stages;
    tessera_error error = {0};
    tessera_status status = stages_open(d, count, 0, given, NULL, &stages, &error);
    CHECK(status == TESSERA_ERROR_ARGUMENT && strstr(error.message, says) != NULL, "\"%s\": %s", says, error.message);
    CHECK(stages.first == NULL && stages.comes == NULL, "what was refused holds no memory");
}

static void test_refused(const struct denoiser *d) {
    check_refused(d, 41, NULL, "1 to 40 stages are possible");
    check_refused(d, 3, (const int[]){10, 10, 19}, "add up to 39, but the model has 40");
    check_refused(d, 3, (const int[]){10, 20, 11}, "more than 40");
    check_refused(d, 3, (const int[]){2147483647, 2147483647, 1}, "more than 40");
    check_refused(d, 3, (const int[]){20, 0, 20}, "stage 1 of the pipeline has 0 blocks");
    check_refused(d, 3, (const int[]){20, -1, 21}, "stage 1 of the pipeline has -1 blocks");
}

#define HUNYUAN                                                                                                                            \
    "{\"_class_name\": \"HunyuanDiT2DModel\", \"attention_head_dim\": 16, \"cross_attention_dim\": 24, \"cross_attention_dim_t5\": 40,"    \
    "\"hidden_size\": 64, \"in_channels\": 4, \"learn_sigma\": true, \"mlp_ratio\": 2.0, \"num_attention_heads\": 4, \"num_layers\": 40,"  \
    "\"patch_size\": 2, \"pooled_projection_dim\": 24, \"sample_size\": 128, \"text_len\": 77, \"text_len_t5\": 256,"                      \
    "\"activation_fn\": \"gelu-approximate\", \"norm_type\": \"layer_norm\", \"use_style_cond_and_image_meta_size\": false}"

/* ---- small stacks ---- */

enum { MANY = 1024, STACK_BYTES = 128 << 10 };

static void *balance_many(void *argument) {
    double *work = argument;
    int *first = malloc((MANY + 1) * sizeof *first);
    bool good = first != NULL && balance_work(work, MANY, NULL, MANY / 4, first) && first[MANY / 4] == MANY;
    for (int s = 0; good && s < MANY / 4; s++) good = first[s + 1] - first[s] == 4;
    free(first);
    return good ? work : NULL;
}

/* The table of many blocks and stages does not lie on the stack, which a client's thread may have
 * made small. */
static void test_small_stack(void) {
    static double work[MANY];
    pthread_t thread;
    pthread_attr_t attributes;
    void *result = NULL;
    for (int i = 0; i < MANY; i++) work[i] = 1;
    pthread_attr_init(&attributes);
    CHECK(pthread_attr_setstacksize(&attributes, STACK_BYTES) == 0, "a stack of %d bytes", STACK_BYTES);
    CHECK(pthread_create(&thread, &attributes, balance_many, work) == 0 && pthread_join(thread, &result) == 0, "a thread");
    CHECK(result == work, "equal work in equal stages");
    pthread_attr_destroy(&attributes);
}

int main(void) {
    test_small_stack();
    struct component hunyuan = described("tests/cases/hunyuandit/model", HUNYUAN);
    if (hunyuan.denoiser != NULL) {
        test_given(hunyuan.denoiser);
        test_refused(hunyuan.denoiser);
    }
    component_close(&hunyuan);
    test_model("tests/cases/hunyuandit/model", HUNYUAN, 40, 19);
    test_model("tests/cases/unet_sdxl/model", NULL, 33, 20);
    test_model("tests/cases/unet_sd15/model", NULL, 16, 9);
    test_model("tests/cases/pipefusion/model_flux", NULL, 6, 0);
    test_model("tests/cases/sd35/model", NULL, 4, 0);
    return CHECK_REPORT();
}
