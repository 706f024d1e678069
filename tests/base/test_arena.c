/* Arenas: order, alignment, limit, release, and pages given back. */
#include <stdint.h>
#include <string.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/error.h"
#include "check.h"

static void test_order(void) {
    tessera_error error = {0};
    struct arena *arena = arena_new(1000, &error);
    CHECK(arena != NULL, "%s", error.message);
    CHECK(arena_limit(arena) == 1000, "%zu", arena_limit(arena));
    char *a = arena_alloc(arena, 1), *b = arena_alloc(arena, 100);
    CHECK((uintptr_t)a % 64 == 0 && (uintptr_t)b % 64 == 0 && b == a + 64, "%p %p", (void *)a, (void *)b);
    memset(b, 1, 100);
    CHECK(arena_alloc(arena, 0) != NULL, "zero bytes");
    size_t mark = arena_mark(arena);
    CHECK(arena_alloc(arena, 1000 - mark + 1) == NULL, "passed the limit");
    CHECK(arena_alloc(arena, SIZE_MAX) == NULL, "overflowed");
    char *c = arena_alloc(arena, 1000 - mark);
    CHECK(c != NULL, "the whole rest");
    memset(c, 2, 1000 - mark);
    CHECK(arena_alloc(arena, 1) == NULL, "full");
    CHECK(arena_peak(arena) >= 1000, "%zu", arena_peak(arena));
    arena_release(arena, mark);
    CHECK(arena_alloc(arena, 8) == c, "released memory comes again");
    CHECK(b[99] == 1, "what lies below the mark stays");
    arena_free(arena);
}

static void test_trim(void) {
    size_t bytes = 8 << 20;
    struct arena *arena = arena_new(bytes, NULL);
    char *memory = arena_alloc(arena, bytes);
    memset(memory, 7, bytes);
    arena_trim(arena, 0);
    memory = arena_alloc(arena, bytes);
    CHECK(memory[0] == 0 && memory[bytes - 1] == 0, "trimmed pages are new");
    arena_free(arena);
}

static void test_sizes(void) {
    tessera_error error = {0};
    struct arena *arena = arena_new(0, &error);
    CHECK(arena != NULL && arena_limit(arena) == memory_total(), "%s", error.message);
    arena_free(arena);
    CHECK(arena_new(SIZE_MAX, &error) == NULL && error.message[0] != 0, "a limit beyond all addresses");
    CHECK(arena_new((size_t)1 << 62, &error) == NULL && error.status == TESSERA_ERROR_MEMORY, "%s", error.message);
    arena_free(NULL);
}

static void test_clock(void) {
    double before = clock_seconds();
    CHECK(before > 0 && clock_seconds() >= before, "monotonic");
    CHECK(memory_total() > (size_t)64 << 20, "%zu", memory_total());
    CHECK(memory_peak_resident() > (size_t)8 << 20 && memory_peak_resident() < (size_t)4 << 30, "%zu", memory_peak_resident());
    CHECK(threads_available() >= 1 && threads_available() < 4096, "%d", threads_available());
}

static void note_release(void *user, void *memory, size_t limit) {
    *(bool *)user = memory == (void *)4096 && limit == 1000;
}

/* Addresses that nothing may follow. */
static void test_over(void) {
    bool released = false;
    struct arena *arena = arena_over((void *)4096, 1000, note_release, &released, NULL);
    CHECK(arena_alloc(arena, 10) == (void *)4096 && arena_alloc(arena, 900) == (void *)4160, "in order, aligned");
    CHECK(arena_alloc(arena, 100) == NULL && arena_limit(arena) == 1000, "the limit holds");
    arena_trim(arena, 64);
    CHECK(arena_alloc(arena, 1) == (void *)4160, "released memory comes again");
    arena_free(arena);
    CHECK(released, "its owner has it back");
}

int main(void) {
    test_order();
    test_trim();
    test_sizes();
    test_over();
    test_clock();
    return CHECK_REPORT();
}
