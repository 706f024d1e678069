/* Errors: one line for the person, cut to its buffer at a character boundary, without control
 * characters.
 *
 * A message is first written to a buffer of its own, so that a caller may quote error->message in
 * the new message. */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

/* The longest prefix of `text` with at most `capacity` bytes that does not end inside a UTF-8
 * character. */
static size_t utf8_prefix(const char *text, size_t capacity) {
    size_t length = strlen(text);
    if (length <= capacity) return length;
    length = capacity;
    while (length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80) length--;
    return length;
}

static tessera_status error_store(tessera_error *error, tessera_status status, const char *text) {
    if (error == NULL) return status;
    size_t length = utf8_prefix(text, sizeof error->message - 1);
    memcpy(error->message, text, length);
    error->message[length] = 0;
    text_clean(error->message);
    error->status = status;
    return status;
}

tessera_status error_set(tessera_error *error, tessera_status status, const char *format, ...) {
    char text[sizeof error->message + 8];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return error_store(error, status, text);
}

tessera_status error_set_errno(tessera_error *error, const char *format, ...) {
    int number = errno;
    char text[sizeof error->message + 8], reason[128];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    size_t length = strlen(text);
    snprintf(text + length, sizeof text - length, ": %s", strerror_r(number, reason, sizeof reason));
    return error_store(error, TESSERA_ERROR_IO, text);
}
