/* A part of a split model: some of a denoiser's blocks in a safetensors file, which says itself
 * what it is.
 *
 *     __metadata__   "tessera.specification"  "tessera-split-1"
 *                    "tessera.class"          "SD3Transformer2DModel"
 *                    "tessera.configuration"  the text of config.json
 *                    "tessera.first", "tessera.last"   blocks, both inclusive, from 0
 *                    "tessera.has_last_block" "true" or "false": the final norm and projection are here, too
 *     tensors        under the names and in the types that they have in the model
 *
 * Its digest names the content: it changes with any weight, name, type, shape, with the
 * configuration and with the range, but not with the file's layout. SHA-256 of, in canonical.h's
 * bytes:
 *
 *     "tessera-part-1\0"
 *     text class, SHA-256 of the configuration's text, u32 first, u32 last, u32 has_last_block
 *     u32 tensors, and for each, in the order of their names' bytes:
 *         text name, text type ("F32", "F16", "BF16", "F8_E4M3", ...), u32 ndim, u64 shape[ndim], u64 bytes, the
 * bytes */
#ifndef TESSERA_SPLIT_PART_FILE_H
#define TESSERA_SPLIT_PART_FILE_H

#include "models/registry.h"
#include "split/range.h"

#define SPLIT_SPECIFICATION "tessera-split-1"

/* What a part file, or a manifest's entry, says. */
struct part_header {
    char *class_name, *configuration; /* owned */
    struct split_range range;
    uint8_t digest[CANONICAL_HASH_BYTES];
};
void part_header_free(struct part_header *header); /* zeros are fine */

/* The blocks of a part, opened: described, with its weights checked, nothing in memory.
 * component.scope is the range. */
struct part_file {
    struct component component;
    struct part_header header;
    uint64_t bytes; /* of its tensors */
};

/* Opens a part file, checks every field and tensor, and computes its digest, which reads the whole
 * file. FORMAT naming file and field. */
tessera_status part_file_open(const char *path, enum dtype dtype, struct part_file *out, tessera_error *error);
/* The same range of a whole model: a model's folder, or its denoiser's; the digest is that of the
 * file which part_file_write would make. `known`: it may come from an earlier time, if no file has
 * changed since (known_digests.h); then `bytes` is 0. */
tessera_status part_file_of_model(const char *folder, const struct split_range *range, enum dtype dtype, bool known, struct part_file *out,
                                  tessera_error *error);
/* Are the weights of the range in a model's folder? `header` gets class, configuration and range;
 * part_header_free either way. */
tessera_status part_file_is_in_model(const char *folder, const struct split_range *range, struct part_header *header, bool *is,
                                     tessera_error *error);
/* The folder of a model's denoiser: transformer/ or unet/ in it, or the folder itself. The caller
 * frees it. UNSUPPORTED for a single file. */
tessera_status part_file_denoiser_folder(const char *folder, char **out, tessera_error *error);
void part_file_close(struct part_file *file); /* zeros are fine */

/* Writes the range of an open model (part_file_of_model) to a new file, which appears whole or not
 * at all; header gets what it says. Existing files are replaced. UNSUPPORTED where weights have a
 * type that safetensors files do not have. */
tessera_status part_file_write(const struct part_file *model, const char *path, tessera_error *error);

/* Writes the tensors of a denoiser's folder that are not of the range's blocks alone: what a client
 * needs who has the range computed by others. Errors as above. */
tessera_status part_file_write_rest(const char *folder, const struct split_range *range, const char *path, tessera_error *error);

#endif
