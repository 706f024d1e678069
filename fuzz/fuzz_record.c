/* Fuzz target: the text chunks of a picture that --from reads, our record (a first byte that is
 * even) or A1111's "parameters" (odd): they set options within their ranges, or are refused with a
 * message. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/parameters.h"
#include "cli/record.h"
#include "tessera_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A picture of one pixel with this text; its path in `path`, its file in the descriptor that is
 * returned. */
static int write_picture(const char *key, const char *value, char *path, size_t capacity) {
    const uint8_t pixel[3] = {1, 2, 3};
    const tessera_text text = {key, value};
    int descriptor = memfd_create("picture", 0);
    FILE *stream = fdopen(dup(descriptor), "wb");
    if (stream == NULL || tessera_png_write("picture", stream, pixel, 1, 1, &text, 1, NULL) != TESSERA_OK || fclose(stream) != 0) abort();
    snprintf(path, capacity, "/proc/self/fd/%d", descriptor);
    return descriptor;
}

static void check_ranges(const struct option_value *values) {
    for (int i = 0; i < GENERATE_OPTION_COUNT; i++) {
        const struct option *option = &generate_options[i];
        if (option->type != OPTION_INTEGER || !values[i].given || i == GENERATE_CLIP_SKIP) continue;
        if (values[i].integer < option->low || values[i].integer > option->high) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct option options[COMMAND_MAX_OPTIONS];
    static struct option_value values[COMMAND_MAX_OPTIONS];
    struct record_source source;
    tessera_error error = {0};
    enum options_wish wish;
    char path[64], *text = size > 0 ? strndup((const char *)data + 1, size - 1) : NULL;
    int count = command_options(&generate_command, options);
    if (text == NULL) return 0;
    if (options_parse(options, count, 0, NULL, values, NULL, &wish, &error) != TESSERA_OK) abort();
    int descriptor = write_picture(data[0] % 2 == 0 ? RECORD_KEY : PARAMETERS_KEY, text, path, sizeof path);
    if (record_source_open(path, values, 1, false, &source, &error) != TESSERA_OK && error.message[0] == 0) abort();
    check_ranges(values);
    options_free(values, count);
    record_source_close(&source);
    close(descriptor);
    free(text);
    return 0;
}
