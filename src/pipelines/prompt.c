/* Tokenizer, encoder, mask: see prompt.h. If components do not stay open, the encoder is closed
 * after use. */
#include "pipelines/prompt.h"

#include <stdlib.h>
#include <string.h>

#include "backend/memory.h"
#include "pipelines/text_ahead.h"

/* ---- tokens ---- */

/* One reading being worked on. */
struct reading {
    struct pipeline *p;
    const struct prompt_reader *reader;
    const struct prompts *prompts;
    char *cleaned[2]; /* owned; where the reader cleans texts */
    const struct tokenizer *tokenizer;
    int length, chunks; /* tokens of a chunk; chunks of each prompt */
    int32_t *ids;       /* [count, length] of one chunk */
};

static const char *text_of(const struct reading *r, int i) {
    const char *text = r->cleaned[i] != NULL ? r->cleaned[i] : r->prompts->texts[i];
    return text != NULL ? text : "";
}

/* Tokens of chunk `chunk` of all prompts: r->ids, and the mask's values [count, length]. */
static tessera_status tokenize(struct reading *r, int chunk, float *mask, tessera_error *error) {
    for (int i = 0; i < r->prompts->count; i++) {
        size_t first = (size_t)i * (size_t)r->length;
        TRY(tokenizer_encode(r->tokenizer, text_of(r, i), r->length, chunk, r->ids + first, mask + first, NULL, error));
    }
    return TESSERA_OK;
}

/* How many tokens, its frame among them, the first `bytes` bytes of a text have. */
static tessera_status count_tokens(const struct reading *r, const char *text, size_t bytes, int *out, tessera_error *error) {
    char *prefix = strndup(text, bytes);
    if (prefix == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    tessera_status status = tokenizer_encode(r->tokenizer, prefix, r->length, 0, r->ids, NULL, out, error);
    free(prefix);
    return status;
}

/* Where words begin, or characters; how many. starts[0] is 0. */
static size_t list_starts(const char *text, bool words, size_t *starts) {
    size_t count = 1;
    starts[0] = 0;
    for (size_t i = 1; text[i] != 0; i++)
        if (words ? text[i - 1] == ' ' && text[i] != ' ' : ((uint8_t)text[i] & 0xC0) != 0x80) starts[count++] = i;
    return count;
}

/* Where what does not fit begins: the last beginning of a word (or character) before which the text
 * fits. */
static tessera_status find_cut(const struct reading *r, const char *text, bool words, size_t *out, tessera_error *error) {
    size_t *starts = malloc((strlen(text) + 1) * sizeof *starts);
    if (starts == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    tessera_status status = TESSERA_OK;
    size_t fits = 0, too_many = list_starts(text, words, starts);
    while (too_many - fits > 1 && status == TESSERA_OK) {
        size_t middle = fits + (too_many - fits) / 2;
        int tokens = 0;
        status = count_tokens(r, text, starts[middle], &tokens, error);
        if (tokens <= r->length)
            fits = middle;
        else
            too_many = middle;
    }
    *out = starts[fits];
    free(starts);
    return status;
}

enum { SHOWN_BYTES = 160 };

/* The beginning of a text for a message: one line without control characters, cut between
 * characters. */
static void excerpt(const char *text, char out[SHOWN_BYTES + 8]) {
    size_t n = 0;
    for (; text[n] != 0 && n < SHOWN_BYTES; n++) out[n] = (uint8_t)text[n] < ' ' || text[n] == 0x7F ? ' ' : text[n];
    bool cut = text[n] != 0;
    while (cut && n > 0 && ((uint8_t)text[n] & 0xC0) == 0x80) n--;
    strcpy(out + n, cut ? "..." : "");
}

/* Says what of a prompt the encoder does not read, and how it would. */
static tessera_status announce_cut(const struct reading *r, int i, int tokens, tessera_error *error) {
    const char *text = text_of(r, i), *kind = tokenizer_kind(r->tokenizer);
    char shown[SHOWN_BYTES + 8], remedy[64] = "";
    size_t cut = 0;
    TRY(find_cut(r, text, true, &cut, error));
    if (cut == 0) TRY(find_cut(r, text, false, &cut, error));
    excerpt(text + cut, shown);
    if (r->reader->chunked)
        snprintf(remedy, sizeof remedy, " (--long-prompt reads it all)");
    else if (r->reader->limit_is_requested)
        snprintf(remedy, sizeof remedy, " (--max-sequence-length %d reads it all)", tokens);
    pipeline_notice(r->p, r->prompts->request, "%sprompt: %s reads %d tokens of %d, without \"%s\"%s",
                    r->prompts->count == 2 && i == 0 ? "negative " : "", kind, r->length, tokens, shown, remedy);
    return TESSERA_OK;
}

/* Chunks that hold all prompts, or 1 and a notice of what is left out. */
static tessera_status choose_chunks(struct reading *r, tessera_error *error) {
    const tessera_request *request = r->prompts->request;
    r->chunks = 1;
    for (int i = 0; i < r->prompts->count; i++) {
        int tokens, room = r->length - 2; /* of a chunk, without its frame */
        TRY(tokenizer_encode(r->tokenizer, text_of(r, i), r->length, 0, r->ids, NULL, &tokens, error));
        int chunks = (tokens - 2 + room - 1) / (room > 0 ? room : 1);
        if (r->reader->chunked && request->long_prompt)
            r->chunks = chunks > r->chunks ? chunks : r->chunks;
        else if (tokens > r->length && request->notice != NULL)
            TRY(announce_cut(r, i, tokens, error));
    }
    return TESSERA_OK;
}

/* ---- states ---- */

/* Row after row of two tensors of one row each: [2, ...]; empty where they are. */
static struct tensor join(struct run *run, struct tensor a, struct tensor b) {
    if (a.data == NULL || b.data == NULL) return (struct tensor){0};
    struct tensor both = a;
    both.shape[0] = 2;
    both = run_tensor(run, DTYPE_F32, both.ndim, both.shape);
    if (both.data == NULL) return both;
    backend_copy_bytes(run->backend, both.data, a.data, tensor_bytes(&a));
    backend_copy_bytes(run->backend, (char *)both.data + tensor_bytes(&a), b.data, tensor_bytes(&b));
    return both;
}

/* The states of ids [count, length]; layers are skipped for the last row only. */
static struct text_encoder_output encode(const struct text_encoder *encoder, struct run *run, const int32_t *ids, const float *mask,
                                         int count, int length, int skip) {
    if (count == 1 || skip == 0) return text_encoder_encode(encoder, run, ids, mask, count, length, skip);
    const float *mask_2 = mask != NULL ? mask + length : NULL;
    struct text_encoder_output negative = text_encoder_encode(encoder, run, ids, mask, 1, length, 0);
    struct text_encoder_output prompt = text_encoder_encode(encoder, run, ids + length, mask_2, 1, length, skip);
    return (struct text_encoder_output){
        .last_hidden_state = join(run, negative.last_hidden_state, prompt.last_hidden_state),
        .penultimate = join(run, negative.penultimate, prompt.penultimate),
        .pooled = join(run, negative.pooled, prompt.pooled),
    };
}

static tessera_status check_numbers(const struct reading *r, struct run *run, const struct text_encoder_output *states,
                                    tessera_error *error) {
    const struct tensor *tensors[] = {&states->last_hidden_state, &states->penultimate, &states->pooled};
    tessera_status status = TESSERA_OK;
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors && status == TESSERA_OK; i++) {
        float *numbers = run_map(run, tensors[i], MAP_READ);
        if (numbers != NULL) status = pipeline_check_finite(r->p, r->reader->encoder, "", numbers, (size_t)tensor_count(tensors[i]), error);
        run_unmap(run, tensors[i], numbers, MAP_READ);
        if (status == TESSERA_OK) status = run_status(run, error);
    }
    return status;
}

/* Chunk `chunk` of the prompts: its states and mask. */
static tessera_status read_chunk(struct reading *r, const struct text_encoder *encoder, struct run *run, int chunk,
                                 struct text_encoder_output *states, struct tensor *mask, tessera_error *error) {
    *mask = run_tensor(run, DTYPE_F32, SHAPE(r->prompts->count, r->length));
    float *kept = run_map(run, mask, MAP_WRITE);
    tessera_status status = run_status(run, error);
    if (status == TESSERA_OK) status = tokenize(r, chunk, kept, error);
    if (status == TESSERA_OK)
        *states = encode(encoder, run, r->ids, r->reader->masked ? kept : NULL, r->prompts->count, r->length, r->reader->skip);
    run_unmap(run, mask, kept, MAP_WRITE);
    if (status == TESSERA_OK) status = run_status(run, error);
    return status == TESSERA_OK ? check_numbers(r, run, states, error) : status;
}

/* Room for the tokens of all chunks of states [count, length, channels]; empty where they are. */
static struct tensor room_for(struct run *run, const struct reading *r, struct tensor states) {
    if (states.data == NULL) return states;
    return run_tensor(run, DTYPE_F32, SHAPE(states.shape[0], (int64_t)r->length * r->chunks, states.shape[2]));
}

static void place_chunk(const struct reading *r, struct run *run, int chunk, struct tensor *out, const struct tensor *states) {
    if (out->data != NULL && states->data != NULL) prompt_place(run, out, (int64_t)chunk * r->length, 0, states);
}

/* Chunks one after the other, as AUTOMATIC1111's stable-diffusion-webui and compel have it: each
 * has its own frame and is read by itself, the states stand in a row, and what describes a prompt
 * as a whole is that of its first chunk. A shorter prompt ends in empty chunks. */
static tessera_status read_chunks(struct reading *r, const struct text_encoder *encoder, struct run *run, struct prompt_reading *out,
                                  tessera_error *error) {
    TRY(read_chunk(r, encoder, run, 0, &out->states, &out->mask, error));
    if (r->chunks == 1) return TESSERA_OK;
    struct text_encoder_output first = out->states;
    out->states.last_hidden_state = room_for(run, r, first.last_hidden_state);
    out->states.penultimate = room_for(run, r, first.penultimate);
    out->mask = run_tensor(run, DTYPE_F32, SHAPE(r->prompts->count, r->length * r->chunks));
    float *ones = run_map(run, &out->mask, MAP_WRITE);
    for (int64_t i = 0; ones != NULL && i < tensor_count(&out->mask); i++) ones[i] = 1.0f;
    run_unmap(run, &out->mask, ones, MAP_WRITE);
    TRY(run_status(run, error));
    for (int chunk = 0; chunk < r->chunks; chunk++) {
        struct text_encoder_output states = first;
        struct tensor mask;
        if (chunk > 0) TRY(read_chunk(r, encoder, run, chunk, &states, &mask, error));
        place_chunk(r, run, chunk, &out->states.last_hidden_state, &states.last_hidden_state);
        place_chunk(r, run, chunk, &out->states.penultimate, &states.penultimate);
    }
    return TESSERA_OK;
}

static tessera_status clean_texts(struct reading *r, tessera_error *error) {
    for (int i = 0; r->reader->clean != NULL && i < r->prompts->count; i++) {
        r->cleaned[i] = r->reader->clean(text_of(r, i));
        if (r->cleaned[i] == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    }
    return TESSERA_OK;
}

static tessera_status read_with(struct reading *r, const struct text_encoder *encoder, struct run *run, struct prompt_reading *out,
                                tessera_error *error) {
    r->length = r->reader->max_length;
    if (r->length == 0) r->length = tokenizer_model_max_length(r->tokenizer);
    if (r->length == 0) r->length = 77;
    r->ids = malloc(sizeof *r->ids * (size_t)r->prompts->count * (size_t)r->length);
    if (r->ids == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    tessera_status status = clean_texts(r, error);
    if (status == TESSERA_OK) status = choose_chunks(r, error);
    if (status == TESSERA_OK) status = read_chunks(r, encoder, run, out, error);
    out->length = r->length;
    out->tokens = r->length * r->chunks;
    free(r->ids);
    for (int i = 0; i < 2; i++) free(r->cleaned[i]);
    return status;
}

/* Reads the prompts of later requests, too, as far as what becomes of them may be kept. `own`: of
 * the present request. */
static tessera_status read_ahead(const struct reading *own, const struct text_encoder *encoder, struct run *run,
                                 const struct prompt_reading *out, tessera_error *error) {
    const struct prompts *prompts = own->prompts;
    struct text_ahead *ahead = prompts->ahead;
    for (int i = 0; i < ahead->count && text_ahead_has_room(ahead, *out); i++) {
        const tessera_request *request = ahead->requests[i];
        const char *first = prompts->count == 2 ? request->negative_prompt : request->prompt;
        struct prompts later = {.texts = {first, request->prompt}, .count = prompts->count, .request = request};
        struct reading reading = {.p = own->p, .reader = own->reader, .prompts = &later, .tokenizer = own->tokenizer};
        struct prompt_reading read = {0};
        if (text_ahead_has(ahead, own->reader->encoder, request)) continue;
        TRY(prompts->tell(prompts->user, i + 1, ahead->count + 1, error));
        size_t scope = run_enter(run);
        TRY(read_with(&reading, encoder, run, &read, error));
        TRY(text_ahead_keep(ahead, own->reader->encoder, request, run, &read, error));
        arena_release(run->arena, scope);
    }
    return TESSERA_OK;
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
    const struct tokenizer *tokenizer;
    bool kept = false;
    if (prompts->ahead != NULL) TRY(text_ahead_take(prompts->ahead, reader->encoder, prompts->request, run, out, &kept, error));
    if (kept) return TESSERA_OK;
    TRY(pipeline_component(p, reader->encoder, &component, error));
    if (component->text_encoder == NULL)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: not a text encoder", json_path(component->config));
    TRY(check_states(p, component, reader, error));
    TRY(pipeline_tokenizer(p, reader->tokenizer, &tokenizer, error));
    struct reading reading = {.p = p, .reader = reader, .prompts = prompts, .tokenizer = tokenizer};
    tessera_status status = read_with(&reading, component->text_encoder, run, out, error);
    if (status == TESSERA_OK && prompts->ahead != NULL) status = read_ahead(&reading, component->text_encoder, run, out, error);
    pipeline_done_with(p, reader->encoder);
    return status;
}

/* What is sent of a reading: its tensors, of which empty ones stay empty. */
struct announcement {
    int32_t length, tokens, ndim[PROMPT_READING_TENSORS];
    int64_t shape[PROMPT_READING_TENSORS][TENSOR_MAX_DIMS];
};

/* The picture's rank `root` has `reading`; the others get it, in their run->arena. */
static tessera_status share(struct pipeline *p, struct run *run, int root, struct prompt_reading *reading, tessera_error *error) {
    struct announcement a = {.length = reading->length, .tokens = reading->tokens};
    struct tensor *tensors[PROMPT_READING_TENSORS];
    prompt_reading_tensors(reading, tensors);
    for (int i = 0; i < PROMPT_READING_TENSORS && team_rank(&p->team) == root; i++) {
        a.ndim[i] = tensors[i]->data != NULL ? tensors[i]->ndim : 0;
        for (int d = 0; d < a.ndim[i]; d++) a.shape[i][d] = tensors[i]->shape[d];
    }
    TRY(team_broadcast(&p->team, root, &a, sizeof a, error));
    reading->length = a.length;
    reading->tokens = a.tokens;
    for (int i = 0; i < PROMPT_READING_TENSORS; i++) {
        if (a.ndim[i] == 0) continue;
        unsigned use = team_rank(&p->team) != root ? MAP_WRITE : MAP_READ;
        if (use == MAP_WRITE) *tensors[i] = run_tensor(run, DTYPE_F32, a.ndim[i], a.shape[i]);
        void *host = run_map(run, tensors[i], use);
        TRY(run_status(run, error));
        tessera_status status = team_broadcast(&p->team, root, host, tensor_bytes(tensors[i]), error);
        run_unmap(run, tensors[i], host, use);
        TRY(status);
    }
    return run_status(run, error);
}

tessera_status prompt_read(struct pipeline *p, struct run *run, const struct prompt_reader *reader, const struct prompts *prompts,
                           struct prompt_reading *out, tessera_error *error) {
    int root = pipeline_rank_of(p, reader->encoder);
    *out = (struct prompt_reading){0};
    if (team_rank(&p->team) == root) TRY(read_here(p, run, reader, prompts, out, error));
    return team_size(&p->team) > 1 ? share(p, run, root, out, error) : TESSERA_OK;
}

void prompt_place(struct run *run, struct tensor *out, int64_t first, int64_t offset, const struct tensor *x) {
    int64_t count = x->shape[0], tokens = x->shape[1], channels = x->shape[2];
    for (int64_t b = 0; b < count; b++)
        for (int64_t t = 0; t < tokens; t++)
            backend_copy_bytes(run->backend, (float *)out->data + (b * out->shape[1] + first + t) * out->shape[2] + offset,
                               (const float *)x->data + (b * tokens + t) * channels, (size_t)channels * sizeof(float));
}

tessera_status prompt_join_pooled(struct run *run, struct tensor a, struct tensor b, struct tensor *out, tessera_error *error) {
    int64_t count = a.shape[0], width = a.shape[1] + b.shape[1];
    struct tensor joined = run_tensor(run, DTYPE_F32, SHAPE(count, 1, width));
    TRY(run_status(run, error));
    struct tensor first = tensor_reshape(a, SHAPE(count, 1, a.shape[1])), second = tensor_reshape(b, SHAPE(count, 1, b.shape[1]));
    prompt_place(run, &joined, 0, 0, &first);
    prompt_place(run, &joined, 0, a.shape[1], &second);
    *out = tensor_reshape(joined, SHAPE(count, width));
    return TESSERA_OK;
}
