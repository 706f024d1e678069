/* T5's tokenizer: reading spiece.model (protobuf) or tokenizer.json, and encoding words by the
 * unigram model.
 *
 * All pieces are normal ones, as in transformers, where "</s>" in a normalised text is a piece like
 * any other.
 *
 * Byte pieces (mT5's <0x00> to <0xFF>) are pieces like any other and unknown characters are the
 * unknown token, because transformers 5 does no byte fallback for T5. User-defined and control
 * pieces are cut out of the raw text.
 *
 * Left out: byte fallback (model.byte_fallback), BPE models, and what Metaspace does with several
 * spaces in a row. */
#include "tokenizers/t5_sentencepiece.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

static const char space_symbol[] = "\xE2\x96\x81"; /* U+2581 */
enum { PIECE_LIMIT = 1 << 22, MOST_CUT_PIECES = 4096 };
enum { PIECE_NORMAL = 1, PIECE_UNKNOWN = 2, PIECE_CONTROL = 3, PIECE_USER_DEFINED = 4 }; /* sentencepiece_model.proto, SentencePiece.Type */
enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory in the T5 tokenizer");
}

/* ---- pieces ---- */

static bool keep_score(struct t5_sentencepiece *t5, size_t id, double score) {
    if (id >= t5->score_capacity) {
        size_t capacity = t5->score_capacity > 0 ? 2 * t5->score_capacity : 1024;
        double *grown = realloc(t5->scores, capacity * sizeof *grown);
        if (grown == NULL) return false;
        t5->scores = grown;
        t5->score_capacity = capacity;
    }
    t5->scores[id] = score;
    if (id == 0 || score < t5->least_score) t5->least_score = score;
    return true;
}

/* Adds the next piece; its id is its index. */
static tessera_status add_piece(struct t5_sentencepiece *t5, const char *name, const char *piece, size_t length, double score, bool unknown,
                                tessera_error *error) {
    size_t id = t5->pieces.count;
    if (length == 0 || memchr(piece, 0, length) != NULL || !text_is_valid(piece, length))
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: piece %zu is empty or not UTF-8", name, id);
    if (!isfinite(score) || fabs(score) > 1e9)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: the score of piece %zu is not finite", name, id);
    if (id >= PIECE_LIMIT) return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: more than %d pieces", name, PIECE_LIMIT);
    enum vocab_result result = vocab_add(&t5->pieces, piece, length, (int32_t)id);
    if (result == VOCAB_PRESENT)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: the piece \"%.*s\" is given twice", name, (int)(length < 60 ? length : 60),
                         piece);
    if (unknown) t5->unk = (int32_t)id;
    if (result != VOCAB_ADDED || !keep_score(t5, id, score)) return out_of_memory(error);
    if (length > t5->longest) t5->longest = length;
    return TESSERA_OK;
}

/* ---- reading spiece.model ---- */

struct wire {
    const uint8_t *data;
    size_t left;
};
struct wire_field {
    uint64_t number, value;
    int type;
    struct wire bytes;
}; /* `value` of numbers, `bytes` of the rest */

static bool read_varint(struct wire *wire, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 64 && wire->left > 0; shift += 7) {
        uint8_t byte = *wire->data++;
        wire->left--;
        *value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

/* The next field; false if the bytes break the wire format. */
static bool read_field(struct wire *wire, struct wire_field *field) {
    uint64_t key, size;
    if (!read_varint(wire, &key)) return false;
    field->number = key >> 3;
    field->type = (int)(key & 7);
    if (field->number == 0) return false;
    if (field->type == WIRE_VARINT) return read_varint(wire, &field->value);
    if (field->type == WIRE_BYTES) {
        if (!read_varint(wire, &size)) return false;
    } else if (field->type == WIRE_FIXED32 || field->type == WIRE_FIXED64) {
        size = field->type == WIRE_FIXED32 ? 4 : 8;
    } else {
        return false;
    }
    if (size > wire->left) return false;
    field->bytes = (struct wire){wire->data, (size_t)size};
    wire->data += size;
    wire->left -= (size_t)size;
    return true;
}

static tessera_status broken_wire(const char *name, const char *field, tessera_error *error) {
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: %s is not a well-formed sentencepiece model", name, field);
}

/* A piece that is cut out of the raw text. */
static tessera_status add_cut_piece(struct t5_sentencepiece *t5, const struct wire *piece, int32_t id, tessera_error *error) {
    if (t5->added.count >= MOST_CUT_PIECES)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "more than %d user-defined or control pieces", MOST_CUT_PIECES);
    char *content = strndup((const char *)piece->data, piece->left);
    if (content == NULL) return out_of_memory(error);
    tessera_status status = added_tokens_add(&t5->added, content, id, false, error);
    free(content);
    return status;
}

static tessera_status read_piece(struct t5_sentencepiece *t5, const char *name, struct wire wire, tessera_error *error) {
    struct wire piece = {0};
    float score = 0;
    uint64_t type = PIECE_NORMAL;
    for (struct wire_field field; wire.left > 0;) {
        if (!read_field(&wire, &field)) return broken_wire(name, "pieces", error);
        if (field.number == 1 && field.type == WIRE_BYTES) piece = field.bytes;
        if (field.number == 2 && field.type == WIRE_FIXED32) {
            const uint8_t *b = field.bytes.data;
            uint32_t bits = b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
            memcpy(&score, &bits, sizeof score);
        }
        if (field.number == 3 && field.type == WIRE_VARINT) type = field.value;
    }
    if (type == PIECE_UNKNOWN && t5->unk >= 0) return error_set(error, TESSERA_ERROR_FORMAT, "%s: two pieces are of type UNKNOWN", name);
    int32_t id = (int32_t)t5->pieces.count;
    TRY(add_piece(t5, name, (const char *)piece.data, piece.left, score, type == PIECE_UNKNOWN, error));
    return type == PIECE_CONTROL || type == PIECE_USER_DEFINED ? add_cut_piece(t5, &piece, id, error) : TESSERA_OK;
}

/* The field `number` of a message, the last one if there are several; its wire type must be `type`.
 * False: malformed. */
static bool find_field(struct wire wire, uint64_t number, int type, struct wire_field *found) {
    for (struct wire_field field; wire.left > 0;) {
        if (!read_field(&wire, &field)) return false;
        if (field.number == number && field.type == type) *found = field;
    }
    return true;
}

tessera_status t5_sentencepiece_read_model(struct t5_sentencepiece *t5, const char *name, const uint8_t *data, size_t length,
                                           tessera_error *error) {
    struct wire wire = {data, length};
    struct wire_field model_type = {.value = 1}, charsmap = {0};
    t5->unk = -1;
    for (struct wire_field field; wire.left > 0;) {
        if (!read_field(&wire, &field)) return broken_wire(name, "the file", error);
        if (field.type != WIRE_BYTES) continue;
        if (field.number == 1) TRY(read_piece(t5, name, field.bytes, error));
        if (field.number == 2 && !find_field(field.bytes, 3, WIRE_VARINT, &model_type)) return broken_wire(name, "trainer_spec", error);
        if (field.number == 3 && !find_field(field.bytes, 2, WIRE_BYTES, &charsmap)) return broken_wire(name, "normalizer_spec", error);
    }
    if (model_type.value != 1) return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: trainer_spec.model_type is not unigram", name);
    return charsmap_read(&t5->charsmap, name, charsmap.bytes.data, charsmap.bytes.left, error);
}

/* ---- reading tokenizer.json ---- */

static int base64_digit(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static tessera_status read_base64_charsmap(struct t5_sentencepiece *t5, const char *path, const char *text, tessera_error *error) {
    struct text_bytes bytes = {0};
    uint32_t bits = 0;
    int held = 0;
    bool ok = true, well_formed = true;
    for (const char *c = text; *c != 0 && *c != '=' && ok && well_formed; c++) {
        int digit = base64_digit(*c);
        well_formed = digit >= 0;
        bits = (bits << 6 | (uint32_t)(digit & 63)) & 0xFFFF;
        held += 6;
        if (held < 8) continue;
        held -= 8;
        char byte = (char)(bits >> held);
        ok = text_bytes_append(&bytes, &byte, 1);
    }
    tessera_status status = !ok ? out_of_memory(error) : TESSERA_OK;
    if (!well_formed) status = error_set(error, TESSERA_ERROR_FORMAT, "%s: normalizer.precompiled_charsmap is not base64", path);
    if (status == TESSERA_OK) status = charsmap_read(&t5->charsmap, path, (const uint8_t *)bytes.data, bytes.length, error);
    free(bytes.data);
    return status;
}

/* Precompiled, alone or in a Sequence. Strip and Replace only tidy whitespace, which cutting into
 * words drops anyway. */
static tessera_status read_normalizer(struct t5_sentencepiece *t5, const char *path, const struct cJSON *normalizer, int depth,
                                      tessera_error *error) {
    if (normalizer == NULL) return TESSERA_OK;
    const struct cJSON *type = cJSON_GetObjectItemCaseSensitive(normalizer, "type");
    const char *kind = cJSON_IsString(type) ? type->valuestring : "";
    const struct cJSON *charsmap = cJSON_GetObjectItemCaseSensitive(normalizer, "precompiled_charsmap");
    if (strcmp(kind, "Precompiled") == 0 && cJSON_IsString(charsmap) && t5->charsmap.units == NULL)
        return read_base64_charsmap(t5, path, charsmap->valuestring, error);
    if (strcmp(kind, "Strip") == 0 || strcmp(kind, "Replace") == 0) return TESSERA_OK;
    const struct cJSON *list = cJSON_GetObjectItemCaseSensitive(normalizer, "normalizers");
    if (strcmp(kind, "Sequence") != 0 || !cJSON_IsArray(list) || depth > 0)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: normalizer.type \"%.60s\" is not supported for T5", path, kind);
    for (const struct cJSON *item = list->child; item != NULL; item = item->next) TRY(read_normalizer(t5, path, item, depth + 1, error));
    return TESSERA_OK;
}

/* Metaspace, alone or after WhitespaceSplit. Older files have add_prefix_space for prepend_scheme. */
static tessera_status read_pre_tokenizer(struct t5_sentencepiece *t5, const char *path, const struct cJSON *item, int depth,
                                         tessera_error *error) {
    const struct cJSON *type = cJSON_GetObjectItemCaseSensitive(item, "type");
    const char *kind = cJSON_IsString(type) ? type->valuestring : "";
    const struct cJSON *list = cJSON_GetObjectItemCaseSensitive(item, "pretokenizers");
    if (strcmp(kind, "Sequence") == 0 && cJSON_IsArray(list) && depth == 0) {
        for (item = list->child; item != NULL; item = item->next) TRY(read_pre_tokenizer(t5, path, item, 1, error));
        return TESSERA_OK;
    }
    if (strcmp(kind, "WhitespaceSplit") == 0) {
        t5->keeps_spaces = false;
        return TESSERA_OK;
    }
    const struct cJSON *scheme = cJSON_GetObjectItemCaseSensitive(item, "prepend_scheme");
    const char *name = cJSON_IsString(scheme) ? scheme->valuestring : "always";
    bool old_never = scheme == NULL && cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(item, "add_prefix_space"));
    bool always = strcmp(name, "always") == 0, first = strcmp(name, "first") == 0, never = strcmp(name, "never") == 0;
    if (strcmp(kind, "Metaspace") != 0 || !(always || first || never))
        return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                         "%s: pre_tokenizer: \"%.60s\" with prepend_scheme \"%.60s\" is not supported for T5", path, kind, name);
    t5->prepend = never || old_never ? T5_PREPEND_NEVER : first ? T5_PREPEND_FIRST : T5_PREPEND_ALWAYS;
    return TESSERA_OK;
}

tessera_status t5_sentencepiece_read_json(struct t5_sentencepiece *t5, const struct json *json, bool rules, tessera_error *error) {
    const char *type, *path = json_path(json);
    bool byte_fallback;
    int64_t unk;
    t5->unk = -1;
    TRY(json_string(json, "model.type", "Unigram", &type, error));
    if (strcmp(type, "Unigram") != 0)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: model.type is %.60s, but a T5 tokenizer's is Unigram", path, type);
    TRY(json_bool(json, "model.byte_fallback", false, &byte_fallback, error));
    if (byte_fallback) return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: model.byte_fallback is not supported", path);
    TRY(json_int(json, "model.unk_id", -1, 0, PIECE_LIMIT, &unk, error));
    const struct cJSON *vocab = json_find(json, "model.vocab");
    if (!cJSON_IsArray(vocab)) return error_set(error, TESSERA_ERROR_FORMAT, "%s: model.vocab must be a list of [piece, score]", path);
    for (const struct cJSON *item = vocab->child; item != NULL; item = item->next) {
        const struct cJSON *piece = cJSON_IsArray(item) ? item->child : NULL, *score = piece != NULL ? piece->next : NULL;
        if (!cJSON_IsString(piece) || !cJSON_IsNumber(score))
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: model.vocab: entry %zu is not [piece, score]", path, t5->pieces.count);
        bool unknown = (int64_t)t5->pieces.count == unk;
        TRY(add_piece(t5, path, piece->valuestring, strlen(piece->valuestring), score->valuedouble, unknown, error));
    }
    TRY(read_normalizer(t5, path, json_find(json, "normalizer"), 0, error));
    t5->keeps_spaces = rules;
    if (rules) TRY(read_pre_tokenizer(t5, path, json_find(json, "pre_tokenizer"), 0, error));
    return added_tokens_read(&t5->added, json, &t5->pieces, error);
}

/* ---- finishing ---- */

static tessera_status find_special(struct t5_sentencepiece *t5, const char *name, const char *field, const struct special_token *token,
                                   int32_t *id, tessera_error *error) {
    *id = vocab_find(&t5->pieces, token->content, strlen(token->content));
    if (*id < 0) return error_set(error, TESSERA_ERROR_FORMAT, "%s: the %s \"%.60s\" is not among the pieces", name, field, token->content);
    return added_tokens_add(&t5->added, token->content, *id, token->normalized, error);
}

tessera_status t5_sentencepiece_add_extra_ids(struct t5_sentencepiece *t5, int count, bool descending, tessera_error *error) {
    char content[32];
    for (int i = 0; i < count; i++) {
        snprintf(content, sizeof content, "<extra_id_%d>", descending ? count - 1 - i : i);
        TRY(added_tokens_add(&t5->added, content, added_tokens_id(&t5->added, &t5->pieces, content), false, error));
    }
    return TESSERA_OK;
}

tessera_status t5_sentencepiece_finish(struct t5_sentencepiece *t5, const char *name, const struct special_tokens *specials,
                                       tessera_error *error) {
    int32_t named_unk;
    if (t5->unk < 0) return error_set(error, TESSERA_ERROR_FORMAT, "%s: no piece is the unknown one (type UNKNOWN, model.unk_id)", name);
    TRY(find_special(t5, name, "eos_token", &specials->eos, &t5->eos, error));
    TRY(find_special(t5, name, "pad_token", &specials->pad, &t5->pad, error));
    TRY(find_special(t5, name, "unk_token", &specials->unk, &named_unk, error));
    for (size_t i = 0; i < t5->added.count; i++) t5->added.tokens[i].normalized = false; /* all are cut out of the raw text */
    return TESSERA_OK;
}

void t5_sentencepiece_clear(struct t5_sentencepiece *t5) {
    vocab_clear(&t5->pieces);
    charsmap_clear(&t5->charsmap);
    added_tokens_clear(&t5->added);
    free(t5->scores);
    *t5 = (struct t5_sentencepiece){0};
}

/* ---- encoding ---- */

/* The best way to a place in a word. */
struct path {
    double score;
    int32_t from, id; /* where its last piece begins, and which it is; from -1: no way leads here */
};

static void offer(struct path *to, double score, size_t from, int32_t id) {
    if (to->from < 0 || score > to->score) *to = (struct path){score, (int32_t)from, id};
}

/* All pieces that begin at `at`, and the unknown one where none is the single character there. */
static void offer_pieces(const struct t5_sentencepiece *t5, const char *word, size_t length, size_t at, struct path *paths) {
    const double unknown_penalty = 10.0; /* sentencepiece's */
    size_t character, size, most = length - at < t5->longest ? length - at : t5->longest;
    bool has_single = false;
    text_decode(word + at, length - at, &character);
    for (size_t n = character; n <= most; n += size) {
        int32_t id = vocab_find(&t5->pieces, word + at, n);
        if (id >= 0) offer(&paths[at + n], paths[at].score + t5->scores[id], at, id);
        has_single |= id >= 0 && n == character;
        if (at + n == length) break;
        text_decode(word + at + n, length - at - n, &size);
    }
    if (!has_single) offer(&paths[at + character], paths[at].score + (t5->least_score - unknown_penalty), at, t5->unk);
}

/* The most likely pieces of a word (Kudo 2018, Viterbi over the sum of log probabilities, in
 * doubles). Of equally likely ways the one whose last piece begins first stays, place by place: as
 * in tokenizers, which transformers uses, and in sentencepiece 0.2. Unknown characters in a row are
 * one unknown token. False: memory is out. */
static bool encode_word(const struct t5_sentencepiece *t5, const char *word, size_t length, struct text_ids *ids) {
    struct path *paths = malloc((length + 1) * sizeof *paths);
    size_t size, count = 0;
    if (paths == NULL) return false;
    for (size_t i = 0; i <= length; i++) paths[i] = (struct path){0.0, -1, 0};
    for (size_t at = 0; at < length; at += size) {
        text_decode(word + at, length - at, &size);
        offer_pieces(t5, word, length, at, paths);
    }
    for (size_t at = length; at > 0; at = (size_t)paths[at].from)
        paths[length - count++].id = paths[at].id; /* the way back, kept at the end */
    bool ok = true;
    for (size_t i = length - count + 1; i <= length && ok; i++)
        if (paths[i].id != t5->unk || i == length - count + 1 || paths[i - 1].id != t5->unk) ok = text_ids_append(ids, paths[i].id);
    free(paths);
    return ok;
}

/* Encodes the word held (if any) and begins the next one, with its leading space symbol. */
static bool next_word(const struct t5_sentencepiece *t5, struct text_bytes *word, struct text_ids *ids) {
    bool ok = word->length == 0 || encode_word(t5, word->data, word->length, ids);
    word->length = 0;
    return ok;
}

/* Words of normalised text: whitespace is dropped, words get the space symbol as `prepend` and
 * keeps_spaces say, and a space symbol in the text begins a word. `first`: the text begins here. */
static bool encode_words(const struct t5_sentencepiece *t5, const char *text, size_t length, bool first, struct text_ids *ids) {
    struct text_bytes word = {0};
    bool ok = true, after_space = false;
    size_t size;
    for (size_t i = 0; i < length && ok; i += size) {
        int32_t codepoint = text_decode(text + i, length - i, &size);
        bool space = text_is_space(codepoint);
        if (space || codepoint == 0x2581) ok = next_word(t5, &word, ids);
        if (ok && !space && word.length == 0 && codepoint != 0x2581) {
            bool prepends = t5->prepend == T5_PREPEND_ALWAYS || (t5->prepend == T5_PREPEND_FIRST && first && i == 0);
            if (prepends || (t5->keeps_spaces && after_space)) ok = text_bytes_append(&word, space_symbol, 3);
        }
        if (ok && !space) ok = text_bytes_append(&word, text + i, size);
        after_space = space;
    }
    ok = ok && next_word(t5, &word, ids);
    free(word.data);
    return ok;
}

static bool encode_segment(const struct t5_sentencepiece *t5, const char *text, size_t length, bool first, struct text_ids *ids) {
    struct text_bytes clean = {0};
    bool ok = charsmap_apply(&t5->charsmap, text, length, &clean) && encode_words(t5, clean.data, clean.length, first, ids);
    free(clean.data);
    return ok;
}

tessera_status t5_sentencepiece_encode(const struct t5_sentencepiece *t5, const char *text, size_t length, struct text_ids *ids,
                                       tessera_error *error) {
    for (size_t i = 0, start; i < length;) {
        start = i;
        int token = added_tokens_search(&t5->added, false, text, length, &start);
        if (start > i && !encode_segment(t5, text + i, start - i, i == 0, ids)) return out_of_memory(error);
        if (token >= 0 && !text_ids_append(ids, t5->added.tokens[token].id)) return out_of_memory(error);
        i = token >= 0 ? start + t5->added.tokens[token].length : length;
    }
    return TESSERA_OK;
}
