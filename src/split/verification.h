/* How strictly answers are checked: --verify's words, and what slips through.
 *
 *     exact=N,fraction=P      a share P of the requests goes to N workers, whose signed hashes must be equal
 *     replicas=N,fraction=P   the same for kernels that differ by rounding: the distance decides
 *     challenge=K             when a picture is done, K of its steps are computed again; ",by=replica": by workers of other
 * operators */
#ifndef TESSERA_SPLIT_VERIFICATION_H
#define TESSERA_SPLIT_VERIFICATION_H

#include "base/error.h"

enum verification_kind { VERIFY_NONE, VERIFY_EXACT, VERIFY_REPLICAS, VERIFY_CHALLENGE };
enum { VERIFY_MOST_REPLICAS = 9, VERIFY_MOST_STEPS = 10000 };

struct verification {
    enum verification_kind kind;
    int count;       /* N or K */
    bool asks;       /* challenge: workers of other operators compute the steps, not this machine */
    double fraction; /* of the requests that are checked */
};

/* NULL and "none": VERIFY_NONE. ARGUMENT saying what is possible. */
tessera_status verification_read(const char *words, struct verification *out, tessera_error *error);
/* The chance that a worker which lies in `wrong` of a picture's `steps` steps goes unnoticed (in
 * one row of one part of each, the least that it can do). */
double verification_miss(const struct verification *verification, int steps, int wrong);
/* Is the next request one that is checked? By the system's randomness. */
bool verification_draws(const struct verification *verification);
/* `count` different numbers below `below`, ascending, by the system's randomness, into `out`; fewer
 * where there are not so many. Returns how many. */
int verification_choose(int count, int below, int *out);

#endif
