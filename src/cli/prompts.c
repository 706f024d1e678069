/* See prompts.h. */
#include "cli/prompts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/csv.h"
#include "base/error.h"
#include "base/file.h"
#include "cli/generate.h"
#include "cli/output.h"

#define PROMPTS_FILE_BYTES ((size_t)16 << 20)

/* A byte-order mark, which editors put before a text, is no part of it. */
static const char *without_mark(const char *text) {
    return strncmp(text, "\xEF\xBB\xBF", 3) == 0 ? text + 3 : text;
}

static tessera_status add_prompt(struct option_value *values, const char *text, tessera_error *error) {
    text = without_mark(text);
    if (*text == 0) return TESSERA_OK;
    return options_read_value(&generate_options[GENERATE_PROMPT], text, &values[GENERATE_PROMPT], error);
}

/* A zero byte would end a prompt before its end. */
static tessera_status check_text(const char *path, const char *text, size_t length, tessera_error *error) {
    if (strlen(text) == length) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: holds a zero byte, which is no UTF-8 text: save it as UTF-8", path);
}

/* All of standard input; the caller frees. */
static tessera_status read_input(char **text, size_t *length, tessera_error *error) {
    size_t capacity = 1 << 16, n;
    *length = 0;
    *text = malloc(capacity);
    while (*text != NULL && (n = fread(*text + *length, 1, capacity - 1 - *length, stdin)) > 0) {
        *length += n;
        if (*length + 1 < capacity) continue;
        if (*length > PROMPTS_FILE_BYTES)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "standard input has more than %zu MiB of prompts", PROMPTS_FILE_BYTES >> 20);
        char *larger = realloc(*text, capacity *= 2);
        if (larger == NULL) free(*text);
        *text = larger;
    }
    if (*text == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the prompts");
    if (ferror(stdin)) return error_set_errno(error, "standard input cannot be read");
    (*text)[*length] = 0;
    return check_text("standard input", *text, *length, error);
}

static bool is_input(const char *path) {
    return path != NULL && strcmp(path, "-") == 0;
}

tessera_status prompts_read_input(const struct option_value *values, struct prompt_files *files, size_t *length, tessera_error *error) {
    *length = 0;
    return is_input(values[GENERATE_PROMPTS_FILE].text) ? read_input(&files->lines, length, error) : TESSERA_OK;
}

static tessera_status read_lines(struct option_value *values, char **text, tessera_error *error) {
    const char *path = values[GENERATE_PROMPTS_FILE].text;
    size_t length;
    if (path == NULL) return TESSERA_OK;
    if (!is_input(path)) TRY(file_read(path, PROMPTS_FILE_BYTES, text, &length, error));
    if (!is_input(path)) TRY(check_text(path, *text, length, error));
    char *rest = *text, *line;
    while ((line = strsep(&rest, "\n")) != NULL) {
        line[strcspn(line, "\r")] = 0;
        TRY(add_prompt(values, line, error));
    }
    return TESSERA_OK;
}

/* The place of the column "prompt" in the first record, which is taken; -1: there is none. */
static int prompt_column(char **at) {
    int found = -1;
    bool last = false;
    *at += without_mark(*at) - *at;
    for (int i = 0; !last; i++)
        if (strcmp(csv_field(at, &last), "prompt") == 0) found = i;
    return found;
}

static tessera_status read_table(struct option_value *values, char **text, tessera_error *error) {
    const char *path = values[GENERATE_DATASET_PATH].text;
    size_t length;
    if (path == NULL) return TESSERA_OK;
    TRY(file_read(path, PROMPTS_FILE_BYTES, text, &length, error));
    TRY(check_text(path, *text, length, error));
    char *at = *text;
    int column = prompt_column(&at);
    if (column < 0) return error_set(error, TESSERA_ERROR_FORMAT, "%s: no column of its first line is named \"prompt\"", path);
    while (*at != 0) {
        bool last = false;
        for (int i = 0; !last; i++) {
            const char *field = csv_field(&at, &last);
            if (i == column) TRY(add_prompt(values, field, error));
        }
    }
    return TESSERA_OK;
}

/* --split I N */
static tessera_status read_split(const struct option_value *split, struct captions_choice *choice, tessera_error *error) {
    char *end = NULL, *end_of_share = NULL;
    if (!split->given) return TESSERA_OK;
    long share = split->count == 2 ? strtol(split->texts[0], &end_of_share, 10) : -1,
         shares = split->count == 2 ? strtol(split->texts[1], &end, 10) : 0;
    if (share < 0 || share >= shares || shares > 1000000 || *end != 0 || *end_of_share != 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--split I N: two numbers are wanted, I from 0 to N - 1");
    choice->share = (int)share;
    choice->shares = (int)shares;
    return TESSERA_OK;
}

/* The captions in place of every other prompt. */
static tessera_status read_captions(struct option_value *values, struct captions *captions, tessera_error *error) {
    const char *split = values[GENERATE_CAPTION_SPLIT].text;
    struct option_value *prompts = &values[GENERATE_PROMPT];
    struct captions_choice choice = {.split = split, .rotate = split != NULL};
    if (values[GENERATE_NUM_SAMPLES].given) choice.samples = values[GENERATE_NUM_SAMPLES].integer;
    TRY(read_split(&values[GENERATE_SPLIT], &choice, error));
    TRY(captions_read(values[GENERATE_CAPTION_FILE].text, &choice, captions, error));
    prompts->count = 0;
    for (int i = 0; i < captions->count; i++)
        TRY(options_read_value(&generate_options[GENERATE_PROMPT], captions->list[i].text, prompts, error));
    return TESSERA_OK;
}

char *prompts_caption_path(const struct option_value *values, const struct prompt_files *files, int i, const char *folder,
                           tessera_error *error) {
    if (files->captions.list == NULL) return NULL;
    const struct caption *caption = &files->captions.list[i];
    const char *dot = strrchr(caption->file, '.');
    int length = dot != NULL ? (int)(dot - caption->file) : (int)strlen(caption->file);
    char *name = NULL;
    bool numbered = values[GENERATE_CAPTION_SPLIT].given;
    int n = numbered ? asprintf(&name, "%04d.png", caption->number) : asprintf(&name, "%.*s.png", length, caption->file);
    char *path = n >= 0 ? file_join(folder != NULL ? folder : ".", name) : NULL;
    if (n >= 0) free(name);
    if (path == NULL) error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a file name");
    return path;
}

/* The texts of the command line, which may come from a file too (--prompt "$(cat prompt.txt)"). */
static void drop_marks(struct option_value *values) {
    struct option_value *prompts = &values[GENERATE_PROMPT], *negative = &values[GENERATE_NEGATIVE_PROMPT];
    for (int i = 0; i < prompts->count; i++) prompts->texts[i] = without_mark(prompts->texts[i]);
    if (negative->text != NULL) negative->text = without_mark(negative->text);
}

tessera_status prompts_read(struct option_value *values, struct prompt_files *files, tessera_error *error) {
    drop_marks(values);
    if (values[GENERATE_CAPTION_FILE].given) return read_captions(values, &files->captions, error);
    TRY(read_lines(values, &files->lines, error));
    return read_table(values, &files->table, error);
}

static bool is_utf8(const char *text) {
    utf8proc_int32_t point;
    utf8proc_ssize_t n;
    for (const char *c = text; *c != 0; c += n)
        if ((n = utf8proc_iterate((const utf8proc_uint8_t *)c, -1, &point)) < 1) return false;
    return true;
}

/* Captions make a picture each, in a folder. */
static tessera_status check_captions(const struct option_value *values, tessera_error *error) {
    const char *output = values[GENERATE_OUTPUT].text;
    if (!values[GENERATE_CAPTION_FILE].given) return TESSERA_OK;
    if (output != NULL && !output_is_folder(output))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--caption-file makes many pictures, but --output %s is no folder: end it in '/'",
                         output);
    const int counts[] = {GENERATE_NUM_IMAGES, GENERATE_BATCH_COUNT};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (values[counts[i]].given && values[counts[i]].integer != 1)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "--caption-file makes one picture of each caption: leave --%s out",
                             generate_options[counts[i]].name);
    return TESSERA_OK;
}

tessera_status prompts_check(const struct option_value *values, tessera_error *error) {
    TRY(check_captions(values, error));
    const struct option_value *prompts = &values[GENERATE_PROMPT];
    if (prompts->count == 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "there is no prompt: give --prompt \"TEXT\", --prompts-file FILE or --from PICTURE.png");
    for (int i = 0; i < prompts->count; i++) {
        if (!is_utf8(prompts->texts[i])) return error_set(error, TESSERA_ERROR_ARGUMENT, "prompt %d is not UTF-8 text", i + 1);
        size_t length = strlen(prompts->texts[i]);
        if (length > TESSERA_PROMPT_BYTES)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "prompt %d has %zu bytes: at most %d; models read some 500 words at most",
                             i + 1, length, TESSERA_PROMPT_BYTES);
    }
    const char *negative = values[GENERATE_NEGATIVE_PROMPT].text;
    if (negative != NULL && strlen(negative) > TESSERA_PROMPT_BYTES)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--negative-prompt has %zu bytes: at most %d", strlen(negative),
                         TESSERA_PROMPT_BYTES);
    if (negative != NULL && !is_utf8(negative)) return error_set(error, TESSERA_ERROR_ARGUMENT, "--negative-prompt is not UTF-8 text");
    return TESSERA_OK;
}

void prompts_free(struct prompt_files *files) {
    free(files->lines);
    free(files->table);
    captions_free(&files->captions);
    *files = (struct prompt_files){0};
}
