/* Jobs that end anyhow: hundreds of them, of random exchanges over a world and the groups of a
 * mesh, many of which a rank leaves at a random moment, with messages that it began and never waits
 * for, or that others never ask for. Each ends with the same right status on all ranks, the good
 * ones have right numbers, and memory stays flat.
 *
 *     mpirun -n N test_jobs */
#include <malloc.h>
#include <string.h>
#include <unistd.h>

#include "comm/comm_state.h"
#include "comm/mesh.h"
#include "comm/ranks.h"
#include "resident.h"

enum { JOBS = 300, EXCHANGES = 6, NUMBERS = 150000, NOBODY = -1 };

/* What happens in a job; the same on all ranks. */
struct plan {
    int failing, moment; /* the rank that fails (or NOBODY) before this exchange; EXCHANGES: at the end */
    tessera_status status;
    bool leaves_messages;
};

struct room {
    float *a, *b;
    size_t *bytes;
};

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Sums, blocks of all and a ring's neighbours over one group, of a size that goes as several chunks. */
static tessera_status exchange(struct comm *group, int kind, uint32_t seed, struct room *room, tessera_error *error) {
    int size = comm_size(group), me = comm_rank(group);
    size_t count = seed % 3 == 0 ? NUMBERS : 1 + seed % 1000;
    for (size_t i = 0; i < count; i++) room->a[i] = (float)(me + 1);
    if (kind == 0) {
        TRY(comm_all_reduce(group, room->a, count, COMM_F32, error));
        CHECK(room->a[count - 1] == (float)(size * (size + 1) / 2), "a sum of %g", room->a[count - 1]);
    } else if (kind == 1) {
        size_t each = count / (size_t)size;
        for (int i = 0; i < size; i++) room->bytes[i] = each * sizeof(float);
        TRY(comm_all_gather(group, room->a, room->b, room->bytes, error));
        for (int i = 0; i < size && each > 0; i++) CHECK(room->b[(size_t)i * each] == (float)(i + 1), "another rank's block");
    } else if (kind == 2) {
        TRY(pass_round(group, room->a, count * sizeof(float), room->b, count * sizeof(float), error));
        CHECK(room->b[count - 1] == (float)((me - 1 + size) % size + 1), "%g from the rank before", room->b[count - 1]);
    } else {
        TRY(comm_broadcast(group, 0, room->a, count * sizeof(float), error));
        CHECK(room->a[count - 1] == 1, "%g from the root", room->a[count - 1]);
    }
    return TESSERA_OK;
}

/* Begins messages for which this rank does not wait: of a sum in which the others take part, and
 * some that nobody asks for. */
static void leave_messages(struct mesh *mesh, struct room *room) {
    struct comm *group = mesh->group[MESH_CUT];
    int next = (comm_rank(group) + 1) % comm_size(group);
    comm_send_start(group, next, room->a, NUMBERS * sizeof(float));
    comm_send_start(group, next, room->a, 7);
    comm_receive_start(group, next, room->b, NUMBERS * sizeof(float));
    struct comm *sum = mesh->group[MESH_STAGE];
    size_t size = (size_t)comm_size(sum);
    for (size_t i = 0; i < size; i++) { /* as the first half of comm_all_reduce sends each member its slice */
        size_t slice = NUMBERS * (i + 1) / size - NUMBERS * i / size;
        if ((int)i != comm_rank(sum)) comm_send_start(sum, (int)i, room->b, slice * sizeof(float));
    }
}

static tessera_status run_job(struct comm *world, struct mesh *mesh, const struct plan *plan, uint32_t seed, struct room *room,
                              tessera_error *error) {
    for (int i = 0; i <= EXCHANGES; i++) {
        bool joins = i == plan->moment && plan->leaves_messages;
        if (i == plan->moment && plan->failing == comm_rank(world)) {
            if (plan->leaves_messages) leave_messages(mesh, room);
            error_set(error, plan->status, "rank %d had enough", comm_rank(world));
            if (seed % 2 == 0) comm_job_fail(world, error);
            return plan->status;
        }
        if (joins) TRY(comm_all_reduce(mesh->group[MESH_STAGE], room->a, NUMBERS, COMM_F32, error));
        struct comm *groups[] = {world, mesh->group[MESH_RING], mesh->group[MESH_ULYSSES], mesh->group[MESH_PICTURE]};
        if (i < EXCHANGES) TRY(exchange(groups[next_random(&seed) % 4], (int)(next_random(&seed) % 4), next_random(&seed), room, error));
    }
    return TESSERA_OK;
}

static struct plan plan_of(int number, int size, uint32_t *state) {
    struct plan plan = {.failing = NOBODY};
    if (number % 2 == 0) return plan;
    plan.failing = (int)(next_random(state) % (uint32_t)size);
    plan.moment = (int)(next_random(state) % (EXCHANGES + 1));
    plan.status = number % 4 == 1 ? TESSERA_ERROR_CANCELLED : TESSERA_ERROR_MEMORY;
    plan.leaves_messages = number % 6 == 3;
    return plan;
}

static void run_jobs(struct comm *world, struct mesh *mesh, struct room *room) {
    uint32_t state = 20;
    int me = comm_rank(world), size = comm_size(world);
    size_t early = 0;
    for (int i = 0; i < JOBS; i++) {
        struct plan plan = plan_of(i, size, &state);
        tessera_error error = {0};
        char name[40];
        snprintf(name, sizeof name, "rank %d had enough", plan.failing);
        tessera_status status = comm_job_begin(world, &error);
        if (status == TESSERA_OK) status = run_job(world, mesh, &plan, next_random(&state) * 2654435761u, room, &error);
        status = comm_job_end(world, status, &error);
        CHECK(status == plan.status, "job %d ends with %d on rank %d, %d is right: %s", i, status, me, plan.status, error.message);
        CHECK(plan.failing == NOBODY || strstr(error.message, name) != NULL, "job %d does not say who failed: %s", i, error.message);
        CHECK(comm_status(world, NULL) == TESSERA_OK, "job %d: its failure stays", i);
        if (i == JOBS / 3) early = resident_bytes();
    }
    size_t late = resident_bytes();
    if (me == 0) printf("  %zu KiB resident at a third of %d jobs, %zu KiB at the end\n", early >> 10, JOBS, late >> 10);
#ifndef TESSERA_SANITIZED /* whose own memory grows with what they have seen */
    CHECK(late < early + (2 << 20), "memory grows from %zu to %zu bytes", early, late);
#endif
}

/* Two ranks fail at once: all say the same, the lower one's failure, and a cancellation only if
 * there is nothing else. */
static void run_two_failures(struct comm *world) {
    int me = comm_rank(world), last = comm_size(world) - 1;
    for (int i = 0; i < 10; i++) {
        tessera_error error = {0};
        tessera_status status = comm_job_begin(world, &error);
        if (me == 0) status = error_set(&error, TESSERA_ERROR_CANCELLED, "stopped");
        if (me == last) status = error_set(&error, TESSERA_ERROR_MEMORY, "out of memory");
        if (status == TESSERA_OK) status = comm_barrier(world, &error);
        status = comm_job_end(world, status, &error);
        struct ends {
            int32_t status, own; /* own: before it heard of another's */
        } all[64], mine = {(int32_t)status, (int32_t)world->jobs->cause.status};
        size_t bytes[64];
        bool memory = false;
        for (int r = 0; r <= last; r++) bytes[r] = sizeof mine;
        CHECK_OK(comm_all_gather(world, &mine, all, bytes, &error), error);
        for (int r = 0; r <= last; r++) {
            CHECK(all[r].status == mine.status, "rank %d ends with %d, rank %d with %d", me, mine.status, r, all[r].status);
            memory |= all[r].own == TESSERA_ERROR_MEMORY;
        }
        CHECK(!memory || status == TESSERA_ERROR_MEMORY, "a cancellation hides that memory is out");
        CHECK(status == TESSERA_ERROR_MEMORY || status == TESSERA_ERROR_CANCELLED, "status %d", status);
    }
}

/* An inner job's failure is the outer one's; a rank that comes late to a job that has failed
 * already learns it. */
static void run_nested(struct comm *world) {
    int me = comm_rank(world);
    for (int i = 0; i < 6; i++) {
        tessera_error error = {0};
        struct comm *half = NULL;
        tessera_status status = comm_job_begin(world, &error);
        if (me == i % comm_size(world)) status = error_set(&error, TESSERA_ERROR_FORMAT, "a bad file");
        if (me == 1) usleep(2000);
        if (status == TESSERA_OK) status = comm_split(world, me % 2, me, &half, &error);
        status = comm_job_end(world, status, &error);
        CHECK(status == TESSERA_ERROR_FORMAT, "status %d: %s", status, error.message);
        comm_free(half);
    }
}

static int under_way(struct comm *world) {
    struct jobs *jobs = world->jobs;
    pthread_mutex_lock(&jobs->engine->lock);
    int count = jobs->under_way;
    pthread_mutex_unlock(&jobs->engine->lock);
    return count;
}

/* Once comm_job_fail has returned, nothing of the job touches the caller's memory: here a single
 * receive, which nobody answers. */
static void run_lone_receive(struct comm *world, struct room *room) {
    int me = comm_rank(world);
    for (int i = 0; i < 20; i++) {
        tessera_error error = {0};
        tessera_status status = comm_job_begin(world, &error);
        if (me == 0) {
            comm_receive_start(world, 1, room->b, NUMBERS * sizeof(float));
            CHECK(under_way(world) == 1, "%d requests are under way", under_way(world));
            status = error_set(&error, TESSERA_ERROR_FORMAT, "a bad file");
            comm_job_fail(world, &error);
            CHECK(under_way(world) == 0, "failure %d returns while %d requests are under way", i, under_way(world));
        } else if (status == TESSERA_OK) {
            status = comm_barrier(world, &error);
        }
        status = comm_job_end(world, status, &error);
        CHECK(status == TESSERA_ERROR_FORMAT, "status %d: %s", status, error.message);
    }
}

/* What comes before a group is made is for its members, and for the job under way or the next:
 * groups without a common member may have one context. Rank 0 is told of failures in groups that it
 * is not in, and of jobs that are not yet there. */
static void run_strange_outcomes(struct comm *world) {
    tessera_error error = {0};
    struct comm *half = NULL;
    int me = comm_rank(world), stranger = me % 2 == 0 ? 1 : 0;
    CHECK_OK(comm_split(world, me % 2, me, &half, &error), error);
    int context = half->jobs->context;
    comm_free(half);
    struct engine *engine = world->jobs->engine;
    struct early_outcome *early = calloc(1, sizeof *early);
    *early = (struct early_outcome){.from = stranger, .outcome = {.jobs = context, .status = TESSERA_ERROR_MEMORY}};
    pthread_mutex_lock(&engine->lock);
    CHECK(engine->early == NULL, "an outcome waits for its group");
    engine->early = early;
    pthread_mutex_unlock(&engine->lock);
    CHECK_OK(comm_split(world, me % 2, me, &half, &error), error);
    CHECK(half->jobs->context == context, "another context than before");
    pthread_mutex_lock(&engine->lock);
    CHECK(engine->early == early, "a stranger's outcome is taken for a member's");
    engine->early = NULL;
    struct jobs *jobs = world->jobs;
    struct job_outcome far = {.jobs = jobs->context, .job = jobs->job + 3, .status = TESSERA_ERROR_MEMORY};
    jobs_note(jobs, stranger, &far);
    CHECK(!jobs->heard[(size_t)(far.job & 1) * (size_t)jobs->size + (size_t)stranger], "a job three ahead has an outcome");
    struct job_outcome late = {.jobs = jobs->context, .job = jobs->job, .status = TESSERA_ERROR_MEMORY};
    jobs_note(jobs, stranger, &late);
    CHECK(!jobs->failed, "a job that has ended fails");
    pthread_mutex_unlock(&engine->lock);
    free(early);
    comm_free(half);
    CHECK_OK(comm_barrier(world, &error), error); /* nobody is in the next job yet */
}

/* A wait for a rank that has ended its world ends, too. */
static void run_finished(struct comm *world) {
    tessera_error error = {0};
    if (comm_rank(world) == comm_size(world) - 1) return;
    tessera_status status = comm_job_begin(world, &error);
    if (status == TESSERA_OK) status = comm_barrier(world, &error);
    status = comm_job_end(world, status, &error);
    CHECK(status == TESSERA_ERROR_IO && strstr(error.message, "has left the world") != NULL, "status %d: %s", status, error.message);
}

int main(void) {
    struct comm *world = NULL;
    struct mesh *mesh = NULL;
    tessera_error error = {0};
    mallopt(M_ARENA_MAX, 1);
    if (comm_world_open(NULL, &world, &error) != TESSERA_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    int size = comm_size(world), failed = 0;
    int degrees[MESH_AXES] = {1, 1, 1, 1, size % 2 == 0 ? size / 2 : size, size % 2 == 0 ? 2 : 1, 1};
    struct room room = {calloc(NUMBERS, sizeof(float)), calloc(NUMBERS + 64, sizeof(float)), calloc((size_t)size, sizeof(size_t))};
    CHECK_OK(mesh_open(world, degrees, &mesh, &error), error);
    for (int g = 0; size > 1 && g < MESH_GROUPS; g++)
        if (comm_size(mesh->group[g]) > 1) CHECK_OK(comm_job_share(mesh->group[g], world, &error), error);
    if (size > 1) {
        run_jobs(world, mesh, &room);
        run_two_failures(world);
        run_nested(world);
        run_lone_receive(world, &room);
        run_strange_outcomes(world);
        run_finished(world);
    }
    mesh_free(mesh);
    free(room.a);
    free(room.b);
    free(room.bytes);
    failed = check_failed;
    int rank = comm_rank(world);
    if (comm_finish(world, &error) != TESSERA_OK) fprintf(stderr, "%s\n", error.message), failed++;
    comm_free(world);
    printf("rank %d: %d passed, %d failed\n", rank, check_passed, failed);
    return failed == 0 ? 0 : 1;
}
