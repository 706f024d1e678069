/* A model's folder without the weights that workers have: all that a client needs (tessera split
 * --client-folder).
 *
 *     model_index.json, scheduler/, tokenizer/, text_encoder/, vae/   as they are: hard links where the file system has them, else copies
 *     transformer/ or unet/   config.json, and diffusion_pytorch_model.safetensors with the tensors outside the
 * range */
#ifndef TESSERA_SPLIT_CLIENT_FOLDER_H
#define TESSERA_SPLIT_CLIENT_FOLDER_H

#include "split/part_file.h"

/* `folder`: of a whole model. ARGUMENT where it is the denoiser's alone, or `output` is there
 * already; IO. A folder that was begun is left. */
tessera_status client_folder_write(const char *folder, const struct split_range *range, const char *output, tessera_error *error);

#endif
