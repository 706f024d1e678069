/* The hub against a server of our own: the cache's layout, resuming, checksums, refusals, hostile
 * answers, several processes. */
#include "hub/hub.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/file.h"
#include "check.h"
#include "hub/https_server.h"

#define LARGE_BYTES 300001
#define PATIENCE 60 /* seconds without a byte from our own server, on a busy machine; the test of the limit sets less */
#define WEIGHTS "transformer/diffusion_pytorch_model.safetensors"

static const char model_index[] =
    "{\"_class_name\": \"StableDiffusion3Pipeline\", \"transformer\": [\"diffusers\", \"SD3Transformer2DModel\"],"
    " \"tokenizer\": [\"transformers\", \"CLIPTokenizer\"], \"image_encoder\": [null, null],"
    " \"scheduler\": [\"diffusers\", \"FlowMatchEulerDiscreteScheduler\"]}";

/* The linker puts these in the place of fsync and rename (tests/CMakeLists.txt). */
static int sync_error, rename_error;
int __real_fsync(int descriptor);
int __real_rename(const char *from, const char *to);
int __wrap_fsync(int descriptor);
int __wrap_rename(const char *from, const char *to);

int __wrap_fsync(int descriptor) {
    errno = sync_error;
    return sync_error != 0 ? -1 : __real_fsync(descriptor);
}

int __wrap_rename(const char *from, const char *to) {
    errno = rename_error;
    return rename_error != 0 && strstr(from, "/blobs/") != NULL ? -1 : __real_rename(from, to);
}

/* What a test works with: a new cache and the server's options. */
struct fixture {
    struct server *server;
    struct server_file *files;
    int file_count;
    char folder[256], certificate[300], cache[300];
    int caches;
    struct hub_options options;
};

/* ---- helpers ---- */

/* An empty cache for the next test. */
static void new_cache(struct fixture *f, struct server_faults faults) {
    snprintf(f->cache, sizeof f->cache, "%s/cache%d", f->folder, f->caches++);
    f->options = (struct hub_options){.endpoint = server_endpoint(f->server),
                                      .cache = f->cache,
                                      .token = "hf_secret",
                                      .ca_bundle = f->certificate,
                                      .timeout_seconds = PATIENCE};
    server_reset(f->server, &faults);
}

/* The path of something in the repository's part of the cache. */
static const char *in_cache(const struct fixture *f, const char *name) {
    static char path[1024];
    snprintf(path, sizeof path, "%s/models--acme--tiny/%s", f->cache, name);
    return path;
}

static const char *in_snapshot(const struct fixture *f, const char *name) {
    char part[600];
    snprintf(part, sizeof part, "snapshots/" SERVER_COMMIT "/%s", name);
    return in_cache(f, part);
}

static const char *blob_of(const struct fixture *f, const char *path, const char *suffix) {
    char digest[65], part[200];
    for (int i = 0; i < f->file_count; i++)
        if (strcmp(f->files[i].path, path) == 0) server_digest(&f->files[i], digest);
    snprintf(part, sizeof part, "blobs/%s%s", digest, suffix);
    return in_cache(f, part);
}

static long size_of(const char *path) {
    struct stat about;
    return stat(path, &about) == 0 ? (long)about.st_size : -1;
}

static bool same_as_file(const char *path, const struct server_file *file) {
    char *data;
    size_t length;
    if (file_read(path, 1 << 24, &data, &length, NULL) != TESSERA_OK) return false;
    bool same = length == file->length && memcmp(data, file->data, length) == 0;
    free(data);
    return same;
}

static void write_text(const char *path, const char *text) {
    FILE *stream = fopen(path, "w");
    if (stream != NULL) fputs(text, stream);
    if (stream != NULL) fclose(stream);
}

static tessera_status resolve(struct fixture *f, const char *name, tessera_error *error) {
    char *folder = NULL;
    *error = (tessera_error){0};
    tessera_status status = hub_resolve(name, &f->options, &folder, error);
    CHECK((status == TESSERA_OK) == (folder != NULL), "%s: a folder comes with success and only then", name);
    CHECK(status == TESSERA_OK || error->message[0] != 0, "%s: a failure says why", name);
    if (folder != NULL) CHECK(strncmp(folder, in_snapshot(f, ""), strlen(folder)) == 0, "%s: the folder is %s", name, folder);
    free(folder);
    return status;
}

/* ---- tests ---- */

static void test_names(void) {
    static const char *const good[] = {"acme/tiny", "acme/tiny@v1.0", "a/b@refs/pr/1", "stabilityai/stable-diffusion-3.5-medium"};
    static const char *const bad[] = {"",         "tiny",       "acme/", "/tiny",  "a/b/c",           "../tiny",      "acme/..", "a/b@",
                                      "a/b@../x", "a/b@x/../y", "a b/c", "a--b/c", "a/x.safetensors", "models/emoji", "a/b@.x",  "a/b@x//y",
                                      "a/b@x/",   "a/b\n",      "./b",   "a/-b",   "a/b@x y"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) CHECK(hub_is_name(good[i]), "'%s'", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK(!hub_is_name(bad[i]), "'%s'", bad[i]);
}

static void test_download(struct fixture *f) {
    tessera_error error;
    char target[200];
    new_cache(f, (struct server_faults){0});
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_OK, "%s", error.message);
    for (int i = 0; i < f->file_count; i++) {
        const char *path = f->files[i].path;
        bool wanted =
            strstr(path, "fp16") == NULL && strstr(path, ".bin") == NULL && strstr(path, ".onnx") == NULL && strcmp(path, "README.md") != 0;
        CHECK(file_exists(in_snapshot(f, path)) == wanted, "%s: wanted %d", path, wanted);
        if (wanted) CHECK(same_as_file(in_snapshot(f, path), &f->files[i]), "%s: content", path);
        if (wanted) CHECK(same_as_file(blob_of(f, path, ""), &f->files[i]), "%s: blob", path);
    }
    ssize_t n = readlink(in_snapshot(f, WEIGHTS), target, sizeof target - 1);
    target[n < 0 ? 0 : n] = 0;
    CHECK(strncmp(target, "../../../blobs/", 15) == 0 && strlen(target) == 15 + 64, "link to '%s'", target);
    n = readlink(in_snapshot(f, "model_index.json"), target, sizeof target - 1);
    target[n < 0 ? 0 : n] = 0;
    CHECK(strncmp(target, "../../blobs/", 12) == 0 && strlen(target) == 12 + 40, "link to '%s'", target);
    struct server_file ref = {.data = SERVER_COMMIT, .length = 40};
    CHECK(same_as_file(in_cache(f, "refs/main"), &ref), "refs/main");
    struct server_seen seen = server_seen(f->server);
    CHECK(seen.tokens > 0 && seen.tokens_leaked == 0, "%d tokens to the endpoint, %d elsewhere", seen.tokens, seen.tokens_leaked);
    CHECK(seen.storage_requests == 1, "%d downloads of large files", seen.storage_requests);
}

/* The cache of test_download is used again. */
static void test_cached(struct fixture *f) {
    tessera_error error;
    server_reset(f->server, &(struct server_faults){0});
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_OK, "%s", error.message);
    CHECK(server_seen(f->server).requests == 1, "%d requests for a complete snapshot", server_seen(f->server).requests);
    CHECK(resolve(f, "acme/tiny@" SERVER_COMMIT, &error) == TESSERA_OK, "%s", error.message);
    CHECK(server_seen(f->server).requests == 1, "a commit that is complete needs no request");
    CHECK(resolve(f, "acme/tiny@refs/pr/1", &error) == TESSERA_OK, "%s", error.message);
    CHECK(file_exists(in_cache(f, "refs/refs/pr/1")), "a ref with slashes");
    f->options.endpoint = "https://localhost:1";
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_OK, "without network: %s", error.message);
    f->options.offline = true;
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_OK, "offline: %s", error.message);
    CHECK(resolve(f, "acme/tiny@v2", &error) == TESSERA_ERROR_IO && strstr(error.message, "HF_HUB_OFFLINE") != NULL, "%s", error.message);
    unlink(in_snapshot(f, WEIGHTS));
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_ERROR_IO && strstr(error.message, "its weights of transformer") != NULL, "%s",
          error.message);
    f->options.offline = false;
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_ERROR_IO && strstr(error.message, "localhost:1") != NULL, "%s", error.message);
}

static void test_environment(struct fixture *f) {
    char home[300];
    char *folder = NULL;
    tessera_error error = {0};
    new_cache(f, (struct server_faults){0});
    snprintf(home, sizeof home, "%s/home", f->folder);
    mkdir(home, 0777);
    setenv("HF_HOME", home, 1);
    setenv("HF_ENDPOINT", server_endpoint(f->server), 1);
    setenv("SSL_CERT_FILE", f->certificate, 1);
    char path[400];
    snprintf(path, sizeof path, "%s/token", home);
    write_text(path, "hf_secret\n");
    CHECK(hub_resolve("acme/tiny", NULL, &folder, &error) == TESSERA_OK, "%s", error.message);
    CHECK(folder != NULL && strncmp(folder, home, strlen(home)) == 0 && strstr(folder, "/hub/models--acme--tiny/snapshots/") != NULL, "%s",
          folder);
    CHECK(server_seen(f->server).tokens > 0, "the token file is read");
    free(folder);
    setenv("HF_HUB_OFFLINE", "1", 1);
    server_reset(f->server, &(struct server_faults){0});
    CHECK(hub_resolve("acme/tiny", NULL, &folder, &error) == TESSERA_OK && server_seen(f->server).requests == 0, "%s", error.message);
    free(folder);
    const char *const used[] = {"HF_HOME", "HF_ENDPOINT", "SSL_CERT_FILE", "HF_HUB_OFFLINE"};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++) unsetenv(used[i]);
}

static void test_resume(struct fixture *f) {
    tessera_error error;
    new_cache(f, (struct server_faults){.cut_count = 3});
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_OK, "%s", error.message);
    struct server_seen seen = server_seen(f->server);
    CHECK(seen.storage_requests == 4 && seen.ranges == 3 && seen.if_ranges == 3, "%d requests, %d ranges, %d If-Range",
          seen.storage_requests, seen.ranges, seen.if_ranges);
    CHECK(seen.tokens_leaked == 0, "tokens leaked");
    new_cache(f, (struct server_faults){.stall_count = 1});
    f->options.timeout_seconds = 1;
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_OK && server_seen(f->server).ranges == 1, "after a stall: %s", error.message);
    new_cache(f, (struct server_faults){.cut_count = 1, .ignore_range = true});
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_OK, "a server without ranges: %s", error.message);
    new_cache(f, (struct server_faults){.cut_count = 1, .wrong_range = true});
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_ERROR_FORMAT && strstr(error.message, "other bytes") != NULL, "%s", error.message);
}

/* Stops as soon as a part of the weights is there. */
static bool stop_midway(void *user, const char *file, uint64_t done, uint64_t total) {
    double *begin = user;
    return !(strcmp(file, WEIGHTS) == 0 && done > 0 && done < total && clock_seconds() > *begin + 0.1);
}

static void test_cancel(struct fixture *f) {
    tessera_error error;
    double begin = clock_seconds();
    new_cache(f, (struct server_faults){.stall_count = 1});
    f->options.progress = stop_midway;
    f->options.user = &begin;
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_ERROR_CANCELLED, "%s", error.message);
    CHECK(clock_seconds() - begin < 4, "a stalled download stops within %.1f s", clock_seconds() - begin);
    long kept = size_of(blob_of(f, WEIGHTS, ".incomplete"));
    CHECK(kept > 0 && kept < LARGE_BYTES, "%ld bytes kept", kept);
    CHECK(!file_exists(in_cache(f, "refs/main")) && !file_exists(in_snapshot(f, WEIGHTS)), "nothing half done is to be seen");
    f->options.progress = NULL;
    server_reset(f->server, &(struct server_faults){0});
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_OK, "%s", error.message);
    CHECK(server_seen(f->server).ranges == 1 && server_seen(f->server).storage_requests == 1, "the next call goes on");
}

static void test_checksum(struct fixture *f) {
    tessera_error error;
    new_cache(f, (struct server_faults){.corrupt = true});
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_ERROR_IO && strstr(error.message, "checksum") != NULL, "%s", error.message);
    CHECK(!file_exists(blob_of(f, WEIGHTS, "")) && !file_exists(blob_of(f, WEIGHTS, ".incomplete")), "wrong bytes are removed");
    CHECK(!file_exists(in_snapshot(f, WEIGHTS)) && !file_exists(in_cache(f, "refs/main")), "nothing of it is to be seen");
    write_text(blob_of(f, WEIGHTS, ".incomplete"), "not the beginning of this file");
    server_reset(f->server, &(struct server_faults){0});
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_OK, "a wrong partial file: %s", error.message);
    CHECK(server_seen(f->server).storage_requests == 2, "is tried once more from the start");
    CHECK(truncate(blob_of(f, WEIGHTS, ""), 10) == 0, "truncate");
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_OK && size_of(blob_of(f, WEIGHTS, "")) == LARGE_BYTES, "a short blob is mended");
}

static void test_refusals(struct fixture *f) {
    static const struct {
        struct server_faults faults;
        tessera_status status;
        const char *says;
    } cases[] = {
        {{.refuse = 401, .error_code = "GatedRepo"}, TESSERA_ERROR_IO, "accept its licence"},
        {{.refuse = 403, .error_code = "GatedRepo"}, TESSERA_ERROR_IO, "HF_TOKEN"},
        {{.refuse = 401, .error_code = "RepoNotFound"}, TESSERA_ERROR_IO, "no repository acme/tiny"},
        {{.refuse = 404, .error_code = "RepoNotFound"}, TESSERA_ERROR_IO, "no repository acme/tiny"},
        {{.refuse = 500, .error_code = ""}, TESSERA_ERROR_IO, "answered 500"},
        {{.huge = true}, TESSERA_ERROR_IO, "disk full"},
        {{.longer = true}, TESSERA_ERROR_FORMAT, "more than the 300001 bytes"},
        {{.unsafe_path = true}, TESSERA_ERROR_FORMAT, "../escape"},
        {{.weird_etag = true}, TESSERA_ERROR_FORMAT, "ETag"},
        {{.no_etag = true}, TESSERA_ERROR_FORMAT, "ETag"},
        {{.other_commit = true}, TESSERA_ERROR_FORMAT, "answers for commit"},
        {{.not_json = true}, TESSERA_ERROR_FORMAT, "JSON"},
    };
    tessera_error error;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        new_cache(f, cases[i].faults);
        tessera_status status = resolve(f, "acme/tiny", &error);
        CHECK(status == cases[i].status && strstr(error.message, cases[i].says) != NULL, "case %zu: %d: %s", i, (int)status, error.message);
        CHECK(strstr(error.message, "hf_secret") == NULL, "no token in a message");
        CHECK(!file_exists(in_cache(f, "refs/main")), "case %zu leaves no ref", i);
    }
    new_cache(f, (struct server_faults){0});
    CHECK(resolve(f, "acme/tiny@v9", &error) == TESSERA_ERROR_IO && strstr(error.message, "no revision 'v9'") != NULL, "%s", error.message);
    CHECK(resolve(f, "acme/other", &error) == TESSERA_ERROR_IO && strstr(error.message, "no repository acme/other") != NULL, "%s",
          error.message);
    CHECK(resolve(f, "nonsense", &error) == TESSERA_ERROR_ARGUMENT, "%s", error.message);
    f->options.ca_bundle = NULL;
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_ERROR_IO && strstr(error.message, "certificate") != NULL, "%s", error.message);
    f->options.token = "two\r\nlines";
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_ERROR_ARGUMENT, "%s", error.message);
}

/* --variant: that file and not the others; one that no component has gives the plain files. */
static void test_variant(struct fixture *f) {
    static const char fp16[] = "transformer/diffusion_pytorch_model.fp16.safetensors";
    tessera_error error;
    new_cache(f, (struct server_faults){0});
    f->options.variant = "fp16";
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_OK, "%s", error.message);
    CHECK(file_exists(in_snapshot(f, fp16)) && !file_exists(in_snapshot(f, WEIGHTS)), "the variant alone");
    f->options.variant = "bf16";
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_OK, "%s", error.message);
    CHECK(file_exists(in_snapshot(f, WEIGHTS)), "no such variant: the plain file");
    f->options.variant = NULL;
}

/* A link in the place of a file that is to be written must not lead elsewhere. */
static void test_links(struct fixture *f) {
    tessera_error error;
    char outside[300];
    snprintf(outside, sizeof outside, "%s/outside", f->folder);
    new_cache(f, (struct server_faults){.cut_count = 1});
    f->options.progress = NULL;
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_OK, "%s", error.message);
    char lock[500], *incomplete = strdup(blob_of(f, WEIGHTS, ".incomplete"));
    const char *name = strrchr(incomplete, '/') + 1;
    snprintf(lock, sizeof lock, "%s/.locks/models--acme--tiny/%.64s.lock", f->cache, name);
    unlink(blob_of(f, WEIGHTS, ""));
    unlink(in_snapshot(f, WEIGHTS));
    write_text(outside, "precious");
    CHECK(symlink(outside, incomplete) == 0, "%s", incomplete);
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_ERROR_IO && strstr(error.message, "cannot open") != NULL, "%s", error.message);
    CHECK(size_of(outside) == 8, "the file outside is as it was");
    unlink(incomplete);
    CHECK(unlink(lock) == 0 && symlink(outside, lock) == 0, "%s", lock);
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_ERROR_IO && strstr(error.message, "lock") != NULL, "%s", error.message);
    unlink(lock);
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_OK, "%s", error.message);
    free(incomplete);
}

/* A cache of another user's is not an empty one. */
static void test_forbidden(struct fixture *f) {
    tessera_error error;
    char *refs = strdup(in_cache(f, "refs"));
    f->options.offline = true;
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_OK, "%s", error.message);
    chmod(refs, 0);
    bool root = geteuid() == 0;
    CHECK(!root || seteuid(65534) == 0, "another user");
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_ERROR_IO && strstr(error.message, "no permission") != NULL, "%s", error.message);
    CHECK(!root || seteuid(0) == 0, "root again");
    chmod(refs, 0755);
    f->options.offline = false;
    free(refs);
}

/* A blob is on the disk before it gets its name; what the disk or the rename refuses is an error,
 * and no blob. */
static void test_last_steps(struct fixture *f) {
    tessera_error error;
    new_cache(f, (struct server_faults){0});
    sync_error = EIO;
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_ERROR_IO && strstr(error.message, "cannot write") != NULL, "%s", error.message);
    sync_error = 0;
    CHECK(!file_exists(blob_of(f, "model_index.json", "")), "no blob without fsync");
    rename_error = EXDEV;
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_ERROR_IO && strstr(error.message, "cannot rename") != NULL, "%s", error.message);
    rename_error = 0;
    CHECK(!file_exists(blob_of(f, "model_index.json", "")), "no blob without its name");
    CHECK(resolve(f, "acme/tiny", &error) == TESSERA_OK, "%s", error.message);
}

/* The program of a process of its own, called with endpoint, cache, certificates and the number of
 * bytes that a file may have (0: any); its exit status is the tessera_status. */
static int child_main(char **arguments) {
    rlim_t limit = (rlim_t)atoll(arguments[4]);
    struct hub_options options = {
        .endpoint = arguments[1], .cache = arguments[2], .token = "hf_secret", .ca_bundle = arguments[3], .timeout_seconds = PATIENCE};
    char *folder = NULL;
    tessera_error error = {0};
    signal(SIGXFSZ, SIG_IGN);
    if (limit > 0) setrlimit(RLIMIT_FSIZE, &(struct rlimit){limit, limit});
    tessera_status status = hub_resolve("acme/tiny", &options, &folder, &error);
    if (status != TESSERA_OK && limit == 0) fprintf(stderr, "%s\n", error.message);
    free(folder);
    return (int)status;
}

/* Starts child_main. A new program and not a fork alone: a fork would copy the locks that the
 * server's thread holds in OpenSSL just then, and wait for them for ever. */
static pid_t resolve_in_child(struct fixture *f, const char *limit) {
    char *arguments[] = {"test_hub", (char *)f->options.endpoint, f->cache, f->certificate, (char *)limit, NULL};
    pid_t child = -1;
    return posix_spawn(&child, "/proc/self/exe", NULL, NULL, arguments, environ) == 0 ? child : -1;
}

static int wait_for(pid_t child) {
    int status = 0;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_processes(struct fixture *f) {
    pid_t children[3];
    new_cache(f, (struct server_faults){0});
    for (int i = 0; i < 3; i++) children[i] = resolve_in_child(f, "0");
    for (int i = 0; i < 3; i++) CHECK(wait_for(children[i]) == TESSERA_OK, "process %d", i);
    CHECK(server_seen(f->server).storage_requests == 1, "%d downloads by three processes", server_seen(f->server).storage_requests);
    new_cache(f, (struct server_faults){0});
    CHECK(wait_for(resolve_in_child(f, "100000")) == TESSERA_ERROR_IO, "a write that fails is an error");
    CHECK(size_of(blob_of(f, WEIGHTS, ".incomplete")) == 100000, "and what was written stays");
}

int main(int argc, char **argv) {
    static const char *const variables[] = {"HF_HOME",
                                            "HF_HUB_CACHE",
                                            "HUGGINGFACE_HUB_CACHE",
                                            "HF_TOKEN",
                                            "HUGGING_FACE_HUB_TOKEN",
                                            "HF_ENDPOINT",
                                            "HF_HUB_OFFLINE",
                                            "TRANSFORMERS_OFFLINE",
                                            "SSL_CERT_FILE",
                                            "CURL_CA_BUNDLE",
                                            "REQUESTS_CA_BUNDLE",
                                            "HF_TOKEN_PATH",
                                            "HF_HUB_DOWNLOAD_TIMEOUT",
                                            "https_proxy",
                                            "HTTPS_PROXY",
                                            "all_proxy",
                                            "ALL_PROXY",
                                            "HF_HUB_DISABLE_IMPLICIT_TOKEN"};
    static char large[LARGE_BYTES];
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) unsetenv(variables[i]);
    if (argc == 5) return child_main(argv);
    for (int i = 0; i < LARGE_BYTES; i++) large[i] = (char)((i * 2654435761u) >> 13);
    struct server_file files[] = {
        {"model_index.json", model_index, sizeof model_index - 1, false},
        {"README.md", "read me", 7, false},
        {"transformer/config.json", "{}", 2, false},
        {WEIGHTS, large, LARGE_BYTES, true},
        {"transformer/diffusion_pytorch_model.fp16.safetensors", large, 1000, true},
        {"transformer/diffusion_pytorch_model.bin", large, 2000, true},
        {"transformer/model.onnx", large, 3000, true},
        {"tokenizer/vocab.json", "{\"a\": 1}", 8, false},
        {"tokenizer/merges.txt", "", 0, false},
        {"scheduler/scheduler_config.json", "{\"shift\": 3}", 12, false},
    };
    const char *base = getenv("TMPDIR");
    struct fixture f = {.files = files, .file_count = (int)(sizeof files / sizeof *files)};
    snprintf(f.folder, sizeof f.folder, "%s/tessera-test-hub-XXXXXX", base != NULL ? base : P_tmpdir);
    if (mkdtemp(f.folder) == NULL) return perror(f.folder), 1;
    snprintf(f.certificate, sizeof f.certificate, "%s/certificate.pem", f.folder);
    f.server = server_start(f.files, f.file_count, f.certificate);
    if (f.server == NULL) return 1;
    test_names();
    test_download(&f);
    test_cached(&f);
    test_environment(&f);
    test_resume(&f);
    test_cancel(&f);
    test_checksum(&f);
    test_variant(&f);
    test_last_steps(&f);
    test_links(&f);
    test_forbidden(&f);
    test_refusals(&f);
    test_processes(&f);
    server_stop(f.server);
    char command[300];
    snprintf(command, sizeof command, "rm -r '%s'", f.folder);
    CHECK(system(command) == 0, "%s", command);
    return CHECK_REPORT();
}
