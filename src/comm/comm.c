/* Groups: rank lists over one engine, and the few operations that need agreement among their members.
 *
 * A split gathers every member's wish and the contexts that it uses; all see the same, so all choose the same free context. Sub-groups of
 * one split share it, for they have no member in common. */
#include "comm/comm_state.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Milliseconds that a rank leaves to the one that says what is wrong, and then to those of lower numbers. */
enum { RECOVERY_WAIT = 2000, RECOVERY_TURN = 200, RECOVERY_TURNS = 20, RECOVERY_FAREWELL = 2000 };

static struct comm *group_new(struct engine *engine, int size) {
    struct comm *comm = calloc(1, sizeof *comm + (size_t)size * sizeof comm->world[0]);
    if (comm == NULL) return NULL;
    comm->engine = engine;
    comm->size = size;
    return comm;
}

/* Jobs of its own, for a group that has its members and context. */
static bool open_jobs(struct comm *comm) {
    comm->jobs = jobs_new(comm->engine, comm->context, comm->rank, comm->size, comm->world);
    if (comm->jobs != NULL) comm->group = jobs_add_group(comm->jobs, comm, comm->context);
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
    if (!open_jobs(comm)) {
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
    jobs_release(comm->jobs, comm->group);
    operations_free(comm);
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
    int group = members != NULL ? jobs_add_group(with->jobs, comm, comm->context) : -1;
    if (group < 0) {
        free(members);
        return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a process group");
    }
    for (int i = 0; i < comm->size; i++) {
        members[i] = 0;
        while (with->jobs->world[members[i]] != comm->world[i]) members[i]++;
    }
    jobs_release(comm->jobs, comm->group);
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

int comm_world_rank(const struct comm *comm, int rank) {
    return comm->world[rank];
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

struct wish { /* what a member brings to a split */
    int colour, key, rank;
    uint64_t contexts[ENGINE_CONTEXTS / 64];
};

static int by_key(const void *left, const void *right) {
    const struct wish *a = left, *b = right;
    return a->key != b->key ? (a->key > b->key) - (a->key < b->key) : (a->rank > b->rank) - (a->rank < b->rank);
}

/* The lowest context that no member uses; 0 if there is none. */
static int free_context(const struct wish *wishes, int count) {
    for (int context = 0; context < ENGINE_CONTEXTS; context++) {
        int users = 0;
        for (int i = 0; i < count; i++) users += wishes[i].contexts[context / 64] >> (context % 64) & 1;
        if (users == 0) return context;
    }
    return 0;
}

/* Moves the wishes of one colour to the front, sorts them, and returns how many they are. */
static int choose_members(struct wish *wishes, int count, int colour) {
    int members = 0;
    for (int i = 0; i < count; i++)
        if (wishes[i].colour == colour) wishes[members++] = wishes[i];
    qsort(wishes, (size_t)members, sizeof *wishes, by_key);
    return members;
}

/* The part of a split after the exchange. */
static tessera_status make_group(struct comm *comm, struct wish *wishes, int colour, struct comm **out, tessera_error *error) {
    int context = free_context(wishes, comm->size);
    if (context == 0) return error_set(error, TESSERA_ERROR_INTERNAL, "more than %d process groups at a time: free some", ENGINE_CONTEXTS);
    if (colour < 0) return TESSERA_OK;
    int members = choose_members(wishes, comm->size, colour);
    struct comm *group = group_new(comm->engine, members);
    if (group == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a process group");
    group->context = context;
    for (int i = 0; i < members; i++) {
        group->world[i] = comm->world[wishes[i].rank];
        if (wishes[i].rank == comm->rank) group->rank = i;
    }
    if (!open_jobs(group)) {
        free(group);
        return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a process group");
    }
    engine_hold(comm->engine);
    engine_context_set(comm->engine, context, true);
    *out = group;
    return TESSERA_OK;
}

/* Gathers `bytes` of each member under the label "set-up". The caller frees the result; NULL on failure. */
static void *gather(struct comm *comm, const void *mine, const size_t *bytes, tessera_error *error) {
    size_t total = 0;
    for (int i = 0; i < comm->size; i++) total += bytes[i];
    void *all = malloc(total > 0 ? total : 1);
    if (all == NULL) error_set(error, TESSERA_ERROR_MEMORY, "no memory to compare %d ranks", comm->size);
    if (all == NULL) return NULL;
    const char *label = engine_label(comm->engine, "set-up");
    tessera_status status = comm_all_gather(comm, mine, all, bytes, error);
    engine_label(comm->engine, label);
    if (status == TESSERA_OK) return all;
    free(all);
    return NULL;
}

static size_t *equal_sizes(const struct comm *comm, size_t bytes, tessera_error *error) {
    size_t *sizes = malloc((size_t)comm->size * sizeof *sizes);
    if (sizes == NULL) error_set(error, TESSERA_ERROR_MEMORY, "no memory for %d ranks", comm->size);
    for (int i = 0; sizes != NULL && i < comm->size; i++) sizes[i] = bytes;
    return sizes;
}

/* What a split does between the beginning and the end of its job. */
static tessera_status split(struct comm *comm, int colour, int key, struct comm **out, tessera_error *error) {
    struct wish mine = {.colour = colour, .key = key, .rank = comm->rank}, *wishes = NULL;
    engine_contexts(comm->engine, mine.contexts);
    size_t *sizes = equal_sizes(comm, sizeof mine, error);
    if (sizes != NULL) wishes = gather(comm, &mine, sizes, error);
    tessera_status status = wishes == NULL ? error->status : make_group(comm, wishes, colour, out, error);
    free(wishes);
    free(sizes);
    return status;
}

tessera_status comm_split(struct comm *comm, int colour, int key, struct comm **out, tessera_error *error) {
    tessera_error own;
    if (error == NULL) error = &own;
    *out = NULL;
    tessera_status status = comm_job_begin(comm, error);
    if (status == TESSERA_OK) status = split(comm, colour, key, out, error);
    status = comm_job_end(comm, status, error);
    if (status != TESSERA_OK) comm_free(*out);
    if (status != TESSERA_OK) *out = NULL;
    return status;
}

/* What a launcher says of this process's rank; NULL without one. */
static const char *launched_rank(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *rank = getenv(names[i]);
        if (rank != NULL) return rank;
    }
    return NULL;
}

int comm_launched_rank(void) {
    const char *rank = launched_rank();
    return rank != NULL ? atoi(rank) : 0;
}

/* Whether the parent of this process is a launcher of Open MPI. */
static bool parent_launches(void) {
    static const char *const names[] = {"mpirun", "mpiexec", "orterun", "orted"};
    char path[48], name[32] = "";
    snprintf(path, sizeof path, "/proc/%ld/comm", (long)getppid());
    FILE *stream = fopen(path, "r");
    if (stream == NULL) return false;
    if (fgets(name, sizeof name, stream) != NULL) name[strcspn(name, "\n")] = 0;
    fclose(stream);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) return true;
    return false;
}

bool comm_is_launched(void) {
    return launched_rank() != NULL;
}

static sigset_t launcher_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCONT);
    return set;
}

void comm_begin_launch(void) {
    sigset_t set = launcher_signals();
    if (comm_is_launched()) pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* Whether a signal comes within so many milliseconds, or came before and is pending. */
static bool signalled_within(int milliseconds) {
    sigset_t set = launcher_signals();
    return sigtimedwait(&set, NULL, &(struct timespec){milliseconds / 1000, milliseconds % 1000 * 1000000L}) >= 0 || errno != EAGAIN;
}

/* Open MPI 4.1's launcher, when it gets SIGTERM, sends its ranks SIGCONT, and SIGTERM and SIGKILL a second later. Another signal meanwhile ends
 * it before it has removed its files: so whoever got SIGCONT does not send one. It crashes more often where ranks go by themselves meanwhile. */
void comm_end_launch(void) {
    const char *recovery = getenv("OMPI_MCA_orte_enable_recovery");
    int rank = comm_launched_rank();
    if (!comm_is_launched() || recovery == NULL || strcmp(recovery, "0") == 0) return;
    bool continued = signalled_within(0); /* by the launcher, or long ago by somebody else */
    int wait = rank > 0 ? RECOVERY_WAIT + RECOVERY_TURN * ((rank - 1) % RECOVERY_TURNS) : continued ? RECOVERY_WAIT : 0;
    if (signalled_within(wait) || (parent_launches() && kill(getppid(), SIGTERM) == 0))
        nanosleep(&(struct timespec){RECOVERY_FAREWELL / 1000, 0}, NULL);
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

/* Compares the gathered texts with member 0's; the error has one line for the first that differs and names all that do. */
static tessera_status compare(const struct comm *comm, const char *what, const char *texts, const size_t *bytes, tessera_error *error) {
    const char *text = texts, *different = NULL;
    char ranks[128] = "";
    size_t used = 0;
    for (int i = 0; i < comm->size; text += bytes[i++]) {
        if (strcmp(text, texts) == 0) continue;
        if (different == NULL) different = text;
        if (used < sizeof ranks - 16)
            used += (size_t)snprintf(ranks + used, sizeof ranks - used, "%s%d", used > 0 ? ", " : "", comm->world[i]);
    }
    if (different == NULL) return TESSERA_OK;
    size_t same = 0; /* long texts are shown from a little before where they part */
    while (texts[same] != 0 && texts[same] == different[same]) same++;
    size_t skip = same > 60 ? same - 60 : 0;
    while ((texts[skip] & 0xC0) == 0x80) skip++;
    const char *dots = skip > 0 ? "..." : "";
    return error_set(error, TESSERA_ERROR_ARGUMENT,
                     "%s differ between ranks: rank %d has \"%s%.160s\", rank %s has \"%s%.160s\": start all alike", what, comm->world[0],
                     dots, texts + skip, ranks, dots, different + skip);
}

/* All texts, one after another, and the lengths; the caller frees both. */
static tessera_status gather_texts(struct comm *comm, const char *text, char **texts, size_t **bytes, tessera_error *error) {
    size_t mine = strlen(text) + 1, *sizes = equal_sizes(comm, sizeof mine, error);
    if (sizes != NULL) *bytes = gather(comm, &mine, sizes, error);
    if (*bytes != NULL) *texts = gather(comm, text, *bytes, error);
    free(sizes);
    return *texts != NULL ? TESSERA_OK : error->status;
}

tessera_status comm_check_same(struct comm *comm, const char *what, const char *text, tessera_error *error) {
    tessera_error own;
    if (error == NULL) error = &own;
    char *texts = NULL;
    size_t *bytes = NULL;
    tessera_status status = comm_job_begin(comm, error);
    if (status == TESSERA_OK) status = gather_texts(comm, text, &texts, &bytes, error);
    status = comm_job_end(comm, status, error);
    if (status == TESSERA_OK) status = compare(comm, what, texts, bytes, error); /* alike on all ranks */
    free(texts);
    free(bytes);
    return status;
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
