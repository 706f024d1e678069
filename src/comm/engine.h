/* The engine: one communication thread per process, which alone calls MPI.
 *
 *     computing threads                     communication thread
 *     engine_post  --> [ posted queue ] --> chunks of at most 256 KiB --> MPI_Issend / MPI_Irecv
 *     engine_wait  <-- (condition)      <-- MPI_Testsome, naps of 5 us to 5 ms between polls
 *                                           heartbeats, abort notices, the orderly end (liveness.h)
 *
 * MPI makes progress only inside its calls. A dedicated thread calls it often enough that messages
 * move while others compute, and naps in between so that it takes no core from them; a new post
 * wakes it at once. A long message goes as chunks: each finished chunk is a sign that data flows,
 * which keeps the naps short, and no length ever meets the limit of MPI's int counts. This header
 * is for the room; callers outside it use comm.h. */
#ifndef TESSERA_COMM_ENGINE_H
#define TESSERA_COMM_ENGINE_H

#include "comm/comm.h"
#include "comm/stats.h"

enum { ENGINE_HOST_LENGTH = 256, ENGINE_CONTEXTS = 1024, ENGINE_CONTEXT_WORLD = 1 };

struct engine;
struct jobs; /* jobs.h */

/* Starts the thread and MPI if a launcher started this process; else an engine of one rank without
 * either. */
tessera_status engine_open(const struct comm_options *options, struct engine **out, tessera_error *error);
void engine_hold(struct engine *engine);    /* one more user */
void engine_release(struct engine *engine); /* the last user's release ends all */
tessera_status engine_finish(struct engine *engine, tessera_error *error);

int engine_rank(const struct engine *engine);
int engine_size(const struct engine *engine);
const char *engine_host(const struct engine *engine, int rank);

/* Context numbers in use by this process, one bit each. */
void engine_contexts(struct engine *engine, uint64_t used[ENGINE_CONTEXTS / 64]);
void engine_context_set(struct engine *engine, int context, bool used);

/* To or from a member, by its number among the jobs' members, of one of their groups. NULL when
 * memory is out; the job has then failed. */
struct comm_request *engine_post(struct jobs *jobs, int group, bool is_send, int member, void *data, size_t bytes,
                                 struct comm_explanation explanation);
/* Gives the failure of the job, or of the engine, if there is one. */
tessera_status engine_wait(struct jobs *jobs, struct comm_request *request, tessera_error *error);
bool engine_test(struct engine *engine, const struct comm_request *request);

/* Fails this rank and tells the others. */
void engine_abort(struct engine *engine, const tessera_error *error);
/* The engine's failure, which is for good, or that of the job under way, if any. */
tessera_status engine_status(struct jobs *jobs, tessera_error *error);
/* The engine's alone. */
bool engine_failed(struct engine *engine);

/* Counting (stats.h). */
const char *engine_label(struct engine *engine, const char *label);
int engine_stats(struct engine *engine, struct comm_stats_row rows[COMM_STATS_LABELS]);
void engine_stats_reset(struct engine *engine);

#endif
