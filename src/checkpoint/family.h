/* The families of single-file checkpoints: which components a file may hold, below which prefix, in
 * which layout. */
#ifndef TESSERA_CHECKPOINT_FAMILY_H
#define TESSERA_CHECKPOINT_FAMILY_H

#include "checkpoint/layout.h"
#include "tensor/safetensors.h"

/* One place where a component may lie. A component may have several; the first whose probe is there
 * counts. */
struct family_place {
    const char *component; /* "unet", "text_encoder_2", ... */
    const char *prefix;    /* of its names in the file */
    enum layout_kind kind;
    const char *probe; /* a name below the prefix that says it is there */
};

/* A count in a component's config that the file itself shows: how many numbers n from 0 on have a
 * tensor `name` ("...%d..."). */
struct family_count {
    const char *component, *field, *name;
};

struct family {
    const char *name;      /* for people */
    const char *pipelines; /* diffusers' classes of such model folders, comma-separated */
    const struct family_place *places;
    int place_count;
    const struct family_count *counts;
    int count_count;
};

/* Which family a file belongs to, by its names. UNSUPPORTED errors say what else the file is: a
 * LoRA, a refiner, an autoencoder alone. */
tessera_status family_detect(const struct safetensors *file, const struct family **out, tessera_error *error);
/* The name in assets/published that the shapes in the file prove ("sd15", "flux-dev", ...).
 * UNSUPPORTED if none does. */
tessera_status family_published(const struct family *family, const struct safetensors *file, const char **out, tessera_error *error);
/* The family of a model folder's pipeline class; NULL if it has none. */
const struct family *family_of_pipeline(const char *class_name);

/* The value that the file shows for a count; 0 if it shows none. */
int family_count_in(const struct family_count *count, const struct family_place *place, const struct safetensors *file);

/* Where the file holds `component`; NULL if it does not. */
const struct family_place *family_find_place(const struct family *family, const struct safetensors *file, const char *component);
/* The tensor PREFIX + NAME; NULL if absent. */
const struct safetensors_entry *family_find_tensor(const struct safetensors *file, const char *prefix, const char *name);

#endif
