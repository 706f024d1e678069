/* Files: pictures in and out, and models by name.
 *
 *     tessera_picture picture = TESSERA_PICTURE;
 *     if (tessera_picture_read("sketch.jpg", &picture, &error) == TESSERA_OK)
 *         tessera_png_write("sketch.png", NULL, picture.pixels, picture.width, picture.height, NULL, 0, &error);
 *     tessera_picture_free(&picture); */
#ifndef TESSERA_FILES_H
#define TESSERA_FILES_H

#include "tessera_stages.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A text that a PNG file carries beside its pixels. Keys are Latin-1, at most 79 bytes; values are
 * UTF-8. */
typedef struct tessera_text {
    const char *key, *value;
} tessera_text;

#define TESSERA_MAX_SIDE 16384 /* pixels of a picture's side at most */

typedef struct tessera_picture {
    size_t struct_size;
    int width, height;
    uint8_t *pixels;           /* [height, width, 3], 8-bit RGB */
    const char *note;          /* what a person should know of how the file was read, or NULL; a constant */
    const tessera_text *texts; /* [num_texts] of a PNG file */
    int num_texts;
} tessera_picture;
#define TESSERA_PICTURE                                                                                                                    \
    { .struct_size = sizeof(tessera_picture) }

/* Reads a PNG, JPEG, WebP, TIFF, GIF or BMP file as diffusers' load_image does: Pillow's RGB,
 * turned upright. IO, FORMAT, UNSUPPORTED: the message names the file. Free the picture with
 * tessera_picture_free. */
tessera_status tessera_picture_read(const char *path, tessera_picture *picture, tessera_error *error);
/* The text that a picture's file has under a key; NULL: none. */
const char *tessera_picture_text(const tessera_picture *picture, const char *key);
/* Another size, as diffusers makes it for picture to picture (Lanczos, as Pillow computes it).
 * MEMORY. */
tessera_status tessera_picture_scale(tessera_picture *picture, int width, int height, tessera_error *error);
/* NULL, and a picture that is empty, are allowed. */
void tessera_picture_free(tessera_picture *picture);

/* Writes pixels [height, width, 3] as a PNG file with `texts`. A regular file appears whole under
 * `path` or not at all. `stream`: an open FILE * to write to instead, which an error calls `path`;
 * or NULL. IO. */
tessera_status tessera_png_write(const char *path, void *stream, const uint8_t *pixels, int width, int height, const tessera_text *texts,
                                 int num_texts, tessera_error *error);

/* Called at least once a second while `file` (its path in the repository; "" for the list of files)
 * is on its way; `done` of `total` bytes are there. Return false to stop: what has arrived is
 * kept. */
typedef bool (*tessera_download)(void *user, const char *file, uint64_t done, uint64_t total);

/* Where a model lies on this machine: the folder of one of TESSERA_EMBEDDED_MODELS; the folder of
 * OWNER/NAME[@REVISION], which is downloaded into the hub's cache as far as it is not there
 * (`variant` as in tessera_model_options); of any other name, the name itself. Free *path with
 * free(). `progress` may be NULL. IO, FORMAT, UNSUPPORTED: the model cannot be had; CANCELLED: by
 * `progress`. */
tessera_status tessera_model_find(const char *model, const char *variant, tessera_download progress, void *user, char **path,
                                  tessera_error *error);
/* Whether `model` has the shape OWNER/NAME or OWNER/NAME@REVISION, and no file or folder of that
 * name is here. */
bool tessera_model_is_on_hub(const char *model);

/* diffusers' class of the pipeline that a model makes, "FluxPipeline": of a folder by its
 * model_index.json, of a single file by the names of its tensors. `path` as tessera_model_find
 * gives it. IO, FORMAT, UNSUPPORTED: it is no model. */
#define TESSERA_CLASS_BYTES 128
tessera_status tessera_path_pipeline_class(const char *path, char out[TESSERA_CLASS_BYTES], tessera_error *error);

/* Enough to tell two things apart by mistake, not for security: of the files of a model's folder,
 * or of one file, large ones in samples; and of bytes. IO. */
tessera_status tessera_path_fingerprint(const char *path, char out[TESSERA_FINGERPRINT_BYTES], tessera_error *error);
/* Of LoRA files, in their order; their scales do not count. */
tessera_status tessera_loras_fingerprint(const tessera_lora *loras, int num_loras, char out[TESSERA_FINGERPRINT_BYTES],
                                         tessera_error *error);
void tessera_bytes_fingerprint(const void *data, size_t length, char out[TESSERA_FINGERPRINT_BYTES]);

#ifdef __cplusplus
}
#endif
#endif
