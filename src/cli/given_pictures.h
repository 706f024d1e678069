/* The pictures that a command line of `tessera generate` gives: the one to start from, and the one to draw after. */
#ifndef TESSERA_CLI_GIVEN_PICTURES_H
#define TESSERA_CLI_GIVEN_PICTURES_H

#include "image/png.h"
#include "cli/record.h"

struct given_pictures {
    struct png_picture init, control; /* without pixels where none is given */
};

/* Reads those that `values` of generate.h name, and their fingerprints. IO, FORMAT: a file cannot be read; ARGUMENT: it does not have the
 * size that is asked for, or that the other one has. Free with given_pictures_free either way. */
tessera_status given_pictures_read(const struct option_value *values, struct given_pictures *out, struct record_facts *facts,
                                   tessera_error *error);
void given_pictures_free(struct given_pictures *pictures);

/* The one whose size is the default size; NULL: none is given. */
const struct png_picture *given_pictures_sized(const struct given_pictures *pictures);

#endif
