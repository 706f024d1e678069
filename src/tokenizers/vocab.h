/* A map from strings (bytes with a length) to integers: open addressing over one growing table,
 * keys copied. */
#ifndef TESSERA_TOKENIZERS_VOCAB_H
#define TESSERA_TOKENIZERS_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vocab_slot {
    char *key;
    size_t length;
    int32_t value;
}; /* key NULL: free */
struct vocab {
    struct vocab_slot *slots;
    size_t capacity, count;
};

enum vocab_result { VOCAB_ADDED, VOCAB_PRESENT, VOCAB_NO_MEMORY };

/* Adds a key; one that is there already keeps its value (VOCAB_PRESENT). */
enum vocab_result vocab_add(struct vocab *vocab, const char *key, size_t length, int32_t value);
/* As vocab_add, but gives a key that is there the new value. */
enum vocab_result vocab_put(struct vocab *vocab, const char *key, size_t length, int32_t value);
/* The value, or -1 if absent (values are never negative). */
int32_t vocab_find(const struct vocab *vocab, const char *key, size_t length);
void vocab_clear(struct vocab *vocab);

#endif
