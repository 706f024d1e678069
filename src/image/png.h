/* PNG files with text chunks (PNG specification, third edition; libpng does the work).
 *
 * Text is UTF-8 in iTXt chunks. Reading turns any PNG into 8-bit RGB as Pillow does (kinds.h) and
 * keeps the text; libpng's own errors become statuses that name the file. */
#ifndef TESSERA_IMAGE_PNG_H
#define TESSERA_IMAGE_PNG_H

#include <stdio.h>

#include "image/image.h"

struct png_picture {
    int width, height;
    uint8_t *pixels;             /* [height, width, 3] */
    char *record;                /* the value of the text chunk asked for, or NULL */
    tessera_text *text;          /* [text_count] all text chunks */
    int text_count;
    const char *note; /* as struct image's */
};

/* pixels [height, width, 3]. A regular file appears whole under `path` or not at all; a device or
 * pipe is written directly. */
tessera_status png_file_write(const char *path, const uint8_t *pixels, int width, int height, const tessera_text *text, int text_count,
                              tessera_error *error);
/* The same to an open stream, which is flushed; `name` is what an error calls it. */
tessera_status png_stream_write(FILE *stream, const char *name, const uint8_t *pixels, int width, int height, const tessera_text *text,
                                int text_count, tessera_error *error);
/* Free with png_picture_free. `key` names the chunk of text that becomes the record. */
tessera_status png_file_read(const char *path, const char *key, struct png_picture *out, tessera_error *error);
void png_picture_free(struct png_picture *picture);

#endif
