/* Fingerprints: enough to tell whether a picture's model, or its starting picture, is still the
 * same. Not for security. */
#ifndef TESSERA_CHECKPOINT_FINGERPRINT_H
#define TESSERA_CHECKPOINT_FINGERPRINT_H

#include "tessera.h"

#define FINGERPRINT_BYTES 17 /* 16 hexadecimal digits and the end */

/* Of a model file, or of a model folder: names and sizes of all its .json, .txt, .model and
 * .safetensors files, with the whole content of files up to 1 MiB and of larger ones the first 256
 * KiB (the header) and 64 blocks of 4 KiB spread evenly. */
tessera_status fingerprint_model(const char *model, char out[FINGERPRINT_BYTES], tessera_error *error);

/* Of files, each as those of a model folder are read, in their order; their names do not count. */
tessera_status fingerprint_files(const char *const *paths, int count, char out[FINGERPRINT_BYTES], tessera_error *error);

/* Of LoRA files, each as the files of a model folder are read, in their order. */
tessera_status fingerprint_loras(const tessera_lora *loras, int count, char out[FINGERPRINT_BYTES], tessera_error *error);

/* Of bytes, e.g. a picture's pixels. */
void fingerprint_bytes(const void *data, size_t length, char out[FINGERPRINT_BYTES]);

#endif
