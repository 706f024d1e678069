/* See prompts.h. */
#include "cli/prompts.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/csv.h"
#include "base/error.h"
#include "base/file.h"
#include "cli/generate.h"

#define PROMPTS_FILE_BYTES ((size_t)16 << 20)

static tessera_status add_prompt(struct option_value *values, const char *text, tessera_error *error) {
    if (*text == 0) return TESSERA_OK;
    return options_read_value(&generate_options[GENERATE_PROMPT], text, &values[GENERATE_PROMPT], error);
}

static tessera_status read_lines(struct option_value *values, char **text, tessera_error *error) {
    const char *path = values[GENERATE_PROMPTS_FILE].text;
    size_t length;
    if (path == NULL) return TESSERA_OK;
    TRY(file_read(path, PROMPTS_FILE_BYTES, text, &length, error));
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
    if (strncmp(*at, "\xEF\xBB\xBF", 3) == 0) *at += 3; /* a byte order mark */
    for (int i = 0; !last; i++)
        if (strcmp(csv_field(at, &last), "prompt") == 0) found = i;
    return found;
}

static tessera_status read_table(struct option_value *values, char **text, tessera_error *error) {
    const char *path = values[GENERATE_DATASET_PATH].text;
    size_t length;
    if (path == NULL) return TESSERA_OK;
    TRY(file_read(path, PROMPTS_FILE_BYTES, text, &length, error));
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

tessera_status prompts_read(struct option_value *values, struct prompt_files *files, tessera_error *error) {
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

tessera_status prompts_check(const struct option_value *values, tessera_error *error) {
    const struct option_value *prompts = &values[GENERATE_PROMPT];
    if (prompts->count == 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "there is no prompt: give --prompt \"TEXT\", --prompts-file FILE or --from PICTURE.png");
    for (int i = 0; i < prompts->count; i++)
        if (!is_utf8(prompts->texts[i])) return error_set(error, TESSERA_ERROR_ARGUMENT, "prompt %d is not UTF-8 text", i + 1);
    const char *negative = values[GENERATE_NEGATIVE_PROMPT].text;
    if (negative != NULL && !is_utf8(negative)) return error_set(error, TESSERA_ERROR_ARGUMENT, "--negative-prompt is not UTF-8 text");
    return TESSERA_OK;
}

void prompts_free(struct prompt_files *files) {
    free(files->lines);
    free(files->table);
    *files = (struct prompt_files){0};
}
