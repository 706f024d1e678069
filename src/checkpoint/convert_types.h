/* Which element type each tensor of a conversion gets, and writing it in that type. */
#ifndef TESSERA_CHECKPOINT_CONVERT_TYPES_H
#define TESSERA_CHECKPOINT_CONVERT_TYPES_H

#include "tensor/safetensors.h"

/* Tensors whose names match `pattern` (fnmatch(3): "*" stands for anything, dots and slashes too)
 * get `dtype`. */
struct convert_rule {
    const char *pattern;
    enum dtype dtype;
};

/* The first rule that matches a tensor's name in the output decides. Where none does, weights of
 * two and more dimensions get `dtype` if their rows are whole blocks of it; small tables that
 * are no matrices (positions, PixArt's modulation), and vectors (biases, norms), stay as they are stored. */
struct convert_types {
    bool given; /* false: all types stay as they are, but for the rules */
    enum dtype dtype;
    const struct convert_rule *rules;
    int count;
};

/* The type of the tensor `name`, of which only the shape and the stored type are used. `types` may
 * be NULL: as stored. ARGUMENT if a rule gives it a block type that its rows do not fit. */
tessera_status convert_type_of(const struct convert_types *types, const char *name, const struct tensor *stored, enum dtype *out,
                               tessera_error *error);
/* Adds `tensor` to the file as `dtype`, piece by piece. FORMAT if a number is not finite or beyond
 * what the type holds. */
tessera_status convert_write(struct safetensors_writer *writer, const char *name, const struct tensor *tensor, enum dtype dtype,
                             tessera_error *error);

#endif
