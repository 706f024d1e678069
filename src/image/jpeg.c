/* See jpeg.h. libjpeg reports errors through a function that may not return: it jumps back, so all
 * that must survive lives in a struct. */
#include "image/jpeg.h"

#include <errno.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "image/exif.h"
#include "image/kinds.h"

/* stdio.h before it: jpeglib.h asks for FILE and does not include it. */
#include <jerror.h>
#include <jpeglib.h>

struct session {
    struct jpeg_error_mgr manager; /* first: libjpeg hands out its address */
    struct jpeg_progress_mgr progress;
    jmp_buf back;
    char message[JMSG_LENGTH_MAX];
    struct image *image;
    tessera_status refused; /* not by libjpeg */
};

static void on_error(j_common_ptr info) {
    struct session *s = (struct session *)info->err;
    info->err->format_message(info, s->message);
    longjmp(s->back, 1);
}

/* Level -1 is a warning: data are missing or wrong, and libjpeg goes on with grey. What lacks its
 * end is refused. */
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

enum { MOST_SCANS = 100 }; /* of a progressive file; usual are ten, and each costs the whole picture's time */

static void on_progress(j_common_ptr info) {
    if (info->is_decompressor && ((j_decompress_ptr)info)->input_scan_number > MOST_SCANS) {
        strcpy(((struct session *)info->err)->message, "too many scans");
        longjmp(((struct session *)info->err)->back, 1);
    }
}

/* EXIF before XMP, as Pillow has it. */
static int orientation_of(const struct jpeg_decompress_struct *info) {
    static const char xmp[] = "http://ns.adobe.com/xap/1.0/";
    int in_xmp = 0;
    for (jpeg_saved_marker_ptr m = info->marker_list; m != NULL; m = m->next) {
        if (m->data_length >= 6 && memcmp(m->data, "Exif\0\0", 6) == 0 && exif_orientation(m->data, m->data_length) != 0)
            return exif_orientation(m->data, m->data_length);
        if (m->data_length >= sizeof xmp && memcmp(m->data, xmp, sizeof xmp) == 0 && in_xmp == 0)
            in_xmp = exif_orientation_of_xmp((const char *)m->data, m->data_length);
    }
    return in_xmp;
}

/* A row of four inks, which files hold inverted (Adobe's habit, which Pillow takes for the rule),
 * to RGB. */
static void inks_to_rgb(const uint8_t *inks, uint8_t *rgb, size_t width) {
    for (size_t i = 0; i < width; i++)
        for (int c = 0; c < 3; c++) rgb[i * 3 + (size_t)c] = image_of_ink(inks[i * 4 + 3], (uint8_t)(255 - inks[i * 4 + (size_t)c]));
}

static void read_rows(struct session *s, struct jpeg_decompress_struct *info) {
    bool inks = info->out_color_space == JCS_CMYK;
    size_t width = info->output_width;
    JSAMPARRAY row_of_inks = inks ? info->mem->alloc_sarray((j_common_ptr)info, JPOOL_IMAGE, (JDIMENSION)width * 4, 1) : NULL;
    while (info->output_scanline < info->output_height) {
        JSAMPROW row = s->image->pixels + (size_t)info->output_scanline * width * 3;
        jpeg_read_scanlines(info, inks ? row_of_inks : &row, 1);
        if (inks) inks_to_rgb(row_of_inks[0], row, width);
    }
}

/* False: s->message says why, or `error` already does. */
static bool read_all(struct session *s, struct jpeg_decompress_struct *info, const struct image_file *file, int *orientation,
                     tessera_error *error) {
    if (setjmp(s->back)) return false;
    jpeg_create_decompress(info);
    s->progress.progress_monitor = on_progress;
    info->progress = &s->progress;
    jpeg_mem_src(info, file->data, file->length);
    jpeg_save_markers(info, JPEG_APP0 + 1, 0xFFFF);
    jpeg_read_header(info, TRUE);
    s->refused = image_check_size(file, info->image_width, info->image_height, error);
    if (s->refused != TESSERA_OK) return false;
    *orientation = orientation_of(info);
    info->out_color_space = info->num_components == 4 ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(info);
    s->refused = image_new((int)info->output_width, (int)info->output_height, s->image, error);
    if (s->refused != TESSERA_OK) return false;
    read_rows(s, info);
    jpeg_finish_decompress(info);
    return true;
}

tessera_status jpeg_read(const struct image_file *file, struct image *out, int *orientation, tessera_error *error) {
    *out = (struct image){0};
    struct session s = {.image = out};
    struct jpeg_decompress_struct info = {.err = use(&s)};
    bool good = read_all(&s, &info, file, orientation, error);
    jpeg_destroy_decompress(&info);
    if (good) return TESSERA_OK;
    image_free(out);
    return s.refused != TESSERA_OK ? s.refused : image_broken(file, s.message, error);
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
