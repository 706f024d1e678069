/* `tessera coco`: pictures and captions of COCO, as an evaluation wants to have them.
 *
 *     --output-dir     every picture scaled (or cut) to one size under its own name: xDiT's benchmark/fid/process_ref_data.py
 *     otherwise        prompts.json and images/0000.png ... of the validation split: DistriFusion's scripts/dump_coco.py
 *
 * Both read dataset_coco.json (captions.h) and a folder of pictures. A picture that cannot be read
 * is told and left out, and the exit status says so at the end. Left out: downloads. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "base/file.h"
#include "cli/bar.h"
#include "cli/captions.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "image/jpeg.h"
#include "image/png.h"
#include "image/resample.h"

enum coco_option {
    COCO_JSON_FILE,
    COCO_INPUT_DIR,
    COCO_OUTPUT_DIR,
    COCO_OUTPUT_ROOT,
    COCO_NUM_SAMPLES,
    COCO_MODE,
    COCO_WIDTH,
    COCO_HEIGHT,
    COCO_SIZE,
    COCO_RESAMPLING,
    COCO_QUALITY,
    COCO_LOG_FILE,
    COCO_OPTION_COUNT
};

static const struct option coco_options[COCO_OPTION_COUNT] = {
    [COCO_JSON_FILE] = {.name = "json-file",
                        .aliases = {"coco-json", "caption-file"},
                        .type = OPTION_TEXT,
                        .placeholder = "FILE",
                        .help = "captions and names (default dataset_coco.json)"},
    [COCO_INPUT_DIR] = {.name = "input-dir", .type = OPTION_TEXT, .placeholder = "FOLDER", .help = "of the pictures (default val2014)"},
    [COCO_OUTPUT_DIR] = {.name = "output-dir", .type = OPTION_TEXT, .placeholder = "FOLDER", .help = "write all of them, scaled, there"},
    [COCO_OUTPUT_ROOT] = {.name = "output-root",
                          .type = OPTION_TEXT,
                          .placeholder = "FOLDER",
                          .help = "without --output-dir: of prompts.json and images/ (default coco)"},
    [COCO_NUM_SAMPLES] = {.name = "num-samples",
                          .type = OPTION_INTEGER,
                          .placeholder = "N",
                          .help = "the first N pictures (default 30000 with --output-dir, else all)",
                          .low = 1,
                          .high = 1e9},
    [COCO_MODE] = {.name = "mode", .type = OPTION_CHOICE, .placeholder = "resize|crop", .help = "scale (the default), or keep the middle"},
    [COCO_WIDTH] = {.name = "width", .type = OPTION_INTEGER, .placeholder = "N", .help = "default 256", .low = 1, .high = IMAGE_MAX_SIDE},
    [COCO_HEIGHT] = {.name = "height", .type = OPTION_INTEGER, .placeholder = "N", .help = "default 256", .low = 1, .high = IMAGE_MAX_SIDE},
    [COCO_SIZE] = {.name = "size",
                   .type = OPTION_INTEGER,
                   .placeholder = "N",
                   .help = "of the middle, both sides (default 256)",
                   .low = 1,
                   .high = IMAGE_MAX_SIDE},
    [COCO_RESAMPLING] = {.name = "resampling",
                         .type = OPTION_CHOICE,
                         .placeholder = "lanczos|bilinear|bicubic|nearest",
                         .help = "how, as Pillow does (default lanczos)"},
    [COCO_QUALITY] =
        {.name = "quality", .type = OPTION_INTEGER, .placeholder = "N", .help = "of JPEG files (default 95)", .low = 1, .high = 100},
    [COCO_LOG_FILE] = {.name = "log-file", .type = OPTION_TEXT, .ignored = "failures are told on standard error"},
};

struct work {
    const struct option_value *values;
    struct captions captions;
    const char *input, *output; /* folders */
    char *made;                 /* memory of `output` */
    int written, failed;
};

static int number_or(const struct option_value *value, int usual) {
    return value->given ? value->integer : usual;
}

static const char *text_or(const struct option_value *value, const char *usual) {
    return value->text != NULL ? value->text : usual;
}

static enum resample_filter filter_of(const char *name) {
    return name[0] == 'n'                 ? RESAMPLE_NEAREST
           : name[0] == 'l'               ? RESAMPLE_LANCZOS
           : strcmp(name, "bicubic") == 0 ? RESAMPLE_BICUBIC
                                          : RESAMPLE_BILINEAR;
}

/* A picture at its size for the references. */
static tessera_status change_size(const struct work *w, const struct image *in, struct image *out, tessera_error *error) {
    const struct option_value *v = w->values;
    if (strcmp(text_or(&v[COCO_MODE], "resize"), "crop") == 0) return image_crop_middle(in, number_or(&v[COCO_SIZE], 256), out, error);
    return resample_bytes(in, number_or(&v[COCO_WIDTH], 256), number_or(&v[COCO_HEIGHT], 256),
                          filter_of(text_or(&v[COCO_RESAMPLING], "lanczos")), out, error);
}

static tessera_status write_image(const struct work *w, const char *path, const struct image *image, tessera_error *error) {
    size_t n = strlen(path);
    bool png = n > 4 && strcasecmp(path + n - 4, ".png") == 0;
    if (png) return png_file_write(path, image->pixels, image->width, image->height, NULL, 0, error);
    return jpeg_file_write(path, image, number_or(&w->values[COCO_QUALITY], 95), error);
}

/* One picture: read, changed where references are wanted, written. */
static tessera_status copy_picture(const struct work *w, const struct caption *caption, bool references, tessera_error *error) {
    char number[32];
    snprintf(number, sizeof number, "%04d.png", caption->number);
    char *from = file_join(w->input, caption->file), *to = file_join(w->output, references ? caption->file : number);
    struct image in = {0}, out = {0};
    tessera_status status = from != NULL && to != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    if (status == TESSERA_OK) status = image_file_read(from, &in, error);
    if (status == TESSERA_OK && references) status = change_size(w, &in, &out, error);
    if (status == TESSERA_OK) status = write_image(w, to, references ? &out : &in, error);
    image_free(&in);
    image_free(&out);
    free(from);
    free(to);
    return status;
}

/* All pictures; those that fail are told, unless nothing can be written. */
static tessera_status copy_all(struct work *w, bool references, tessera_error *error) {
    struct bar bar = bar_start("pictures", BAR_COUNT, command_common(&coco_command, w->values, COMMON_QUIET));
    for (int i = 0; i < w->captions.count; i++) {
        if (progress_signal() != 0) return bar_clear(&bar), error_set(error, TESSERA_ERROR_CANCELLED, "stopped");
        tessera_error one = {0};
        if (copy_picture(w, &w->captions.list[i], references, &one) == TESSERA_OK) {
            w->written++;
        } else {
            bar_clear(&bar);
            fprintf(stderr, "tessera: left out: %s\n", one.message);
            w->failed++;
        }
        bar_show(&bar, i + 1, w->captions.count);
    }
    bar_clear(&bar);
    if (w->failed == 0) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_IO, "%d of %d pictures could not be read or written", w->failed, w->captions.count);
}

static tessera_status write_prompts(const struct work *w, const char *root, tessera_error *error) {
    cJSON *list = cJSON_CreateArray();
    bool good = list != NULL;
    for (int i = 0; good && i < w->captions.count; i++) good = cJSON_AddItemToArray(list, cJSON_CreateString(w->captions.list[i].text));
    char *text = good ? cJSON_Print(list) : NULL, *path = file_join(root, "prompts.json");
    struct file_output output = {0};
    cJSON_Delete(list);
    tessera_status status = text != NULL && path != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory for prompts");
    if (status == TESSERA_OK) status = file_output_open(path, &output, error);
    if (status == TESSERA_OK) {
        fputs(text, output.stream);
        status = file_output_commit(&output, error);
    }
    cJSON_free(text);
    free(path);
    return status;
}

/* The folder that pictures go to, which is made. */
static tessera_status open_output(struct work *w, const char *folder, const char *below, tessera_error *error) {
    if (asprintf(&w->made, "%s/%s", folder, below) < 0) {
        w->made = NULL;
        return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    }
    w->output = w->made;
    return output_check(w->made, error);
}

static tessera_status coco(struct work *w, tessera_error *error) {
    const struct option_value *v = w->values;
    bool references = v[COCO_OUTPUT_DIR].given;
    const char *root = text_or(&v[COCO_OUTPUT_ROOT], "coco");
    struct captions_choice choice = {
        .split = references ? NULL : "val", .rotate = !references, .samples = number_or(&v[COCO_NUM_SAMPLES], references ? 30000 : 0)};
    w->input = text_or(&v[COCO_INPUT_DIR], "val2014");
    if (!file_is_folder(w->input))
        return error_set(error, TESSERA_ERROR_IO, "there is no folder %s: name the one with the data set's pictures with --input-dir",
                         w->input);
    TRY(captions_read(text_or(&v[COCO_JSON_FILE], "dataset_coco.json"), &choice, &w->captions, error));
    if (references) {
        TRY(open_output(w, v[COCO_OUTPUT_DIR].text, "", error));
    } else {
        TRY(open_output(w, root, "images/", error));
        TRY(write_prompts(w, root, error));
    }
    return copy_all(w, references, error);
}

static int run_coco(const char *path, struct option_value *values) {
    (void)path;
    struct work w = {.values = values};
    tessera_error error = {0};
    options_print_ignored(coco_options, COCO_OPTION_COUNT, values);
    progress_catch_signals();
    tessera_status status = coco(&w, &error);
    if (w.written > 0) printf("%s\n", w.output);
    captions_free(&w.captions);
    free(w.made);
    if (status == TESSERA_ERROR_CANCELLED)
        return command_stopped(true, "%d picture%s written before that", w.written, w.written == 1 ? "" : "s");
    return status == TESSERA_OK ? EXIT_DONE : command_fail(&error, false);
}

const struct command coco_command = {
    .name = "coco",
    .usage = "coco [--json-file dataset_coco.json] [--input-dir val2014] [--output-dir FOLDER]",
    .summary = "prepare COCO's pictures and captions for an evaluation",
    .details =
        "With --output-dir every picture is scaled to one size under its own name, for a FID. Without, the validation split's captions go\n"
        "to prompts.json and its pictures, as they are, to images/0000.png and so on. docs/evaluation.md says where the files come from.\n",
    .examples = "  tessera coco --json-file dataset_coco.json --input-dir val2014 --num-samples 30000 --output-dir references\n"
                "  tessera coco --input-dir val2014 --output-root coco\n",
    .options = coco_options,
    .option_count = COCO_OPTION_COUNT,
    .run = run_coco,
};
