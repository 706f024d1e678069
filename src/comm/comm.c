/* Groups: rank lists over one engine, their jobs and messages. agreement.c splits groups. */
#include "comm/comm_state.h"

#include <stdlib.h>
#include <string.h>

struct comm *group_new(struct engine *engine, int size) {
    struct comm *comm = calloc(1, sizeof *comm + (size_t)size * sizeof comm->world[0]);
    if (comm == NULL) return NULL;
    comm->engine = engine;
    comm->size = size;
    return comm;
}

bool group_open_jobs(struct comm *comm) {
    comm->jobs = jobs_new(comm->engine, comm->context, comm->rank, comm->size, comm->world);
    if (comm->jobs != NULL) comm->group = jobs_add_group(comm->jobs, comm->context);
    return comm->jobs != NULL;
}

tessera_status comm_world_open(const struct comm_options *options, struct comm **out, tessera_error *error) {
    struct engine *engine = NULL;
    TRY(engine_open(options, &engine, error));
    struct comm *comm = group_new(engine, engine_size(engine));
    if (comm == NULL) {
        engine_release(engine);
        return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a process group");
    }
    comm->rank = engine_rank(engine);
    comm->context = ENGINE_CONTEXT_WORLD;
    for (int i = 0; i < comm->size; i++) comm->world[i] = i;
    if (!group_open_jobs(comm)) {
        engine_release(engine);
        free(comm);
        return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a process group");
    }
    *out = comm;
    return TESSERA_OK;
}

tessera_status comm_finish(struct comm *comm, tessera_error *error) {
    return engine_finish(comm->engine, error);
}

void comm_free(struct comm *comm) {
    if (comm == NULL) return;
    if (comm->context != ENGINE_CONTEXT_WORLD) engine_context_set(comm->engine, comm->context, false);
    jobs_release(comm->jobs);
    if (comm->operation != NULL) free(comm->operation->scratch);
    free(comm->operation);
    engine_release(comm->engine);
    free(comm->members);
    free(comm);
}

/* ---- jobs ---- */

tessera_status comm_job_begin(struct comm *comm, tessera_error *error) {
    return comm != NULL ? jobs_begin(comm->jobs, error) : TESSERA_OK;
}

void comm_job_fail(struct comm *comm, const tessera_error *error) {
    if (comm != NULL) jobs_fail(comm->jobs, error);
}

tessera_status comm_job_end(struct comm *comm, tessera_status status, tessera_error *error) {
    return comm != NULL ? jobs_end(comm->jobs, status, error) : status;
}

uint64_t comm_job_number(struct comm *comm) {
    return comm != NULL ? jobs_number(comm->jobs) : 0;
}

tessera_status comm_job_share(struct comm *comm, struct comm *with, tessera_error *error) {
    if (comm->jobs == with->jobs) return TESSERA_OK;
    int *members = malloc((size_t)comm->size * sizeof *members);
    int group = members != NULL ? jobs_add_group(with->jobs, comm->context) : -1;
    if (group < 0) {
        free(members);
        return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a process group");
    }
    for (int i = 0; i < comm->size; i++) {
        members[i] = 0;
        while (with->jobs->world[members[i]] != comm->world[i]) members[i]++;
    }
    jobs_release(comm->jobs);
    free(comm->members);
    comm->jobs = with->jobs;
    comm->group = group;
    comm->members = members;
    return TESSERA_OK;
}

/* ---- members ---- */

int comm_rank(const struct comm *comm) {
    return comm != NULL ? comm->rank : 0;
}

int comm_size(const struct comm *comm) {
    return comm != NULL ? comm->size : 1;
}

const char *comm_host(const struct comm *comm, int rank) {
    return engine_host(comm->engine, comm->world[rank]);
}

int comm_local_size(const struct comm *comm) {
    int count = 0;
    if (comm == NULL) return 1;
    for (int i = 0; i < comm->size; i++) count += strcmp(comm_host(comm, i), comm_host(comm, comm->rank)) == 0;
    return count;
}

tessera_status comm_status(struct comm *comm, tessera_error *error) {
    tessera_error unwanted;
    return engine_status(comm->jobs, error != NULL ? error : &unwanted);
}

bool comm_world_failed(const struct comm *comm) {
    return engine_failed(comm->engine);
}

void comm_abort(struct comm *comm, const tessera_error *error) {
    engine_abort(comm->engine, error);
}

static int number_of(const struct comm *comm, int member) {
    return comm->members != NULL ? comm->members[member] : member;
}

struct comm_request *comm_send_start(struct comm *comm, int to, const void *data, size_t bytes) {
    return engine_post(comm->jobs, comm->group, true, number_of(comm, to), (void *)(uintptr_t)data, bytes, (struct comm_explanation){0});
}

struct comm_request *comm_receive_start(struct comm *comm, int from, void *data, size_t bytes) {
    return comm_receive_explained(comm, from, data, bytes, (struct comm_explanation){0});
}

struct comm_request *comm_receive_explained(struct comm *comm, int from, void *data, size_t bytes, struct comm_explanation explanation) {
    return engine_post(comm->jobs, comm->group, false, number_of(comm, from), data, bytes, explanation);
}

tessera_status comm_wait(struct comm *comm, struct comm_request *request, tessera_error *error) {
    return engine_wait(comm->jobs, request, error);
}

bool comm_test(struct comm *comm, const struct comm_request *request) {
    return engine_test(comm->engine, request);
}
