/* The string to integer map of the tokenizers: a hash table with linear probing, at most half full.
 * Hash: FNV-1a, 64 bit (Fowler, Noll and Vo). Nothing is ever removed. */
#include "tokenizers/vocab.h"

#include <stdlib.h>
#include <string.h>

static uint64_t hash_bytes(const char *key, size_t length) {
    uint64_t hash = 14695981039346656037ull;
    for (size_t i = 0; i < length; i++) hash = (hash ^ (uint8_t)key[i]) * 1099511628211ull;
    return hash ^ (hash >> 32);
}

/* The slot that holds the key, or the free one where it belongs. */
static struct vocab_slot *find_slot(struct vocab_slot *slots, size_t capacity, const char *key, size_t length) {
    size_t i = (size_t)hash_bytes(key, length) & (capacity - 1);
    while (slots[i].key != NULL && (slots[i].length != length || memcmp(slots[i].key, key, length) != 0)) i = (i + 1) & (capacity - 1);
    return &slots[i];
}

static bool grow(struct vocab *vocab) {
    size_t capacity = vocab->capacity ? vocab->capacity * 2 : 64;
    struct vocab_slot *slots = calloc(capacity, sizeof *slots);
    if (slots == NULL) return false;
    for (size_t i = 0; i < vocab->capacity; i++) {
        const struct vocab_slot *old = &vocab->slots[i];
        if (old->key != NULL) *find_slot(slots, capacity, old->key, old->length) = *old;
    }
    free(vocab->slots);
    vocab->slots = slots;
    vocab->capacity = capacity;
    return true;
}

enum vocab_result vocab_add(struct vocab *vocab, const char *key, size_t length, int32_t value) {
    if (2 * (vocab->count + 1) > vocab->capacity && !grow(vocab)) return VOCAB_NO_MEMORY;
    struct vocab_slot *slot = find_slot(vocab->slots, vocab->capacity, key, length);
    if (slot->key != NULL) return VOCAB_PRESENT;
    char *copy = malloc(length + 1);
    if (copy == NULL) return VOCAB_NO_MEMORY;
    memcpy(copy, key, length);
    copy[length] = 0;
    *slot = (struct vocab_slot){copy, length, value};
    vocab->count++;
    return VOCAB_ADDED;
}

enum vocab_result vocab_put(struct vocab *vocab, const char *key, size_t length, int32_t value) {
    enum vocab_result result = vocab_add(vocab, key, length, value);
    if (result == VOCAB_PRESENT) find_slot(vocab->slots, vocab->capacity, key, length)->value = value;
    return result;
}

int32_t vocab_find(const struct vocab *vocab, const char *key, size_t length) {
    if (vocab->capacity == 0) return -1;
    const struct vocab_slot *slot = find_slot(vocab->slots, vocab->capacity, key, length);
    return slot->key != NULL ? slot->value : -1;
}

void vocab_clear(struct vocab *vocab) {
    for (size_t i = 0; i < vocab->capacity; i++) free(vocab->slots[i].key);
    free(vocab->slots);
    *vocab = (struct vocab){0};
}
