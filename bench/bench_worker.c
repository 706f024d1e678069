/* What a worker costs beside its computing: the same blocks in this process, and through a worker
 * over TLS on loopback, in turns.
 *   bench_worker DENOISER_FOLDER FIRST LAST [BATCH ROWS COLUMNS TEXT_TOKENS [ROUNDS]]
 * DENOISER_FOLDER holds config.json and weights; FIRST and LAST are blocks; ROWS and COLUMNS are of
 * tokens. Prints medians of seconds, and of processor seconds (of client and worker together, which
 * are one process here), which other programs on the machine change less. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "split/remote.h"

enum { MOST_ROUNDS = 99 };

struct bench {
    char folder[64], part_path[96], identity[96], url[64], pin[IDENTITY_PIN_CHARS];
    struct split_range range;
    struct split_part *part;
    struct worker *worker;
    struct remotes *remotes;
    struct remote *remote;
    struct remote_constants constants;
    struct denoiser_state state;
    tessera_error error;
};

static void need(const struct bench *b, bool good) {
    if (good) return;
    fprintf(stderr, "bench_worker: %s\n", b->error.message);
    exit(1);
}

static void fill(struct tensor *t) {
    if (t->ndim == 0) return;
    t->data = malloc(tensor_bytes(t));
    for (int64_t i = 0; i < tensor_count(t); i++) {
        float value = (float)(i * 37 % 101) / 101 - 0.5f;
        dtype_convert((char *)t->data + (size_t)i * dtype_size(t->dtype), t->dtype, &value, DTYPE_F32, 1);
    }
}

/* The part in this process, and as a file. */
static void open_part(struct bench *b, const char *folder, struct split_shape shape) {
    const struct split_part_options options = {.kernels = TESSERA_KERNELS_REPRODUCIBLE, .dtype = DTYPE_BF16};
    struct part_file file;
    need(b, split_part_open_model(folder, &b->range, &options, &b->part, &b->error) == TESSERA_OK);
    need(b, part_file_of_model(folder, &b->range, DTYPE_BF16, false, &file, &b->error) == TESSERA_OK);
    need(b, part_file_write(&file, b->part_path, &b->error) == TESSERA_OK);
    part_file_close(&file);
    b->state = split_state_form(split_part_denoiser(b->part), split_part_run_of(b->part), &b->range, b->range.first, &shape);
    struct tensor *const fields[] = {&b->state.picture, &b->state.text, &b->state.text_mask, &b->state.cond};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) fill(fields[i]);
    for (int i = 0; i < b->state.num_skips; i++) fill(&b->state.skips[i]);
}

static void open_worker(struct bench *b) {
    struct worker_options options = worker_default_options();
    struct remote_options client = remote_default_options();
    need(b, identity_make(b->identity, NULL, 0, &b->error) == TESSERA_OK);
    options.part = b->part_path;
    options.identity = b->identity;
    options.port = 0; /* without tokens, which loopback allows */
    need(b, worker_start(&options, &b->worker, &b->error) == TESSERA_OK);
    worker_pin(b->worker, b->pin);
    snprintf(b->url, sizeof b->url, "https://127.0.0.1:%d", worker_port(b->worker));
    client.url = b->url;
    client.pin = b->pin;
    need(b, remotes_open(&b->remotes, &b->error) == TESSERA_OK && remote_open(b->remotes, &client, &b->remote, &b->error) == TESSERA_OK);
}

static double processor_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* What a run took. */
struct taken {
    double seconds, processor;
};
static struct taken now(void) {
    return (struct taken){clock_seconds(), processor_seconds()};
}
static struct taken since(struct taken start) {
    return (struct taken){clock_seconds() - start.seconds, processor_seconds() - start.processor};
}

static struct taken run_here(struct bench *b) {
    const struct denoiser *d = split_part_denoiser(b->part);
    struct state_store store = split_part_store(b->part);
    struct state_message message = {.constants = denoiser_state_constants(d)};
    struct split_answer answer;
    size_t size = denoiser_state_bytes(&b->state, 0);
    uint8_t *bytes = aligned_alloc(64, size);
    need(b, denoiser_state_pack(&b->state, &message, NULL, bytes, &b->error) == TESSERA_OK);
    const struct split_request request = {.bytes = bytes, .size = size, .store = &store};
    struct taken start = now();
    need(b, split_part_compute(b->part, &request, &answer, &b->error) == TESSERA_OK);
    struct taken taken = since(start);
    split_answer_free(&answer);
    state_store_close(&store);
    free(bytes);
    return taken;
}

static struct taken run_there(struct bench *b, uint64_t *sent, uint64_t *received) {
    struct remote_input input = {.specification = split_part_specification(b->part),
                                 .denoiser = split_part_denoiser(b->part),
                                 .run = split_part_run_of(b->part),
                                 .range = &b->range,
                                 .state = &b->state,
                                 .constants = &b->constants};
    struct remote_call *call = NULL;
    memcpy(input.part_digest, split_part_header(b->part)->digest, sizeof input.part_digest);
    struct taken start = now();
    need(b, remote_run(b->remote, &input, NULL, &call, &b->error) == TESSERA_OK);
    while (remotes_next(b->remotes) == NULL) need(b, remotes_wait(b->remotes, 10, &b->error) == TESSERA_OK);
    struct taken taken = since(start);
    const struct remote_result *result = remote_call_result(call);
    b->error = result->error;
    need(b, result->outcome == REMOTE_DONE);
    *sent = result->bytes_sent;
    *received = result->bytes_received;
    remote_call_end(call);
    return taken;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, by_size);
    return values[count / 2];
}

static void print_difference(const char *what, double *here, double *there, int rounds) {
    double a = median(here, rounds), b = median(there, rounds);
    printf("%s: %.3f s here, %.3f s through a worker: %+.1f ms, %+.1f %%\n", what, a, b, (b - a) * 1e3, (b / a - 1) * 100);
}

static void measure(struct bench *b, int rounds) {
    double seconds[2][MOST_ROUNDS], processor[2][MOST_ROUNDS];
    uint64_t sent = 0, received = 0;
    run_there(b, &sent, &received); /* warm-up: the connection, and constants */
    run_here(b);
    for (int i = 0; i < rounds; i++) {
        struct taken there = run_there(b, &sent, &received), here = run_here(b);
        seconds[0][i] = here.seconds, seconds[1][i] = there.seconds;
        processor[0][i] = here.processor, processor[1][i] = there.processor;
    }
    printf("%d blocks, medians of %d; %.2f MB sent, %.2f MB received\n", b->range.end - b->range.first, rounds, (double)sent / 1e6,
           (double)received / 1e6);
    print_difference("seconds", seconds[0], seconds[1], rounds);
    print_difference("processor seconds", processor[0], processor[1], rounds);
}

int main(int argc, char **argv) {
    struct bench b = {.folder = "/tmp/tessera-bench-XXXXXX"};
    if ((argc != 4 && argc != 8 && argc != 9) || mkdtemp(b.folder) == NULL) {
        fprintf(stderr, "usage: bench_worker DENOISER_FOLDER FIRST LAST [BATCH ROWS COLUMNS TEXT_TOKENS [ROUNDS]]\n");
        return 2;
    }
    struct split_shape shape = {.batch = 2, .rows = 32, .columns = 32, .text_tokens = 333};
    if (argc > 4)
        shape = (struct split_shape){.batch = atoi(argv[4]), .rows = atoi(argv[5]), .columns = atoi(argv[6]), .text_tokens = atoi(argv[7])};
    int rounds = argc == 9 ? atoi(argv[8]) : 5;
    b.range = (struct split_range){.first = atoi(argv[2]), .end = atoi(argv[3]) + 1};
    snprintf(b.part_path, sizeof b.part_path, "%s/part.safetensors", b.folder);
    snprintf(b.identity, sizeof b.identity, "%s/worker.pem", b.folder);
    open_part(&b, argv[1], shape);
    open_worker(&b);
    measure(&b, rounds < 1 ? 1 : rounds > MOST_ROUNDS ? MOST_ROUNDS : rounds);
    remote_close(b.remote);
    remotes_close(b.remotes);
    worker_stop(b.worker);
    split_part_close(b.part);
    unlink(b.part_path);
    unlink(b.identity);
    rmdir(b.folder);
    return 0;
}
