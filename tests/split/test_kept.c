/* What a worker keeps is bounded, and what was used longest ago goes first. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "split/kept.h"

enum { REQUEST = WIRE_REQUEST_BYTES + 64 };

/* A request of this number; `content` differs behind the head. */
static const uint8_t *request_of(int number, uint8_t content) {
    static uint8_t bytes[REQUEST];
    struct wire_request head = {.state_bytes = REQUEST - WIRE_REQUEST_BYTES};
    memcpy(head.id, &number, sizeof number);
    wire_request_write(&head, bytes);
    memset(bytes + WIRE_REQUEST_BYTES, content, REQUEST - WIRE_REQUEST_BYTES);
    return bytes;
}

static enum kept_found look(struct kept_replies *kept, const char *path, int number, uint8_t content, size_t *bytes) {
    void *data = NULL;
    *bytes = 0;
    enum kept_found found = kept_reply_find(kept, path, request_of(number, content), REQUEST, &data, bytes);
    if (found == KEPT_FOUND) CHECK(*(uint8_t *)data == (uint8_t)number, "another request's reply");
    free(data);
    return found;
}

static void add(struct kept_replies *kept, int number, size_t bytes) {
    uint8_t *data = malloc(bytes);
    memset(data, number, bytes);
    kept_reply_add(kept, "/run", request_of(number, 1), REQUEST, data, bytes);
    free(data);
}

static void test_replies(void) {
    struct kept_replies *kept = malloc(sizeof *kept);
    size_t bytes;
    kept_replies_open(kept, 1000);
    CHECK(look(kept, "/run", 1, 1, &bytes) == KEPT_UNKNOWN, "of nothing");
    for (int i = 1; i <= 3; i++) add(kept, i, 300);
    for (int i = 1; i <= 3; i++) CHECK(look(kept, "/run", i, 1, &bytes) == KEPT_FOUND && bytes == 300, "reply %d", i);
    CHECK(look(kept, "/run", 1, 2, &bytes) == KEPT_ANOTHER && look(kept, "/hashes", 1, 1, &bytes) == KEPT_ANOTHER, "another request's id");
    look(kept, "/run", 1, 1, &bytes);
    add(kept, 4, 300); /* 2 was used longest ago */
    CHECK(look(kept, "/run", 2, 1, &bytes) == KEPT_UNKNOWN && look(kept, "/run", 1, 1, &bytes) == KEPT_FOUND, "the wrong one went");
    add(kept, 5, 1000);
    CHECK(look(kept, "/run", 5, 1, &bytes) == KEPT_FOUND && look(kept, "/run", 1, 1, &bytes) == KEPT_UNKNOWN && kept->bytes == 1000,
          "all for one");
    add(kept, 6, 1001);
    CHECK(look(kept, "/run", 6, 1, &bytes) == KEPT_UNKNOWN && look(kept, "/run", 5, 1, &bytes) == KEPT_FOUND, "one that is too large");
    add(kept, 5, 100);
    CHECK(look(kept, "/run", 5, 1, &bytes) == KEPT_FOUND && bytes == 100 && kept->bytes == 100, "the same once more");
    for (int i = 0; i < 2 * KEPT_MOST_REPLIES; i++) add(kept, 1000 + i, 0 + 1);
    CHECK(kept->bytes <= 1000, "%zu bytes", kept->bytes);
    kept_replies_close(kept);
    free(kept);
}

static void put_constant(struct state_store *store, size_t bytes) {
    tessera_error error = {0};
    struct state_constant *c = &store->constants[store->count++];
    *c = (struct state_constant){.bytes = bytes, .data = store->backend->ops->alloc(store->backend, bytes, &error)};
    CHECK(c->data != NULL, "%s", error.message);
}

static struct state_store *store_of(struct kept_jobs *kept, int job) {
    uint8_t nonce[SPLIT_NONCE_BYTES] = {0};
    memcpy(nonce, &job, sizeof job);
    return kept_job_store(kept, nonce);
}

static void test_jobs(void) {
    const struct split_part_options options = {.kernels = TESSERA_KERNELS_REPRODUCIBLE, .dtype = DTYPE_F32, .threads = 1, .streamed = true};
    const struct split_range range = {1, 2, false};
    struct split_part *part = NULL;
    struct kept_jobs *kept = malloc(sizeof *kept);
    tessera_error error = {0};
    CHECK(split_part_open_model("tests/cases/sd3/model", &range, &options, &part, &error) == TESSERA_OK, "%s", error.message);
    kept_jobs_open(kept, part, 1000);
    for (int i = 1; i <= 3; i++) put_constant(store_of(kept, i), 400);
    CHECK(kept_jobs_trim(kept) == 800, "two jobs fit");
    CHECK(store_of(kept, 3)->count == 1 && store_of(kept, 2)->count == 1 && store_of(kept, 1)->count == 0, "the wrong job went");
    put_constant(store_of(kept, 4), 5000);
    CHECK(kept_jobs_trim(kept) == 5000 && store_of(kept, 4)->count == 1, "the job that is computed stays");
    CHECK(store_of(kept, 2)->count == 0 && kept_jobs_trim(kept) == 0, "and goes behind the next one");
    for (int i = 0; i < 2 * KEPT_MOST_JOBS; i++) put_constant(store_of(kept, 100 + i), 1);
    CHECK(kept_jobs_trim(kept) == KEPT_MOST_JOBS, "%zu jobs are kept", kept_jobs_trim(kept));
    kept_jobs_close(kept);
    split_part_close(part);
    free(kept);
}

int main(void) {
    test_replies();
    test_jobs();
    return CHECK_REPORT();
}
