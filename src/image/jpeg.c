/* See jpeg.h. libjpeg reports errors through a function that may not return: it jumps back, so all that must survive lives in a struct. */
#include "image/jpeg.h"

#include <errno.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"

/* stdio.h before it: jpeglib.h asks for FILE and does not include it. */
#include <jerror.h>
#include <jpeglib.h>

struct session {
    struct jpeg_error_mgr manager; /* first: libjpeg hands out its address */
    jmp_buf back;
    char message[JMSG_LENGTH_MAX];
    struct image *image;
};

static void on_error(j_common_ptr info) {
    struct session *s = (struct session *)info->err;
    info->err->format_message(info, s->message);
    longjmp(s->back, 1);
}

/* Level -1 is a warning: data are missing or wrong, and libjpeg goes on with grey. What lacks its end is refused. */
static void on_message(j_common_ptr info, int level) {
    if (level < 0 && (info->err->msg_code == JWRN_JPEG_EOF || info->err->msg_code == JWRN_HIT_MARKER)) on_error(info);
}

static struct jpeg_error_mgr *use(struct session *s) {
    jpeg_std_error(&s->manager);
    s->manager.error_exit = on_error;
    s->manager.emit_message = on_message;
    return &s->manager;
}

/* ---- reading ---- */

static bool read_all(struct session *s, struct jpeg_decompress_struct *info, FILE *stream) {
    if (setjmp(s->back)) return false;
    jpeg_create_decompress(info);
    jpeg_stdio_src(info, stream);
    jpeg_read_header(info, TRUE);
    if (info->image_width > IMAGE_MAX_SIDE || info->image_height > IMAGE_MAX_SIDE) {
        snprintf(s->message, sizeof s->message, "%ux%u pixels, more than %d on a side", info->image_width, info->image_height,
                 IMAGE_MAX_SIDE);
        return false;
    }
    info->out_color_space = JCS_RGB;
    jpeg_start_decompress(info);
    if (image_new((int)info->output_width, (int)info->output_height, s->image, NULL) != TESSERA_OK) {
        strcpy(s->message, "out of memory");
        return false;
    }
    while (info->output_scanline < info->output_height) {
        JSAMPROW row = s->image->pixels + (size_t)info->output_scanline * info->output_width * 3;
        jpeg_read_scanlines(info, &row, 1);
    }
    jpeg_finish_decompress(info);
    return true;
}

tessera_status jpeg_file_read(const char *path, struct image *out, tessera_error *error) {
    *out = (struct image){0};
    FILE *stream = fopen(path, "rb");
    if (stream == NULL) return error_set_errno(error, "%s cannot be read", path);
    struct session s = {.image = out};
    struct jpeg_decompress_struct info = {.err = use(&s)};
    bool good = read_all(&s, &info, stream);
    jpeg_destroy_decompress(&info);
    fclose(stream);
    if (good) return TESSERA_OK;
    image_free(out);
    return error_set(error, TESSERA_ERROR_FORMAT, "%s is broken or cut off: %s", path, s.message);
}

/* ---- writing ---- */

static bool write_all(struct session *s, struct jpeg_compress_struct *info, int quality, FILE *stream) {
    if (setjmp(s->back)) return false;
    jpeg_create_compress(info);
    jpeg_stdio_dest(info, stream);
    info->image_width = (JDIMENSION)s->image->width;
    info->image_height = (JDIMENSION)s->image->height;
    info->input_components = 3;
    info->in_color_space = JCS_RGB;
    jpeg_set_defaults(info);
    jpeg_set_quality(info, quality, TRUE);
    jpeg_start_compress(info, TRUE);
    while (info->next_scanline < info->image_height) {
        JSAMPROW row = s->image->pixels + (size_t)info->next_scanline * info->image_width * 3;
        jpeg_write_scanlines(info, &row, 1);
    }
    jpeg_finish_compress(info);
    return true;
}

tessera_status jpeg_file_write(const char *path, const struct image *image, int quality, tessera_error *error) {
    struct file_output output = {0};
    struct image borrowed = *image;
    TRY(file_output_open(path, &output, error));
    struct session s = {.image = &borrowed};
    struct jpeg_compress_struct info = {.err = use(&s)};
    errno = 0;
    bool good = write_all(&s, &info, quality, output.stream);
    jpeg_destroy_compress(&info);
    if (good) return file_output_commit(&output, error);
    file_output_discard(&output);
    return error_set(error, TESSERA_ERROR_IO, "%s: the picture cannot be written: %s (%s)", path, s.message, strerror(errno));
}
