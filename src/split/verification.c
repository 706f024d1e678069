/* See verification.h. */
#include "split/verification.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "split/identity.h"

static tessera_status wrong(const char *words, tessera_error *error) {
    return error_set(
        error, TESSERA_ERROR_ARGUMENT,
        "verify %.100s: must be challenge=K, such as challenge=3 (K steps, 1 to %d; with ,by=replica other operators compute them); "
        "exact=N,fraction=P, such as exact=2,fraction=0.1 "
        "(N workers, 2 to %d, for a share P of the requests, 0 to 1; without fraction: all); replicas=N,fraction=P, such as replicas=3; "
        "or none",
        words, VERIFY_MOST_STEPS, VERIFY_MOST_REPLICAS);
}

/* The number behind `name` and '='; NULL where the words do not begin so. */
static const char *number_after(const char *words, const char *name, double *out) {
    size_t length = strlen(name);
    char *end;
    if (strncmp(words, name, length) != 0 || words[length] != '=') return NULL;
    *out = strtod(words + length + 1, &end);
    return end != words + length + 1 ? end : NULL;
}

tessera_status verification_read(const char *words, struct verification *out, tessera_error *error) {
    static const char *const names[] = {[VERIFY_EXACT] = "exact", [VERIFY_REPLICAS] = "replicas", [VERIFY_CHALLENGE] = "challenge"};
    *out = (struct verification){.fraction = 1};
    if (words == NULL || strcmp(words, "none") == 0) return TESSERA_OK;
    const char *rest = NULL;
    double count = 0;
    for (int kind = VERIFY_EXACT; kind <= VERIFY_CHALLENGE && rest == NULL; kind++) {
        out->kind = (enum verification_kind)kind;
        rest = number_after(words, names[kind], &count);
    }
    if (rest == NULL) return wrong(words, error);
    bool challenge = out->kind == VERIFY_CHALLENGE;
    if (*rest == ',' && !challenge) rest = number_after(rest + 1, "fraction", &out->fraction);
    out->asks = challenge && strcmp(rest, ",by=replica") == 0;
    if (out->asks) rest += strlen(rest);
    bool fits = rest != NULL && *rest == 0 && count == (double)(int)count && count >= (challenge ? 1 : 2) &&
                count <= (challenge ? VERIFY_MOST_STEPS : VERIFY_MOST_REPLICAS) && out->fraction >= 0 && out->fraction <= 1;
    if (!fits) return wrong(words, error);
    out->count = (int)count;
    return TESSERA_OK;
}

double verification_miss(const struct verification *v, int steps, int wrong) {
    double miss = 1;
    if (v->kind == VERIFY_EXACT || v->kind == VERIFY_REPLICAS) {
        for (int i = 0; i < wrong; i++) miss *= 1 - v->fraction;
        return miss;
    }
    if (v->kind == VERIFY_NONE) return 1;
    for (int i = 0; i < v->count && i < steps; i++)
        miss *= steps - wrong - i > 0 ? (double)(steps - wrong - i) / (steps - i) : 0; /* hypergeometric */
    return miss;
}

/* 64 random bits; the system always has some, and without them nothing may be left unchecked. */
static uint64_t random_bits(void) {
    uint64_t bits = 0;
    return identity_random(&bits, sizeof bits, NULL) == TESSERA_OK ? bits : 0;
}

bool verification_draws(const struct verification *v) {
    if (v->kind != VERIFY_EXACT && v->kind != VERIFY_REPLICAS) return false;
    return (double)(random_bits() >> 11) * 0x1p-53 < v->fraction;
}

int verification_choose(int count, int below, int *out) {
    int chosen = 0;
    if (count > below) count = below;
    for (int left = below, i = 0; i < below && chosen < count; i++, left--) /* Knuth's algorithm S */
        if (random_bits() % (uint64_t)left < (uint64_t)(count - chosen)) out[chosen++] = i;
    return chosen;
}
