/* Arenas: one reserved range of addresses and a top that moves through it.
 *
 * The range is mapped inaccessible, which no system counts as memory, and opened in steps of GROWTH
 * as the top moves up, so that it fits where the system promises no more than it has
 * (vm.overcommit_memory = 2). A page costs something only once it is touched. Under
 * AddressSanitizer released memory and the gaps between allocations are poisoned: a use after
 * arena_release, or past an allocation's end, is reported as it would be for malloc. Memory that is
 * someone else's is never touched. */
#include "base/arena.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_POISONS 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define ARENA_POISONS 1
#endif

#ifdef ARENA_POISONS
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

#define ALIGNMENT ((size_t)64)         /* a cache line, and the widest vector register */
#define GROWTH ((size_t)64 << 20)      /* bytes that are opened at a time */
#define THREAD_SPACE ((size_t)128 << 20) /* of addresses that a thread's stack and heap take: malloc aligns heaps of 64 MiB */
#define LEAST_SPACE ((size_t)1 << 20) /* below which there is no use in a smaller arena */

struct arena {
    char *base;
    size_t top, peak, limit;
    size_t reserved; /* bytes mapped here; 0: the memory is someone else's */
    size_t open;     /* of these, those from the base on that may be touched */
    void (*release)(void *user, void *memory, size_t limit);
    void *user;
};

static size_t round_up(size_t value, size_t unit) {
    return (value + unit - 1) / unit * unit;
}

struct arena *arena_over(void *memory, size_t limit, void (*release)(void *user, void *memory, size_t limit), void *user,
                         tessera_error *error) {
    struct arena *arena = calloc(1, sizeof *arena);
    if (arena == NULL) {
        error_set(error, TESSERA_ERROR_MEMORY, "no memory for an arena");
        return NULL;
    }
    *arena = (struct arena){.base = memory, .limit = limit, .release = release, .user = user};
    return arena;
}

/* All of the machine's memory, or a quarter of the addresses that a limit of the process (ulimit
 * -v) leaves beside what threads reserve: other arenas, weights and libraries need the rest. */
static size_t default_limit(void) {
    size_t limit = memory_total();
    struct rlimit addresses;
    if (getrlimit(RLIMIT_AS, &addresses) != 0 || addresses.rlim_cur == RLIM_INFINITY) return limit;
    size_t used = memory_addresses(), left = addresses.rlim_cur > used ? addresses.rlim_cur - used : 0;
    size_t kept = THREAD_SPACE * (size_t)(threads_available() + 2);
    left = (left - (kept < left / 2 ? kept : left / 2)) / 4;
    return left < limit ? (left > LEAST_SPACE ? left : LEAST_SPACE) : limit;
}

struct arena *arena_new(size_t limit, tessera_error *error) {
    if (limit == 0) limit = default_limit();
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (limit == 0 || limit > PTRDIFF_MAX - page) {
        error_set(error, TESSERA_ERROR_ARGUMENT, "an arena cannot have %zu bytes", limit);
        return NULL;
    }
    struct arena *arena = calloc(1, sizeof *arena);
    if (arena == NULL) {
        error_set(error, TESSERA_ERROR_MEMORY, "no memory for an arena");
        return NULL;
    }
    arena->limit = limit;
    arena->reserved = round_up(limit, page);
    void *base = mmap(NULL, arena->reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        error_set_errno(error, "cannot reserve %zu bytes of addresses", limit);
        if (error != NULL) error->status = TESSERA_ERROR_MEMORY;
        free(arena);
        return NULL;
    }
    arena->base = base;
    return arena;
}

void arena_free(struct arena *arena) {
    if (arena == NULL) return;
    if (arena->reserved > 0) {
        ASAN_UNPOISON_MEMORY_REGION(arena->base, arena->peak);
        munmap(arena->base, arena->reserved);
    } else if (arena->release != NULL) {
        arena->release(arena->user, arena->base, arena->limit);
    }
    free(arena);
}

/* Lets the first `bytes` be touched; false if the system promises no more memory. */
static bool open_to(struct arena *arena, size_t bytes) {
    if (bytes <= arena->open || arena->reserved == 0) return true;
    size_t end = round_up(bytes, GROWTH);
    if (end > arena->reserved) end = arena->reserved;
    if (mprotect(arena->base + arena->open, end - arena->open, PROT_READ | PROT_WRITE) != 0) return false;
    arena->open = end;
    return true;
}

void *arena_alloc(struct arena *arena, size_t bytes) {
    if (arena->top > arena->limit || bytes > arena->limit - arena->top) return NULL;
    char *memory = arena->base + arena->top;
    size_t length = round_up(bytes, ALIGNMENT); /* may pass a crooked limit, but never the reserved pages */
    if (!open_to(arena, arena->top + length)) return NULL;
    if (arena->reserved > 0) {
        ASAN_POISON_MEMORY_REGION(memory, length);
        ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
    }
    arena->top += length;
    if (arena->top > arena->peak) arena->peak = arena->top;
    return memory;
}

size_t arena_mark(const struct arena *arena) {
    return arena->top;
}

void arena_release(struct arena *arena, size_t mark) {
    assert(mark <= arena->top);
    if (arena->reserved > 0) ASAN_POISON_MEMORY_REGION(arena->base + mark, arena->top - mark);
    arena->top = mark;
}

void arena_trim(struct arena *arena, size_t mark) {
    arena_release(arena, mark);
    size_t first = round_up(mark, (size_t)sysconf(_SC_PAGESIZE));
    if (first >= arena->open) return;
    /* A new mapping in place of the old one gives the promise back with the pages; where there is
     * no room for one, the pages alone. */
    void *again = mmap(arena->base + first, arena->open - first, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    if (again != MAP_FAILED)
        arena->open = first;
    else
        madvise(arena->base + first, arena->open - first, MADV_DONTNEED);
}

size_t arena_peak(const struct arena *arena) {
    return arena->peak;
}

size_t arena_limit(const struct arena *arena) {
    return arena->limit;
}
