/* The weights of one component: one file, or several with an index ("weight_map": name -> shard).
 *
 * In a folder the first of these is taken that is there:
 *
 *     diffusion_pytorch_model.safetensors, model.safetensors                each or its .index.json
 *     the same with a variant: diffusion_pytorch_model.fp16.safetensors     fp16 first; diffusers' and the older names of indices
 *     diffusion_pytorch_model.bin, pytorch_model.bin                        PyTorch's files; then these with a variant
 *
 * A requested variant comes before all of them. Shards are mapped when opened; nothing is read
 * until it is used. Every shard that the index names must exist and hold the tensors that the index
 * says.
 *
 * Weights can also be a view: tensors that lie in another file, under other names, cut or
 * rearranged (single-file checkpoints). */
#ifndef TESSERA_TENSOR_WEIGHTS_H
#define TESSERA_TENSOR_WEIGHTS_H

#include "tensor/safetensors.h"

struct weights;

tessera_status weights_open(const char *folder, struct weights **out, tessera_error *error);
/* The same, the files of a variant ("fp16") first; a folder without that variant gives what it has,
 * as in diffusers. NULL: none. */
tessera_status weights_open_variant(const char *folder, const char *variant, struct weights **out, tessera_error *error);
/* Whether a folder has weights that weights_open would take. */
bool weights_are_in(const char *folder);
/* Whether it has some of this variant. */
bool weights_have_variant(const char *folder, const char *variant);
void weights_close(struct weights *weights);
/* IO if one of its files was cut since it was opened: nothing may then be read. `weights` may be
 * NULL. */
tessera_status weights_check(const struct weights *weights, tessera_error *error);

/* An empty view; `label` stands for the folder in messages. Add tensors, then finish, then use it
 * like any weights. */
tessera_status weights_view_new(const char *label, struct weights **out, tessera_error *error);
/* How a tensor comes about that does not lie in a file as it is wanted. */
struct weights_recipe {
    void (*write)(const struct tensor *source, void *to); /* writes all its bytes; NULL: there is no recipe */
    struct tensor source;                                 /* lent as the data of other tensors are */
};
/* Adds `tensor` under `name` (copied). The data is lent (by a file given with weights_view_keep),
 * or NULL, and then `recipe` says how it is made; without one `recipe` is NULL. */
tessera_status weights_view_add(struct weights *weights, const char *name, const struct tensor *tensor, const struct weights_recipe *recipe,
                                tessera_error *error);
/* The view closes `file` when it is closed; on failure it is closed at once. One file per view. */
tessera_status weights_view_keep(struct weights *weights, struct safetensors *file, tessera_error *error);
/* Sorts the names. FORMAT if one occurs twice. */
tessera_status weights_view_finish(struct weights *weights, tessera_error *error);

/* A view into the map, which may be misaligned; without data where a recipe makes it. A missing
 * tensor is a FORMAT error that names folder and tensor. */
tessera_status weights_get(const struct weights *weights, const char *name, struct tensor *out, tessera_error *error);
/* The mapped bytes that a tensor which is there comes from: itself, or its recipe's source. */
struct tensor weights_source(const struct weights *weights, const char *name);
/* Writes all bytes of a tensor that is there to `to`, which may be misaligned only where no recipe
 * makes it. `source`: that of weights_source, whose bytes may lie elsewhere by now; NULL: where
 * they are mapped. */
void weights_read(const struct weights *weights, const char *name, const struct tensor *source, void *to);
/* Where mapped bytes lie in their file, whose descriptor and path are the weights'; false of any
 * other bytes. */
struct weights_place {
    const char *path;
    int descriptor;
    uint64_t offset;
};
bool weights_locate(const struct weights *weights, const void *data, struct weights_place *out);
int weights_files(const struct weights *weights);
const char *weights_file(const struct weights *weights, int index); /* its path */
/* Lets the system take back the mapped pages of `tensor`, a view of one of the files or any other.
 * `weights` may be NULL. */
void weights_forget(const struct weights *weights, const struct tensor *tensor);
/* The name of a tensor's stored type, for messages. */
const char *weights_type_name(const struct weights *weights, const char *name);
bool weights_has(const struct weights *weights, const char *name);
const char *weights_folder(const struct weights *weights);
int weights_count(const struct weights *weights); /* tensors */
const struct safetensors_entry *weights_at(const struct weights *weights, int index);
int64_t weights_parameters(const struct weights *weights); /* elements of floating-point tensors */
size_t weights_bytes(const struct weights *weights);
/* What they take once they are loaded to compute in `dtype`: small types stay as they are. */
size_t weights_loaded_bytes(const struct weights *weights, enum dtype dtype);

#endif
