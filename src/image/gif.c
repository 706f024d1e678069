/* GIF files (GIF89a; giflib does the work); see kinds.h: the first frame. What it does not cover
 * has the transparent colour, or the palette's first, as in Pillow. */
#include <gif_lib.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "image/kinds.h"

struct source {
    const struct image_file *file;
    size_t at;
};

static int read_bytes(GifFileType *gif, GifByteType *out, int length) {
    struct source *source = gif->UserData;
    size_t left = source->file->length - source->at, count = (size_t)length < left ? (size_t)length : left;
    memcpy(out, source->file->data + source->at, count);
    source->at += count;
    return (int)count;
}

/* Skips what stands before the first frame; *transparent: the index of its transparent colour, or -1. */
static bool find_frame(GifFileType *gif, int *transparent) {
    GifRecordType type;
    *transparent = -1;
    while (DGifGetRecordType(gif, &type) == GIF_OK && type != TERMINATE_RECORD_TYPE) {
        if (type == IMAGE_DESC_RECORD_TYPE) return DGifGetImageDesc(gif) == GIF_OK;
        GifByteType *extension = NULL;
        int code;
        if (type != EXTENSION_RECORD_TYPE || DGifGetExtension(gif, &code, &extension) != GIF_OK) return false;
        if (code == GRAPHICS_EXT_FUNC_CODE && extension != NULL && extension[0] >= 4)
            *transparent = (extension[1] & 1) != 0 ? extension[4] : -1;
        while (extension != NULL)
            if (DGifGetExtensionNext(gif, &extension) != GIF_OK) return false;
    }
    return false;
}

static void put(const ColorMapObject *palette, int index, uint8_t *rgb) {
    memset(rgb, index, 3); /* where a palette ends, Pillow has grey */
    if (palette == NULL || index >= palette->ColorCount) return;
    rgb[0] = palette->Colors[index].Red;
    rgb[1] = palette->Colors[index].Green;
    rgb[2] = palette->Colors[index].Blue;
}

/* The row of the frame that comes as number `i` of `height` where rows are interlaced: every 8th,
 * those between, and so on. */
static int interlaced_row(int i, int height) {
    static const int first[] = {0, 4, 2, 1}, step[] = {8, 8, 4, 2};
    for (int pass = 0; pass < 4; pass++) {
        int rows = (height - first[pass] + step[pass] - 1) / step[pass];
        if (i < rows) return first[pass] + i * step[pass];
        i -= rows > 0 ? rows : 0;
    }
    return height - 1;
}

static bool read_frame(GifFileType *gif, int transparent, struct image *out) {
    const GifImageDesc *frame = &gif->Image;
    const ColorMapObject *palette = frame->ColorMap != NULL ? frame->ColorMap : gif->SColorMap;
    uint8_t background[3], *line = malloc((size_t)frame->Width + 1);
    bool good = line != NULL;
    put(palette, transparent >= 0 ? transparent : 0, background);
    for (size_t i = 0; i < image_values(out); i++) out->pixels[i] = background[i % 3];
    for (int i = 0; i < frame->Height && good; i++) {
        int row = frame->Top + (frame->Interlace ? interlaced_row(i, frame->Height) : i);
        good = DGifGetLine(gif, line, frame->Width) == GIF_OK;
        for (int x = 0; x < frame->Width && good; x++)
            put(palette, line[x], out->pixels + ((size_t)row * (size_t)out->width + (size_t)(frame->Left + x)) * 3);
    }
    free(line);
    return good;
}

static int at_least(int size, int end) {
    return size > end ? size : end;
}

tessera_status gif_read(const struct image_file *file, struct image *out, int *orientation, tessera_error *error) {
    struct source source = {file, 0};
    int code = 0, transparent;
    GifFileType *gif = DGifOpen(&source, read_bytes, &code);
    tessera_status status = TESSERA_OK;
    *out = (struct image){0};
    *orientation = 0;
    if (gif == NULL) return image_broken(file, "its header is not that of a GIF picture", error);
    if (!find_frame(gif, &transparent)) {
        status = image_broken(file, "it has no picture", error);
    } else {
        int width = at_least(gif->SWidth, gif->Image.Left + gif->Image.Width);
        int height = at_least(gif->SHeight, gif->Image.Top + gif->Image.Height);
        status = image_check_size(file, width, height, error);
        if (status == TESSERA_OK) status = image_new(width, height, out, error);
        if (status == TESSERA_OK && !read_frame(gif, transparent, out)) status = image_broken(file, "its pixels end early", error);
    }
    DGifCloseFile(gif, &code);
    if (status != TESSERA_OK) image_free(out);
    return status;
}
