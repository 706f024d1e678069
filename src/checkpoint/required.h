/* The tensors that a component's model asks for, by its config.json: the model's own code lists
 * them (load_hooks.record). */
#ifndef TESSERA_CHECKPOINT_REQUIRED_H
#define TESSERA_CHECKPOINT_REQUIRED_H

#include "base/json.h"
#include "tensor/tensor.h"

struct required_tensor {
    char *name; /* in diffusers' or transformers' layout */
    int ndim;
    int64_t shape[TENSOR_MAX_DIMS];
    bool seen; /* for the caller */
};

struct required {
    struct required_tensor *tensors; /* sorted by name */
    int count, capacity;
    bool out_of_memory;
};

/* For `config`, which is freed, or if it is NULL for FOLDER/config.json. Free with required_free
 * either way. */
tessera_status required_read(const char *folder, struct json *config, struct required *out, tessera_error *error);
void required_free(struct required *required);

/* The tensor that is stored as `name`, which may be the name of another version of diffusers or
 * transformers (without "text_model.", attention of the autoencoder before 2023, T5's second name
 * for its embedding); NULL if the model does not ask for it. */
struct required_tensor *required_find(const struct required *required, const char *name);
/* Whether a stored tensor has the shape asked for; a 1x1 convolution passes for a linear layer and
 * the other way round, and dimensions of 1 at the beginning do not count. */
bool required_fits(const struct required_tensor *required, const struct tensor *stored);

#endif
