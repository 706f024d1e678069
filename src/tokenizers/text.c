/* Byte and id lists, UTF-8, added tokens and special token names, as both tokenizers use them.
 *
 * The flags lstrip and rstrip of added tokens are not read: both tokenizers drop the whitespace
 * around words anyway. single_word is not supported and no published CLIP or T5 folder sets it. */
#include "tokenizers/text.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/json.h"

enum { ID_LIMIT = 1 << 24 }; /* far above any vocabulary, far below int32 */

bool text_bytes_append(struct text_bytes *bytes, const char *data, size_t length) {
    if (length > bytes->capacity - bytes->length) {
        size_t capacity = 2 * (bytes->length + length) + 64;
        char *grown = realloc(bytes->data, capacity);
        if (grown == NULL) return false;
        bytes->data = grown;
        bytes->capacity = capacity;
    }
    if (length > 0) memcpy(bytes->data + bytes->length, data, length);
    bytes->length += length;
    return true;
}

bool text_ids_append(struct text_ids *ids, int32_t id) {
    if (ids->count == ids->capacity) {
        size_t capacity = 2 * ids->capacity + 64;
        int32_t *grown = realloc(ids->data, capacity * sizeof *grown);
        if (grown == NULL) return false;
        ids->data = grown;
        ids->capacity = capacity;
    }
    ids->data[ids->count++] = id;
    return true;
}

int32_t text_decode(const char *data, size_t length, size_t *size) {
    utf8proc_int32_t codepoint;
    utf8proc_ssize_t used = utf8proc_iterate((const utf8proc_uint8_t *)data, (utf8proc_ssize_t)length, &codepoint);
    *size = used > 0 ? (size_t)used : 1;
    return used > 0 ? codepoint : -1;
}

bool text_append_codepoint(struct text_bytes *bytes, int32_t codepoint) {
    utf8proc_uint8_t encoded[4];
    utf8proc_ssize_t size = utf8proc_encode_char(codepoint, encoded);
    return text_bytes_append(bytes, (const char *)encoded, (size_t)size);
}

bool text_append_lower(struct text_bytes *bytes, int32_t codepoint) {
    if (codepoint == 0x130) return text_bytes_append(bytes, "i\xCC\x87", 3);
    return text_append_codepoint(bytes, utf8proc_tolower(codepoint));
}

bool text_append_repaired(struct text_bytes *bytes, const char *data, size_t length) {
    size_t size;
    for (size_t i = 0; i < length; i += size) {
        bool valid = text_decode(data + i, length - i, &size) >= 0;
        if (!(valid ? text_bytes_append(bytes, data + i, size) : text_append_codepoint(bytes, 0xFFFD))) return false;
    }
    return true;
}

bool text_is_valid(const char *data, size_t length) {
    size_t size;
    for (size_t i = 0; i < length; i += size)
        if (text_decode(data + i, length - i, &size) < 0) return false;
    return true;
}

bool text_is_space(int32_t codepoint) {
    if (codepoint < 0x80) return codepoint == ' ' || (codepoint >= 9 && codepoint <= 13);
    utf8proc_category_t category = utf8proc_category(codepoint);
    return codepoint == 0x85 || category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
}

tessera_status added_tokens_add(struct added_tokens *added, const char *content, int32_t id, bool normalized, tessera_error *error) {
    for (size_t i = 0; i < added->count; i++)
        if (strcmp(added->tokens[i].content, content) == 0) return TESSERA_OK;
    struct added_token *grown = realloc(added->tokens, (added->count + 1) * sizeof *grown);
    if (grown != NULL) added->tokens = grown;
    char *copy = grown != NULL ? strdup(content) : NULL;
    if (copy == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a tokenizer's added tokens");
    added->tokens[added->count++] = (struct added_token){copy, strlen(copy), id, normalized};
    added->first_bytes[(uint8_t)copy[0]] = true;
    return TESSERA_OK;
}

/* "normalized" of an added token; where it is absent, what is not special is normalized. */
static bool is_normalized(const struct cJSON *item) {
    const struct cJSON *normalized = cJSON_GetObjectItemCaseSensitive(item, "normalized");
    if (cJSON_IsBool(normalized)) return cJSON_IsTrue(normalized);
    return !cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, "special"));
}

static tessera_status read_added_token(struct added_tokens *added, const char *path, const struct cJSON *item, double id,
                                       const struct vocab *vocab, tessera_error *error) {
    const struct cJSON *content = cJSON_GetObjectItemCaseSensitive(item, "content");
    if (!cJSON_IsString(content) || content->valuestring[0] == 0 || !text_is_valid(content->valuestring, strlen(content->valuestring)))
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: added_tokens: a token has no \"content\"", path);
    int32_t known = vocab_find(vocab, content->valuestring, strlen(content->valuestring));
    if (known < 0 && !(id >= 0 && id < ID_LIMIT && id == (int32_t)id))
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: added_tokens: the id of \"%.60s\" must be a whole number in [0, %d)", path,
                         content->valuestring, ID_LIMIT);
    bool normalized = is_normalized(item);
    return added_tokens_add(added, content->valuestring, known >= 0 ? known : (int32_t)id, normalized, error);
}

tessera_status added_tokens_read(struct added_tokens *added, const struct json *json, const struct vocab *vocab, tessera_error *error) {
    enum { MOST = 4096 };
    const struct cJSON *list = json_find(json, "added_tokens"), *by_id = json_find(json, "added_tokens_decoder");
    if (list != NULL && !cJSON_IsArray(list))
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: added_tokens must be a list", json_path(json));
    if (by_id != NULL && !cJSON_IsObject(by_id))
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: added_tokens_decoder must be an object", json_path(json));
    int count = 0;
    for (const struct cJSON *item = list != NULL ? list->child : NULL; item != NULL; item = item->next) {
        const struct cJSON *id = cJSON_GetObjectItemCaseSensitive(item, "id");
        if (++count > MOST) return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: more than %d added_tokens", json_path(json), MOST);
        TRY(read_added_token(added, json_path(json), item, cJSON_IsNumber(id) ? id->valuedouble : -1, vocab, error));
    }
    for (const struct cJSON *item = by_id != NULL ? by_id->child : NULL; item != NULL; item = item->next) {
        char *end;
        double id = strtod(item->string, &end);
        if (++count > MOST) return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: more than %d added tokens", json_path(json), MOST);
        TRY(read_added_token(added, json_path(json), item, *end == 0 && end != item->string ? id : -1, vocab, error));
    }
    return TESSERA_OK;
}

int32_t added_tokens_id(const struct added_tokens *added, const struct vocab *vocab, const char *content) {
    int32_t id = vocab_find(vocab, content, strlen(content)), next = (int32_t)vocab->count;
    for (size_t i = 0; i < added->count && id < 0; i++) {
        if (strcmp(added->tokens[i].content, content) == 0) id = added->tokens[i].id;
        if (added->tokens[i].id >= next) next = added->tokens[i].id + 1;
    }
    return id >= 0 ? id : next;
}

tessera_status added_tokens_read_list(struct added_tokens *added, const struct json *json, const char *field, const struct vocab *vocab,
                                      tessera_error *error) {
    enum { MOST = 4096 };
    const struct cJSON *list = json_find(json, field);
    int count = 0;
    for (const struct cJSON *item = cJSON_IsArray(list) ? list->child : NULL; item != NULL; item = item->next) {
        const struct cJSON *content = cJSON_IsObject(item) ? cJSON_GetObjectItemCaseSensitive(item, "content") : item;
        if (!cJSON_IsString(content) || content->valuestring[0] == 0 || !text_is_valid(content->valuestring, strlen(content->valuestring)))
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: %s: number %d is no token", json_path(json), field, count);
        if (++count > MOST) return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: %s: more than %d tokens", json_path(json), field, MOST);
        int32_t id = added_tokens_id(added, vocab, content->valuestring);
        TRY(added_tokens_add(added, content->valuestring, id, false, error));
    }
    return TESSERA_OK;
}

/* The longest token that stands at the start of `text`, or -1. */
static int match_here(const struct added_tokens *added, bool normalized, const char *text, size_t length) {
    int best = -1;
    for (size_t i = 0; i < added->count; i++) {
        const struct added_token *token = &added->tokens[i];
        bool longer = best < 0 || token->length > added->tokens[best].length;
        if (token->normalized == normalized && longer && token->length <= length && memcmp(token->content, text, token->length) == 0)
            best = (int)i;
    }
    return best;
}

int added_tokens_search(const struct added_tokens *added, bool normalized, const char *text, size_t length, size_t *start) {
    for (size_t i = *start; i < length; i++) {
        int found = added->first_bytes[(uint8_t)text[i]] ? match_here(added, normalized, text + i, length - i) : -1;
        if (found < 0) continue;
        *start = i;
        return found;
    }
    *start = length;
    return -1;
}

void added_tokens_clear(struct added_tokens *added) {
    for (size_t i = 0; i < added->count; i++) free(added->tokens[i].content);
    free(added->tokens);
    *added = (struct added_tokens){0};
}

tessera_status special_token_read(const struct json *json, const char *field, struct special_token *token, tessera_error *error) {
    const struct cJSON *value = json_find(json, field);
    if (value == NULL) return TESSERA_OK;
    const struct cJSON *content = cJSON_IsObject(value) ? cJSON_GetObjectItemCaseSensitive(value, "content") : value;
    if (!cJSON_IsString(content) || content->valuestring[0] == 0)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: %s must be a string or an object with \"content\"", json_path(json), field);
    token->content = content->valuestring;
    token->normalized = cJSON_IsObject(value) && cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(value, "normalized"));
    return TESSERA_OK;
}
