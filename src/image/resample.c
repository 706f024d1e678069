/* See resample.h. Both passes are one function over bytes and one over floats; one that would
 * change nothing is left out, as in Pillow. */
#include "image/resample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/elementary.h"
#include "base/error.h"

enum { COLOURS = 3, FIXED_BITS = 32 - 8 - 2 }; /* of a weight behind the point: sums of bytes then fit 32 bits, sign and overshoot too */

#define PI 3.14159265358979323846

/* ---- filters ---- */

static double triangle(double x) {
    return fabs(x) < 1 ? 1 - fabs(x) : 0;
}

static double cubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

static double sinc(double x) {
    return x == 0 ? 1 : elementary_sin(PI * x) / (PI * x);
}

static double lanczos(double x) {
    return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

static double filter_at(enum resample_filter filter, double x) {
    return filter == RESAMPLE_BILINEAR ? triangle(x) : filter == RESAMPLE_BICUBIC ? cubic(x) : lanczos(x);
}

static double support_of(enum resample_filter filter) {
    return filter == RESAMPLE_BILINEAR ? 1 : filter == RESAMPLE_BICUBIC ? 2 : 3;
}

/* ---- weights of one pass ---- */

/* Output i is the sum of `count[i]` inputs from `first[i]` on, with the weights from i * longest on. */
struct weights_1d {
    int longest;
    int *first, *count;
    double *weights;
    int32_t *fixed; /* the same as whole numbers, times 2^FIXED_BITS */
};

static void weights_free(struct weights_1d *w) {
    free(w->first);
    free(w->count);
    free(w->weights);
    free(w->fixed);
}

static bool weights_alloc(struct weights_1d *w, int out, int longest) {
    size_t n = (size_t)out;
    *w = (struct weights_1d){longest, malloc(n * sizeof(int)), malloc(n * sizeof(int)), malloc(n * (size_t)longest * sizeof(double)),
                             malloc(n * (size_t)longest * sizeof(int32_t))};
    return w->first != NULL && w->count != NULL && w->weights != NULL && w->fixed != NULL;
}

static void set_nearest(struct weights_1d *w, int in, int out) {
    double scale = (double)in / out, c = 0.5 * scale;
    for (int i = 0; i < out; i++, c += scale) { /* summed up, as Pillow does: rounding decides between two pixels */
        int at = (int)c;
        w->first[i] = at < in ? at : in - 1;
        w->count[i] = 1;
        w->weights[i] = 1;
    }
}

static void set_filtered(struct weights_1d *w, int in, int out, enum resample_filter filter) {
    double scale = (double)in / out, stretch = scale > 1 ? scale : 1, support = support_of(filter) * stretch;
    for (int i = 0; i < out; i++) {
        double centre = (i + 0.5) * scale, sum = 0, *k = w->weights + (size_t)i * (size_t)w->longest;
        int low = (int)(centre - support + 0.5), high = (int)(centre + support + 0.5);
        low = low > 0 ? low : 0;
        high = high < in ? high : in;
        for (int j = low; j < high; j++) sum += k[j - low] = filter_at(filter, (j - centre + 0.5) / stretch);
        for (int j = 0; j < high - low && sum != 0; j++) k[j] /= sum;
        w->first[i] = low;
        w->count[i] = high - low;
    }
}

/* False: memory is out. */
static bool weights_make(struct weights_1d *w, int in, int out, enum resample_filter filter) {
    double stretch = in > out ? (double)in / out : 1;
    int longest = filter == RESAMPLE_NEAREST ? 1 : (int)ceil(support_of(filter) * stretch) * 2 + 1;
    if (!weights_alloc(w, out, longest)) return false;
    if (filter == RESAMPLE_NEAREST)
        set_nearest(w, in, out);
    else
        set_filtered(w, in, out, filter);
    for (int i = 0; i < out; i++)
        for (int j = 0; j < w->count[i]; j++) {
            double scaled = w->weights[i * longest + j] * (1 << FIXED_BITS);
            w->fixed[i * longest + j] = (int32_t)(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
        }
    return true;
}

/* ---- passes ---- */

/* A pass along lines: `lines` of them, whose elements are `step` values apart in both, line l
 * beginning at l * in_line and l * out_line. */
struct pass {
    int lines, out;
    size_t step, in_line, out_line;
    const struct weights_1d *w;
};

static uint8_t to_byte(int64_t sum) {
    int64_t value = sum >> FIXED_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static void pass_bytes(const struct pass *p, const uint8_t *in, uint8_t *out) {
    for (int line = 0; line < p->lines; line++)
        for (int i = 0; i < p->out; i++) {
            const uint8_t *from = in + (size_t)line * p->in_line + (size_t)p->w->first[i] * p->step;
            const int32_t *k = p->w->fixed + (size_t)i * (size_t)p->w->longest;
            for (int c = 0; c < COLOURS; c++) {
                int64_t sum = 1 << (FIXED_BITS - 1);
                for (int j = 0; j < p->w->count[i]; j++) sum += (int64_t)k[j] * from[(size_t)j * p->step + (size_t)c];
                out[(size_t)line * p->out_line + (size_t)i * p->step + (size_t)c] = to_byte(sum);
            }
        }
}

static void pass_floats(const struct pass *p, const float *in, float *out) {
    for (int line = 0; line < p->lines; line++)
        for (int i = 0; i < p->out; i++) {
            const float *from = in + (size_t)line * p->in_line + (size_t)p->w->first[i] * p->step;
            const double *k = p->w->weights + (size_t)i * (size_t)p->w->longest;
            for (int c = 0; c < COLOURS; c++) {
                double sum = 0;
                for (int j = 0; j < p->w->count[i]; j++) sum += k[j] * (double)from[(size_t)j * p->step + (size_t)c];
                out[(size_t)line * p->out_line + (size_t)i * p->step + (size_t)c] = (float)sum;
            }
        }
}

/* Along rows, [rows, in, 3] -> [rows, out, 3]: a step is a pixel. */
static struct pass along_rows(const struct weights_1d *w, int rows, int in, int out) {
    return (struct pass){rows, out, COLOURS, (size_t)in * COLOURS, (size_t)out * COLOURS, w};
}

/* Along columns, [in, columns, 3] -> [out, columns, 3]: a step is a row. */
static struct pass along_columns(const struct weights_1d *w, int columns, int out) {
    return (struct pass){columns, out, (size_t)columns * COLOURS, COLOURS, COLOURS, w};
}

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory while a picture is scaled");
}

/* One pass, or a copy where nothing is scaled. */
static void scale_bytes(const struct pass *p, bool scales, const uint8_t *in, uint8_t *out) {
    if (scales)
        pass_bytes(p, in, out);
    else
        memcpy(out, in, (size_t)p->lines * (size_t)p->out * COLOURS);
}

/* Pillow's choice since 13.0: columns go first where rows are lost, more than twice as many as
 * columns are. The order shows, since a byte is rounded between the passes. */
static bool columns_first(const struct image *in, int width, int height) {
    return height < in->height && in->height - height > 2 * (in->width - width);
}

tessera_status resample_bytes(const struct image *in, int width, int height, enum resample_filter filter, struct image *out,
                              tessera_error *error) {
    struct weights_1d across = {0}, down = {0};
    struct image between = {0};
    bool first = columns_first(in, width, height);
    *out = (struct image){0};
    bool good = weights_make(&across, in->width, width, filter) && weights_make(&down, in->height, height, filter) &&
                image_new(first ? in->width : width, first ? height : in->height, &between, NULL) == TESSERA_OK &&
                image_new(width, height, out, NULL) == TESSERA_OK;
    if (good) {
        struct pass rows = along_rows(&across, first ? height : in->height, in->width, width);
        struct pass columns = along_columns(&down, first ? in->width : width, height);
        scale_bytes(first ? &columns : &rows, first ? height != in->height : width != in->width, in->pixels, between.pixels);
        scale_bytes(first ? &rows : &columns, first ? width != in->width : height != in->height, between.pixels, out->pixels);
    } else {
        image_free(out);
    }
    image_free(&between);
    weights_free(&across);
    weights_free(&down);
    return good ? TESSERA_OK : out_of_memory(error);
}

tessera_status resample_floats(const struct image *in, int width, int height, enum resample_filter filter, float *out,
                               tessera_error *error) {
    struct weights_1d across = {0}, down = {0};
    size_t values = image_values(in), wide_values = (size_t)in->height * (size_t)width * COLOURS;
    float *pixels = malloc(values * sizeof *pixels), *wide = malloc(wide_values * sizeof *wide);
    bool good = pixels != NULL && wide != NULL && weights_make(&across, in->width, width, filter) &&
                weights_make(&down, in->height, height, filter);
    if (good) {
        struct pass rows = along_rows(&across, in->height, in->width, width), columns = along_columns(&down, width, height);
        for (size_t i = 0; i < values; i++) pixels[i] = in->pixels[i];
        pass_floats(&rows, pixels, wide);
        pass_floats(&columns, wide, out);
    }
    free(pixels);
    free(wide);
    weights_free(&across);
    weights_free(&down);
    return good ? TESSERA_OK : out_of_memory(error);
}
