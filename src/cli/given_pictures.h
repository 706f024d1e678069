/* The pictures that a command line of `tessera generate` gives: the one to start from, and the one
 * to draw after. */
#ifndef TESSERA_CLI_GIVEN_PICTURES_H
#define TESSERA_CLI_GIVEN_PICTURES_H

#include "cli/record.h"

struct given_pictures {
    tessera_picture init, control; /* without pixels where none is given */
};

/* Reads those that `values` of generate.h name, and their fingerprints. IO, FORMAT: a file cannot
 * be read. Free with given_pictures_free either way. */
tessera_status given_pictures_read(const struct option_value *values, struct given_pictures *out, struct record_facts *facts,
                                   tessera_error *error);
/* Scales them as diffusers does (Lanczos, Pillow's) to the width and height that are given, else to
 * the first one's own size, rounded down to multiples of `unit`; `speaks`: with a line where nobody
 * gave the size. */
tessera_status given_pictures_scale(const struct option_value *values, int unit, bool speaks, struct given_pictures *pictures,
                                    tessera_error *error);
void given_pictures_free(struct given_pictures *pictures);

/* The one whose size is the default size; NULL: none is given. */
const tessera_picture *given_pictures_sized(const struct given_pictures *pictures);

#endif
