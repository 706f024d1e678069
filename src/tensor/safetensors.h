/* The safetensors format: 8 bytes little-endian header length, a JSON header {name: {dtype, shape,
 * data_offsets}}, then bytes. https://github.com/huggingface/safetensors (format of version 0.3 and
 * later)
 *
 * A file is mapped, its header checked completely on opening (length, JSON, types, shapes, offsets
 * in range, no overlap, no hole), and tensors are lent as views into the map: valid until the file
 * is closed, never to be written. */
#ifndef TESSERA_TENSOR_SAFETENSORS_H
#define TESSERA_TENSOR_SAFETENSORS_H

#include "base/file.h"
#include "tensor/tensor.h"
#include "tessera_model/files.h"

/* The file's name of a tensor's type, for messages and lists; NULL if there is no such tensor. */
const char *safetensors_type_name(const struct safetensors *file, const char *name);

/* What a program reads and writes files with is in tessera_model/files.h: safetensors_open,
 * safetensors_write_noted and others. Their FORMAT errors name the file and the field, or what the
 * file is instead. safetensors_open also opens the files of PyTorch, without running anything in
 * them (torch_file.h), and GGUF files (gguf.h). Here is the same over bytes that the caller keeps
 * (tests, fuzzing); `name` stands for the file in messages. */
tessera_status safetensors_parse(const char *name, const uint8_t *data, size_t length, struct safetensors **out, tessera_error *error);
/* The same of a PyTorch file's bytes. */
tessera_status safetensors_parse_torch(const char *path, const uint8_t *data, size_t length, struct safetensors **out,
                                       tessera_error *error);
/* The file's bytes belong to it from now on: safetensors_close ends the map. */
void safetensors_keep_map(struct safetensors *file, struct file_map map);
/* The same interface over tensors of a file of another format (gguf.h): entries and names are
 * copied, data are lent. FORMAT if a name occurs twice. */
tessera_status safetensors_of(const char *name, const struct safetensors_entry *entries, int count, struct safetensors **out,
                              tessera_error *error);
/* IO if the file was cut since it was opened: nothing of it may then be read. */
tessera_status safetensors_check(const struct safetensors *file, tessera_error *error);

/* Lets the system take back the pages of `tensor`, a view of this file; a tensor of another place
 * is left alone. */
void safetensors_forget(const struct safetensors *file, const struct tensor *tensor);

/* The descriptor of the mapped file, and where in it `data` lies; false of bytes of another place. */
bool safetensors_locate(const struct safetensors *file, const void *data, int *descriptor, uint64_t *offset);

/* NULL if absent. Logarithmic or constant time. */
const struct safetensors_entry *safetensors_find(const struct safetensors *file, const char *name);

/* Writes piece by piece, for files larger than memory. Of the entries only names, types and shapes
 * are used; their data follow in the same order in pieces of any size. `format` becomes
 * __metadata__.format of a safetensors file ("pt" is what transformers asks for); NULL: none. */
struct safetensors_writer;
tessera_status safetensors_writer_open(const char *path, const struct safetensors_entry *entries, int count, const char *format,
                                       struct safetensors_writer **out, tessera_error *error);
tessera_status safetensors_writer_add(struct safetensors_writer *writer, const void *data, size_t bytes, tessera_error *error);
/* The file appears if every byte that the header announces was added. Both free the writer; discard
 * leaves nothing behind. */
tessera_status safetensors_writer_commit(struct safetensors_writer *writer, tessera_error *error);
void safetensors_writer_discard(struct safetensors_writer *writer);

#endif
