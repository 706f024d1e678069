/* Files: reading, maps, and output that appears whole or not at all (also when the disk refuses a
 * write). */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "check.h"

/* The linker puts these in the place of fsync and rename (tests/CMakeLists.txt). */
static int syncs, renames, sync_error, rename_error;
int __real_fsync(int descriptor);
int __real_rename(const char *from, const char *to);
int __wrap_fsync(int descriptor);
int __wrap_rename(const char *from, const char *to);

int __wrap_fsync(int descriptor) {
    syncs++;
    errno = sync_error;
    return sync_error != 0 ? -1 : __real_fsync(descriptor);
}

/* A file must be on the disk before it gets its name. */
int __wrap_rename(const char *from, const char *to) {
    renames++;
    CHECK(syncs > 0, "%s is renamed without fsync", from);
    errno = rename_error;
    return rename_error != 0 ? -1 : __real_rename(from, to);
}

static int files_in(const char *folder) {
    int count = 0;
    DIR *open_folder = opendir(folder);
    for (struct dirent *item; (item = readdir(open_folder)) != NULL;) count += item->d_name[0] != '.';
    closedir(open_folder);
    return count;
}

static void write_text(const char *path, const char *text) {
    tessera_error error = {0};
    struct file_output output;
    CHECK(file_output_open(path, &output, &error) == TESSERA_OK, "%s", error.message);
    fputs(text, output.stream);
    CHECK(file_output_commit(&output, &error) == TESSERA_OK, "%s", error.message);
}

static void expect_text(const char *path, const char *text) {
    tessera_error error = {0};
    char *data;
    size_t length;
    CHECK(file_read(path, 1000, &data, &length, &error) == TESSERA_OK, "%s", error.message);
    CHECK(data != NULL && length == strlen(text) && strcmp(data, text) == 0, "%s", data == NULL ? "" : data);
    free(data);
}

static void test_read(const char *folder, const char *path) {
    tessera_error error = {0};
    char *data;
    size_t length;
    struct file_map map;
    write_text(path, "hello");
    expect_text(path, "hello");
    CHECK(file_read(path, 4, &data, &length, &error) == TESSERA_ERROR_FORMAT && data == NULL, "%s", error.message);
    CHECK(file_read(folder, 100, &data, &length, &error) == TESSERA_ERROR_IO, "a folder");
    CHECK(file_read("/proc/self/status", 1 << 20, &data, &length, &error) == TESSERA_OK && length > 100, "a file whose size is unknown");
    free(data);
    CHECK(file_map_open(path, &map, &error) == TESSERA_OK && map.length == 5 && memcmp(map.data, "hello", 5) == 0, "%s", error.message);
    CHECK(file_map_check(&map, path, &error) == TESSERA_OK, "%s", error.message);
    CHECK(truncate(path, 4) == 0 && file_map_check(&map, path, &error) == TESSERA_ERROR_IO && strstr(error.message, "5 to 4"),
          "a cut file");
    file_map_close(&map);
    CHECK(file_map_open(folder, &map, &error) == TESSERA_ERROR_IO, "a folder");
    write_text(path, "");
    CHECK(file_map_open(path, &map, &error) == TESSERA_ERROR_FORMAT && strstr(error.message, path) != NULL, "%s", error.message);
    CHECK(file_exists(path) && !file_is_folder(path) && file_is_folder(folder), "kinds");
    unlink(path);
    CHECK(!file_exists(path) && file_map_open(path, &map, &error) == TESSERA_ERROR_IO, "gone");
}

static void test_discard(const char *folder, const char *path) {
    tessera_error error = {0};
    struct file_output output;
    write_text(path, "old");
    CHECK(file_output_open(path, &output, &error) == TESSERA_OK, "%s", error.message);
    fputs("new", output.stream);
    file_output_discard(&output);
    expect_text(path, "old");
    write_text(path, "new");
    expect_text(path, "new");
    CHECK(files_in(folder) == 1, "%d files", files_in(folder));
    unlink(path);
    CHECK(file_output_open("/dev/full", &output, &error) == TESSERA_ERROR_IO, "a device is not replaced");
    CHECK(file_output_open("tests/no/such/folder", &output, &error) == TESSERA_ERROR_IO, "%s", error.message);
}

/* A limit on file sizes makes writes fail as a full disk does. */
static void test_full(const char *folder, const char *path, size_t bytes) {
    tessera_error error = {0};
    struct file_output output;
    struct rlimit before, small;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    small = (struct rlimit){100, before.rlim_max};
    CHECK(file_output_open(path, &output, &error) == TESSERA_OK, "%s", error.message);
    setrlimit(RLIMIT_FSIZE, &small);
    for (size_t i = 0; i < bytes; i++) fputc('x', output.stream);
    tessera_status status = file_output_commit(&output, &error);
    setrlimit(RLIMIT_FSIZE, &before);
    CHECK(status == TESSERA_ERROR_IO && strstr(error.message, path) != NULL, "%s", error.message);
    CHECK(files_in(folder) == 0, "%zu bytes leave %d files", bytes, files_in(folder));
}

/* A write that the disk refuses at the very end, and a rename that fails: an error, the old file,
 * nothing left over. */
static void test_last_steps(const char *folder, const char *path) {
    const struct { int sync_error, rename_error; } cases[] = {{EIO, 0}, {0, EXDEV}};
    syncs = renames = 0;
    write_text(path, "old");
    CHECK(syncs == 1 && renames == 1, "%d syncs, %d renames", syncs, renames);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tessera_error error = {0};
        struct file_output output;
        CHECK(file_output_open(path, &output, &error) == TESSERA_OK, "%s", error.message);
        fputs("new", output.stream);
        sync_error = cases[i].sync_error, rename_error = cases[i].rename_error;
        CHECK(file_output_commit(&output, &error) == TESSERA_ERROR_IO && strstr(error.message, path) != NULL, "case %zu: %s", i,
              error.message);
        sync_error = rename_error = 0;
        expect_text(path, "old");
        CHECK(files_in(folder) == 1, "case %zu leaves a file", i);
    }
    unlink(path);
}

/* Of a model's files: a pipe that nobody writes to, and a folder, are refused at once. */
static void test_regular(const char *path) {
    tessera_error error = {0};
    char *data;
    size_t length;
    struct file_map map;
    CHECK(mkfifo(path, 0600) == 0, "%s", path);
    CHECK(file_read_regular(path, 10, &data, &length, &error) == TESSERA_ERROR_IO && strstr(error.message, "not a regular file") != NULL,
          "%s", error.message);
    CHECK(file_map_open(path, &map, &error) == TESSERA_ERROR_IO, "%s", error.message);
    unlink(path);
    CHECK(file_read_regular("/tmp", 10, &data, &length, &error) == TESSERA_ERROR_IO, "%s", error.message);
    CHECK(file_read_regular("/dev/zero", 10, &data, &length, &error) == TESSERA_ERROR_IO, "%s", error.message);
    write_text(path, "text");
    CHECK(file_read_regular(path, 10, &data, &length, &error) == TESSERA_OK && length == 4, "%s", error.message);
    free(data);
    unlink(path);
}

int main(void) {
    char folder[] = "/tmp/tessera-test-XXXXXX";
    if (mkdtemp(folder) == NULL) return 1;
    char *path = file_join(folder, "file"), *same = file_join("a/", "b");
    CHECK(strcmp(same, "a/b") == 0, "%s", same);
    test_read(folder, path);
    test_discard(folder, path);
    test_full(folder, path, 200);     /* found when flushed */
    test_full(folder, path, 1 << 20); /* found while writing */
    test_last_steps(folder, path);
    test_regular(path);
    free(path);
    free(same);
    rmdir(folder);
    return CHECK_REPORT();
}
