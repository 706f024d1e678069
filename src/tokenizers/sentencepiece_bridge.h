/* sentencepiece for C: a model from a serialised ModelProto, and ids of a text. No exception passes this line. */
#ifndef TESSERA_TOKENIZERS_SENTENCEPIECE_BRIDGE_H
#define TESSERA_TOKENIZERS_SENTENCEPIECE_BRIDGE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sentencepiece_model;

/* NULL and a message (cut at `capacity`) if the library refuses the model. */
struct sentencepiece_model *sentencepiece_open(const char *proto, size_t length, char *message, size_t capacity);
void sentencepiece_close(struct sentencepiece_model *model);
/* Calls `append` with each id; 0 if the library or `append` (0: stop) failed. */
int sentencepiece_encode(const struct sentencepiece_model *model, const char *text, size_t length, int (*append)(void *user, int32_t id),
                         void *user);

#ifdef __cplusplus
}
#endif
#endif
