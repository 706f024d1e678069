/* CLIP's byte-level byte-pair encoding.
 *
 * Words are what this pattern finds; what it does not match (whitespace) is dropped:
 *     's|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+
 * A word's bytes become letters of GPT-2's byte alphabet (Radford et al. 2019), the last with
 * "</w>"; then the pair with the lowest rank, leftmost first, is merged until no pair is left
 * (Sennrich et al. 2016). A heap of candidate pairs over a linked list of symbols makes that O(n
 * log n) for a word of n bytes. A symbol that the vocabulary lacks becomes the unknown token.
 *
 * Left out: dropout, prefixes of continuing subwords, fused unknowns: no CLIP folder has them. */
#include "tokenizers/clip_bpe.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/json.h"

static const char end_of_word[] = "</w>";
enum { ID_LIMIT = 1 << 24 };

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory in the CLIP tokenizer");
}

/* ---- reading ---- */

static int compare_ids(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static tessera_status check_ids_differ(const char *path, struct text_ids *ids, tessera_error *error) {
    qsort(ids->data, ids->count, sizeof *ids->data, compare_ids);
    for (size_t i = 1; i < ids->count; i++)
        if (ids->data[i] == ids->data[i - 1])
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: vocab: the id %d is given twice", path, (int)ids->data[i]);
    return TESSERA_OK;
}

static tessera_status add_vocab_item(struct clip_bpe *bpe, const char *path, const struct cJSON *item, struct text_ids *ids,
                                     tessera_error *error) {
    double id = cJSON_IsNumber(item) ? item->valuedouble : -1;
    if (!(id >= 0 && id < ID_LIMIT && id == (int32_t)id))
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: vocab: the id of \"%.60s\" must be a whole number in [0, %d)", path,
                         item->string, ID_LIMIT);
    enum vocab_result result = vocab_add(&bpe->vocab, item->string, strlen(item->string), (int32_t)id);
    if (result == VOCAB_PRESENT)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: vocab: the token \"%.60s\" is given twice", path, item->string);
    if (result == VOCAB_NO_MEMORY || !text_ids_append(ids, (int32_t)id)) return out_of_memory(error);
    return TESSERA_OK;
}

static tessera_status read_vocab(struct clip_bpe *bpe, const char *path, const struct cJSON *object, tessera_error *error) {
    if (!cJSON_IsObject(object) || object->child == NULL)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: the vocabulary must be an object of tokens and ids", path);
    struct text_ids ids = {0};
    tessera_status status = TESSERA_OK;
    for (const struct cJSON *item = object->child; item != NULL && status == TESSERA_OK; item = item->next)
        status = add_vocab_item(bpe, path, item, &ids, error);
    if (status == TESSERA_OK) status = check_ids_differ(path, &ids, error);
    free(ids.data);
    return status;
}

tessera_status clip_bpe_read_vocab(struct clip_bpe *bpe, const struct json *vocab, tessera_error *error) {
    bpe->splits_specials = true;
    return read_vocab(bpe, json_path(vocab), json_root(vocab), error);
}

/* Adds the merge of left[0..a) and right[0..b); a pair given again takes its later rank, as in
 * tokenizers' own reader. */
static tessera_status add_merge(struct clip_bpe *bpe, const char *path, const char *left, size_t a, const char *right, size_t b,
                                tessera_error *error) {
    struct text_bytes both = {0};
    if (!text_bytes_append(&both, left, a) || !text_bytes_append(&both, right, b)) {
        free(both.data);
        return out_of_memory(error);
    }
    int32_t pair[2] = {vocab_find(&bpe->vocab, left, a), vocab_find(&bpe->vocab, right, b)};
    int32_t merged = both.length > 0 ? vocab_find(&bpe->vocab, both.data, both.length) : -1;
    free(both.data);
    if (pair[0] < 0 || pair[1] < 0 || merged < 0)
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "%s: merges: number %zu, \"%.*s %.*s\", uses or makes a token that the vocabulary lacks", path, bpe->merged.count,
                         (int)(a < 60 ? a : 60), left, (int)(b < 60 ? b : 60), right);
    enum vocab_result result = vocab_put(&bpe->merges, (const char *)pair, sizeof pair, (int32_t)bpe->merged.count);
    return result != VOCAB_NO_MEMORY && text_ids_append(&bpe->merged, merged) ? TESSERA_OK : out_of_memory(error);
}

/* One merge as "left right". */
static tessera_status add_merge_line(struct clip_bpe *bpe, const char *path, const char *line, size_t length, tessera_error *error) {
    const char *space = memchr(line, ' ', length);
    size_t left = space != NULL ? (size_t)(space - line) : 0;
    if (left == 0 || left + 1 == length || memchr(space + 1, ' ', length - left - 1) != NULL)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: merges: number %zu is not two tokens with a space between", path,
                         bpe->merged.count);
    return add_merge(bpe, path, line, left, space + 1, length - left - 1, error);
}

tessera_status clip_bpe_read_merges(struct clip_bpe *bpe, const char *name, const char *text, size_t length, tessera_error *error) {
    for (const char *line = text, *end = text + length, *stop; line < end; line = stop + 1) {
        stop = memchr(line, '\n', (size_t)(end - line));
        if (stop == NULL) stop = end;
        size_t size = (size_t)(stop - line);
        if (size > 0 && line[size - 1] == '\r') size--;
        if (size == 0 || (size >= 8 && memcmp(line, "#version", 8) == 0)) continue;
        TRY(add_merge_line(bpe, name, line, size, error));
    }
    return TESSERA_OK;
}

static tessera_status read_json_merges(struct clip_bpe *bpe, const char *path, const struct cJSON *merges, tessera_error *error) {
    if (!cJSON_IsArray(merges)) return error_set(error, TESSERA_ERROR_FORMAT, "%s: model.merges must be a list", path);
    for (const struct cJSON *item = merges->child; item != NULL; item = item->next) {
        const struct cJSON *left = cJSON_IsArray(item) ? item->child : NULL, *right = left != NULL ? left->next : NULL;
        if (cJSON_IsString(item)) {
            TRY(add_merge_line(bpe, path, item->valuestring, strlen(item->valuestring), error));
        } else if (cJSON_IsString(left) && cJSON_IsString(right) && right->next == NULL) {
            TRY(add_merge(bpe, path, left->valuestring, strlen(left->valuestring), right->valuestring, strlen(right->valuestring), error));
        } else {
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: model.merges: number %zu is neither \"a b\" nor [\"a\", \"b\"]", path,
                             bpe->merged.count);
        }
    }
    return TESSERA_OK;
}

/* Whether a pattern of the pre-tokenizer names the special tokens. */
static bool pattern_names_specials(const struct json *json) {
    const struct cJSON *list = json_find(json, "pre_tokenizer.pretokenizers");
    for (const struct cJSON *item = cJSON_IsArray(list) ? list->child : NULL; item != NULL; item = item->next) {
        const struct cJSON *regex = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(item, "pattern"), "Regex");
        if (cJSON_IsString(regex) && strstr(regex->valuestring, "startoftext") != NULL) return true;
    }
    return false;
}

tessera_status clip_bpe_read_json(struct clip_bpe *bpe, const struct json *json, tessera_error *error) {
    const char *type, *suffix, *path = json_path(json);
    TRY(json_string(json, "model.type", "BPE", &type, error));
    TRY(json_string(json, "model.end_of_word_suffix", "", &suffix, error));
    if (strcmp(type, "BPE") != 0)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: model.type is %.60s, but a CLIP tokenizer's is BPE", path, type);
    if (strcmp(suffix, end_of_word) != 0)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: model.end_of_word_suffix must be \"%s\" for a CLIP tokenizer", path,
                         end_of_word);
    bpe->splits_specials = pattern_names_specials(json);
    TRY(read_vocab(bpe, path, json_find(json, "model.vocab"), error));
    TRY(read_json_merges(bpe, path, json_find(json, "model.merges"), error));
    return added_tokens_read(&bpe->added, json, &bpe->vocab, error);
}

/* GPT-2's alphabet: printable bytes stand for themselves, the others for U+0100 and up in their
 * order. */
static void fill_byte_ids(struct clip_bpe *bpe) {
    int32_t next = 256;
    for (int byte = 0; byte < 256; byte++) {
        bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
        char letter[8];
        size_t size = (size_t)utf8proc_encode_char(printable ? byte : next++, (utf8proc_uint8_t *)letter);
        bpe->byte_ids[0][byte] = vocab_find(&bpe->vocab, letter, size);
        memcpy(letter + size, end_of_word, 4);
        bpe->byte_ids[1][byte] = vocab_find(&bpe->vocab, letter, size + 4);
    }
}

static tessera_status find_special(struct clip_bpe *bpe, const char *name, const char *field, const struct special_token *token,
                                   int32_t *id, tessera_error *error) {
    *id = vocab_find(&bpe->vocab, token->content, strlen(token->content));
    for (size_t i = 0; i < bpe->added.count && *id < 0; i++)
        if (strcmp(bpe->added.tokens[i].content, token->content) == 0) *id = bpe->added.tokens[i].id;
    if (*id < 0)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: the %s \"%.60s\" is not in the vocabulary", name, field, token->content);
    return added_tokens_add(&bpe->added, token->content, *id, token->normalized, error);
}

tessera_status clip_bpe_finish(struct clip_bpe *bpe, const char *name, const struct special_tokens *specials, tessera_error *error) {
    TRY(find_special(bpe, name, "bos_token", &specials->bos, &bpe->bos, error));
    TRY(find_special(bpe, name, "eos_token", &specials->eos, &bpe->eos, error));
    TRY(find_special(bpe, name, "unk_token", &specials->unk, &bpe->unk, error));
    TRY(find_special(bpe, name, "pad_token", &specials->pad, &bpe->pad, error));
    fill_byte_ids(bpe);
    return TESSERA_OK;
}

void clip_bpe_clear(struct clip_bpe *bpe) {
    vocab_clear(&bpe->vocab);
    vocab_clear(&bpe->merges);
    free(bpe->merged.data);
    added_tokens_clear(&bpe->added);
    *bpe = (struct clip_bpe){0};
}

/* ---- merging one word ---- */

struct symbol {
    int32_t id, previous, next;
}; /* id -1: merged into the one before */
struct candidate {
    int32_t rank, position, left, right;
}; /* stale once an id of the two has changed */
struct merger {
    struct symbol *symbols;
    struct candidate *heap;
    size_t count;
};

static bool comes_before(const struct candidate *a, const struct candidate *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->position < b->position;
}

/* Pushes the pair of the symbols at `position` and after it, if there is a merge for it. The heap
 * never holds more than 3 n. */
static void push_pair(const struct clip_bpe *bpe, struct merger *merger, int32_t position) {
    int32_t next = position >= 0 ? merger->symbols[position].next : -1;
    if (next < 0) return;
    int32_t pair[2] = {merger->symbols[position].id, merger->symbols[next].id};
    int32_t rank = vocab_find(&bpe->merges, (const char *)pair, sizeof pair);
    if (rank < 0) return;
    struct candidate added = {rank, position, pair[0], pair[1]}, *heap = merger->heap;
    size_t i = merger->count++;
    for (; i > 0 && comes_before(&added, &heap[(i - 1) / 2]); i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = added;
}

static struct candidate pop_pair(struct merger *merger) {
    struct candidate *heap = merger->heap, top = heap[0], last = heap[--merger->count];
    size_t i = 0;
    for (size_t child = 1; child < merger->count; child = 2 * i + 1) {
        if (child + 1 < merger->count && comes_before(&heap[child + 1], &heap[child])) child++;
        if (!comes_before(&heap[child], &last)) break;
        heap[i] = heap[child];
        i = child;
    }
    if (merger->count > 0) heap[i] = last;
    return top;
}

static void merge_symbols(const struct clip_bpe *bpe, struct merger *merger, size_t count) {
    struct symbol *symbols = merger->symbols;
    for (size_t i = 0; i + 1 < count; i++) push_pair(bpe, merger, (int32_t)i);
    while (merger->count > 0) {
        struct candidate best = pop_pair(merger);
        struct symbol *left = &symbols[best.position];
        if (left->id != best.left || left->next < 0 || symbols[left->next].id != best.right) continue;
        struct symbol *right = &symbols[left->next];
        left->id = bpe->merged.data[best.rank];
        left->next = right->next;
        right->id = -1;
        if (left->next >= 0) symbols[left->next].previous = best.position;
        push_pair(bpe, merger, left->previous);
        push_pair(bpe, merger, best.position);
    }
}

static tessera_status encode_word(const struct clip_bpe *bpe, const char *word, size_t length, struct text_ids *ids, tessera_error *error) {
    struct merger merger = {malloc(length * sizeof *merger.symbols), malloc(3 * length * sizeof *merger.heap), 0};
    tessera_status status = TESSERA_OK;
    if (merger.symbols == NULL || merger.heap == NULL) {
        status = out_of_memory(error);
        goto done;
    }
    for (size_t i = 0; i < length; i++) {
        int32_t id = bpe->byte_ids[i + 1 == length][(uint8_t)word[i]], here = (int32_t)i;
        merger.symbols[i] = (struct symbol){id >= 0 ? id : bpe->unk, here - 1, i + 1 == length ? -1 : here + 1};
    }
    merge_symbols(bpe, &merger, length);
    for (size_t i = 0; i < length && status == TESSERA_OK; i++)
        if (merger.symbols[i].id >= 0 && !text_ids_append(ids, merger.symbols[i].id)) status = out_of_memory(error);
done:
    free(merger.symbols);
    free(merger.heap);
    return status;
}

/* ---- normalising and finding words ---- */

static bool normalize(const char *text, size_t length, struct text_bytes *out) {
    utf8proc_uint8_t *composed = NULL;
    utf8proc_ssize_t size =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)length, &composed, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    bool ok = size >= 0, in_space = false;
    size_t step;
    for (size_t i = 0; ok && i < (size_t)size; i += step) {
        int32_t codepoint = text_decode((const char *)composed + i, (size_t)size - i, &step);
        bool space = text_is_space(codepoint);
        if (!space)
            ok = text_append_lower(out, codepoint);
        else if (!in_space)
            ok = text_bytes_append(out, " ", 1);
        in_space = space;
    }
    free(composed);
    return ok;
}

enum kind { KIND_SPACE, KIND_LETTER, KIND_NUMBER, KIND_OTHER };

static enum kind classify(int32_t codepoint) {
    switch (utf8proc_category(codepoint)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return KIND_LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return KIND_NUMBER;
    default:
        return text_is_space(codepoint) ? KIND_SPACE : KIND_OTHER;
    }
}

/* The bytes of a fixed alternative of the pattern that stands here, else 0. */
static size_t match_fixed(const char *text, size_t length, const char *const *alternatives) {
    for (; *alternatives != NULL; alternatives++) {
        size_t size = strlen(*alternatives);
        if (size <= length && memcmp(text, *alternatives, size) == 0) return size;
    }
    return 0;
}

/* The bytes of the word that starts here; letters and others run on, a number is one code point.
 * *kind is of its first code point. */
static size_t match_word(const char *text, size_t length, enum kind *kind) {
    static const char *const contractions[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d", NULL};
    size_t size, end = 0;
    *kind = classify(text_decode(text, length, &end));
    size_t fixed = match_fixed(text, length, contractions);
    if (fixed > 0) return fixed;
    if (*kind == KIND_SPACE || *kind == KIND_NUMBER) return end;
    while (end < length && classify(text_decode(text + end, length - end, &size)) == *kind) end += size;
    return end;
}

static tessera_status encode_words(const struct clip_bpe *bpe, const char *text, size_t length, struct text_ids *ids,
                                   tessera_error *error) {
    static const char *const specials[] = {"<|startoftext|>", "<|endoftext|>", NULL};
    size_t limit = length; /* where a special token in the text ends, so that a word ends there too */
    for (size_t i = 0, size; i < length; i += size) {
        if (i == limit) limit = length;
        size_t special = bpe->splits_specials && limit == length ? match_fixed(text + i, length - i, specials) : 0;
        if (special > 0) limit = i + special;
        enum kind kind;
        size = match_word(text + i, limit - i, &kind);
        if (kind != KIND_SPACE) TRY(encode_word(bpe, text + i, size, ids, error));
    }
    return TESSERA_OK;
}

/* ---- the whole text ---- */

typedef tessera_status (*encode_piece)(const struct clip_bpe *bpe, const char *text, size_t length, struct text_ids *ids,
                                       tessera_error *error);

/* Cuts the added tokens out of the text and gives what is between them to `encode`. */
static tessera_status encode_between(const struct clip_bpe *bpe, bool normalized, encode_piece encode, const char *text, size_t length,
                                     struct text_ids *ids, tessera_error *error) {
    for (size_t i = 0, start; i < length;) {
        start = i;
        int token = added_tokens_search(&bpe->added, normalized, text, length, &start);
        if (start > i) TRY(encode(bpe, text + i, start - i, ids, error));
        if (token >= 0 && !text_ids_append(ids, bpe->added.tokens[token].id)) return out_of_memory(error);
        i = token >= 0 ? start + bpe->added.tokens[token].length : length;
    }
    return TESSERA_OK;
}

static tessera_status encode_raw(const struct clip_bpe *bpe, const char *text, size_t length, struct text_ids *ids, tessera_error *error) {
    struct text_bytes clean = {0};
    tessera_status status = normalize(text, length, &clean) ? TESSERA_OK : out_of_memory(error);
    if (status == TESSERA_OK) status = encode_between(bpe, true, encode_words, clean.data, clean.length, ids, error);
    free(clean.data);
    return status;
}

tessera_status clip_bpe_encode(const struct clip_bpe *bpe, const char *text, size_t length, struct text_ids *ids, tessera_error *error) {
    return encode_between(bpe, false, encode_raw, text, length, ids, error);
}
