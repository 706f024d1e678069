/* Lists of workers: what a file and words must have, and how what is missing is named. */
#include "split/workers_file.h"

#include <string.h>

#include "check.h"

static void refused(const char *text, const char *field) {
    struct workers_file file = {0};
    tessera_error error = {0};
    CHECK(workers_file_parse("w.json", text, strlen(text), &file, &error) == TESSERA_ERROR_FORMAT, "%s", text);
    CHECK(strstr(error.message, field) != NULL && strstr(error.message, "w.json") != NULL, "%s: %s", text, error.message);
    workers_file_free(&file);
}

static void test_file(void) {
    static const char text[] =
        "{\"manifest\": \"m.json\", \"manifest_pin\": \"o\", \"parts\": [{\"replicas\": [{\"url\": \"https://a\", \"pin\": \"p\", "
        "\"operator\": \"x\", \"token_file\": \"/t\"}, {\"url\": \"https://b\", \"pin\": \"q\", \"token_file\": \"t\"}]},"
        " {\"replicas\": [{\"url\": \"https://c\", \"pin\": \"r\"}]}]}";
    struct workers_file file = {0};
    tessera_error error = {0};
    CHECK(workers_file_parse("f/w.json", text, strlen(text), &file, &error) == TESSERA_OK, "%s", error.message);
    CHECK(file.count == 2 && file.parts[0].count == 2 && file.parts[1].count == 1, "%d parts", file.count);
    CHECK(strcmp(file.manifest_file, "f/m.json") == 0 && strcmp(file.manifest_pin, "o") == 0, "%s", file.manifest_file);
    const struct workers_replica *a = &file.parts[0].replicas[0], *b = &file.parts[0].replicas[1], *c = &file.parts[1].replicas[0];
    CHECK(strcmp(a->operator_name, "x") == 0 && strcmp(a->token_file, "/t") == 0 && strcmp(a->pin, "p") == 0, "%s", a->operator_name);
    CHECK(strcmp(b->token_file, "f/t") == 0 && strcmp(b->operator_name, "https://b") == 0, "%s", b->token_file);
    CHECK(c->token_file == NULL && strcmp(c->url, "https://c") == 0, "%s", c->url);
    CHECK(workers_file_check(&file, &error) == TESSERA_OK, "%s", error.message);
    workers_file_free(&file);
}

static void test_what_is_wrong(void) {
    refused("[]", "parts");
    refused("{}", "parts");
    refused("{\"parts\": []}", "parts");
    refused("{\"parts\": [1]}", "parts[0]");
    refused("{\"parts\": [{\"replicas\": []}]}", "parts[0].");
    refused("{\"parts\": [{\"replicas\": [1]}]}", "parts[0].replicas[0].");
    refused("{\"parts\": [{\"replicas\": [{\"pin\": \"p\"}]}]}", "replicas[0].url");
    refused("{\"parts\": [{\"replicas\": [{\"url\": \"u\"}]}]}", "replicas[0].pin");
    refused("{\"parts\": [{\"replicas\": [{\"url\": \"u\", \"pin\": 3}]}]}", "replicas[0].pin");
    refused("{\"parts\": [{\"replicas\": [{\"url\": \"u\", \"pin\": \"p\", \"operater\": \"x\"}]}]}", "operater");
    refused("{\"parts\": [{\"replica\": []}]}", "parts[0].replica");
    refused("{\"manifest_pin\": \"p\", \"parts\": []}", "manifest_pin");
    refused("{\"parts\": ", "w.json");
}

static void words(const char *text, tessera_status expected, const char *says) {
    struct workers_file file = {0};
    tessera_error error = {0};
    CHECK(workers_file_add(&file, text, "t", &error) == expected, "%s: %s", text, error.message);
    if (expected != TESSERA_OK) CHECK(strstr(error.message, says) != NULL, "%s: %s", text, error.message);
    workers_file_free(&file);
}

static void test_words(void) {
    struct workers_file file = {0};
    tessera_error error = {0};
    CHECK(workers_file_add(&file, "2=https://a:1#sha256//x=,https://b:2#y", "t", &error) == TESSERA_OK, "%s", error.message);
    CHECK(file.count == 2 && file.parts[1].count == 2, "%d", file.count);
    CHECK(strcmp(file.parts[1].replicas[0].pin, "sha256//x=") == 0 && strcmp(file.parts[1].replicas[1].url, "https://b:2") == 0, "%s",
          file.parts[1].replicas[0].pin);
    CHECK(workers_file_check(&file, &error) == TESSERA_ERROR_ARGUMENT && strstr(error.message, "part 1") != NULL, "%s", error.message);
    CHECK(workers_file_add(&file, "1=https://c#z", NULL, &error) == TESSERA_OK && workers_file_check(&file, &error) == TESSERA_OK, "%s",
          error.message);
    workers_file_free(&file);
    words("https://a#p", TESSERA_ERROR_ARGUMENT, "number of its part");
    words("0=https://a#p", TESSERA_ERROR_ARGUMENT, "number of its part");
    words("65=https://a#p", TESSERA_ERROR_ARGUMENT, "number of its part");
    words("1=https://a", TESSERA_ERROR_ARGUMENT, "URL#PIN");
    words("1=https://a#", TESSERA_ERROR_ARGUMENT, "URL#PIN");
    words("1=https://a#p,", TESSERA_ERROR_ARGUMENT, "URL#PIN");
}

int main(void) {
    test_file();
    test_what_is_wrong();
    test_words();
    return CHECK_REPORT();
}
