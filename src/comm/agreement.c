/* Operations that need agreement among a group's members: splits, and comparing what all should
 * have alike.
 *
 * A split gathers every member's wish and the contexts that it uses. All members see the same, so
 * all choose the same free context. The groups of one split share the context, because they have no
 * member in common. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/collectives.h"
#include "comm/comm_state.h"

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

/* What a split does after the exchange. */
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
    if (!group_open_jobs(group)) {
        free(group);
        return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a process group");
    }
    engine_hold(comm->engine);
    engine_context_set(comm->engine, context, true);
    *out = group;
    return TESSERA_OK;
}

/* Gathers `bytes` of each member under the label "set-up". The caller frees the result; NULL on
 * failure. */
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

/* Compares the gathered texts with member 0's; the error has one line for the first that differs
 * and names all that do. */
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
