/* Errors: a status for the program and one line for the person (what is wrong, where, what to do).
 *
 * Every function that can fail for the world's reasons (files, sizes, peers) returns a
 * tessera_status and takes a tessera_error to fill in; TRY passes a failure on to the caller. Our
 * own mistakes hit assert. */
#ifndef TESSERA_BASE_ERROR_H
#define TESSERA_BASE_ERROR_H

#include "tessera_model/errors.h" /* TRY and error_set, for authors of models too */

/* As error_set, with ": <strerror(errno)>" at the end; the status is TESSERA_ERROR_IO. */
tessera_status error_set_errno(tessera_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
