/* The JSON face (defaults, types, ranges, paths, broken text) and the error messages it is written
 * with. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "check.h"

static const char *text =
    "{\"a\": 3, \"b\": {\"c\": true, \"s\": \"x\"}, \"n\": null, \"f\": 1.5, \"big\": 1e999, \"list\": [1, 2, 3], \"mixed\": [1, \"x\"]}\n";

static void test_values(const struct json *json) {
    int64_t integer = 0, list[3] = {0};
    int count = 0;
    double number = 0;
    bool flag = false;
    const char *string = NULL;
    CHECK(json_int(json, "a", 9, 0, 10, &integer, NULL) == TESSERA_OK && integer == 3, "%lld", (long long)integer);
    CHECK(json_int(json, "missing", 9, 0, 10, &integer, NULL) == TESSERA_OK && integer == 9, "default");
    CHECK(json_int(json, "n", 9, 0, 10, &integer, NULL) == TESSERA_OK && integer == 9, "null is the default");
    CHECK(json_int(json, "a.x", 9, 0, 10, &integer, NULL) == TESSERA_OK && integer == 9, "below a number is nothing");
    CHECK(json_double(json, "f", 0, &number, NULL) == TESSERA_OK && number == 1.5, "%g", number);
    CHECK(json_bool(json, "b.c", false, &flag, NULL) == TESSERA_OK && flag, "path");
    CHECK(json_string(json, "b.s", NULL, &string, NULL) == TESSERA_OK && strcmp(string, "x") == 0, "string");
    CHECK(json_ints(json, "list", 0, 5, list, 3, &count, NULL) == TESSERA_OK && count == 3 && list[2] == 3, "list");
    CHECK(json_ints(json, "missing", 0, 5, list, 3, &count, NULL) == TESSERA_OK && count == 0, "no list");
}

static void expect(tessera_status status, const tessera_error *error, const char *field) {
    CHECK(status == TESSERA_ERROR_FORMAT && strstr(error->message, "f.json") != NULL && strstr(error->message, field) != NULL,
          "%d, %s: \"%s\"", status, field, error->message);
}

static void test_wrong(const struct json *json) {
    tessera_error error = {0};
    int64_t integer, list[3];
    int count;
    double number;
    bool flag;
    const char *string;
    expect(json_int(json, "a", 0, 4, 10, &integer, &error), &error, "\"a\" is 3");
    expect(json_int(json, "f", 0, 0, 10, &integer, &error), &error, "\"f\"");
    expect(json_int(json, "big", 0, 0, 10, &integer, &error), &error, "\"big\"");
    expect(json_double(json, "big", 0, &number, &error), &error, "\"big\"");
    expect(json_bool(json, "a", false, &flag, &error), &error, "\"a\"");
    expect(json_string(json, "b", NULL, &string, &error), &error, "\"b\"");
    expect(json_ints(json, "list", 0, 5, list, 2, &count, &error), &error, "\"list\"");
    expect(json_ints(json, "list", 0, 2, list, 3, &count, &error), &error, "list[2]");
    expect(json_ints(json, "mixed", 0, 2, list, 3, &count, &error), &error, "mixed[1]");
}

static void test_broken(void) {
    static const char *const broken[] = {"", "{", "{\"1\":1,", "[1, 2", "{\"a\": tru}", "{} x", "{\"a\":\n\n1,}", "\"\\u12"};
    tessera_error error = {0};
    struct json *json;
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        expect(json_parse("f.json", broken[i], strlen(broken[i]), &json, &error), &error, "not JSON");
        CHECK(json == NULL, "%s", broken[i]);
    }
    expect(json_parse("f.json", "{}\0{}", 5, &json, &error), &error, "not JSON");
    char deep[5000];
    memset(deep, '[', sizeof deep);
    expect(json_parse("f.json", deep, sizeof deep, &json, &error), &error, "not JSON");
    CHECK(json_open("tests/none.json", 0, &json, &error) == TESSERA_ERROR_IO && strstr(error.message, "none.json") != NULL, "%s",
          error.message);
}

static void test_messages(void) {
    tessera_error error = {0};
    char longer[1100];
    memset(longer, 'x', sizeof longer);
    memcpy(longer + 1022, "\xc3\xa9", 3); /* a two-byte character across the end of the buffer */
    error_set(&error, TESSERA_ERROR_IO, "%s", longer);
    CHECK(strlen(error.message) == 1022, "%zu", strlen(error.message));
    error_set(&error, TESSERA_ERROR_FORMAT, "first");
    error_set(&error, TESSERA_ERROR_FORMAT, "%s and second", error.message);
    CHECK(strcmp(error.message, "first and second") == 0, "%s", error.message);
    errno = ENOENT;
    CHECK(error_set_errno(&error, "f") == TESSERA_ERROR_IO && strcmp(error.message, "f: No such file or directory") == 0, "%s",
          error.message);
    CHECK(error_set(NULL, TESSERA_ERROR_MEMORY, "x") == TESSERA_ERROR_MEMORY, "no error to fill in");
}

int main(void) {
    tessera_error error = {0};
    struct json *json;
    CHECK(json_parse("f.json", text, strlen(text), &json, &error) == TESSERA_OK, "%s", error.message);
    if (json != NULL) {
        test_values(json);
        test_wrong(json);
    }
    json_free(json);
    test_broken();
    test_messages();
    return CHECK_REPORT();
}
