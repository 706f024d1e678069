/* Tokenizer, encoder, mask: see prompt.h. The encoder is closed after use where components do not stay open. */
#include "pipelines/prompt.h"

#include <stdlib.h>
#include <string.h>

/* Tokens of all prompts: ids [count, max_length] and the mask's values. */
static tessera_status tokenize(const struct tokenizer *tokenizer, const struct prompts *prompts, int max_length, int32_t *ids, float *mask,
                               tessera_error *error) {
    for (int i = 0; i < prompts->count; i++) {
        const char *text = prompts->texts[i] != NULL ? prompts->texts[i] : "";
        size_t first = (size_t)i * (size_t)max_length;
        TRY(tokenizer_encode(tokenizer, text, max_length, ids + first, mask + first, NULL, error));
    }
    return TESSERA_OK;
}

/* Row after row of two tensors of one row each: [2, ...]; empty where they are. */
static struct tensor join(struct run *run, struct tensor a, struct tensor b) {
    if (a.data == NULL || b.data == NULL) return (struct tensor){0};
    struct tensor both = a;
    both.shape[0] = 2;
    both = run_tensor(run, DTYPE_F32, both.ndim, both.shape);
    if (both.data == NULL) return both;
    memcpy(both.data, a.data, tensor_bytes(&a));
    memcpy((char *)both.data + tensor_bytes(&a), b.data, tensor_bytes(&b));
    return both;
}

/* The states of ids [count, length]; layers are skipped for the last row only. */
static struct text_encoder_output encode(const struct text_encoder *encoder, struct run *run, const int32_t *ids, const float *mask,
                                         int count, int length, int skip) {
    if (count == 1 || skip == 0) return encoder->class->encode(encoder, run, ids, mask, count, length, skip);
    const float *mask_2 = mask != NULL ? mask + length : NULL;
    struct text_encoder_output negative = encoder->class->encode(encoder, run, ids, mask, 1, length, 0);
    struct text_encoder_output prompt = encoder->class->encode(encoder, run, ids + length, mask_2, 1, length, skip);
    return (struct text_encoder_output){
        .last_hidden_state = join(run, negative.last_hidden_state, prompt.last_hidden_state),
        .penultimate = join(run, negative.penultimate, prompt.penultimate),
        .pooled = join(run, negative.pooled, prompt.pooled),
    };
}

static tessera_status read_with(const struct text_encoder *encoder, const struct tokenizer *tokenizer, struct run *run,
                                const struct prompt_reader *reader, const struct prompts *prompts, struct prompt_reading *out,
                                tessera_error *error) {
    int length = reader->max_length;
    if (length == 0) length = tokenizer_model_max_length(tokenizer);
    if (length == 0) length = 77;
    out->tokens = length;
    out->mask = run_tensor(run, DTYPE_F32, SHAPE(prompts->count, length));
    int32_t *ids = malloc(sizeof *ids * (size_t)prompts->count * (size_t)length);
    tessera_status status = ids == NULL ? error_set(error, TESSERA_ERROR_MEMORY, "out of memory") : run_status(run, error);
    if (status == TESSERA_OK) status = tokenize(tokenizer, prompts, length, ids, out->mask.data, error);
    if (status == TESSERA_OK) {
        out->states = encode(encoder, run, ids, reader->masked ? out->mask.data : NULL, prompts->count, length, reader->skip);
        status = run_status(run, error);
    }
    free(ids);
    return status;
}

/* Can the encoder give what the pipeline wants of it? */
static tessera_status check_states(const struct pipeline *p, const struct component *component, const struct prompt_reader *reader,
                                   tessera_error *error) {
    static const struct {
        unsigned bit;
        const char *name;
    } names[] = {{TEXT_STATE_LAST, "last hidden"}, {TEXT_STATE_PENULTIMATE, "penultimate hidden"}, {TEXT_STATE_POOLED, "pooled"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if ((reader->states & names[i].bit & ~component->text_encoder->states) != 0)
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: a %s gives no %s state, which %s needs of its %s",
                             json_path(component->config), component->text_encoder->class->name, names[i].name, p->class->name,
                             reader->encoder);
    return TESSERA_OK;
}

static tessera_status read_here(struct pipeline *p, struct run *run, const struct prompt_reader *reader, const struct prompts *prompts,
                                struct prompt_reading *out, tessera_error *error) {
    struct component *component;
    struct tokenizer *tokenizer = NULL;
    TRY(pipeline_component(p, reader->encoder, &component, error));
    if (component->text_encoder == NULL)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: not a text encoder", json_path(component->config));
    TRY(check_states(p, component, reader, error));
    TRY(pipeline_tokenizer(p, reader->tokenizer, &tokenizer, error));
    tessera_status status = read_with(component->text_encoder, tokenizer, run, reader, prompts, out, error);
    tokenizer_free(tokenizer);
    pipeline_done_with(p, reader->encoder);
    return status;
}

/* The parts of a reading that are sent: all F32, empty ones stay empty. */
enum { READING_PARTS = 4 };
struct announcement {
    int32_t tokens, ndim[READING_PARTS];
    int64_t shape[READING_PARTS][TENSOR_MAX_DIMS];
};

static void parts_of(struct prompt_reading *reading, struct tensor *parts[READING_PARTS]) {
    parts[0] = &reading->mask;
    parts[1] = &reading->states.last_hidden_state;
    parts[2] = &reading->states.penultimate;
    parts[3] = &reading->states.pooled;
}

/* The picture's rank `root` has `reading`; the others get it, in their run->arena. */
static tessera_status share(struct pipeline *p, struct run *run, int root, struct prompt_reading *reading, tessera_error *error) {
    struct announcement a = {.tokens = reading->tokens};
    struct tensor *parts[READING_PARTS];
    parts_of(reading, parts);
    for (int i = 0; i < READING_PARTS && team_rank(&p->team) == root; i++) {
        a.ndim[i] = parts[i]->data != NULL ? parts[i]->ndim : 0;
        for (int d = 0; d < a.ndim[i]; d++) a.shape[i][d] = parts[i]->shape[d];
    }
    TRY(team_broadcast(&p->team, root, &a, sizeof a, error));
    reading->tokens = a.tokens;
    for (int i = 0; i < READING_PARTS; i++) {
        if (a.ndim[i] == 0) continue;
        if (team_rank(&p->team) != root) *parts[i] = run_tensor(run, DTYPE_F32, a.ndim[i], a.shape[i]);
        TRY(run_status(run, error));
        TRY(team_broadcast(&p->team, root, parts[i]->data, tensor_bytes(parts[i]), error));
    }
    return TESSERA_OK;
}

tessera_status prompt_read(struct pipeline *p, struct run *run, const struct prompt_reader *reader, const struct prompts *prompts,
                           struct prompt_reading *out, tessera_error *error) {
    int place = pipeline_slot_index(p, reader->encoder), root = place > 0 ? place % team_size(&p->team) : 0;
    *out = (struct prompt_reading){0};
    if (team_rank(&p->team) == root) TRY(read_here(p, run, reader, prompts, out, error));
    return team_size(&p->team) > 1 ? share(p, run, root, out, error) : TESSERA_OK;
}

void prompt_place(struct tensor *out, int64_t first, int64_t offset, const struct tensor *x) {
    int64_t count = x->shape[0], tokens = x->shape[1], channels = x->shape[2];
    for (int64_t b = 0; b < count; b++)
        for (int64_t t = 0; t < tokens; t++)
            memcpy((float *)out->data + (b * out->shape[1] + first + t) * out->shape[2] + offset,
                   (const float *)x->data + (b * tokens + t) * channels, (size_t)channels * sizeof(float));
}

tessera_status prompt_join_pooled(struct run *run, struct tensor a, struct tensor b, struct tensor *out, tessera_error *error) {
    int64_t count = a.shape[0], width = a.shape[1] + b.shape[1];
    struct tensor joined = run_tensor(run, DTYPE_F32, SHAPE(count, 1, width));
    TRY(run_status(run, error));
    struct tensor first = tensor_reshape(a, SHAPE(count, 1, a.shape[1])), second = tensor_reshape(b, SHAPE(count, 1, b.shape[1]));
    prompt_place(&joined, 0, 0, &first);
    prompt_place(&joined, 0, a.shape[1], &second);
    *out = tensor_reshape(joined, SHAPE(count, width));
    return TESSERA_OK;
}
