/* Picture parity: generates every picture of a list with a model folder and compares it with
 * diffusers' own picture.
 *
 *     parity --dtype f32|bf16 [--model FOLDER] [--pictures FOLDER]
 *
 * FOLDER/list.tsv has one picture a line (file, seed, prompt, separated by tabs); everything else
 * of the request is the model folder's default. The measure is the PSNR (metrics/psnr.h). float32
 * must reach 60 dB for each picture (a value off by one here and there); bfloat16 must reach 44 dB
 * for each and a median of 50 dB, or, where the line has a fourth part, what diffusers' own
 * bfloat16 arithmetic reaches for this picture (make_bf16.py), less 3 dB. It does not compare
 * latents: the case folders do.
 */
#include "tessera.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/order.h"
#include "metrics/psnr.h"

enum { LINE_LENGTH = 1024, PICTURES_MAX = 256 };
#define LESS_DB 3.0 /* than diffusers' own bfloat16 */

struct bounds {
    const char *dtype_name;
    tessera_dtype dtype;
    double least_db, median_db;
};

static const struct bounds bounds_table[] = {
    {"f32", TESSERA_F32, 60.0, 60.0},
    {"bf16", TESSERA_BF16, 44.0, 50.0},
};

struct entry {
    char file[LINE_LENGTH];
    uint64_t seed;
    char prompt[LINE_LENGTH];
    double own_db; /* of diffusers' bfloat16; NAN where the list does not say */
};

struct measure {
    double db, least_db; /* reached; to be reached */
};

/* Parses "file TAB seed TAB prompt [TAB own_db]"; false if a part is missing. */
static bool entry_parse(char *line, struct entry *entry) {
    line[strcspn(line, "\r\n")] = '\0';
    char *seed = strchr(line, '\t');
    char *prompt = seed != NULL ? strchr(seed + 1, '\t') : NULL;
    if (prompt == NULL) return false;
    *seed++ = '\0';
    *prompt++ = '\0';
    char *end = NULL, *own = strchr(prompt, '\t');
    entry->own_db = own != NULL ? strtod(own + 1, NULL) : NAN;
    if (own != NULL) *own = '\0';
    entry->seed = strtoull(seed, &end, 10);
    if (end == seed || *end != '\0') return false;
    snprintf(entry->file, sizeof entry->file, "%s", line);
    snprintf(entry->prompt, sizeof entry->prompt, "%s", prompt);
    return true;
}

/* Generates one picture and measures it against its copy; NAN (with a message) if either cannot be
 * had. */
static double entry_measure(tessera_model *model, const struct entry *entry, const char *folder) {
    char path[2 * LINE_LENGTH];
    snprintf(path, sizeof path, "%s/%s", folder, entry->file);
    tessera_request request = TESSERA_REQUEST;
    tessera_request_defaults(model, false, &request);
    request.prompt = entry->prompt;
    request.seed = entry->seed;
    tessera_error error = {0};
    tessera_image image = TESSERA_IMAGE;
    if (tessera_generate(model, &request, &image, &error) != TESSERA_OK) {
        fprintf(stderr, "%s: %s\n", entry->file, error.message);
        return NAN;
    }
    double db = NAN;
    struct image made = {.width = image.width, .height = image.height, .pixels = image.pixels}, expected = {0};
    if (image_file_read(path, &expected, &error) != TESSERA_OK)
        fprintf(stderr, "%s\n", error.message);
    else if (expected.width != made.width || expected.height != made.height)
        fprintf(stderr, "%s: %d x %d pixels, generated %d x %d\n", path, expected.width, expected.height, made.width, made.height);
    else
        db = psnr(&made, &expected);
    printf("%s %8.2f dB  %.2f s  %s\n", entry->file, db, image.seconds_text + image.seconds_denoise + image.seconds_decode, entry->prompt);
    fflush(stdout);
    image_free(&expected);
    tessera_image_free(&image);
    return db;
}

/* Measures every line of FOLDER/list.tsv into out[PICTURES_MAX]; the number of pictures, or -1 if
 * the list is unusable. */
static int list_measure(tessera_model *model, const char *folder, const struct bounds *bounds, struct measure *out) {
    char line[LINE_LENGTH];
    snprintf(line, sizeof line, "%s/list.tsv", folder);
    FILE *list = fopen(line, "r");
    if (list == NULL) {
        perror(line);
        return -1;
    }
    int count = 0;
    struct entry entry;
    while (count >= 0 && fgets(line, sizeof line, list) != NULL) {
        if (count == PICTURES_MAX || !entry_parse(line, &entry)) {
            fprintf(stderr, "%s/list.tsv: line %d is not file, seed, prompt, or is one too many\n", folder, count + 1);
            count = -1;
        } else {
            bool own = bounds->dtype == TESSERA_BF16 && !isnan(entry.own_db);
            out[count].least_db = own ? entry.own_db - LESS_DB : bounds->least_db;
            out[count++].db = entry_measure(model, &entry, folder);
        }
    }
    fclose(list);
    return count;
}

/* Holds the measures to their bounds and prints the verdict; a missing picture (NAN) fails. */
static bool verdict(const struct measure *all, int count, const struct bounds *bounds) {
    double db[PICTURES_MAX];
    int below = 0;
    bool usual = true;
    for (int i = 0; i < count; i++) {
        db[i] = isnan(all[i].db) ? -INFINITY : all[i].db;
        bool good = db[i] >= all[i].least_db;
        if (!good) printf("picture %d of the list: %.2f dB, below %.2f\n", i + 1, db[i], all[i].least_db);
        below += !good;
        usual = usual && all[i].least_db == bounds->least_db;
    }
    if (count == 0) {
        fprintf(stderr, "the list names no picture\n");
        return false;
    }
    qsort(db, (size_t)count, sizeof *db, order_doubles);
    double low = db[(count - 1) / 2], high = db[count / 2];
    double median = low == high ? low : (low + high) / 2;
    bool passed = below == 0 && (!usual || median >= bounds->median_db);
    printf("%s: %d pictures, %d below their bound, least %.2f dB, median %.2f dB: %s\n", bounds->dtype_name, count, below, db[0], median,
           passed ? "passed" : "FAILED");
    return passed;
}

static const struct bounds *bounds_find(const char *name) {
    for (size_t i = 0; i < sizeof bounds_table / sizeof *bounds_table; i++)
        if (name != NULL && strcmp(bounds_table[i].dtype_name, name) == 0) return &bounds_table[i];
    return NULL;
}

int main(int argc, char **argv) {
    const char *dtype = NULL, *folder = "models/emoji", *pictures = "tests/emoji-pictures";
    bool known = argc % 2 == 1;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--dtype") == 0)
            dtype = argv[i + 1];
        else if (strcmp(argv[i], "--model") == 0)
            folder = argv[i + 1];
        else if (strcmp(argv[i], "--pictures") == 0)
            pictures = argv[i + 1];
        else
            known = false;
    }
    const struct bounds *bounds = bounds_find(dtype);
    if (!known || bounds == NULL) {
        fprintf(stderr, "usage: parity --dtype f32|bf16 [--model FOLDER] [--pictures FOLDER]\n");
        return 2;
    }
    tessera_error error = {0};
    tessera_model_options options = {.struct_size = sizeof(tessera_model_options), .dtype = bounds->dtype};
    tessera_model *model = tessera_model_open(folder, &options, &error);
    if (model == NULL) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    printf("%s, %d threads\n", tessera_model_kernel_path(model), tessera_model_threads(model));
    struct measure measures[PICTURES_MAX];
    int count = list_measure(model, pictures, bounds, measures);
    tessera_model_free(model);
    return count >= 0 && verdict(measures, count, bounds) ? 0 : 1;
}
