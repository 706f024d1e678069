/* A growing list of lines; see notices.h. */
#include "base/notices.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

tessera_status notices_add(struct notices *notices, tessera_error *error, const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    text_clean(text);
    for (int i = 0; i < notices->count; i++)
        if (strcmp(notices->lines[i], text) == 0) return TESSERA_OK;
    if (notices->count == notices->capacity) {
        int capacity = notices->capacity > 0 ? 2 * notices->capacity : 8;
        char **lines = realloc(notices->lines, (size_t)capacity * sizeof *lines);
        if (lines == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a notice");
        notices->lines = lines;
        notices->capacity = capacity;
    }
    char *copy = strdup(text);
    if (copy == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a notice");
    notices->lines[notices->count++] = copy;
    return TESSERA_OK;
}

const char *notices_at(const struct notices *notices, int index) {
    return index >= 0 && index < notices->count ? notices->lines[index] : NULL;
}

void notices_free(struct notices *notices) {
    for (int i = 0; i < notices->count; i++) free(notices->lines[i]);
    free(notices->lines);
    *notices = (struct notices){0};
}
