/* Threads on trial (thread_limit.h): each waits for the end of the trial, so that all of them exist
 * at once. */
#include "base/thread_limit.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static void *wait_for_end(void *gate) {
    pthread_mutex_lock(gate);
    pthread_mutex_unlock(gate);
    return NULL;
}

tessera_status thread_limit_check(int count, tessera_error *error) {
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    pthread_t *threads = malloc(((size_t)count + 1) * sizeof *threads);
    if (threads == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for %d threads", count + 1);
    int started = 0, code = 0;
    pthread_mutex_lock(&gate);
    while (started < count && (code = pthread_create(&threads[started], NULL, wait_for_end, &gate)) == 0) started++;
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
    free(threads);
    if (code == 0) return TESSERA_OK;
    struct rlimit limit;
    char allowed[32] = "unlimited";
    if (getrlimit(RLIMIT_NPROC, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        snprintf(allowed, sizeof allowed, "%llu", (unsigned long long)limit.rlim_cur);
    return error_set(error, TESSERA_ERROR_MEMORY,
                     "threads: the system allows this process %d, not %d (%s; ulimit -u is %s); use fewer, or raise the limit", started + 1,
                     count + 1, strerror(code), allowed);
}
