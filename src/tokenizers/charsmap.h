/* sentencepiece's precompiled character map: rules "these bytes become those", as a double-array
 * trie and a list of strings.
 *
 *     | trie bytes (uint32) | trie: uint32 units ... | replacement\0replacement\0 ... |     all little-endian
 *
 * Format: sentencepiece's src/normalizer.cc and darts-clone (Yata). A unit holds its label (bits
 * 0-7, 31), whether a rule ends there (8) and the offset to its children (10-30, times 256 if bit
 * 9). It is applied as tokenizers' Precompiled does it: to a grapheme of less than 6 bytes as a
 * whole, else code point by code point, and the shortest rule that matches replaces all of it. */
#ifndef TESSERA_TOKENIZERS_CHARSMAP_H
#define TESSERA_TOKENIZERS_CHARSMAP_H

#include "tokenizers/text.h"

struct charsmap {
    uint32_t *units;
    size_t unit_count;
    char *strings;
    size_t string_bytes;
}; /* no units: nothing is replaced */

/* Copies and checks the bytes; none at all is a map without rules. `name` is the file and field
 * that errors speak of. */
tessera_status charsmap_read(struct charsmap *map, const char *name, const uint8_t *data, size_t length, tessera_error *error);
bool charsmap_apply(const struct charsmap *map, const char *text, size_t length, struct text_bytes *out); /* false: memory is out */
void charsmap_clear(struct charsmap *map);

#endif
