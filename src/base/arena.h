/* An arena: memory with one lifetime, taken in order and given back in reverse.
 *
 *     | text states | block input | q | k | v |......... reserved, untouched .........|
 *                                 ^ mark      ^ top
 *
 * An arena reserves one range of addresses (its limit, a promise of how much it may use at most)
 * and moves a mark through it; pages cost memory only once they are touched. arena_release puts the
 * top back to a mark, so a layer's temporaries vanish together. One arena serves one thread. There
 * is an arena per lifetime: model, request, step. */
#ifndef TESSERA_BASE_ARENA_H
#define TESSERA_BASE_ARENA_H

#include "base/error.h"

struct arena;

/* Reserves `limit` bytes of addresses (0: as much as the machine has memory, or less where the
 * process may not have as many addresses). NULL and `error` on failure. */
struct arena *arena_new(size_t limit, tessera_error *error);
/* An arena over `memory`, `limit` bytes of addresses that the host need not be able to read;
 * arena_free calls release(user, memory, limit), unless it is NULL. NULL and `error` on failure,
 * and then nothing is released. */
struct arena *arena_over(void *memory, size_t limit, void (*release)(void *user, void *memory, size_t limit), void *user,
                         tessera_error *error);
void arena_free(struct arena *arena);

/* 64-byte aligned, not zeroed; NULL when the limit is passed or the system has no more memory to
 * promise. Zero bytes give a valid pointer. */
void *arena_alloc(struct arena *arena, size_t bytes);

size_t arena_mark(const struct arena *arena);
void arena_release(struct arena *arena, size_t mark);
/* As arena_release, and gives pages of its own memory back to the operating system. */
void arena_trim(struct arena *arena, size_t mark);
size_t arena_peak(const struct arena *arena); /* highest top so far, bytes */
size_t arena_limit(const struct arena *arena);

#endif
