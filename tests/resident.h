/* Memory that this process has, by the operating system's count. */
#ifndef TESSERA_TESTS_RESIDENT_H
#define TESSERA_TESTS_RESIDENT_H

#include <stdio.h>
#include <unistd.h>

/* 0 where it cannot be read. */
static inline size_t resident_bytes(void) {
    FILE *file = fopen("/proc/self/statm", "r");
    size_t pages = 0;
    if (file == NULL || fscanf(file, "%*u %zu", &pages) != 1) pages = 0;
    if (file != NULL) fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

#endif
