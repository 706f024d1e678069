/* See stages.h. */
#include "pipelines/stages.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/balance.h"

/* Where a model's config names no size, and how many text tokens count, for the work of blocks. */
enum { DEFAULT_SIDE = 128, TEXT_TOKENS = 256, MAX_BLOCKS = 1024 };

double stages_work(const struct denoiser *denoiser, int block) {
    struct denoiser_block_info info;
    denoiser->class->describe(denoiser, block, &info);
    int64_t side = (denoiser->sample_size > 0 ? denoiser->sample_size : DEFAULT_SIDE) / denoiser->patch_size;
    double picture = (double)(side * side), text = TEXT_TOKENS, tokens = denoiser->text_stream ? picture + text : picture;
    return picture * info.operations_per_picture_token + text * info.operations_per_text_token +
           tokens * tokens * info.operations_per_token_pair;
}

static tessera_status take_given(const int *given, int blocks, int count, int *first, tessera_error *error) {
    int64_t sum = 0;
    for (int s = 0; s < count; s++) {
        first[s] = (int)sum;
        if (given[s] < 1)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "stage %d of the pipeline has %d blocks: at least 1 is needed", s, given[s]);
        sum += given[s];
        if (sum > blocks) break;
    }
    first[count] = (int)sum;
    if (sum == blocks) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT, "the blocks of the %d stages add up to %s%lld, but the model has %d", count,
                     sum > blocks ? "more than " : "", (long long)(sum > blocks ? blocks : sum), blocks);
}

static int stage_of(const struct stages *stages, int block) {
    int s = 0;
    while (block >= stages->first[s + 1]) s++;
    return s;
}

/* A skip of `maker` that this stage takes: it lies below those of the same maker that have been
 * taken already. */
static void note_coming(struct stages *stages, int maker, struct denoiser_map map) {
    int at = 0, all = 0;
    for (int s = 0; s < stages->count; s++) all += stages->comes[s];
    for (int s = 0; s < maker; s++) at += stages->comes[s];
    memmove(&stages->maps[at + 1], &stages->maps[at], (size_t)(all - at) * sizeof map);
    stages->maps[at] = map;
    stages->comes[maker]++;
}

/* Goes through all blocks with a stack of where each skip was made, and notes what this stage takes
 * and what it leaves. */
static void route_skips(const struct denoiser *denoiser, struct stages *stages) {
    int makers[DENOISER_MAX_SKIPS], slots[DENOISER_MAX_SKIPS], height = 0; /* slots: the place on this stage's stack when it is done */
    struct denoiser_map maps[DENOISER_MAX_SKIPS];
    for (int i = 0; i < denoiser->num_blocks; i++) {
        struct denoiser_block_info info;
        denoiser->class->describe(denoiser, i, &info);
        int stage = stage_of(stages, i);
        for (int k = 0; k < info.pops && height > 0; k++) {
            int maker = makers[--height];
            if (maker == stage) continue;
            if (stage == stages->me) note_coming(stages, maker, maps[height]);
            if (maker == stages->me) stages->goes[slots[height]] = stage;
        }
        for (int k = 0; k < info.pushes; k++) {
            assert(height < DENOISER_MAX_SKIPS);
            maps[height] = info.pushed[k];
            makers[height++] = stage;
        }
        if (i + 1 != stages->first[stage + 1] || stage != stages->me) continue;
        for (int k = 0; k < height; k++)
            if (makers[k] == stage) slots[k] = stages->num_leaves++;
    }
}

/* Room for so many stages, each of which is the member of its number. */
static tessera_status allocate(int count, int me, struct stages *out, tessera_error *error) {
    *out = (struct stages){.count = count, .me = me};
    out->first = calloc((size_t)count + 1, sizeof *out->first);
    out->comes = calloc((size_t)count, sizeof *out->comes);
    out->ranks = calloc((size_t)count, sizeof *out->ranks);
    for (int s = 0; out->ranks != NULL && s < count; s++) out->ranks[s] = s;
    if (out->first != NULL && out->comes != NULL && out->ranks != NULL) return TESSERA_OK;
    stages_free(out);
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
}

tessera_status stages_open(const struct denoiser *denoiser, int count, int me, const int *given, const double *speeds, struct stages *out,
                           tessera_error *error) {
    int blocks = denoiser->num_blocks;
    double work[MAX_BLOCKS];
    *out = (struct stages){0};
    if (count > blocks || blocks > MAX_BLOCKS)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "pipefusion degree %d: %s has %d blocks: 1 to %d stages are possible", count,
                         denoiser->class->name, blocks, blocks);
    TRY(allocate(count, me, out, error));
    for (int i = 0; i < blocks; i++) work[i] = stages_work(denoiser, i);
    tessera_status status = TESSERA_OK;
    if (given != NULL)
        status = take_given(given, blocks, count, out->first, error);
    else if (!balance_work(work, blocks, speeds, count, out->first))
        status = error_set(error, TESSERA_ERROR_MEMORY, "out of memory for %d stages of %d blocks", count, blocks);
    if (status == TESSERA_OK)
        route_skips(denoiser, out);
    else
        stages_free(out);
    return status;
}

/* The view of stage `me` (-1: of a member without one). */
static tessera_status open_view(const struct denoiser *denoiser, const int *blocks, int count, int me, struct stages *out, tessera_error *error) {
    TRY(allocate(count, me, out, error));
    for (int i = 0, s = -1; i < denoiser->num_blocks; i++) {
        if (i > 0 && blocks[i] == blocks[i - 1]) continue;
        out->first[++s] = i;
        out->ranks[s] = blocks[i];
        for (int other = 0; other < s; other++) out->returns = out->returns || out->ranks[other] == blocks[i];
    }
    out->first[count] = denoiser->num_blocks;
    route_skips(denoiser, out);
    return TESSERA_OK;
}

tessera_status stages_open_placed(const struct denoiser *denoiser, const int *blocks, int member, struct stages **out, int *held,
                                  tessera_error *error) {
    int count = 0, mine[MAX_BLOCKS] = {-1};
    *out = NULL, *held = 0;
    for (int i = 0; i < denoiser->num_blocks; i++) {
        if (i > 0 && blocks[i] == blocks[i - 1]) continue;
        if (blocks[i] == member && *held < MAX_BLOCKS) mine[(*held)++] = count;
        count++;
    }
    if (*held == 0) *held = 1;
    *out = calloc((size_t)*held, sizeof **out);
    tessera_status status = *out != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    for (int k = 0; k < *held && status == TESSERA_OK; k++) status = open_view(denoiser, blocks, count, mine[k], &(*out)[k], error);
    if (status == TESSERA_OK) return TESSERA_OK;
    for (int k = 0; *out != NULL && k < *held; k++) stages_free(&(*out)[k]);
    free(*out);
    *out = NULL, *held = 0;
    return status;
}

void stages_free(struct stages *stages) {
    free(stages->ranks);
    free(stages->first);
    free(stages->comes);
    *stages = (struct stages){0};
}

struct span stages_extent(const struct stages *stages, int held) {
    if (held == 0 || stages[0].me < 0) return (struct span){0, 0};
    struct span first = stages_blocks(&stages[0]), last = stages_blocks(&stages[held - 1]);
    return (struct span){first.first, last.first + last.count - first.first};
}

struct span stages_blocks(const struct stages *stages) {
    return (struct span){stages->first[stages->me], stages->first[stages->me + 1] - stages->first[stages->me]};
}
