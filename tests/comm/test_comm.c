/* Messages between two ranks: any length, order, overlap, groups by splitting, texts that differ,
 * counting. */
#include "ranks.h"

#include <string.h>
#include <unistd.h>
#include "comm/comm_state.h"
#include "comm/engine_state.h"
#include "comm/stats.h"

static tessera_error error;

/* Every pair of ranks exchanges messages of all lengths around the chunk's, several under way at a
 * time. */
static void test_lengths(struct comm *world) {
    const size_t lengths[] = {0, 1, 5000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 * (1 << 20) + 17, 0, 3};
    enum { COUNT = sizeof lengths / sizeof lengths[0] };
    int size = comm_size(world), rank = comm_rank(world);
    for (int distance = 1; distance < size; distance++) {
        int to = (rank + distance) % size, from = (rank - distance + size) % size;
        struct comm_request *out[COUNT], *in[COUNT];
        uint8_t *sent[COUNT], *received[COUNT];
        for (int i = 0; i < COUNT; i++) {
            sent[i] = malloc(lengths[i] + 1);
            received[i] = calloc(1, lengths[i] + 1);
            fill_bytes(sent[i], lengths[i], (uint32_t)(rank * 100 + i));
            in[i] = comm_receive_start(world, from, received[i], lengths[i]);
            out[i] = comm_send_start(world, to, sent[i], lengths[i]);
        }
        for (int i = COUNT - 1; i >= 0; i--) { /* waiting backwards */
            CHECK_OK(comm_wait(world, in[i], &error), error);
            CHECK_OK(comm_wait(world, out[i], &error), error);
            CHECK(wrong_bytes(received[i], lengths[i], (uint32_t)(from * 100 + i)) == 0, "%zu bytes from %d", lengths[i], from);
            free(sent[i]);
            free(received[i]);
        }
    }
}

/* Many messages on the same way arrive in order, also when the receiver asks late and each is
 * delayed by another time. */
static void test_order(struct comm *world) {
    enum { COUNT = 300 };
    int size = comm_size(world), rank = comm_rank(world), values[COUNT], got[COUNT];
    struct comm_request *requests[2 * COUNT];
    if (size == 1) return;
    for (int i = 0; i < COUNT; i++) {
        values[i] = rank * COUNT + i;
        requests[i] = comm_send_start(world, (rank + 1) % size, &values[i], sizeof values[i]);
    }
    for (int i = 0; i < COUNT; i++) requests[COUNT + i] = comm_receive_start(world, (rank + size - 1) % size, &got[i], sizeof got[i]);
    for (int i = 0; i < 2 * COUNT; i++) CHECK_OK(comm_wait(world, requests[i], &error), error);
    for (int i = 0; i < COUNT; i++) CHECK(got[i] == (rank + size - 1) % size * COUNT + i, "message %d is %d", i, got[i]);
}

/* A receive that nothing answers yet is not ready; and becomes so without a wait. */
static void test_test(struct comm *world) {
    int size = comm_size(world), rank = comm_rank(world), value = 0;
    if (size == 1 || rank > 1) return;
    struct comm_request *in = comm_receive_start(world, 1 - rank, &value, sizeof value);
    if (rank == 0) CHECK(!comm_test(world, in), "ready before anything was sent");
    int mine = 7 + rank;
    if (rank == 1) { /* answers only what it has got */
        CHECK_OK(comm_wait(world, in, &error), error);
        CHECK(value == 7, "%d", value);
    }
    struct comm_request *out = comm_send_start(world, 1 - rank, &mine, sizeof mine);
    while (rank == 0 && !comm_test(world, in)) {
    }
    if (rank == 0) CHECK_OK(comm_wait(world, in, &error), error);
    if (rank == 0) CHECK(value == 8, "%d", value);
    CHECK_OK(comm_wait(world, out, &error), error);
}

/* Messages of two groups are under way at once: each meets its own group's receive, whichever is
 * waited for first. */
static void test_both(struct comm *half, struct comm *reversed) {
    struct comm *groups[] = {half, reversed};
    struct comm_request *sent[2], *received[2];
    int mine[2], theirs[2] = {-1, -1};
    for (int i = 0; i < 2; i++) {
        int size = comm_size(groups[i]), me = comm_rank(groups[i]);
        mine[i] = 100 * i + me;
        sent[i] = size > 1 ? comm_send_start(groups[i], (me + 1) % size, &mine[i], sizeof mine[i]) : NULL;
        received[i] = size > 1 ? comm_receive_start(groups[i], (me + size - 1) % size, &theirs[i], sizeof theirs[i]) : NULL;
    }
    for (int i = 1; i >= 0; i--) {
        int size = comm_size(groups[i]), me = comm_rank(groups[i]);
        CHECK_OK(comm_wait(groups[i], received[i], &error), error);
        CHECK_OK(comm_wait(groups[i], sent[i], &error), error);
        CHECK(size == 1 || theirs[i] == 100 * i + (me + size - 1) % size, "group %d: %d came", i, theirs[i]);
    }
}

/* Two halves, and the reversed world: ranks, order, messages in both; then more groups, one after
 * another, than there are contexts. */
static void test_split(struct comm *world) {
    int size = comm_size(world), rank = comm_rank(world);
    struct comm *half = NULL, *reversed = NULL, *none = NULL;
    CHECK_OK(comm_split(world, rank % 2, rank, &half, &error), error);
    CHECK_OK(comm_split(world, 0, -rank, &reversed, &error), error);
    CHECK_OK(comm_split(world, rank == 0 ? -1 : 3, 0, &none, &error), error);
    CHECK((none == NULL) == (rank == 0), "rank 0 takes no part");
    CHECK(comm_size(half) == (size + (rank % 2 == 0)) / 2 && comm_rank(half) == rank / 2, "half has %d", comm_size(half));
    CHECK(comm_rank(reversed) == size - 1 - rank && reversed->world[0] == size - 1, "reversed rank %d", comm_rank(reversed));
    test_both(half, reversed);
    comm_free(none);
    comm_free(reversed);
    comm_free(half);
    for (int i = 0; i < 1100; i++) {
        struct comm *again = NULL;
        CHECK_OK(comm_split(world, rank / 2, 0, &again, &error), error);
        comm_free(again);
    }
}

/* Groups with common members don't mix their messages: received in another order than sent. */
static void test_contexts(struct comm *world) {
    int size = comm_size(world), rank = comm_rank(world), values[2] = {10 + rank, 20 + rank}, got[2] = {0, 0};
    int to = (rank + 1) % size, from = (rank + size - 1) % size;
    struct comm *groups[2] = {NULL, NULL};
    for (int i = 0; i < 2; i++) CHECK_OK(comm_split(world, 0, rank, &groups[i], &error), error);
    for (int i = 0; i < 2 && size > 1; i++) {
        struct comm_request *out = comm_send_start(groups[i], to, &values[i], sizeof values[i]);
        CHECK_OK(comm_wait(groups[i], out, &error), error);
    }
    for (int i = 1; i >= 0 && size > 1; i--) {
        struct comm_request *in = comm_receive_start(groups[i], from, &got[i], sizeof got[i]);
        CHECK_OK(comm_wait(groups[i], in, &error), error);
        CHECK(got[i] == 10 * (i + 1) + from, "group %d got %d", i, got[i]);
    }
    comm_free(groups[1]);
    comm_free(groups[0]);
}

static void test_same(struct comm *world) {
    int size = comm_size(world), rank = comm_rank(world);
    CHECK_OK(comm_check_same(world, "options", "steps 20", &error), error);
    if (size == 1) return;
    tessera_status status = comm_check_same(world, "options", rank == size - 1 ? "steps 21" : "steps 20", &error);
    char expected[64];
    snprintf(expected, sizeof expected, "rank %d has \"steps 21\"", size - 1);
    CHECK(status == TESSERA_ERROR_ARGUMENT && strstr(error.message, expected) != NULL, "%s", error.message);
    CHECK(strstr(error.message, "rank 0 has \"steps 20\"") != NULL && strstr(error.message, "options") != NULL, "%s", error.message);
}

static void test_stats(struct comm *world) {
    int size = comm_size(world), rank = comm_rank(world);
    comm_stats_reset(world);
    uint8_t out[1000] = {0}, in[1000];
    const char *before = comm_label(world, "attention");
    CHECK_OK(pass_round(world, out, sizeof out, in, sizeof in, &error), error);
    CHECK(strcmp(comm_label(world, before), "attention") == 0, "the label until now");
    struct comm_stats_row row = comm_stats_read(world, "attention"), all = comm_stats_read(world, NULL);
    uint64_t expected = size > 1 ? 1000 : 0;
    CHECK(row.bytes_sent == expected && row.bytes_received == expected && row.messages_sent == (size > 1), "%d bytes", (int)row.bytes_sent);
    CHECK(all.bytes_sent == expected, "%d bytes in all", (int)all.bytes_sent);
    char *text = NULL;
    size_t length = 0;
    FILE *stream = rank == 0 ? open_memstream(&text, &length) : NULL;
    CHECK_OK(comm_stats_print(world, stream, &error), error);
    if (rank == 0) {
        fclose(stream);
        int lines = 0;
        for (const char *at = text; (at = strstr(at, "attention")) != NULL; at++) lines++;
        CHECK(lines == (size > 1 ? size : 0), "%d lines of attention in:\n%s", lines, text);
    }
    free(text);
}

static uint64_t rounds_of(struct comm *world) {
    pthread_mutex_lock(&world->engine->lock);
    uint64_t rounds = world->engine->rounds;
    pthread_mutex_unlock(&world->engine->lock);
    return rounds;
}

/* Who waits for long looks for the message less and less often, and so leaves a shared core to
 * others; and gets it. */
static void test_long_wait(struct comm *world) {
    enum { MOST_ROUNDS = 6000 }; /* of a second: 50 us apart they would be 14000 and more */
    int rank = comm_rank(world), value = 0;
    if (comm_size(world) != 2) return;
    if (rank == 1) sleep(1);
    uint64_t before = rounds_of(world);
    int answer = 42;
    struct comm_request *request =
        rank == 0 ? comm_receive_start(world, 1, &value, sizeof value) : comm_send_start(world, 0, &answer, sizeof answer);
    CHECK_OK(comm_wait(world, request, &error), error);
    uint64_t rounds = rounds_of(world) - before;
    CHECK(rank != 0 || value == 42, "%d", value);
    CHECK(rank != 0 || rounds < MOST_ROUNDS, "%d rounds", (int)rounds);
}

/* What comes after the end is refused, and says why. `group`: all ranks of a world that has finished. */
static void test_after_finish(struct comm *group) {
    if (group == NULL || comm_size(group) == 1) return;
    CHECK(comm_check_same(group, "options", "a", &error) == TESSERA_ERROR_ARGUMENT && strstr(error.message, "tessera_world_finish") != NULL,
          "%s", error.message);
    CHECK(comm_barrier(group, &error) == TESSERA_ERROR_ARGUMENT, "%s", error.message);
    CHECK(!comm_world_failed(group), "the world itself has not failed");
}

/* The environment belongs to the program: the library neither adds to it nor changes it. */
static char *environment_text(void) {
    size_t length = 0;
    char *text = NULL;
    FILE *stream = open_memstream(&text, &length);
    for (char **e = environ; stream != NULL && *e != NULL; e++)
        if (strncmp(*e, "OMPI_MCA_btl", 12) == 0) fprintf(stream, "%s\n", *e);
    if (stream != NULL) fclose(stream);
    return text;
}

int main(void) {
    struct comm *world = NULL;
    char *before = environment_text();
    if (comm_world_open(NULL, &world, &error) != TESSERA_OK) return fprintf(stderr, "%s\n", error.message), 1;
    char *after = environment_text();
    CHECK(before != NULL && after != NULL && strcmp(before, after) == 0, "the environment was \"%s\", is \"%s\"", before, after);
    free(before);
    free(after);
    CHECK(comm_host(world, comm_rank(world))[0] != 0, "a host has a name");
    CHECK(comm_local_size(world) == comm_size(world) && comm_local_size(NULL) == 1, "%d ranks on this host", comm_local_size(world));
    test_lengths(world);
    test_order(world);
    test_test(world);
    test_split(world);
    test_contexts(world);
    test_same(world);
    test_stats(world);
    test_long_wait(world);
    struct comm *late = NULL;
    CHECK_OK(comm_split(world, 0, comm_rank(world), &late, &error), error);
    int code = ranks_report(world), before_end = check_failed;
    test_after_finish(late);
    comm_free(late);
    return code != 0 || check_failed > before_end;
}
