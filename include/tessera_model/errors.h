/* Errors: a status for the program and one line for the person (what is wrong, where, what to do).
 * Included by tessera_model.h. */
#ifndef TESSERA_MODEL_ERRORS_H
#define TESSERA_MODEL_ERRORS_H

#include "tessera.h"
#include "tessera_names.h"

/* Passes a failure on to the caller. */
#define TRY(call)                                                                                                                          \
    do {                                                                                                                                   \
        tessera_status try_status = (call);                                                                                                \
        if (try_status != TESSERA_OK) return try_status;                                                                                   \
    } while (0)

/* Writes the message (cut at the end of the buffer, never in the middle of a UTF-8 character) and
 * returns `status`. `error` may be NULL. */
tessera_status error_set(tessera_error *error, tessera_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
