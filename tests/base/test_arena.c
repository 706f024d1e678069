/* Arenas: order, alignment, limit, release, and pages given back. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* Addresses that may be written and are counted as memory where the system promises no more than it
 * has. */
static size_t writable_bytes(void) {
    char line[512], rights[5];
    unsigned long long first, end, sum = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL)
        if (sscanf(line, "%llx-%llx %4s", &first, &end, rights) == 3 && rights[1] == 'w' && rights[3] == 'p') sum += end - first;
    if (maps != NULL) fclose(maps);
    return (size_t)sum;
}

/* An arena asks for memory as it grows, and gives it back. */
static void test_promises(void) {
    size_t mebibyte = 1 << 20, before = writable_bytes();
    tessera_error error = {0};
    struct arena *arena = arena_new(4096 * mebibyte, &error);
    CHECK(arena != NULL, "%s", error.message);
    CHECK(writable_bytes() < before + mebibyte, "an empty arena asks for %zu MiB", (writable_bytes() - before) / mebibyte);
    memset(arena_alloc(arena, 300 * mebibyte), 1, 300 * mebibyte);
    CHECK(writable_bytes() < before + 400 * mebibyte, "300 MiB are used, %zu are open", (writable_bytes() - before) / mebibyte);
    arena_trim(arena, 0);
    CHECK(writable_bytes() < before + mebibyte, "trimmed, %zu MiB stay open", (writable_bytes() - before) / mebibyte);
    arena_free(arena);
}

/* Under a limit on addresses (ulimit -v) an arena leaves room for what else the process maps. */
static void test_few_addresses(void) {
    pid_t child = fork();
    if (child == 0) {
        tessera_error error = {0};
        size_t room = (size_t)512 << 20;
        struct rlimit limit = {memory_addresses() + room, memory_addresses() + room};
        bool good = setrlimit(RLIMIT_AS, &limit) == 0;
        struct arena *first = arena_new(0, &error), *second = first != NULL ? arena_new(0, &error) : NULL;
        if (second == NULL) fprintf(stderr, "%s\n", error.message);
        good = good && second != NULL && arena_limit(first) < room / 4 && arena_alloc(first, room / 16) != NULL;
        void *other = malloc(room / 2);
        _exit(good && other != NULL ? 0 : 1);
    }
    int status = 1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0, "status %d with few addresses", status);
}

static void test_clock(void) {
    double before = clock_seconds();
    CHECK(before > 0 && clock_seconds() >= before, "monotonic");
    CHECK(memory_total() > (size_t)64 << 20, "%zu", memory_total());
    CHECK(memory_peak_resident() > (size_t)8 << 20 && memory_peak_resident() < (size_t)4 << 30, "%zu", memory_peak_resident());
    CHECK(threads_available() >= 1 && threads_available() < 4096, "%d", threads_available());
}

static void put(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0, "%s", path);
}

/* Control groups of both versions as folders: the least limit of a group and those above it counts,
 * where it is below the machine's memory. */
static void test_groups(void) {
    size_t all = memory_total_of("/nowhere", "/nowhere");
    char folder[] = "test_arena.XXXXXX", list[64], one[64], inner[80], first[64];
    CHECK(mkdtemp(folder) != NULL && all >= memory_total(), "%s: %zu", folder, all);
    snprintf(list, sizeof list, "%s/list", folder), snprintf(one, sizeof one, "%s/one", folder);
    snprintf(inner, sizeof inner, "%s/one/inner", folder), snprintf(first, sizeof first, "%s/memory", folder);
    CHECK(mkdir(one, 0700) == 0 && mkdir(inner, 0700) == 0 && mkdir(first, 0700) == 0, "%s", inner);
    put(list, "7:memory:/gone\n0::/one/inner\n");
    CHECK(memory_total_of(list, folder) == all, "no limit: %zu", memory_total_of(list, folder));
    char limit[128], outer[128], old[128];
    snprintf(limit, sizeof limit, "%s/memory.max", inner), snprintf(outer, sizeof outer, "%s/memory.max", one);
    snprintf(old, sizeof old, "%s/memory.limit_in_bytes", first);
    put(old, "33554432\n");
    CHECK(memory_total_of(list, folder) == 32 << 20, "version 1, at its root: %zu", memory_total_of(list, folder));
    put(limit, "max\n"), put(outer, "67108864\n");
    CHECK(memory_total_of(list, folder) == 64 << 20, "the group above: %zu", memory_total_of(list, folder));
    put(limit, "16777216\n");
    CHECK(memory_total_of(list, folder) == 16 << 20, "its own: %zu", memory_total_of(list, folder));
    put(limit, "9000000000000000000\n"), put(outer, "max\n"), unlink(old);
    CHECK(memory_total_of(list, folder) == all, "more than there is: %zu", memory_total_of(list, folder));
    unlink(limit), unlink(outer), unlink(list), rmdir(inner), rmdir(one), rmdir(first), rmdir(folder);
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
    test_promises();
    test_few_addresses();
    test_clock();
    test_groups();
    return CHECK_REPORT();
}
