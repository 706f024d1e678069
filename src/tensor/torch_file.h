/* PyTorch's files (.ckpt, .pt, .pth, .bin): what torch.save writes, read without running anything.
 *
 *     since 1.6   a zip archive, its entries stored as they are: NAME/data.pkl (a pickle), NAME/data/0, NAME/data/1, ... (storages)
 *     before      pickles one after the other (a magic number, a version, a system's facts, the object, a list of keys), then each
 *                 storage: its count of elements (8 bytes) and its bytes
 *
 * A pickle is a program for a small stack machine. This one knows the instructions that build
 * numbers, texts, tuples, lists and dictionaries, and of Python's names only those by which
 * torch.save writes tensors. Any other instruction or name is refused by its name: nothing is
 * imported, called or executed.
 *
 * Of a training checkpoint the dictionary "state_dict" is taken. Dictionaries in dictionaries give
 * names with dots. Tensors are views into the bytes; those that do not lie in order, or not
 * aligned, are copied.
 *
 * The zip archive is read here and not by a library, because its entries are stored without
 * compression and must be lent from the map of the file, by their offset, which libraries for
 * archives hide; compressed or encrypted entries are refused. Left out: archives of TorchScript,
 * the tar files of PyTorch 0.1, big-endian files. Sums (CRC) are not computed, no more than for
 * other weights. */
#ifndef TESSERA_TENSOR_TORCH_FILE_H
#define TESSERA_TENSOR_TORCH_FILE_H

#include "tensor/safetensors.h"

/* Are these the first bytes of such a file? */
bool torch_file_is(const uint8_t *data, size_t length);

struct torch_file;

/* `name` stands for the file in messages; the caller keeps the bytes. FORMAT: the file breaks its
 * format. UNSUPPORTED: it holds what is refused; the message says its name. */
tessera_status torch_file_parse(const char *name, const uint8_t *data, size_t length, struct torch_file **out, tessera_error *error);
void torch_file_close(struct torch_file *file);
int torch_file_count(const struct torch_file *file);
/* Tensor `index`, in no order. */
const struct safetensors_entry *torch_file_at(const struct torch_file *file, int index);

#endif
