/* One rank for test_failure.sh and test_network.sh: works with the others until a time is over or
 * something fails, and says what and when.
 *
 *   comm_rank work SECONDS       messages of all sizes among all ranks until rank 0's time is over
 *   comm_rank sleep SECONDS      rank 1 computes for so long, the others wait for it
 *   comm_rank abort RANK         that rank fails by itself
 *   comm_rank leave RANK         that rank has done its work when the others still wait for it
 *   comm_rank options RANK       that rank was started with other options than the rest
 *   comm_rank idle SECONDS       processor time of the communication thread with nothing under way, and while a message is awaited
 *   comm_rank speed              latency and bandwidth of messages and of all_reduce, and how much of a message a computation hides
 *   comm_rank ping BYTES         latency and bandwidth of messages of this size alone
 *
 * First each rank prints "rank R pid P". A failure ends it with "rank R failed: MESSAGE" on stderr
 * and status 1. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "base/clock.h"
#include "comm/collectives.h"

enum { NUMBERS = 300000 };

static tessera_status work(struct comm *world, double seconds, tessera_error *error) {
    double end = clock_seconds() + seconds;
    float *data = calloc(NUMBERS, sizeof *data), goes_on = 1;
    tessera_status status = TESSERA_OK;
    while (status == TESSERA_OK && goes_on != 0) {
        goes_on = clock_seconds() < end;
        status = comm_all_reduce(world, data, NUMBERS, COMM_F32, error);
        if (status == TESSERA_OK) status = comm_broadcast(world, 0, &goes_on, sizeof goes_on, error);
    }
    free(data);
    return status;
}

static tessera_status sleep_long(struct comm *world, double seconds, tessera_error *error) {
    if (comm_rank(world) == 1) usleep((useconds_t)(seconds * 1e6));
    return comm_barrier(world, error);
}

/* After all have said who they are. */
static tessera_status fail_alone(struct comm *world, int rank, tessera_error *error) {
    TRY(comm_barrier(world, error));
    if (comm_rank(world) == rank) {
        error_set(error, TESSERA_ERROR_MEMORY, "models/x: out of memory");
        comm_abort(world, error);
        return error->status;
    }
    return comm_barrier(world, error);
}

static tessera_status leave(struct comm *world, int rank, tessera_error *error) {
    return comm_rank(world) == rank ? TESSERA_OK : comm_barrier(world, error);
}

static tessera_status differ(struct comm *world, int rank, tessera_error *error) {
    return comm_check_same(world, "options", comm_rank(world) == rank ? "--seed 8" : "--seed 7", error);
}

static double processor_seconds(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + 1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

static tessera_status idle(struct comm *world, double seconds, tessera_error *error) {
    int rank = comm_rank(world), size = comm_size(world);
    TRY(comm_barrier(world, error));
    double start = processor_seconds();
    usleep((useconds_t)(seconds * 1e6));
    double middle = processor_seconds();
    struct comm_request *in = size > 1 ? comm_receive_start(world, (rank + 1) % size, &(char){0}, 0) : NULL;
    usleep((useconds_t)(seconds * 1e6));
    double end = processor_seconds();
    printf("rank %d: %.2f %% of a core idle, %.2f %% with a message awaited\n", rank, 100 * (middle - start) / seconds,
           100 * (end - middle) / seconds);
    struct comm_request *out = size > 1 ? comm_send_start(world, (rank + size - 1) % size, &(char){0}, 0) : NULL;
    TRY(comm_wait(world, out, error));
    TRY(comm_wait(world, in, error));
    return comm_barrier(world, error);
}

/* Rank 0 and rank 1 send a message to and fro. */
static tessera_status ping_pong(struct comm *world, size_t bytes, int rounds, tessera_error *error) {
    int rank = comm_rank(world);
    uint8_t *data = calloc(1, bytes + 1);
    tessera_status status = comm_barrier(world, error);
    double start = clock_seconds();
    for (int i = 0; i < 2 * rounds && status == TESSERA_OK && rank < 2; i++) {
        struct comm_request *request =
            (i + rank) % 2 == 0 ? comm_send_start(world, 1 - rank, data, bytes) : comm_receive_start(world, 1 - rank, data, bytes);
        status = comm_wait(world, request, error);
    }
    double seconds = (clock_seconds() - start) / (2 * rounds);
    if (rank == 0) printf("%9zu bytes: %9.1f us one way, %8.1f MB/s\n", bytes, 1e6 * seconds, 1e-6 * (double)bytes / seconds);
    free(data);
    return status;
}

/* Every rank passes 16 MiB on and receives as much, ten times, and computes meanwhile for
 * `computing` seconds. */
static tessera_status pass_on(struct comm *world, double computing, tessera_error *error) {
    enum { ROUNDS = 10 };
    const size_t bytes = 16 << 20;
    uint8_t *out = calloc(1, bytes), *in = calloc(1, bytes);
    volatile double x = 1;
    double waited = 0;
    tessera_status status = comm_barrier(world, error);
    double start = clock_seconds(), others = processor_seconds() - clock_thread_seconds();
    for (int i = 0; i < ROUNDS && status == TESSERA_OK; i++) {
        double begin = clock_seconds();
        int size = comm_size(world), me = comm_rank(world);
        struct comm_request *received = size > 1 ? comm_receive_start(world, (me + size - 1) % size, in, bytes) : NULL;
        struct comm_request *sent = size > 1 ? comm_send_start(world, (me + 1) % size, out, bytes) : NULL;
        while (clock_seconds() < begin + computing)
            for (int j = 0; j < 1000; j++) x = x * 0.999 + 1;
        double computed = clock_seconds();
        status = comm_wait(world, received, error);
        if (status == TESSERA_OK) status = comm_wait(world, sent, error);
        waited += clock_seconds() - computed;
    }
    double seconds = clock_seconds() - start, gigabytes = 1e-9 * (double)(ROUNDS * bytes);
    others = processor_seconds() - clock_thread_seconds() - others;
    if (comm_rank(world) == 0)
        printf("16 MiB both ways at once, %3.0f ms of computing meanwhile: %.1f ms, %.1f of them waited; %.1f MB/s each way at %.2f s of "
               "processor time a GB\n",
               1e3 * computing, 1e3 * seconds / ROUNDS, 1e3 * waited / ROUNDS, 1e3 * gigabytes / seconds, others / gigabytes);
    free(in);
    free(out);
    return status;
}

static tessera_status speed(struct comm *world, tessera_error *error) {
    const size_t sizes[] = {0, 1024, 65536, 1 << 20, 16 << 20};
    for (size_t i = 0; i < 5 && comm_size(world) > 1; i++) TRY(ping_pong(world, sizes[i], i < 3 ? 500 : 20, error));
    TRY(pass_on(world, 0, error));
    TRY(pass_on(world, 0.1, error));
    TRY(pass_on(world, 0.2, error));
    size_t count = 4 << 20;
    float *data = calloc(count, sizeof *data);
    tessera_status status = comm_all_reduce(world, data, count, COMM_F32, error);
    double start = clock_seconds();
    for (int i = 0; i < 10 && status == TESSERA_OK; i++) status = comm_all_reduce(world, data, count, COMM_F32, error);
    double seconds = (clock_seconds() - start) / 10, size = comm_size(world), sent = 2 * (size - 1) / size * (double)count * 4;
    if (comm_rank(world) == 0)
        printf("all_reduce of %zu MiB on %d ranks: %.2f ms, %.0f MB/s sent per rank\n", count * 4 >> 20, comm_size(world), 1e3 * seconds,
               1e-6 * sent / seconds);
    free(data);
    return status;
}

static tessera_status run(struct comm *world, const char *mode, const char *value, tessera_error *error) {
    if (strcmp(mode, "work") == 0) return work(world, atof(value), error);
    if (strcmp(mode, "sleep") == 0) return sleep_long(world, atof(value), error);
    if (strcmp(mode, "abort") == 0) return fail_alone(world, atoi(value), error);
    if (strcmp(mode, "leave") == 0) return leave(world, atoi(value), error);
    if (strcmp(mode, "options") == 0) return differ(world, atoi(value), error);
    if (strcmp(mode, "idle") == 0) return idle(world, atof(value), error);
    if (strcmp(mode, "speed") == 0) return speed(world, error);
    if (strcmp(mode, "ping") == 0) return ping_pong(world, (size_t)atof(value), 10, error);
    return error_set(error, TESSERA_ERROR_ARGUMENT, "no mode %s", mode);
}

int main(int argc, char **argv) {
    struct comm *world = NULL;
    tessera_error error = {0};
    for (const tessera_setting *s = comm_settings(); s->name != NULL; s++) setenv(s->name, s->value, 0);
    if (argc < 2 || comm_world_open(NULL, &world, &error) != TESSERA_OK) return fprintf(stderr, "%s\n", error.message), 2;
    int rank = comm_rank(world);
    printf("rank %d pid %d\n", rank, (int)getpid());
    fflush(stdout);
    tessera_status status = run(world, argv[1], argc > 2 ? argv[2] : "0", &error);
    if (status == TESSERA_OK) status = comm_finish(world, &error);
    if (status != TESSERA_OK) fprintf(stderr, "rank %d failed: %s\n", rank, error.message);
    comm_free(world);
    return status == TESSERA_OK ? 0 : 1;
}
