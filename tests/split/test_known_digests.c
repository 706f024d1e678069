/* Digests that were computed before: found for the same files and range, and not once a file has
 * changed in any way. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "check.h"
#include "split/known_digests.h"

static char folder[] = "/tmp/tessera-known-XXXXXX";
static const struct split_range range = {1, 3, false};
enum { SETTLED_MICROSECONDS = 3100000 };

static void write_file(const char *name, const char *text) {
    char *path = file_join(folder, name);
    FILE *stream = fopen(path, "wb");
    CHECK(stream != NULL && fputs(text, stream) >= 0 && fclose(stream) == 0, "%s cannot be written", path);
    free(path);
}

/* The same bytes and times, another change: what a program that copies a file over can do. */
static void change_unseen(const char *name, const char *text) {
    char *path = file_join(folder, name);
    struct stat before;
    CHECK(stat(path, &before) == 0, "%s", path);
    write_file(name, text);
    const struct timespec times[] = {before.st_atim, before.st_mtim};
    CHECK(utimensat(AT_FDCWD, path, times, 0) == 0, "%s", path);
    free(path);
}

static void check_ranges(const char *key) {
    static const struct split_range others[] = {{0, 3, false}, {1, 4, false}, {1, 3, true}};
    char other[KNOWN_KEY_CHARS];
    for (int i = 0; i < 3; i++)
        CHECK(known_digest_key(folder, &others[i], other) && strcmp(key, other) != 0, "range %d has the same key", i);
}

static void check_changes(const char *key) {
    char other[KNOWN_KEY_CHARS];
    change_unseen("a.safetensors", "other weights");
    CHECK(!known_digest_key(folder, &range, other), "a file that was changed just now has a key");
    usleep(SETTLED_MICROSECONDS);
    CHECK(known_digest_key(folder, &range, other) && strcmp(key, other) != 0, "a changed file has the same key");
    write_file("b.safetensors", "more");
    usleep(SETTLED_MICROSECONDS);
    char third[KNOWN_KEY_CHARS];
    CHECK(known_digest_key(folder, &range, third) && strcmp(other, third) != 0, "one more file has the same key");
}

static void check_kept(const char *key) {
    uint8_t digest[CANONICAL_HASH_BYTES], found[CANONICAL_HASH_BYTES] = {0};
    char made_up[KNOWN_KEY_CHARS];
    memset(digest, 7, sizeof digest);
    CHECK(!known_digest_find(key, found), "there is a digest that nobody kept");
    known_digest_keep(key, digest);
    CHECK(known_digest_find(key, found) && memcmp(found, digest, sizeof digest) == 0, "what was kept is not found");
    for (int i = 0; i < 256; i++) {
        snprintf(made_up, sizeof made_up, "%064d", i);
        known_digest_keep(made_up, digest);
    }
    CHECK(!known_digest_find(key, found), "the oldest of too many is still there");
    CHECK(known_digest_find(made_up, found), "the newest is not there");
    write_file("tessera/part-digests.json", "{\"x\": ");
    CHECK(!known_digest_find(made_up, found), "a broken file has digests");
    known_digest_keep(key, digest);
    CHECK(known_digest_find(key, found), "a broken file is not written anew");
}

int main(void) {
    char key[KNOWN_KEY_CHARS], again[KNOWN_KEY_CHARS];
    if (mkdtemp(folder) == NULL) return 1;
    write_file("a.safetensors", "some weights.");
    CHECK(!known_digest_key(folder, &range, key), "a file that was made just now has a key");
    usleep(SETTLED_MICROSECONDS);
    CHECK(known_digest_key(folder, &range, key) && known_digest_key(folder, &range, again) && strcmp(key, again) == 0, "two keys");
    CHECK(!known_digest_key("/nowhere", &range, again), "no folder has a key");
    check_ranges(key);
    check_changes(key);
    setenv("XDG_CACHE_HOME", folder, 1);
    check_kept(key);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command) == 0 ? CHECK_REPORT() : 1;
}
