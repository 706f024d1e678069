/* `tessera worker`: computes one part of a model for others, over HTTPS, until it is told to stop. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "cli/quantity.h"
#include "split/worker.h"

enum worker_option {
    WORKER_PART,
    WORKER_HOST,
    WORKER_PORT,
    WORKER_DEVICE,
    WORKER_IDENTITY,
    WORKER_MAKE_IDENTITY,
    WORKER_TOKEN_FILE,
    WORKER_INSECURE,
    WORKER_MANIFEST,
    WORKER_MANIFEST_PIN,
    WORKER_KERNELS,
    WORKER_DTYPE,
    WORKER_THREADS,
    WORKER_QUEUE,
    WORKER_MAX_REQUEST,
    WORKER_MAX_TOKENS,
    WORKER_MAX_TEXT_TOKENS,
    WORKER_MAX_BATCH,
    WORKER_MAX_CONNECTIONS,
    WORKER_MAX_CONNECTIONS_PER_PEER,
    WORKER_RATE,
    WORKER_TIMEOUT,
    WORKER_IDLE_TIMEOUT,
    WORKER_KEEP,
    WORKER_OPTION_COUNT
};

#define TRUST "Who it is, and who may use it"
#define LIMITS "Limits"

static const struct option worker_options[WORKER_OPTION_COUNT] = {
    [WORKER_PART] = {.name = "split-model-file-path",
                     .aliases = {"part"},
                     .letter = 'm',
                     .type = OPTION_TEXT,
                     .placeholder = "PART.safetensors",
                     .help = "the part to compute: a file of tessera split",
                     .opens = true},
    [WORKER_HOST] = {.name = "host",
                     .type = OPTION_TEXT,
                     .placeholder = "ADDRESS",
                     .help = "address to listen on (default 127.0.0.1; 0.0.0.0: all)"},
    [WORKER_PORT] = {.name = "port",
                     .type = OPTION_INTEGER,
                     .placeholder = "N",
                     .help = "port to listen on, 0 for any free one (default 8443)",
                     .low = 0,
                     .high = 65535},
    [WORKER_DEVICE] = {.name = "device", .type = OPTION_CHOICE, .placeholder = "cpu", .help = "what computes"},
    [WORKER_IDENTITY] = {.name = "identity",
                         .section = TRUST,
                         .type = OPTION_TEXT,
                         .placeholder = "FILE.pem",
                         .help = "this worker's key and certificate",
                         .opens = true},
    [WORKER_MAKE_IDENTITY] = {.name = "make-identity",
                              .section = TRUST,
                              .type = OPTION_FLAG,
                              .help = "make the file of --identity, print its pin, and end"},
    [WORKER_TOKEN_FILE] = {.name = "token-file",
                           .section = TRUST,
                           .type = OPTION_TEXT,
                           .placeholder = "FILE",
                           .help = "tokens of those who may use it, one a line",
                           .opens = true},
    [WORKER_INSECURE] = {.name = "insecure",
                         .section = TRUST,
                         .type = OPTION_FLAG,
                         .help = "plain HTTP, for programs on this machine only; tokens are optional"},
    [WORKER_MANIFEST] = {.name = "manifest",
                         .section = TRUST,
                         .type = OPTION_TEXT,
                         .placeholder = "FILE.json",
                         .help = "the signed list that must have the part",
                         .opens = true},
    [WORKER_MANIFEST_PIN] = {.name = "manifest-pin",
                             .section = TRUST,
                             .type = OPTION_TEXT,
                             .placeholder = "PIN",
                             .help = "pin of the manifest's owner (default: anyone)"},
    [WORKER_KERNELS] = {.name = "kernels",
                        .type = OPTION_CHOICE,
                        .placeholder = "reproducible|best|own",
                        .help = "reproducible (default): replies can be compared bit for bit"},
    [WORKER_DTYPE] = {.name = "dtype",
                      .type = OPTION_CHOICE,
                      .placeholder = "f32|bf16",
                      .help = "what products are computed in (default bf16)"},
    [WORKER_THREADS] = {.name = "threads",
                        .letter = 't',
                        .type = OPTION_INTEGER,
                        .placeholder = "N",
                        .help = "0: as many as the machine grants",
                        .low = 0,
                        .high = 1024},
    [WORKER_QUEUE] = {.name = "queue",
                      .section = LIMITS,
                      .type = OPTION_INTEGER,
                      .placeholder = "N",
                      .help = "requests that are computed or wait; more get 429 (default 8)",
                      .low = 1,
                      .high = 1024},
    [WORKER_MAX_REQUEST] = {.name = "max-request",
                            .section = LIMITS,
                            .type = OPTION_TEXT,
                            .placeholder = "BYTES",
                            .help = "longest request (default 256MiB); four of them at once"},
    [WORKER_MAX_TOKENS] = {.name = "max-tokens",
                           .section = LIMITS,
                           .type = OPTION_INTEGER,
                           .placeholder = "N",
                           .help = "tokens of a picture (default 16384: 2048x2048 of SD3)",
                           .low = 1,
                           .high = 1 << 20},
    [WORKER_MAX_TEXT_TOKENS] = {.name = "max-text-tokens",
                                .section = LIMITS,
                                .type = OPTION_INTEGER,
                                .placeholder = "N",
                                .help = "tokens of a text (default 2048)",
                                .low = 1,
                                .high = 1 << 20},
    [WORKER_MAX_BATCH] = {.name = "max-batch",
                          .section = LIMITS,
                          .type = OPTION_INTEGER,
                          .placeholder = "N",
                          .help = "predictions in one request, of which a guided picture has two (default 8)",
                          .low = 1,
                          .high = 1024},
    [WORKER_MAX_CONNECTIONS] = {.name = "max-connections",
                                .section = LIMITS,
                                .type = OPTION_INTEGER,
                                .placeholder = "N",
                                .help = "at once (default 1024)",
                                .low = 16,
                                .high = 1 << 16},
    [WORKER_MAX_CONNECTIONS_PER_PEER] = {.name = "max-connections-per-peer",
                                         .section = LIMITS,
                                         .type = OPTION_INTEGER,
                                         .placeholder = "N",
                                         .help = "of one address, and of one token (default 64; 0: no limit)",
                                         .low = 0,
                                         .high = 1 << 16},
    [WORKER_RATE] = {.name = "rate",
                     .section = LIMITS,
                     .type = OPTION_NUMBER,
                     .placeholder = "X",
                     .help = "requests a second with one token (default 50; 0: no limit)",
                     .low = 0,
                     .high = 1e6},
    [WORKER_TIMEOUT] = {.name = "timeout",
                        .section = LIMITS,
                        .type = OPTION_NUMBER,
                        .placeholder = "SECONDS",
                        .help = "for a whole request to arrive, and a reply to leave (default 60)",
                        .low = 0.1,
                        .high = 86400},
    [WORKER_IDLE_TIMEOUT] = {.name = "idle-timeout",
                             .section = LIMITS,
                             .type = OPTION_NUMBER,
                             .placeholder = "SECONDS",
                             .help = "until a connection without requests is closed (default 120)",
                             .low = 0.1,
                             .high = 86400},
    [WORKER_KEEP] = {.name = "keep",
                     .section = LIMITS,
                     .type = OPTION_TEXT,
                     .placeholder = "BYTES",
                     .help = "replies kept for retries, and as much again for constants (default 256MiB)"},
};

static tessera_status read_bytes(const struct option_value *value, const char *name, size_t *out, tessera_error *error) {
    const double most = (double)((int64_t)1 << 40);
    double bytes = 0;
    if (value->text == NULL) return TESSERA_OK;
    TRY(quantity_read(name, value->text, QUANTITY_BYTES, &bytes, error));
    if (bytes > most) return error_set(error, TESSERA_ERROR_ARGUMENT, "--%s %s: must be at most 1TiB", name, value->text);
    *out = (size_t)bytes;
    return TESSERA_OK;
}

static void read_limits(const struct option_value *v, struct worker_options *o) {
    if (v[WORKER_QUEUE].given) o->limits.queue = v[WORKER_QUEUE].integer;
    if (v[WORKER_MAX_TOKENS].given) o->shapes.tokens = v[WORKER_MAX_TOKENS].integer;
    if (v[WORKER_MAX_TEXT_TOKENS].given) o->shapes.text_tokens = v[WORKER_MAX_TEXT_TOKENS].integer;
    if (v[WORKER_MAX_BATCH].given) o->shapes.batch = v[WORKER_MAX_BATCH].integer;
    if (v[WORKER_MAX_CONNECTIONS].given) o->limits.connections = v[WORKER_MAX_CONNECTIONS].integer;
    if (v[WORKER_MAX_CONNECTIONS_PER_PEER].given) o->limits.links.per_peer = v[WORKER_MAX_CONNECTIONS_PER_PEER].integer;
    if (v[WORKER_RATE].given) o->limits.requests = (struct rate){v[WORKER_RATE].number, 4 * v[WORKER_RATE].number + 1};
    if (v[WORKER_TIMEOUT].given) o->limits.body_seconds = v[WORKER_TIMEOUT].number;
    if (v[WORKER_IDLE_TIMEOUT].given) o->limits.idle_seconds = v[WORKER_IDLE_TIMEOUT].number;
}

static tessera_status read_options(const struct option_value *v, struct worker_options *o, tessera_error *error) {
    *o = worker_default_options();
    o->part = v[WORKER_PART].text;
    o->identity = v[WORKER_IDENTITY].text;
    o->tokens = v[WORKER_TOKEN_FILE].text;
    o->insecure = v[WORKER_INSECURE].flag;
    o->manifest = v[WORKER_MANIFEST].text;
    o->manifest_pin = v[WORKER_MANIFEST_PIN].text;
    o->threads = v[WORKER_THREADS].integer;
    if (v[WORKER_HOST].text != NULL) o->host = v[WORKER_HOST].text;
    if (v[WORKER_PORT].given) o->port = v[WORKER_PORT].integer;
    if (v[WORKER_DTYPE].text != NULL && strcmp(v[WORKER_DTYPE].text, "f32") == 0) o->dtype = DTYPE_F32;
    enum cpu_kernels kernels = CPU_KERNELS_REPRODUCIBLE;
    if (v[WORKER_KERNELS].text != NULL) cpu_kernels_from_name(v[WORKER_KERNELS].text, &kernels);
    o->kernels = (tessera_kernels)kernels;
    read_limits(v, o);
    TRY(read_bytes(&v[WORKER_MAX_REQUEST], "max-request", &o->most_request_bytes, error));
    TRY(read_bytes(&v[WORKER_KEEP], "keep", &o->most_kept_bytes, error));
    o->limits.memory = 4 * o->most_request_bytes;
    return TESSERA_OK;
}

static tessera_status check(const struct worker_options *o, bool makes_identity, tessera_error *error) {
    if (o->identity == NULL)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "worker needs --identity FILE.pem, by which clients know it: tessera worker --make-identity --identity FILE.pem makes one");
    if (makes_identity) return TESSERA_OK;
    if (o->part == NULL)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "worker needs --split-model-file-path PART.safetensors: tessera split makes parts of a model");
    if (o->tokens == NULL && !o->insecure)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "worker needs --token-file FILE, so that not everybody can use this machine: openssl rand -hex 32 makes a token");
    if (o->manifest == NULL && o->manifest_pin != NULL)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--manifest-pin %s: needs --manifest FILE.json", o->manifest_pin);
    return TESSERA_OK;
}

static tessera_status make_identity(const struct worker_options *o, tessera_error *error) {
    struct identity *identity = NULL;
    char pin[IDENTITY_PIN_CHARS];
    TRY(identity_make(o->identity, NULL, 0, error));
    TRY(identity_open(o->identity, &identity, error));
    identity_pin(identity_public(identity), pin);
    identity_free(identity);
    printf("sha256//%s\n", pin);
    return TESSERA_OK;
}

static void print_worker(const struct worker *worker, const struct worker_options *o) {
    const struct part_header *part = worker_part(worker);
    char pin[IDENTITY_PIN_CHARS], digest[2 * CANONICAL_HASH_BYTES + 1];
    bool bare = strchr(o->host, ':') != NULL; /* an IPv6 address */
    worker_pin(worker, pin);
    identity_hex(part->digest, sizeof part->digest, digest);
    printf("part     %s, blocks %d to %d%s\ndigest   %s\ncomputes %s\npin      sha256//%s\nserves   %s://%s%s%s:%d\n", part->class_name, part->range.first,
           part->range.end - 1, part->range.finish ? " and what follows" : "", digest, worker_specification(worker), pin,
           o->insecure ? "http" : "https", bare ? "[" : "", o->host, bare ? "]" : "", worker_port(worker));
    fflush(stdout);
}

/* At SIGHUP. A file that is wrong changes nothing. */
static void reload_tokens(struct worker *worker, const struct worker_options *o) {
    tessera_error error = {0};
    int revoked, added;
    if (o->tokens == NULL)
        fputs("tessera: SIGHUP: there is no --token-file to read again\n", stderr);
    else if (worker_reload_tokens(worker, &revoked, &added, &error) == TESSERA_OK)
        fprintf(stderr, "tessera: %s: read again: %d tokens added, %d revoked\n", o->tokens, added, revoked);
    else
        fprintf(stderr, "tessera: %s; the tokens of before stay valid\n", error.message);
}

static tessera_status serve(const struct worker_options *o, bool quiet, tessera_error *error) {
    static const struct timespec moment = {.tv_nsec = 100000000}; /* a signal to stop ends it, or the next one does */
    struct worker *worker = NULL;
    sigset_t reload;
    sigemptyset(&reload);
    sigaddset(&reload, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &reload, NULL); /* also in the threads that begin now */
    signal(SIGPIPE, SIG_IGN); /* clients may leave */
    progress_catch_signals();
    TRY(worker_start(o, &worker, error));
    print_worker(worker, o);
    while (progress_signal() == 0)
        if (sigtimedwait(&reload, NULL, &moment) == SIGHUP) reload_tokens(worker, o);
    if (!quiet) fprintf(stderr, "tessera: stopping; the request that is computed is answered first\n");
    worker_stop(worker);
    return TESSERA_OK;
}

static int run_worker(const char *path, struct option_value *values) {
    struct worker_options options;
    tessera_error error = {0};
    (void)path;
    bool makes_identity = values[WORKER_MAKE_IDENTITY].flag;
    if (read_options(values, &options, &error) != TESSERA_OK || check(&options, makes_identity, &error) != TESSERA_OK) return command_fail(&error, true);
    tessera_status status = makes_identity ? make_identity(&options, &error) : serve(&options, command_common(&worker_command, values, COMMON_QUIET), &error);
    return status == TESSERA_OK ? EXIT_DONE : command_fail(&error, false);
}

const struct command worker_command = {
    .name = "worker",
    .usage = "worker --split-model-file-path PART.safetensors --identity FILE.pem --token-file FILE [OPTIONS]",
    .summary = "compute one part of a model for others, over HTTPS",
    .details = "Lends this machine: whoever has a token sends the state that enters the part and gets the state that leaves it, signed. The\n"
               "worker sees neither prompt nor picture, but much of both can be computed from what it sees (docs/strangers.md).\n"
               "SIGHUP has it read the token file again. SIGTERM and SIGINT end it; the request that is computed is answered first.\n",
    .examples = "  tessera worker --make-identity --identity worker.pem\n"
                "  tessera worker --split-model-file-path sd3-1-of-2.safetensors --host 0.0.0.0 --port 8443 --identity worker.pem --token-file tokens\n",
    .options = worker_options,
    .option_count = WORKER_OPTION_COUNT,
    .run = run_worker,
};
