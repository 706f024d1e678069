/* --max-memory: one limit for all ranks, or one for each that is named. */
#include "check.h"
#include "cli/memory_options.h"

#include <string.h>

enum { RANKS = 3 };

static void check_read(const char *text, uint64_t first, uint64_t second, uint64_t third) {
    uint64_t limits[RANKS] = {1, 1, 1};
    tessera_error error = {0};
    tessera_status status = memory_options_read(text, RANKS, limits, &error);
    CHECK(status == TESSERA_OK, "%s: %s", text != NULL ? text : "none", error.message);
    CHECK(limits[0] == first && limits[1] == second && limits[2] == third, "%s: %llu, %llu, %llu", text != NULL ? text : "none",
          (unsigned long long)limits[0], (unsigned long long)limits[1], (unsigned long long)limits[2]);
}

static void check_refused(const char *text, int ranks, const char *part) {
    uint64_t limits[RANKS];
    tessera_error error = {0};
    tessera_status status = memory_options_read(text, ranks, limits, &error);
    CHECK(status == TESSERA_ERROR_ARGUMENT && strstr(error.message, part) != NULL, "%s: status %d, %s", text, (int)status, error.message);
}

int main(void) {
    const uint64_t gib = (uint64_t)1 << 30;
    char entry[80] = "0:";
    check_read(NULL, 0, 0, 0);
    check_read("2GiB", 2 * gib, 2 * gib, 2 * gib);
    check_read("1:2GiB", 0, 2 * gib, 0);
    check_read("2:3GiB,0:1GiB", gib, 0, 3 * gib);
    check_refused("3:1GiB", RANKS, "no rank 3: there are 3");
    check_refused("1:1GiB", 1, "no rank 1: there is 1");
    check_refused("-1:1GiB", RANKS, "RANK:BYTES");
    check_refused("0;1GiB:", RANKS, "RANK:BYTES");
    check_refused("0:1GiB,", RANKS, "an entry is missing");
    check_refused("0:1GiB,,1:1GiB", RANKS, "an entry is missing");
    memset(entry + 2, '1', 62); /* 64 characters: one too many */
    check_refused(entry, RANKS, "too long");
    check_refused("0:no", RANKS, "max-memory");
    check_refused("0:1GiB,1:1GiB,0:2GiB", RANKS, "another entry of rank 0");
    check_refused("99999999999TB", RANKS, "from 1 byte to 1048576 TiB");
    check_refused("0:0.1B", RANKS, "from 1 byte to");
    check_refused("0x10GB", RANKS, "a number with a unit");
    check_read("1048576TiB", gib << 30, gib << 30, gib << 30);
    return CHECK_REPORT();
}
