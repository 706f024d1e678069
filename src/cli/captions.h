/* The captions of a data set: dataset_coco.json, as Karpathy and Fei-Fei (2015) published COCO's,
 * which the evaluations of xDiT and DistriFusion read (the latter through a copy on the hub):
 *
 *     {"images": [{"filename": "COCO_val2014_000000391895.jpg", "filepath": "val2014", "split": "test",
 *                 "sentences": [{"raw": "A man ..."}]}]}
 *
 * The file is parsed as a whole, which takes some GB for the published one, and given back at once
 * but for what was chosen. */
#ifndef TESSERA_CLI_CAPTIONS_H
#define TESSERA_CLI_CAPTIONS_H

#include "tessera_model/config.h" /* struct json */

struct caption {
    int number; /* the picture's place among those that were chosen, before they were divided into shares */
    char *text;
    char *file; /* a name without a folder */
};

struct captions {
    struct caption *list; /* [count] */
    bool *is_done;        /* [count], left to who draws them */
    int count;
};

struct captions_choice {
    const char *split; /* the pictures of this split alone; NULL: all */
    bool rotate;       /* picture i has its sentence i modulo their number (DistriFusion's generate_coco.py); else its first one */
    int samples;       /* the first of them, so many; 0: all */
    int share, shares; /* of ceil(count / shares) pictures each; shares 0: all */
};

/* IO, FORMAT: the file cannot be read or has another shape (the message names file and field);
 * ARGUMENT: nothing was chosen. Free with captions_free. */
tessera_status captions_read(const char *path, const struct captions_choice *choice, struct captions *out, tessera_error *error);
/* The same of a document that is there already. */
tessera_status captions_of(const struct json *json, const struct captions_choice *choice, struct captions *out, tessera_error *error);
void captions_free(struct captions *captions);

#endif
