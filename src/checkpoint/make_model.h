/* Complete model folders of published architectures with random weights: to try, to measure and to
 * test with, without a download.
 *
 *     published folder (configs) + tokenizers + random weights --> FOLDER.PID.partial --rename--> FOLDER
 *
 * The weights are BF16 and written piece by piece; a model of any size needs a few MB of memory. A
 * tiny model has the classes, the structure and the vocabularies of the published one at small
 * widths: its configs, and the size of its pictures (generation_defaults.json), lie in tiny/ of the
 * published folder. make-model.json in the folder made records class, scale and seed. */
#ifndef TESSERA_CHECKPOINT_MAKE_MODEL_H
#define TESSERA_CHECKPOINT_MAKE_MODEL_H

#include "base/error.h"

struct make_model_options {
    const char *class_name; /* one of published_names() */
    const char *folder;     /* to be made; must not exist, or be empty */
    bool tiny;
    uint64_t seed;
    size_t max_shard_bytes; /* 0: 5 GB, as diffusers */
    /* Called after each piece of weights with bytes written so far; false: stop (CANCELLED). May be
     * NULL. */
    bool (*progress)(void *user, size_t done, size_t total);
    void *user;
};

/* On failure nothing is left behind. ARGUMENT: unknown class; IO: the folder is there already, or
 * there is no room for it. */
tessera_status make_model(const struct make_model_options *options, tessera_error *error);

#endif
