/* How the engine fails, as the computing threads see it: the communication thread does not return,
 * a thread asks for an abort, a job has failed. engine.c, jobs.c and progress.c use it.
 *
 * Waits never trust MPI: they wake every second, and if the communication thread has made no round
 * for as long as a silent rank would be given, it is stuck inside MPI, which is a failure too; the
 * thread and the engine's memory are then left to the end of the process. */
#include <time.h>

#include "base/clock.h"
#include "comm/engine_state.h"
#include "comm/jobs.h"

enum { START_TURNS = 2 }; /* seconds */

void engine_sleep(struct engine *engine, pthread_cond_t *condition, double seconds) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t nanoseconds = until.tv_nsec + (int64_t)(seconds * 1e9);
    until.tv_sec += nanoseconds / 1000000000;
    until.tv_nsec = nanoseconds % 1000000000;
    pthread_cond_timedwait(condition, &engine->lock, &until);
}

tessera_status engine_failure(const struct engine *engine, tessera_error *error) {
    if (engine->phase != ENGINE_FAILED) return TESSERA_OK;
    if (error != NULL) *error = engine->error;
    return engine->error.status;
}

/* Leaves the communication thread to itself, for it does not come back from MPI; the caller holds
 * the lock. */
static void give_up(struct engine *engine, const char *what) {
    if (engine->phase == ENGINE_FAILED) return;
    if (engine->phase == ENGINE_STARTING)
        error_set(&engine->error, TESSERA_ERROR_IO,
                  "rank %d: MPI did not start in time: another rank was killed or stopped while it started, or its machine cannot be "
                  "reached; where machines start slowly, set TESSERA_START_SECONDS=60",
                  comm_launched_rank());
    else if (!engine->abort_wanted)
        error_set(&engine->error, TESSERA_ERROR_IO, "rank %d on %s: MPI does not return from %s", engine->rank, engine->hosts[engine->rank],
                  what);
    engine->phase = ENGINE_FAILED;
    pthread_detach(engine->thread);
    engine->has_thread = false;
    engine->users++; /* the thread: so the memory stays */
    pthread_cond_broadcast(&engine->done);
}

/* How many seconds without a round of the thread are too many. Ranks that wait for others to start
 * give up in turns: the launcher ends the rest when the first has gone. Open MPI 4.1's mpirun often
 * crashed or hung (PMIx_server_finalize) where all went at once. */
static double patience(const struct engine *engine) {
    int turn = comm_launched_rank();
    if (engine->phase == ENGINE_STARTING) return engine->options.start_seconds + (turn < START_TURNS ? turn : START_TURNS);
    return engine->phase == ENGINE_FINISHING ? engine->options.finish_seconds : engine->options.silence_seconds + 2;
}

void engine_wait_for_thread(struct engine *engine, int *stalled, const char *what) {
    double limit = patience(engine), start = clock_seconds();
    uint64_t rounds = engine->rounds;
    engine_sleep(engine, &engine->done, 1.0);
    if (engine->rounds != rounds)
        *stalled = 0;
    else if (clock_seconds() - start > 0.9)
        ++*stalled;
    if (*stalled >= limit) give_up(engine, what);
}

void engine_want_abort(struct engine *engine, tessera_status status, const char *message) {
    if (engine->abort_wanted || engine->phase >= ENGINE_FINISHED) return;
    error_set(&engine->error, status, "rank %d on %s: %s", engine->rank, engine->hosts[engine->rank], message);
    engine->abort_wanted = true;
    if (!engine->has_thread) engine->phase = ENGINE_FAILED;
    pthread_cond_signal(&engine->wake);
}

tessera_status engine_any_failure(const struct jobs *jobs, tessera_error *error) {
    const struct engine *engine = jobs->engine;
    tessera_status status = engine_failure(engine, error);
    if (status == TESSERA_OK && engine->phase >= ENGINE_FINISHING && engine->size > 1)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "rank %d on %s: this call needs the other ranks, but comes after the world's end (tessera_world_finish)",
                         engine->rank, engine->hosts[engine->rank]);
    if (status != TESSERA_OK || !jobs->failed) return status;
    if (error != NULL) *error = jobs->failure;
    return jobs->failure.status;
}

void engine_abort(struct engine *engine, const tessera_error *error) {
    int stalled = 0;
    pthread_mutex_lock(&engine->lock);
    engine_want_abort(engine, error->status != TESSERA_OK ? error->status : TESSERA_ERROR_INTERNAL, error->message);
    while (engine->abort_wanted && engine->phase < ENGINE_FINISHED) engine_wait_for_thread(engine, &stalled, "an abort");
    pthread_mutex_unlock(&engine->lock);
}
