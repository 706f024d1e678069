/* WordPiece: words are cut greedily, the longest known piece first; a word that cannot be cut whole
 * is unknown.
 *
 * vocab.txt says nothing of how a text is cleaned: tokenizer_config.json does, and its class
 * (BertTokenizer) has defaults for it. tokenizer.json has a BertNormalizer, which counts only where
 * no class is named, as in transformers.
 *
 * Categories are utf8proc's; tokenizers has those of Unicode 8, so some 400 rare marks that came
 * later differ.
 *
 * Left out: other normalizers and pre-tokenizers than BERT's own, and added tokens that are looked
 * for in the normalised text (all are cut out of the raw one). */
#include "tokenizers/wordpiece.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/json.h"

enum { MOST_DECOMPOSED = 32, DEFAULT_MOST_CHARACTERS = 100, ID_LIMIT = 1 << 24 };

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a WordPiece tokenizer");
}

/* ---- reading ---- */

static void set_defaults(struct wordpiece *wordpiece) {
    strcpy(wordpiece->prefix, "##");
    wordpiece->most_characters = DEFAULT_MOST_CHARACTERS;
    wordpiece->rules = (struct wordpiece_rules){true, true, true, true};
}

static bool add_piece(struct wordpiece *wordpiece, const char *piece, size_t length, int32_t id) {
    if (length > wordpiece->longest) wordpiece->longest = length;
    return vocab_put(&wordpiece->vocab, piece, length, id) != VOCAB_NO_MEMORY;
}

tessera_status wordpiece_read_vocab(struct wordpiece *wordpiece, const char *text, size_t length, tessera_error *error) {
    int32_t id = 0;
    set_defaults(wordpiece);
    for (size_t start = 0; start < length; id++) {
        const char *end = memchr(text + start, '\n', length - start);
        size_t stop = end != NULL ? (size_t)(end - text) : length, size = stop - start;
        if (size > 0 && text[stop - 1] == '\r') size--;
        if (!add_piece(wordpiece, text + start, size, id)) return out_of_memory(error);
        start = stop + 1;
    }
    return TESSERA_OK;
}

static tessera_status read_pieces(struct wordpiece *wordpiece, const char *path, const struct cJSON *vocab, tessera_error *error) {
    if (!cJSON_IsObject(vocab)) return error_set(error, TESSERA_ERROR_FORMAT, "%s: model.vocab must be an object of pieces and ids", path);
    for (const struct cJSON *item = vocab->child; item != NULL; item = item->next) {
        double id = cJSON_IsNumber(item) ? item->valuedouble : -1;
        if (!(id >= 0 && id < ID_LIMIT && id == (int32_t)id))
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: model.vocab: the id of \"%.60s\" must be a whole number in [0, %d)", path,
                             item->string, ID_LIMIT);
        if (!add_piece(wordpiece, item->string, strlen(item->string), (int32_t)id)) return out_of_memory(error);
    }
    return TESSERA_OK;
}

/* BertNormalizer's fields; strip_accents null means "as lower case". No normalizer cleans nothing. */
static tessera_status read_normalizer(struct wordpiece *wordpiece, const struct json *json, tessera_error *error) {
    struct wordpiece_rules *rules = &wordpiece->rules;
    const char *type;
    TRY(json_string(json, "normalizer.type", "", &type, error));
    if (json_find(json, "normalizer") == NULL) {
        *rules = (struct wordpiece_rules){0};
        return TESSERA_OK;
    }
    if (strcmp(type, "BertNormalizer") != 0)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                         "%s: normalizer.type is \"%.60s\", but a WordPiece tokenizer's is BertNormalizer", json_path(json), type);
    TRY(json_bool(json, "normalizer.clean_text", true, &rules->clean_text, error));
    TRY(json_bool(json, "normalizer.handle_chinese_chars", true, &rules->chinese_characters, error));
    TRY(json_bool(json, "normalizer.lowercase", true, &rules->lower_case, error));
    return json_bool(json, "normalizer.strip_accents", rules->lower_case, &rules->strip_accents, error);
}

tessera_status wordpiece_read_json(struct wordpiece *wordpiece, const struct json *json, tessera_error *error) {
    const char *type, *prefix, *path = json_path(json);
    int64_t most;
    set_defaults(wordpiece);
    TRY(json_string(json, "model.type", "WordPiece", &type, error));
    if (strcmp(type, "WordPiece") != 0)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: model.type is %.60s, but a BERT tokenizer's is WordPiece", path, type);
    TRY(json_string(json, "model.continuing_subword_prefix", "##", &prefix, error));
    if (strlen(prefix) > WORDPIECE_MOST_PREFIX)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: model.continuing_subword_prefix is longer than %d bytes", path,
                         WORDPIECE_MOST_PREFIX);
    strcpy(wordpiece->prefix, prefix);
    TRY(json_int(json, "model.max_input_chars_per_word", DEFAULT_MOST_CHARACTERS, 1, WORDPIECE_MOST_CHARACTERS, &most, error));
    wordpiece->most_characters = (int)most;
    TRY(read_pieces(wordpiece, path, json_find(json, "model.vocab"), error));
    TRY(read_normalizer(wordpiece, json, error));
    return added_tokens_read(&wordpiece->added, json, &wordpiece->vocab, error);
}

tessera_status wordpiece_read_rules(struct wordpiece *wordpiece, const struct json *config, tessera_error *error) {
    struct wordpiece_rules *rules = &wordpiece->rules;
    *rules = (struct wordpiece_rules){true, true, true, true};
    if (config == NULL) return TESSERA_OK;
    TRY(json_bool(config, "do_lower_case", true, &rules->lower_case, error));
    TRY(json_bool(config, "tokenize_chinese_chars", true, &rules->chinese_characters, error));
    return json_bool(config, "strip_accents", rules->lower_case, &rules->strip_accents, error);
}

static tessera_status add_special(struct wordpiece *wordpiece, const char *name, const char *content, int32_t *id, tessera_error *error) {
    *id = vocab_find(&wordpiece->vocab, content, strlen(content));
    for (size_t i = 0; i < wordpiece->added.count && *id < 0; i++)
        if (strcmp(wordpiece->added.tokens[i].content, content) == 0) *id = wordpiece->added.tokens[i].id;
    if (*id < 0) return error_set(error, TESSERA_ERROR_FORMAT, "%s: the special token \"%.60s\" is not in the vocabulary", name, content);
    return added_tokens_add(&wordpiece->added, content, *id, false, error);
}

tessera_status wordpiece_finish(struct wordpiece *wordpiece, const char *name, const struct special_tokens *specials,
                                tessera_error *error) {
    TRY(add_special(wordpiece, name, specials->bos.content, &wordpiece->cls, error));
    TRY(add_special(wordpiece, name, specials->eos.content, &wordpiece->sep, error));
    TRY(add_special(wordpiece, name, specials->unk.content, &wordpiece->unk, error));
    TRY(add_special(wordpiece, name, specials->pad.content, &wordpiece->pad, error));
    for (size_t i = 0; i < wordpiece->added.count; i++) wordpiece->added.tokens[i].normalized = false;
    return TESSERA_OK;
}

/* ---- cleaning ---- */

/* The CJK blocks that BERT writes one word a character in. */
static bool is_chinese(int32_t c) {
    static const int32_t ranges[][2] = {{0x4E00, 0x9FFF},   {0x3400, 0x4DBF},   {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F},
                                        {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF}, {0xF900, 0xFAFF},   {0x2F800, 0x2FA1F}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (c >= ranges[i][0] && c <= ranges[i][1]) return true;
    return false;
}

/* What clean_text drops: of the control characters all but tab and line ends, which are spaces. */
static bool is_dropped(int32_t c) {
    utf8proc_category_t category = utf8proc_category(c);
    if (c == '\t' || c == '\n' || c == '\r') return false;
    return c == 0xFFFD || category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF || category == UTF8PROC_CATEGORY_CO;
}

/* Punctuation that came after Unicode 8, whose tables tokenizers has: it does not know it. */
static bool is_newer_punctuation(int32_t c) {
    static const int32_t ranges[][2] = {{0x61D, 0x61D},     {0x9FD, 0x9FD},     {0xA76, 0xA76},     {0xC77, 0xC77},     {0xC84, 0xC84},
                                        {0x1B7D, 0x1B7E},   {0x2E43, 0x2E4F},   {0x2E52, 0x2E5D},   {0x10EAD, 0x10EAD}, {0x10F55, 0x10F59},
                                        {0x10F86, 0x10F89}, {0x1144B, 0x1144F}, {0x1145A, 0x1145B}, {0x1145D, 0x1145D}, {0x11660, 0x1166C},
                                        {0x116B9, 0x116B9}, {0x1183B, 0x1183B}, {0x11944, 0x11946}, {0x119E2, 0x119E2}, {0x11A3F, 0x11A46},
                                        {0x11A9A, 0x11A9C}, {0x11A9E, 0x11AA2}, {0x11B00, 0x11B09}, {0x11C41, 0x11C45}, {0x11C70, 0x11C71},
                                        {0x11EF7, 0x11EF8}, {0x11F43, 0x11F4F}, {0x11FFF, 0x11FFF}, {0x12FF1, 0x12FF2}, {0x16E97, 0x16E9A},
                                        {0x16FE2, 0x16FE2}, {0x1E95E, 0x1E95F}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (c >= ranges[i][0] && c <= ranges[i][1]) return true;
    return false;
}

static bool is_punctuation(int32_t c) {
    if (c < 128) return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
    utf8proc_category_t category = utf8proc_category(c);
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO && !is_newer_punctuation(c);
}

/* A cleaned code point: spaces as one byte, punctuation as a word of its own. */
static bool append_split(struct text_bytes *out, int32_t c) {
    if (text_is_space(c)) return text_bytes_append(out, " ", 1);
    if (!is_punctuation(c)) return text_append_codepoint(out, c);
    return text_bytes_append(out, " ", 1) && text_append_codepoint(out, c) && text_bytes_append(out, " ", 1);
}

/* U+0130 in lower case is two code points (see text_append_lower). */
static bool append_cased(const struct wordpiece_rules *rules, struct text_bytes *out, int32_t c) {
    if (rules->lower_case && c == 0x130) return text_append_lower(out, c);
    return append_split(out, rules->lower_case ? utf8proc_tolower(c) : c);
}

/* One code point as the rules say: without accents means each part of its decomposition that is no
 * mark. */
static bool append_folded(const struct wordpiece_rules *rules, struct text_bytes *out, int32_t c) {
    if (!rules->strip_accents) return append_cased(rules, out, c);
    utf8proc_int32_t pieces[MOST_DECOMPOSED];
    utf8proc_ssize_t count = utf8proc_decompose_char(c, pieces, MOST_DECOMPOSED, UTF8PROC_DECOMPOSE, NULL);
    if (count < 0 || count > MOST_DECOMPOSED) return append_cased(rules, out, c);
    for (utf8proc_ssize_t i = 0; i < count; i++) {
        if (utf8proc_category(pieces[i]) == UTF8PROC_CATEGORY_MN) continue;
        if (!append_cased(rules, out, pieces[i])) return false;
    }
    return true;
}

/* The text as words between single spaces: punctuation and Chinese characters are words of their own. */
static bool append_words(const struct wordpiece *wordpiece, const char *text, size_t length, struct text_bytes *out) {
    const struct wordpiece_rules *rules = &wordpiece->rules;
    bool ok = true;
    for (size_t at = 0, size; at < length && ok; at += size) {
        int32_t c = text_decode(text + at, length - at, &size);
        if (rules->clean_text && is_dropped(c)) continue;
        bool alone = rules->chinese_characters && is_chinese(c);
        ok = !alone || text_bytes_append(out, " ", 1);
        ok = ok && append_folded(rules, out, c);
        ok = ok && (!alone || text_bytes_append(out, " ", 1));
    }
    return ok;
}

/* ---- cutting into pieces ---- */

/* The longest piece at the start of `word`: its id and, in *used, its bytes; -1 if there is none. */
static int32_t longest_piece(const struct wordpiece *wordpiece, const char *word, size_t length, bool inside, size_t *used) {
    char key[WORDPIECE_MOST_PREFIX + 4 * WORDPIECE_MOST_CHARACTERS];
    size_t prefix = inside ? strlen(wordpiece->prefix) : 0;
    if (length > wordpiece->longest) length = wordpiece->longest;
    memcpy(key, wordpiece->prefix, prefix);
    memcpy(key + prefix, word, length);
    for (size_t size = length; size > 0; size--) {
        int32_t id = vocab_find(&wordpiece->vocab, key, prefix + size);
        *used = size;
        if (id >= 0) return id;
    }
    return -1;
}

static bool append_pieces(const struct wordpiece *wordpiece, const char *word, size_t length, struct text_ids *ids) {
    size_t before = ids->count, characters = 0, used = 0;
    for (size_t i = 0; i < length; i++) characters += ((unsigned char)word[i] & 0xC0) != 0x80;
    if (characters > (size_t)wordpiece->most_characters) return text_ids_append(ids, wordpiece->unk);
    for (size_t at = 0; at < length; at += used) {
        int32_t id = longest_piece(wordpiece, word + at, length - at, at > 0, &used);
        if (id < 0) {
            ids->count = before;
            return text_ids_append(ids, wordpiece->unk);
        }
        if (!text_ids_append(ids, id)) return false;
    }
    return true;
}

/* Text without added tokens. */
static bool encode_plain(const struct wordpiece *wordpiece, const char *text, size_t length, struct text_ids *ids) {
    struct text_bytes words = {0};
    bool ok = append_words(wordpiece, text, length, &words);
    for (size_t at = 0; ok && at < words.length;) {
        const char *end = memchr(words.data + at, ' ', words.length - at);
        size_t stop = end != NULL ? (size_t)(end - words.data) : words.length;
        if (stop > at) ok = append_pieces(wordpiece, words.data + at, stop - at, ids);
        at = stop + 1;
    }
    free(words.data);
    return ok;
}

tessera_status wordpiece_encode(const struct wordpiece *wordpiece, const char *text, size_t length, struct text_ids *ids,
                                tessera_error *error) {
    for (size_t at = 0; at < length;) {
        size_t start = at;
        int found = added_tokens_search(&wordpiece->added, false, text, length, &start);
        size_t stop = found >= 0 ? start : length;
        if (!encode_plain(wordpiece, text + at, stop - at, ids)) return out_of_memory(error);
        if (found < 0) break;
        if (!text_ids_append(ids, wordpiece->added.tokens[found].id)) return out_of_memory(error);
        at = stop + wordpiece->added.tokens[found].length;
    }
    return TESSERA_OK;
}

void wordpiece_clear(struct wordpiece *wordpiece) {
    vocab_clear(&wordpiece->vocab);
    added_tokens_clear(&wordpiece->added);
}
