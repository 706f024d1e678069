/* The split factory: a model's blocks as part files, and the manifest that lists them.
 *
 *     embed | 0 | 1 2 3 | 4 5 6 | 7 | finish        first 1, end 7, two parts: the client keeps the rest
 *                part 1   part 2
 */
#ifndef TESSERA_SPLIT_FACTORY_H
#define TESSERA_SPLIT_FACTORY_H

#include "split/manifest.h"

struct factory_options {
    const char *model;   /* what the manifest calls it */
    const char *folder;  /* of the model, or of its denoiser */
    int first, last;     /* blocks, both inclusive; -1: all but the model's first and, unless has_last_block, its last one */
    bool has_last_block; /* the final norm and projection go with the last part, which must end in the last block */
    int parts;           /* as many files, of sizes as equal as whole blocks allow */
    /* The file to write, which ends in ".safetensors"; of several parts "-1-of-3" and so on come
     * before that, and ".manifest.json" takes its place for the manifest. */
    const char *output;
    const char *client_folder; /* the model without the parts' blocks (client_folder.h) goes to this new folder; NULL: it is not written */
    const struct identity *owner;                                               /* who signs the manifest; NULL: none is written */
    void (*report)(void *user, const char *path, const struct part_file *part); /* each file that is written; or NULL */
    bool (*stop)(void *user);                                                   /* asked before each part; or NULL */
    void *user;
};

/* ARGUMENT where the model has no such blocks; CANCELLED, and no file of the part that was next,
 * where `stop` says so. */
tessera_status factory_split(const struct factory_options *options, tessera_error *error);
/* Where the manifest goes; the caller frees it; NULL where memory is out. */
char *factory_manifest_path(const char *output);

#endif
