/* PNG reading and writing; see png.h. libpng reports errors by longjmp, so everything that must
 * survive one lives in a struct that the caller of setjmp was handed. */
#include "image/png.h"

#include <errno.h>
#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/error.h"
#include "base/file.h"
#include "image/exif.h"
#include "image/kinds.h"

enum { MOST_FILE_BYTES = 1 << 30 };

/* One libpng session. `message` is what libpng said last. */
struct session {
    png_structp png;
    png_infop info;
    FILE *stream; /* of writing */
    uint8_t **rows;
    char message[160];
    const struct image_file *file; /* of reading, */
    size_t left;                   /* so many bytes of which were not read yet */
    bool grey_16;
    uint8_t *grey;          /* [height, width, 2] of 16-bit grey */
    tessera_status refused; /* not by libpng */
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

static void read_bytes(png_structp png, png_bytep out, size_t length) {
    struct session *s = png_get_io_ptr(png);
    if (length > s->left) png_error(png, "Read Error");
    memcpy(out, s->file->data + (s->file->length - s->left), length);
    s->left -= length;
}

/* Pointers to the rows of pixels [height, row_bytes]. */
static uint8_t **row_pointers(uint8_t *pixels, int height, size_t row_bytes) {
    uint8_t **rows = malloc((size_t)height * sizeof *rows);
    for (int y = 0; rows != NULL && y < height; y++) rows[y] = pixels + (size_t)y * row_bytes;
    return rows;
}

/* ---- writing ---- */

static bool write_all(struct session *s, int width, int height, const tessera_text *text, int text_count) {
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

static tessera_status write_stream(FILE *stream, const char *path, const uint8_t *pixels, int width, int height, const tessera_text *text,
                                   int text_count, tessera_error *error) {
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
static tessera_status write_special(const char *path, const uint8_t *pixels, int width, int height, const tessera_text *text,
                                    int text_count, tessera_error *error) {
    FILE *stream = fopen(path, "wb");
    if (stream == NULL) return error_set_errno(error, "%s cannot be opened for writing", path);
    tessera_status status = write_stream(stream, path, pixels, width, height, text, text_count, error);
    if (fclose(stream) != 0 && status == TESSERA_OK) status = error_set_errno(error, "%s: the picture cannot be written", path);
    return status;
}

tessera_status png_file_write(const char *path, const uint8_t *pixels, int width, int height, const tessera_text *text, int text_count,
                              tessera_error *error) {
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

tessera_status png_stream_write(FILE *stream, const char *name, const uint8_t *pixels, int width, int height, const tessera_text *text,
                                int text_count, tessera_error *error) {
    TRY(write_stream(stream, name, pixels, width, height, text, text_count, error));
    if (fflush(stream) != 0) return error_set_errno(error, "%s: the picture cannot be written", name);
    return TESSERA_OK;
}

/* ---- reading ---- */

/* The way to RGB that Pillow takes: alpha is dropped, of 16 bits the upper 8 are kept; 16-bit grey
 * stays, for `saturate`. */
static void convert_to_rgb(struct session *s) {
    png_byte type = png_get_color_type(s->png, s->info);
    s->grey_16 = type == PNG_COLOR_TYPE_GRAY && png_get_bit_depth(s->png, s->info) == 16;
    if (type == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(s->png);
    if (type == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(s->png);
    if (!s->grey_16) {
        png_set_strip_16(s->png);
        png_set_gray_to_rgb(s->png);
    }
    png_set_strip_alpha(s->png);
    png_set_interlace_handling(s->png);
    png_read_update_info(s->png, s->info);
}

/* Pixels of 16-bit grey, big-endian, to RGB. */
static void saturate(const uint8_t *grey, uint8_t *rgb, size_t count) {
    for (size_t i = 0; i < count; i++) memset(rgb + i * 3, grey[i * 2] != 0 ? 255 : grey[i * 2 + 1], 3);
}

static void read_pixels(struct session *s, struct image *out) {
    size_t row_bytes = png_get_rowbytes(s->png, s->info), width = (size_t)out->width, height = (size_t)out->height;
    if (row_bytes != width * (s->grey_16 ? 2 : 3)) png_error(s->png, "its pixels cannot be turned into RGB");
    if (s->grey_16) s->grey = malloc(row_bytes * height);
    uint8_t *pixels = s->grey_16 ? s->grey : out->pixels;
    s->rows = pixels != NULL ? row_pointers(pixels, out->height, row_bytes) : NULL;
    if (s->rows == NULL) png_error(s->png, "out of memory");
    png_read_image(s->png, s->rows);
    if (!s->grey_16) return;
    saturate(s->grey, out->pixels, width * height);
    out->note = IMAGE_NOTE_GREY_16;
}

static png_const_textp find_text(const struct session *s, const char *key) {
    png_textp text = NULL;
    int count = 0;
    png_get_text(s->png, s->info, &text, &count);
    for (int i = 0; i < count; i++)
        if (strcmp(text[i].key, key) == 0 && text[i].text != NULL) return &text[i];
    return NULL;
}

/* All text, and the value of `key` as the record. */
static void keep_text(const struct session *s, const char *key, struct png_picture *out) {
    png_textp text = NULL;
    int count = 0;
    png_get_text(s->png, s->info, &text, &count);
    png_const_textp record = find_text(s, key);
    if (record != NULL) out->record = strdup(record->text);
    out->text = calloc((size_t)count + 1, sizeof *out->text);
    for (int i = 0; i < count && out->text != NULL; i++) {
        tessera_text *entry = &out->text[out->text_count];
        *entry = (tessera_text){strdup(text[i].key), strdup(text[i].text != NULL ? text[i].text : "")};
        out->text_count++;
    }
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* ImageMagick's way to keep EXIF: a text of three lines ("", "exif", its length) and then
 * hexadecimal digits. */
static int orientation_of_profile(const char *text) {
    uint8_t bytes[1024]; /* enough for the first directory, which comes first */
    size_t count = 0;
    for (int line = 0; line < 3 && text != NULL; line++) text = strchr(text, '\n') != NULL ? strchr(text, '\n') + 1 : NULL;
    for (int high = -1; text != NULL && *text != 0 && count < sizeof bytes; text++) {
        int digit = hex_digit(*text);
        if (digit < 0) continue;
        if (high >= 0) bytes[count++] = (uint8_t)(high << 4 | digit);
        high = high >= 0 ? -1 : digit;
    }
    return exif_orientation(bytes, count);
}

static int orientation_of(struct session *s) {
    png_bytep exif = NULL;
    png_uint_32 length = 0;
    int orientation = 0;
    if (png_get_eXIf_1(s->png, s->info, &length, &exif) != 0) orientation = exif_orientation(exif, length);
    png_const_textp profile = find_text(s, "Raw profile type exif"), xmp = find_text(s, "XML:com.adobe.xmp");
    if (orientation == 0 && profile != NULL) orientation = orientation_of_profile(profile->text);
    if (orientation == 0 && xmp != NULL) orientation = exif_orientation_of_xmp(xmp->text, strlen(xmp->text));
    return orientation;
}

/* False: s->message says why, or `error` already does (s->refused). */
static bool read_all(struct session *s, struct image *out, int *orientation, const char *key, struct png_picture *text,
                     tessera_error *error) {
    if (setjmp(png_jmpbuf(s->png))) return false;
    png_set_user_limits(s->png, 0x7FFFFFFF, 0x7FFFFFFF); /* image_check_size says what is wrong with a size */
    png_set_read_fn(s->png, s, read_bytes);
    png_read_info(s->png, s->info);
    int64_t width = png_get_image_width(s->png, s->info), height = png_get_image_height(s->png, s->info);
    s->refused = image_check_size(s->file, width, height, error);
    if (s->refused == TESSERA_OK) s->refused = image_new((int)width, (int)height, out, error);
    if (s->refused != TESSERA_OK) return false;
    convert_to_rgb(s);
    read_pixels(s, out);
    png_read_end(s->png, s->info);
    *orientation = orientation_of(s);
    if (text != NULL) keep_text(s, key, text);
    return true;
}

/* The picture, and its text chunks where `text` is not NULL. */
static tessera_status read_file(const struct image_file *file, struct image *out, int *orientation, const char *key,
                                struct png_picture *text, tessera_error *error) {
    struct session s = {.file = file, .left = file->length};
    tessera_status status = TESSERA_OK;
    *out = (struct image){0};
    s.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &s, on_error, on_warning);
    s.info = s.png != NULL ? png_create_info_struct(s.png) : NULL;
    if (s.info == NULL)
        status = error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory while reading the picture", file->path);
    else if (!read_all(&s, out, orientation, key, text, error))
        status = s.refused != TESSERA_OK ? s.refused : image_broken(file, s.message, error);
    png_destroy_read_struct(&s.png, &s.info, NULL);
    free(s.rows);
    free(s.grey);
    if (status != TESSERA_OK) image_free(out);
    return status;
}

tessera_status png_read(const struct image_file *file, struct image *out, int *orientation, tessera_error *error) {
    return read_file(file, out, orientation, NULL, NULL, error);
}

tessera_status png_file_read(const char *path, const char *key, struct png_picture *out, tessera_error *error) {
    char *data = NULL;
    size_t length = 0;
    int orientation = 0;
    struct image image;
    *out = (struct png_picture){0};
    if (file_is_folder(path)) return error_set(error, TESSERA_ERROR_IO, "%s is a folder, not a picture", path);
    TRY(file_read(path, MOST_FILE_BYTES, &data, &length, error));
    const struct image_file file = {path, (const uint8_t *)data, length};
    tessera_status status = TESSERA_OK;
    if (length < 8 || png_sig_cmp(file.data, 0, 8) != 0)
        status = error_set(error, TESSERA_ERROR_FORMAT, "%s is not a PNG file", path);
    else
        status = read_file(&file, &image, &orientation, key, out, error);
    if (status == TESSERA_OK) {
        status = exif_turn_upright(&image, orientation, error);
        out->width = image.width, out->height = image.height, out->pixels = image.pixels, out->note = image.note;
    }
    if (status != TESSERA_OK) png_picture_free(out);
    free(data);
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
