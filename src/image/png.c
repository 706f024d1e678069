/* PNG reading and writing; see png.h. libpng reports errors by longjmp, so everything that must survive one lives in a struct that
 * the caller of setjmp was handed. */
#include "image/png.h"

#include <errno.h>
#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/error.h"
#include "base/file.h"

/* One libpng session. `message` is what libpng said last. */
struct session {
    png_structp png;
    png_infop info;
    FILE *stream;
    uint8_t **rows;
    char message[160];
};

static void on_error(png_structp png, png_const_charp message) {
    struct session *s = png_get_error_ptr(png);
    snprintf(s->message, sizeof s->message, "%s", message);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message) {
    (void)png;
    (void)message;
}

/* Pointers to the rows of pixels [height, row_bytes]. */
static uint8_t **row_pointers(uint8_t *pixels, int height, size_t row_bytes) {
    uint8_t **rows = malloc((size_t)height * sizeof *rows);
    for (int y = 0; rows != NULL && y < height; y++) rows[y] = pixels + (size_t)y * row_bytes;
    return rows;
}

/* ---- writing ---- */

static bool write_all(struct session *s, int width, int height, const struct png_text_entry *text, int text_count) {
    if (setjmp(png_jmpbuf(s->png))) return false;
    png_init_io(s->png, s->stream);
    png_set_IHDR(s->png, s->info, (png_uint_32)width, (png_uint_32)height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    for (int i = 0; i < text_count; i++) {
        png_text chunk = {.compression = PNG_ITXT_COMPRESSION_NONE, .key = (char *)text[i].key, .text = (char *)text[i].value};
        png_set_text(s->png, s->info, &chunk, 1);
    }
    png_write_info(s->png, s->info);
    png_write_image(s->png, s->rows);
    png_write_end(s->png, s->info);
    return true;
}

static tessera_status write_stream(FILE *stream, const char *path, const uint8_t *pixels, int width, int height,
                                   const struct png_text_entry *text, int text_count, tessera_error *error) {
    struct session s = {.stream = stream, .rows = row_pointers((uint8_t *)pixels, height, (size_t)width * 3)};
    s.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &s, on_error, on_warning);
    s.info = s.png != NULL ? png_create_info_struct(s.png) : NULL;
    tessera_status status = TESSERA_OK;
    errno = 0;
    if (s.rows == NULL || s.info == NULL)
        status = error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory while writing the picture", path);
    else if (!write_all(&s, width, height, text, text_count))
        status = error_set(error, TESSERA_ERROR_IO, "%s: the picture cannot be written: %s (%s)", path, s.message, strerror(errno));
    png_destroy_write_struct(&s.png, &s.info);
    free(s.rows);
    return status;
}

/* A device, pipe or socket: there is nothing to rename. */
static tessera_status write_special(const char *path, const uint8_t *pixels, int width, int height, const struct png_text_entry *text,
                                    int text_count, tessera_error *error) {
    FILE *stream = fopen(path, "wb");
    if (stream == NULL) return error_set_errno(error, "%s cannot be opened for writing", path);
    tessera_status status = write_stream(stream, path, pixels, width, height, text, text_count, error);
    if (fclose(stream) != 0 && status == TESSERA_OK) status = error_set_errno(error, "%s: the picture cannot be written", path);
    return status;
}

tessera_status png_file_write(const char *path, const uint8_t *pixels, int width, int height, const struct png_text_entry *text,
                              int text_count, tessera_error *error) {
    struct stat facts;
    if (stat(path, &facts) == 0 && !S_ISREG(facts.st_mode) && !S_ISDIR(facts.st_mode))
        return write_special(path, pixels, width, height, text, text_count, error);
    struct file_output output = {0};
    TRY(file_output_open(path, &output, error));
    tessera_status status = write_stream(output.stream, path, pixels, width, height, text, text_count, error);
    if (status != TESSERA_OK) {
        file_output_discard(&output);
        return status;
    }
    return file_output_commit(&output, error);
}

tessera_status png_stream_write(FILE *stream, const char *name, const uint8_t *pixels, int width, int height,
                                const struct png_text_entry *text, int text_count, tessera_error *error) {
    TRY(write_stream(stream, name, pixels, width, height, text, text_count, error));
    if (fflush(stream) != 0) return error_set_errno(error, "%s: the picture cannot be written", name);
    return TESSERA_OK;
}

/* ---- reading ---- */

static void convert_to_rgb(png_structp png, png_infop info) {
    png_color_16 white = {.red = 255, .green = 255, .blue = 255, .gray = 255};
    png_set_expand(png);
    png_set_scale_16(png);
    png_set_gray_to_rgb(png);
    if ((png_get_color_type(png, info) & PNG_COLOR_MASK_ALPHA) != 0 || png_get_valid(png, info, PNG_INFO_tRNS) != 0)
        png_set_background(png, &white, PNG_BACKGROUND_GAMMA_SCREEN, 0, 1.0);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
}

static void keep_text(struct session *s, const char *key, struct png_picture *out) {
    png_textp text = NULL;
    int count = 0;
    png_get_text(s->png, s->info, &text, &count);
    for (int i = 0; i < count && out->record == NULL; i++)
        if (strcmp(text[i].key, key) == 0 && text[i].text != NULL) out->record = strdup(text[i].text);
    out->text = calloc((size_t)count + 1, sizeof *out->text);
    for (int i = 0; i < count && out->text != NULL; i++) {
        struct png_text_entry *entry = &out->text[out->text_count];
        *entry = (struct png_text_entry){strdup(text[i].key), strdup(text[i].text != NULL ? text[i].text : "")};
        out->text_count++;
    }
}

static bool read_all(struct session *s, const char *key, struct png_picture *out) {
    if (setjmp(png_jmpbuf(s->png))) return false;
    png_set_user_limits(s->png, IMAGE_MAX_SIDE, IMAGE_MAX_SIDE);
    png_init_io(s->png, s->stream);
    png_read_info(s->png, s->info);
    convert_to_rgb(s->png, s->info);
    out->width = (int)png_get_image_width(s->png, s->info);
    out->height = (int)png_get_image_height(s->png, s->info);
    size_t row_bytes = png_get_rowbytes(s->png, s->info);
    if (row_bytes != (size_t)out->width * 3) png_error(s->png, "its pixels cannot be turned into RGB");
    out->pixels = malloc(row_bytes * (size_t)out->height);
    s->rows = out->pixels != NULL ? row_pointers(out->pixels, out->height, row_bytes) : NULL;
    if (s->rows == NULL) png_error(s->png, "out of memory");
    png_read_image(s->png, s->rows);
    png_read_end(s->png, s->info);
    keep_text(s, key, out);
    return true;
}

tessera_status png_file_read(const char *path, const char *key, struct png_picture *out, tessera_error *error) {
    struct session s = {0};
    uint8_t signature[8];
    tessera_status status = TESSERA_OK;
    *out = (struct png_picture){0};
    if (file_is_folder(path)) return error_set(error, TESSERA_ERROR_IO, "%s is a folder, not a picture", path);
    s.stream = fopen(path, "rb");
    if (s.stream == NULL) return error_set_errno(error, "%s cannot be read", path);
    if (fread(signature, 1, 8, s.stream) != 8 || png_sig_cmp(signature, 0, 8) != 0) {
        fclose(s.stream);
        return error_set(error, TESSERA_ERROR_FORMAT, "%s is not a PNG file", path);
    }
    rewind(s.stream);
    s.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &s, on_error, on_warning);
    s.info = s.png != NULL ? png_create_info_struct(s.png) : NULL;
    if (s.info == NULL)
        status = error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory while reading the picture", path);
    else if (!read_all(&s, key, out))
        status = error_set(error, TESSERA_ERROR_FORMAT, "%s is broken or cut off: %s", path, s.message);
    png_destroy_read_struct(&s.png, &s.info, NULL);
    free(s.rows);
    fclose(s.stream);
    if (status != TESSERA_OK) png_picture_free(out);
    return status;
}

void png_picture_free(struct png_picture *picture) {
    free(picture->pixels);
    free(picture->record);
    for (int i = 0; i < picture->text_count; i++) {
        free((char *)picture->text[i].key);
        free((char *)picture->text[i].value);
    }
    free(picture->text);
    *picture = (struct png_picture){0};
}
