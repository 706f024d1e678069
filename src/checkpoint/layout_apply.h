/* Carrying out what a layout table says, on one tensor's bytes. */
#ifndef TESSERA_CHECKPOINT_LAYOUT_APPLY_H
#define TESSERA_CHECKPOINT_LAYOUT_APPLY_H

#include "checkpoint/layout.h"
#include "tensor/weights.h"

/* The diffusers tensor that lies in the original tensor `from`. A view, or without data where
 * `recipe` makes it from that (else recipe->write is NULL): a matrix of a block type that is
 * transposed becomes float32. FORMAT if the shape cannot be cut that
 * way; `name` stands for the tensor in the message. */
tessera_status layout_apply(const struct layout_change *change, const char *name, const struct tensor *from, struct tensor *to,
                            struct weights_recipe *recipe, tessera_error *error);

/* The other way: the shape of the original tensor of which `band` is a band (`band` itself if it is
 * whole). */
tessera_status layout_original_shape(const struct layout_change *change, const char *name, const struct tensor *band, struct tensor *whole,
                                     tessera_error *error);
/* What `band` contributes to the original tensor, rearranged: `band` itself, or a block of malloc
 * that *owned then holds (else NULL) and the caller frees. Bands follow one another in the order of
 * `first`. */
tessera_status layout_original_band(const struct layout_change *change, const char *name, const struct tensor *band, struct tensor *out,
                                    void **owned, tessera_error *error);

#endif
