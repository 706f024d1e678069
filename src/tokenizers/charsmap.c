/* The precompiled character map. Every step through the trie is checked against its size, so a
 * hostile map costs at most wrong text. */
#include "tokenizers/charsmap.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { SHORT_GRAPHEME = 6 }; /* bytes; from here on tokenizers maps code points one by one */

static uint32_t read_u32(const uint8_t *data) {
    return data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
}

tessera_status charsmap_read(struct charsmap *map, const char *name, const uint8_t *data, size_t length, tessera_error *error) {
    if (length == 0) return TESSERA_OK;
    size_t trie = length >= 4 ? read_u32(data) : 0;
    if (length < 5 || trie < 4 || trie % 4 != 0 || trie >= length - 4)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: the trie's size (%zu bytes) does not fit into %zu bytes", name, trie, length);
    if (data[length - 1] != 0 || !text_is_valid((const char *)data + 4 + trie, length - 4 - trie))
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: the replacements are not UTF-8 strings that end in 0", name);
    map->unit_count = trie / 4;
    map->string_bytes = length - 4 - trie;
    map->units = malloc(trie);
    map->strings = malloc(map->string_bytes);
    if (map->units == NULL || map->strings == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", name);
    for (size_t i = 0; i < map->unit_count; i++) map->units[i] = read_u32(data + 4 + 4 * i);
    memcpy(map->strings, data + 4 + trie, map->string_bytes);
    return TESSERA_OK;
}

static uint32_t unit_offset(uint32_t unit) {
    return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

/* What the shortest rule that begins `text` puts there; NULL if none does. */
static const char *find_rule(const struct charsmap *map, const char *text, size_t length) {
    if (map->unit_count == 0) return NULL;
    uint32_t position = unit_offset(map->units[0]);
    for (size_t i = 0; i < length; i++) {
        uint8_t byte = (uint8_t)text[i];
        position ^= byte;
        if (byte == 0 || position >= map->unit_count) return NULL;
        uint32_t unit = map->units[position];
        if ((unit & (1u << 31 | 0xFF)) != byte) return NULL;
        position ^= unit_offset(unit);
        if (position >= map->unit_count) return NULL;
        if ((unit >> 8 & 1) == 0) continue;
        uint32_t index = map->units[position] & 0x7FFFFFFF;
        bool at_character = index < map->string_bytes && ((uint8_t)map->strings[index] & 0xC0) != 0x80;
        return at_character ? map->strings + index : NULL;
    }
    return NULL;
}

static bool apply_to_grapheme(const struct charsmap *map, const char *text, size_t length, struct text_bytes *out) {
    const char *rule = length < SHORT_GRAPHEME ? find_rule(map, text, length) : NULL;
    if (rule != NULL) return text_bytes_append(out, rule, strlen(rule));
    size_t size;
    for (size_t i = 0; i < length; i += size) {
        text_decode(text + i, length - i, &size);
        rule = find_rule(map, text + i, size);
        if (!text_bytes_append(out, rule != NULL ? rule : text + i, rule != NULL ? strlen(rule) : size)) return false;
    }
    return true;
}

bool charsmap_apply(const struct charsmap *map, const char *text, size_t length, struct text_bytes *out) {
    size_t start = 0, size;
    int32_t previous = -1;
    utf8proc_int32_t state = 0;
    for (size_t i = 0; i < length; i += size) {
        int32_t codepoint = text_decode(text + i, length - i, &size);
        if (previous >= 0 && utf8proc_grapheme_break_stateful(previous, codepoint, &state)) {
            if (!apply_to_grapheme(map, text + start, i - start, out)) return false;
            start = i;
        }
        previous = codepoint;
    }
    return apply_to_grapheme(map, text + start, length - start, out);
}

void charsmap_clear(struct charsmap *map) {
    free(map->units);
    free(map->strings);
    *map = (struct charsmap){0};
}
