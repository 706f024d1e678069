/* Model folders of published architectures: same seed, same bytes; every class opens; stopping
 * leaves nothing; memory stays small. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "check.h"
#include "checkpoint/make_model.h"
#include "checkpoint/published.h"
#include "models/registry.h"

/* The bytes of a file in the made folder; the caller frees. */
static char *bytes_of(const char *folder, const char *name, size_t *length) {
    char *path = file_join(folder, name), *data = NULL;
    tessera_error error = {0};
    CHECK(file_read(path, (size_t)1 << 30, &data, length, &error) == TESSERA_OK, "%s", error.message);
    free(path);
    return data;
}

static bool same_file(const char *a, const char *b, const char *name) {
    size_t n, m;
    char *x = bytes_of(a, name, &n), *y = bytes_of(b, name, &m);
    bool same = x != NULL && y != NULL && n == m && memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return same;
}

static int entries_of(const char *folder) {
    int count = 0;
    DIR *listing = opendir(folder);
    for (struct dirent *entry; listing != NULL && (entry = readdir(listing)) != NULL;) count += entry->d_name[0] != '.';
    if (listing != NULL) closedir(listing);
    return count;
}

struct watch {
    int calls;
    size_t done, total, stop_at;
};

static bool watch(void *user, size_t done, size_t total) {
    struct watch *w = user;
    w->calls++;
    w->done = done;
    w->total = total;
    return done < w->stop_at;
}

static void remove_folder(const char *folder) {
    char command[512];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    CHECK(system(command) == 0, "%s", command);
}

static bool contains(const char *folder, const char *name, const char *text) {
    size_t length;
    char *data = bytes_of(folder, name, &length);
    bool found = data != NULL && strstr(data, text) != NULL;
    free(data);
    return found;
}

/* A component of a made folder opens with its weights, in shards or not. */
static void check_opens(const char *folder, const char *name) {
    tessera_error error = {0};
    char *path = file_join(folder, name);
    struct component component;
    struct component_source source = {.folder = path};
    tessera_status status = component_open(&source, DTYPE_F32, &component, &error);
    CHECK(status == TESSERA_OK, "%s", error.message);
    if (status == TESSERA_OK) component_close(&component);
    free(path);
}

static void test_folders(const char *scratch) {
    static const char weights[] = "unet/diffusion_pytorch_model.safetensors", text[] = "text_encoder/model.safetensors";
    char *a = file_join(scratch, "a"), *b = file_join(scratch, "b"), *c = file_join(scratch, "c/");
    struct watch w = {.stop_at = SIZE_MAX};
    struct make_model_options options = {"sd15", a, true, 1, 0, watch, &w};
    tessera_error error = {0};
    CHECK(make_model(&options, &error) == TESSERA_OK, "%s", error.message);
    CHECK(w.calls > 3 && w.done == w.total && w.total > 1000000, "progress: %zu of %zu", w.done, w.total);
    CHECK(make_model(&options, &error) == TESSERA_ERROR_IO && strstr(error.message, a) != NULL, "%s", error.message);
    options.folder = b;
    CHECK(make_model(&options, &error) == TESSERA_OK, "%s", error.message);
    CHECK(same_file(a, b, weights) && same_file(a, b, text), "one seed, one model");
    remove_folder(b);
    options.seed = 2;
    CHECK(make_model(&options, &error) == TESSERA_OK, "%s", error.message);
    CHECK(!same_file(a, b, weights) && !same_file(a, b, text), "another seed, another model");
    CHECK(same_file(a, b, "unet/config.json") && same_file(a, b, "tokenizer/vocab.json"), "the seed changes weights only");
    CHECK(contains(a, "make-model.json", "\"seed\": \"1\"") && contains(b, "make-model.json", "\"seed\": \"2\""), "the seed is recorded");
    options.folder = c;
    options.max_shard_bytes = 1 << 20;
    CHECK(make_model(&options, &error) == TESSERA_OK, "%s", error.message);
    CHECK(contains(c, "unet/diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model-00001-of-0000"),
          "an index of shards");
    CHECK(entries_of(scratch) == 3, "no temporary folder is left");
    check_opens(a, "unet");
    check_opens(a, "vae");
    check_opens(c, "unet");
    check_opens(c, "text_encoder");
    remove_folder(a);
    remove_folder(b);
    remove_folder(c);
    free(a);
    free(b);
    free(c);
}

/* Every class at tiny scale: all components open, few MB. */
static void test_every_class(const char *scratch) {
    char *folder = file_join(scratch, "model");
    tessera_error error = {0};
    for (const char *const *name = published_names(); *name != NULL; name++) {
        struct watch w = {.stop_at = SIZE_MAX};
        struct make_model_options options = {*name, folder, true, 3, 0, watch, &w};
        CHECK(make_model(&options, &error) == TESSERA_OK, "%s", error.message);
        CHECK(w.total < (size_t)40 << 20, "%s: %zu bytes", *name, w.total);
        DIR *listing = opendir(folder);
        for (struct dirent *entry; listing != NULL && (entry = readdir(listing)) != NULL;) {
            bool weights = strncmp(entry->d_name, "text_encoder", 12) == 0 || strcmp(entry->d_name, "unet") == 0 ||
                           strcmp(entry->d_name, "transformer") == 0 || strcmp(entry->d_name, "vae") == 0;
            if (weights) check_opens(folder, entry->d_name);
        }
        if (listing != NULL) closedir(listing);
        remove_folder(folder);
    }
    free(folder);
}

/* At full scale, stopped in the middle: memory stays small and nothing is left. */
static void test_stop(const char *scratch) {
    char *folder = file_join(scratch, "full");
    struct watch w = {.stop_at = 400000000};
    struct make_model_options options = {"sd15", folder, false, 1, 0, watch, &w};
    tessera_error error = {0};
    size_t before = memory_peak_resident();
    CHECK(make_model(&options, &error) == TESSERA_ERROR_CANCELLED, "%s", error.message);
    CHECK(w.done >= w.stop_at && w.total == 2 * (size_t)(859520964 + 83653863 + 123060480), "%zu of %zu", w.done, w.total);
    size_t grown = memory_peak_resident() - before;
    CHECK(grown < (size_t)16 << 20, "%zu bytes of memory for %zu written", grown, w.done);
    CHECK(entries_of(scratch) == 0, "nothing is left");
    free(folder);
}

int main(void) {
    char scratch[] = "/tmp/tessera-test-XXXXXX";
    if (mkdtemp(scratch) == NULL) return 1;
    test_stop(scratch); /* first: peak memory only rises */
    test_folders(scratch);
    test_every_class(scratch);
    CHECK(rmdir(scratch) == 0, "%s is empty", scratch);
    return CHECK_REPORT();
}
