/* Time, memory and processors as Linux gives them, control groups of versions 1 and 2 included.
 *
 * A group is bound by its own limits and those of every group above it, so the path in
 * /proc/self/cgroup is walked up to the root. In a container of version 1 that path is the host's,
 * and what the process sees is its root, where the walk ends. Of version 1's processor groups only
 * that root is asked. */
#include "base/clock.h"

#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define GROUPS "/sys/fs/cgroup"
#define OWN_GROUPS "/proc/self/cgroup"

static double seconds_of(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double clock_seconds(void) {
    return seconds_of(CLOCK_MONOTONIC);
}

double clock_thread_seconds(void) {
    return seconds_of(CLOCK_THREAD_CPUTIME_ID);
}

void kernel_id(char out[KERNEL_ID_BYTES]) {
    FILE *stream = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (stream == NULL || fgets(out, KERNEL_ID_BYTES, stream) == NULL) out[0] = 0;
    if (stream != NULL) fclose(stream);
}

/* A field of /proc/self/status in bytes; `format` has one %llu, in kB. */
static size_t read_status(const char *format) {
    FILE *stream = fopen("/proc/self/status", "r");
    if (stream == NULL) return 0;
    char line[256];
    unsigned long long kilobytes = 0;
    while (fgets(line, sizeof line, stream) != NULL)
        if (sscanf(line, format, &kilobytes) == 1) break;
    fclose(stream);
    return (size_t)kilobytes * 1024;
}

size_t memory_peak_resident(void) {
    return read_status("VmHWM: %llu kB");
}

size_t memory_resident(void) {
    return read_status("VmRSS: %llu kB");
}

size_t memory_addresses(void) {
    return read_status("VmSize: %llu kB");
}

/* Reads up to two numbers from a one-line file; returns how many there were ("max" is none). */
static int read_numbers(const char *path, double *first, double *second) {
    FILE *stream = fopen(path, "r");
    if (stream == NULL) return 0;
    int count = fscanf(stream, "%lf %lf", first, second);
    fclose(stream);
    return count > 0 ? count : 0;
}

/* The group that `list` has for the hierarchy ":memory:", or "::" of version 2; "" if unknown or
 * the root. */
static void group_path(const char *list, const char *hierarchy, char *path, size_t capacity) {
    path[0] = 0;
    FILE *stream = fopen(list, "r");
    if (stream == NULL) return;
    char line[2048];
    while (fgets(line, sizeof line, stream) != NULL) {
        const char *found = strstr(line, hierarchy);
        if (found == NULL || found[strlen(hierarchy)] != '/') continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(path, capacity, "%s", found + strlen(hierarchy));
        break;
    }
    fclose(stream);
}

/* The least first / second over `file` of the groups in `list` below `root` (second counts as 1
 * where absent); 0: no limit. */
static double group_limit(const char *list, const char *hierarchy, const char *root, const char *file) {
    char group[2048], path[4096];
    group_path(list, hierarchy, group, sizeof group);
    double least = 0;
    for (;;) {
        double first = 0, second = 1;
        snprintf(path, sizeof path, "%s%s/%s", root, group, file);
        if (read_numbers(path, &first, &second) > 0 && first > 0 && second > 0 && (least == 0 || first / second < least))
            least = first / second;
        char *slash = strrchr(group, '/');
        if (slash == NULL) return least;
        *slash = 0;
    }
}

size_t memory_total_of(const char *list, const char *groups) {
    char first[2048];
    double total = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    double limit = group_limit(list, "::", groups, "memory.max");
    snprintf(first, sizeof first, "%s/memory", groups);
    if (limit == 0) limit = group_limit(list, ":memory:", first, "memory.limit_in_bytes");
    return (size_t)(limit > 0 && limit < total ? limit : total);
}

size_t memory_total(void) {
    return memory_total_of(OWN_GROUPS, GROUPS);
}

static int affinity_count(void) {
    for (int processors = 1024; processors <= 1 << 20; processors *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)processors);
        if (set == NULL) break;
        size_t bytes = CPU_ALLOC_SIZE((size_t)processors);
        int count = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (count > 0) return count;
    }
    return 1;
}

int threads_available(void) {
    int count = affinity_count();
    double processors = group_limit(OWN_GROUPS, "::", GROUPS, "cpu.max");
    if (processors == 0) {
        double quota = -1, period = 0, unused = 0;
        read_numbers(GROUPS "/cpu/cpu.cfs_quota_us", &quota, &unused);
        read_numbers(GROUPS "/cpu/cpu.cfs_period_us", &period, &unused);
        if (quota > 0 && period > 0) processors = quota / period;
    }
    if (processors <= 0 || processors >= count) return count;
    int whole = (int)processors;
    return whole < processors ? whole + 1 : whole;
}
