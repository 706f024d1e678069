/* See results.h. */
#include "metrics/results.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/csv.h"

enum column {
    SCHEDULER,
    STEPS,
    WIDTH,
    HEIGHT,
    PATCHES,
    STRATEGY,
    SYNC_MODE,
    WARMUP,
    OPTION,
    PICTURES,
    PSNR_MEAN,
    PSNR_LOWEST,
    SSIM_MEAN,
    SSIM_LOWEST,
    COLUMNS,
    SKIPPED = COLUMNS
};
enum { FIELDS_MOST = 64, NUMBER_MOST = 1 << 20 };

static const char *const names[COLUMNS] = {"scheduler", "steps",  "width",    "height",    "patches",     "strategy",  "sync_mode",
                                           "warmup",    "option", "pictures", "psnr_mean", "psnr_lowest", "ssim_mean", "ssim_lowest"};

struct reader {
    const char *path;
    char *at;
    int line;
    int num_fields;
    enum column columns[FIELDS_MOST]; /* what each field of a line is */
};

static tessera_status read_header(struct reader *r, tessera_error *error) {
    bool last = false, seen[COLUMNS] = {false};
    while (!last && *r->at != 0) {
        const char *name = csv_field(&r->at, &last);
        int column = 0;
        while (column < COLUMNS && strcmp(name, names[column]) != 0) column++;
        if (r->num_fields == FIELDS_MOST || (column < COLUMNS && seen[column]))
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: line 1: the column \"%.40s\" is there twice, or one too many", r->path,
                             name);
        if (column < COLUMNS) seen[column] = true;
        r->columns[r->num_fields++] = (enum column)column;
    }
    for (int i = 0; i < COLUMNS; i++)
        if (!seen[i])
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: line 1: has no column \"%s\"; `make quality` writes such files", r->path,
                             names[i]);
    return TESSERA_OK;
}

static tessera_status bad_field(const struct reader *r, enum column column, const char *text, tessera_error *error) {
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: line %d: %s is \"%.40s\", which is no such number", r->path, r->line, names[column],
                     text);
}

static tessera_status read_count(const struct reader *r, enum column column, const char *text, int low, int *out, tessera_error *error) {
    char *end;
    long value = strtol(text, &end, 10);
    if (end == text || *end != 0 || value < low || value > NUMBER_MOST) return bad_field(r, column, text, error);
    *out = (int)value;
    return TESSERA_OK;
}

static tessera_status read_field(const struct reader *r, enum column column, const char *text, struct result *row, tessera_error *error) {
    char *end;
    switch (column) {
    case SCHEDULER:
        row->scheduler = text;
        return TESSERA_OK;
    case STRATEGY:
        row->strategy = text;
        return TESSERA_OK;
    case SYNC_MODE:
        row->sync_mode = text;
        return TESSERA_OK;
    case OPTION:
        row->option = text;
        return TESSERA_OK;
    case STEPS:
        return read_count(r, column, text, 1, &row->steps, error);
    case WIDTH:
        return read_count(r, column, text, 1, &row->width, error);
    case HEIGHT:
        return read_count(r, column, text, 1, &row->height, error);
    case PATCHES:
        return read_count(r, column, text, 1, &row->patches, error);
    case PICTURES:
        return read_count(r, column, text, 1, &row->pictures, error);
    case WARMUP:
        row->warmup = -1;
        return text[0] == 0 ? TESSERA_OK : read_count(r, column, text, 0, &row->warmup, error);
    case PSNR_MEAN:
    case PSNR_LOWEST:
    case SSIM_MEAN:
    case SSIM_LOWEST:
        row->metrics[column - PSNR_MEAN] = strtod(text, &end);
        return end != text && *end == 0 && isfinite(row->metrics[column - PSNR_MEAN]) ? TESSERA_OK : bad_field(r, column, text, error);
    case COLUMNS:
        break;
    }
    return TESSERA_OK;
}

static tessera_status read_row(struct reader *r, struct result *row, tessera_error *error) {
    bool last = false;
    int count = 0;
    r->line++;
    while (!last && *r->at != 0 && count < r->num_fields) {
        const char *text = csv_field(&r->at, &last);
        TRY(read_field(r, r->columns[count++], text, row, error));
    }
    if (count == r->num_fields && (last || *r->at == 0)) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: line %d: %s fields than the %d of line 1", r->path, r->line,
                     count < r->num_fields ? "fewer" : "more", r->num_fields);
}

tessera_status results_parse(const char *path, char *text, struct results *out, tessera_error *error) {
    struct reader r = {.path = path, .at = text, .line = 1};
    int capacity = 0;
    *out = (struct results){.text = text};
    TRY(read_header(&r, error));
    while (*r.at != 0) {
        if (out->count == capacity) {
            capacity = capacity == 0 ? 64 : 2 * capacity;
            struct result *rows = realloc(out->rows, (size_t)capacity * sizeof *rows);
            if (rows == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", path);
            out->rows = rows;
        }
        TRY(read_row(&r, &out->rows[out->count], error));
        out->count++;
    }
    return out->count > 0 ? TESSERA_OK : error_set(error, TESSERA_ERROR_FORMAT, "%s: has no results yet", path);
}

void results_free(struct results *results) {
    free(results->text);
    free(results->rows);
    *results = (struct results){0};
}
