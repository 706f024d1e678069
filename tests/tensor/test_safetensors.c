/* The safetensors reader on whole and broken files (each made in memory; its message must name file
 * and field), and the writer. Given a folder, it writes the same files there: the fuzz target's
 * corpus. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "check.h"
#include "safetensors_write.h"
#include "tensor/safetensors.h"

/* A file: a header and so many bytes of data; `field` is what the message names (NULL: the file is
 * whole). */
static const struct {
    const char *name, *header;
    size_t data;
    const char *field;
} files[] = {
    {"one", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, NULL},
    {"padded", "{\"__metadata__\":{\"k\":\"v\"},\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}    ", 3, NULL},
    {"misaligned",
     "{\"b\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[3,11]},\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}", 11,
     NULL},
    {"scalar", "{\"a\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[0,2]}}", 2, NULL},
    {"nothing", "{\"a\":{\"dtype\":\"F16\",\"shape\":[0,7],\"data_offsets\":[0,0]}}", 0, NULL},
    {"empty", "{}", 0, NULL},
    {"list", "[]", 0, "header"},
    {"cut_json", "{\"a\":", 0, "not JSON"},
    {"metadata", "{\"__metadata__\":3}", 0, "__metadata__"},
    {"number", "{\"a\":3}", 0, "\"a\": entry"},
    {"no_dtype", "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "\"a\": dtype"},
    {"no_shape", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "\"a\": shape"},
    {"no_offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "\"a\": data_offsets"},
    {"unknown_type", "{\"a\":{\"dtype\":\"F9\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, NULL},
    {"blocks", "{\"a\":{\"dtype\":\"Q4_0\",\"shape\":[2,64],\"data_offsets\":[0,72]}}", 72, NULL},
    {"cut_blocks", "{\"a\":{\"dtype\":\"Q4_0\",\"shape\":[32,2],\"data_offsets\":[0,36]}}", 36, "\"a\": shape"},
    {"scalar_block", "{\"a\":{\"dtype\":\"Q8_0\",\"shape\":[],\"data_offsets\":[0,34]}}", 34, "\"a\": shape"},
    {"dtype", "{\"a\":{\"dtype\":9,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "\"a\": dtype"},
    {"negative", "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "\"a\": shape"},
    {"fraction", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,6]}}", 6, "\"a\": shape"},
    {"huge", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, "\"a\": shape"},
    {"dims", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "\"a\": shape"},
    {"backwards", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "\"a\": data_offsets"},
    {"beyond", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, "\"a\": data_offsets"},
    {"three", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, "\"a\": data_offsets"},
    {"bytes", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "\"a\": data_offsets"},
    {"overlap",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}", 4,
     "\"b\": data_offsets"},
    {"hole",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}", 3,
     "\"b\": data_offsets"},
    {"trailing", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 2, "data"},
    {"twice",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2,
     "\"a\": name"},
};
#define FILES (sizeof files / sizeof files[0])

/* The caller frees. Byte i of the data is i. */
static uint8_t *make_file(const char *header, size_t data, size_t *length) {
    size_t text = strlen(header);
    *length = 8 + text + data;
    uint8_t *bytes = calloc(1, *length);
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)((uint64_t)text >> (8 * i));
    memcpy(bytes + 8, header, text);
    for (size_t i = 0; i < data; i++) bytes[8 + text + i] = (uint8_t)i;
    return bytes;
}

static void test_files(void) {
    for (size_t i = 0; i < FILES; i++) {
        tessera_error error = {0};
        struct safetensors *file;
        size_t length;
        uint8_t *bytes = make_file(files[i].header, files[i].data, &length);
        tessera_status status = safetensors_parse("f.safetensors", bytes, length, &file, &error);
        if (files[i].field == NULL)
            CHECK(status == TESSERA_OK && file != NULL, "%s: %s", files[i].name, error.message);
        else
            CHECK(status == TESSERA_ERROR_FORMAT && file == NULL && strstr(error.message, "f.safetensors") != NULL &&
                      strstr(error.message, files[i].field) != NULL,
                  "%s: %d \"%s\"", files[i].name, status, error.message);
        safetensors_close(file);
        free(bytes);
    }
}

static void test_short(void) {
    static const uint8_t bytes[][9] = {"", "\7\0\0\0\0\0\0", "\2\0\0\0\0\0\0\0{", "\377\377\377\377\377\377\377\377{", "\0\0\0\0\0\0\0\0 "};
    static const size_t lengths[] = {0, 7, 9, 9, 8};
    for (int i = 0; i < 5; i++) {
        tessera_error error = {0};
        struct safetensors *file;
        tessera_status status = safetensors_parse("f.safetensors", bytes[i], lengths[i], &file, &error);
        CHECK(status == TESSERA_ERROR_FORMAT && strstr(error.message, "f.safetensors: header") != NULL, "%d: %s", i, error.message);
    }
}

static void test_values(void) {
    tessera_error error = {0};
    struct safetensors *file;
    size_t length;
    uint8_t *bytes = make_file(files[2].header, files[2].data, &length);
    CHECK(safetensors_parse("f", bytes, length, &file, &error) == TESSERA_OK, "%s", error.message);
    const struct safetensors_entry *lent = safetensors_find(file, "b");
    struct tensor b = safetensors_tensor(file, "b");
    CHECK(safetensors_count(file) == 2 && strcmp(safetensors_at(file, 0)->name, "a") == 0, "in the order of the data");
    CHECK(lent != NULL && (uint8_t *)lent->tensor.data > bytes && (uint8_t *)lent->tensor.data < bytes + length, "lent where it lies");
    CHECK((uintptr_t)b.data % 8 == 0 && b.data != NULL && *(int64_t *)b.data == 0x0a09080706050403, "aligned copy");
    CHECK(safetensors_tensor(file, "b").data == b.data, "one copy");
    CHECK(safetensors_find(file, "c") == NULL && safetensors_metadata(file, "k") == NULL, "absent");
    safetensors_close(file);
    free(bytes);
    bytes = make_file(files[1].header, files[1].data, &length);
    CHECK(safetensors_parse("f", bytes, length, &file, &error) == TESSERA_OK, "%s", error.message);
    CHECK(strcmp(safetensors_metadata(file, "k"), "v") == 0, "metadata");
    safetensors_close(file);
    free(bytes);
}

static void test_write(void) {
    char folder[] = "/tmp/tessera-test-XXXXXX";
    if (mkdtemp(folder) == NULL) return;
    char *path = file_join(folder, "w.safetensors");
    tessera_error error = {0};
    float values[6] = {1, 2, 3, 4, 5, 6};
    uint16_t half = 0x3f80;
    struct safetensors_entry entries[] = {{"x\"\\\n", tensor_of(values, DTYPE_F32, SHAPE(2, 3))},
                                          {"h", tensor_of(&half, DTYPE_BF16, 0, NULL)}};
    CHECK(safetensors_write(path, entries, 2, &error) == TESSERA_OK, "%s", error.message);
    struct safetensors *file;
    CHECK(safetensors_open(path, &file, &error) == TESSERA_OK, "%s", error.message);
    const struct safetensors_entry *x = file == NULL ? NULL : safetensors_find(file, "x\"\\\n");
    CHECK(x != NULL && x->tensor.ndim == 2 && memcmp(x->tensor.data, values, sizeof values) == 0, "comes back");
    safetensors_close(file);
    unlink(path);
    CHECK(safetensors_open(path, &file, &error) == TESSERA_ERROR_IO && strstr(error.message, path) != NULL, "%s", error.message);
    free(path);
    rmdir(folder);
}

static int files_in(const char *folder) {
    int count = 0;
    DIR *listing = opendir(folder);
    for (struct dirent *entry; listing != NULL && (entry = readdir(listing)) != NULL;) count += entry->d_name[0] != '.';
    if (listing != NULL) closedir(listing);
    return count;
}

/* Piece by piece, with pieces that end anywhere; a discarded file leaves nothing. */
static void test_writer(void) {
    char folder[] = "/tmp/tessera-test-XXXXXX";
    if (mkdtemp(folder) == NULL) return;
    char *path = file_join(folder, "w.safetensors");
    tessera_error error = {0};
    float values[6] = {1, 2, 3, 4, 5, 6};
    struct safetensors_entry entries[] = {{"x", tensor_of(NULL, DTYPE_F32, SHAPE(2, 2))}, {"y", tensor_of(NULL, DTYPE_F32, SHAPE(2))}};
    struct safetensors_writer *writer;
    CHECK(safetensors_writer_open(path, entries, 2, "pt", &writer, &error) == TESSERA_OK, "%s", error.message);
    CHECK(safetensors_writer_add(writer, values, 5, &error) == TESSERA_OK, "%s", error.message);
    CHECK(!file_exists(path), "before the commit");
    CHECK(safetensors_writer_add(writer, (char *)values + 5, sizeof values - 5, &error) == TESSERA_OK, "%s", error.message);
    CHECK(safetensors_writer_commit(writer, &error) == TESSERA_OK, "%s", error.message);
    struct safetensors *file;
    CHECK(safetensors_open(path, &file, &error) == TESSERA_OK, "%s", error.message);
    const struct safetensors_entry *y = file == NULL ? NULL : safetensors_find(file, "y");
    CHECK(y != NULL && memcmp(y->tensor.data, values + 4, 8) == 0, "comes back");
    CHECK(file != NULL && strcmp(safetensors_metadata(file, "format"), "pt") == 0, "format");
    safetensors_close(file);
    unlink(path);
    CHECK(safetensors_writer_open(path, entries, 2, NULL, &writer, &error) == TESSERA_OK, "%s", error.message);
    CHECK(safetensors_writer_add(writer, values, 7, &error) == TESSERA_OK, "%s", error.message);
    safetensors_writer_discard(writer);
    CHECK(files_in(folder) == 0, "nothing is left of a discarded file");
    free(path);
    rmdir(folder);
}

static int write_corpus(const char *folder) {
    for (size_t i = 0; i < FILES; i++) {
        size_t length;
        uint8_t *bytes = make_file(files[i].header, files[i].data, &length);
        char *path = file_join(folder, files[i].name);
        struct file_output output;
        if (file_output_open(path, &output, NULL) != TESSERA_OK) return 1;
        fwrite(bytes, 1, length, output.stream);
        if (file_output_commit(&output, NULL) != TESSERA_OK) return 1;
        free(path);
        free(bytes);
    }
    return 0;
}

int main(int count, char **arguments) {
    if (count > 1) return write_corpus(arguments[1]);
    test_files();
    test_short();
    test_values();
    test_write();
    test_writer();
    return CHECK_REPORT();
}
