/* The phases of a picture one by one: they can run in different programs, on different machines and
 * days.
 *
 *     prompts --tessera_encode--> states --tessera_generate (latents_only)--> latents --tessera_decode--> picture
 *
 * The three calls give the same picture to the bit as one call of tessera_generate, if the kernels,
 * the element type and the number of threads are the same. States and latents are plain numbers. A
 * program that keeps them should keep tessera_fingerprint with them, and compare it before it uses
 * them with a model. */
#ifndef TESSERA_STAGES_H
#define TESSERA_STAGES_H

#include "tessera.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Encoded prompts: float32 tensors whose first dimension is the prompts, [negative, prompt] if the
 * picture is guided, else [prompt]. */
#define TESSERA_STATES_MAX 5
typedef struct tessera_state {
    const char *name; /* "text" [prompts, tokens, channels], "text_mask" [prompts, tokens], "pooled" [prompts, channels], "text_2", "text_2_mask" */
    int ndim;
    int64_t shape[3];
    float *data;
} tessera_state;

typedef struct tessera_states {
    size_t struct_size;
    int count; /* how many the model has */
    tessera_state states[TESSERA_STATES_MAX];
} tessera_states;
#define TESSERA_STATES {.struct_size = sizeof(tessera_states)}

/* Encodes the request's prompts with the model's text encoders, and loads nothing else. Call it on
 * all ranks; each gets the states. Free them with tessera_states_free. Errors are those of
 * tessera_generate. */
tessera_status tessera_encode(tessera_model *model, const tessera_request *request, tessera_states *states, tessera_error *error);
/* NULL is allowed; for states that tessera_encode filled. */
void tessera_states_free(tessera_states *states);

/* Decodes latents as tessera_image has them, [count, channels, rows, columns], with the model's
 * autoencoder, and loads nothing else. `request`: the one that made them, of which width, height
 * and use_resolution_binning count. Call it on all ranks. ARGUMENT if `values`, the number of
 * floats, is not that of pictures of this size. */
tessera_status tessera_decode(tessera_model *model, const tessera_request *request, const float *latents, size_t values, tessera_image *image,
                              tessera_error *error);

/* What of a model a fingerprint is of: what reads prompts (encoders, tokenizers, LoRA files that
 * change encoders), or what gives latents their meaning (the autoencoder). */
typedef enum tessera_fingerprint_kind { TESSERA_FINGERPRINT_TEXT, TESSERA_FINGERPRINT_AUTOENCODER } tessera_fingerprint_kind;
#define TESSERA_FINGERPRINT_BYTES 17 /* 16 hexadecimal digits and the end */
/* Enough to tell two models apart by mistake, not for security: of the files that are read, small
 * ones whole, large ones by their size and in samples. Where the files lie does not matter, nor
 * what else lies there. */
tessera_status tessera_fingerprint(tessera_model *model, tessera_fingerprint_kind kind, char out[TESSERA_FINGERPRINT_BYTES],
                                   tessera_error *error);

#ifdef __cplusplus
}
#endif
#endif
