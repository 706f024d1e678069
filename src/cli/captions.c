/* See captions.h. */
#include "cli/captions.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"

#define FILE_BYTES ((size_t)1 << 30)

static tessera_status wrong(const char *path, int image, const char *what, tessera_error *error) {
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: images[%d] has no %s; wanted is dataset_coco.json of caption_datasets.zip", path,
                     image, what);
}

/* A name that stays in its folder. */
/* A name becomes a file's, and is printed: no way into another folder, and nothing that a terminal
 * would obey. */
static bool is_plain(const char *name) {
    if (name == NULL || *name == 0 || *name == '.' || strchr(name, '/') != NULL) return false;
    char *cleaned = strdup(name);
    if (cleaned != NULL) text_clean(cleaned);
    bool same = cleaned != NULL && strcmp(cleaned, name) == 0;
    free(cleaned);
    return same;
}

static const char *text_of(const cJSON *object, const char *key) {
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

/* The picture's `number` is the place among those of its split. */
static tessera_status add(struct captions *out, const char *path, const cJSON *image, int index, int number, bool rotate,
                          tessera_error *error) {
    const cJSON *sentences = cJSON_GetObjectItemCaseSensitive(image, "sentences");
    int count = cJSON_IsArray(sentences) ? cJSON_GetArraySize(sentences) : 0;
    const char *file = text_of(image, "filename");
    if (!is_plain(file)) return wrong(path, index, "field \"filename\" with a file's name", error);
    if (count < 1) return wrong(path, index, "field \"sentences\" with an entry", error);
    const char *text = text_of(cJSON_GetArrayItem(sentences, rotate ? number % count : 0), "raw");
    if (text == NULL) return wrong(path, index, "text \"raw\" in \"sentences\"", error);
    struct caption *caption = &out->list[out->count];
    *caption = (struct caption){.number = number, .text = strdup(text), .file = strdup(file)};
    out->count++;
    return caption->text != NULL && caption->file != NULL ? TESSERA_OK
                                                          : error_set(error, TESSERA_ERROR_MEMORY, "out of memory for captions");
}

static tessera_status add_all(struct captions *out, const char *path, const cJSON *images, const struct captions_choice *choice,
                              tessera_error *error) {
    const cJSON *image;
    int index = 0, number = 0;
    cJSON_ArrayForEach(image, images) {
        const char *split = text_of(image, "split");
        if (choice->samples > 0 && number == choice->samples) break;
        if (choice->split != NULL && split == NULL) return wrong(path, index, "field \"split\"", error);
        if (choice->split == NULL || strcmp(split, choice->split) == 0) TRY(add(out, path, image, index, number++, choice->rotate, error));
        index++;
    }
    return TESSERA_OK;
}

/* Leaves one of the equal shares. */
static void keep_share(struct captions *c, int share, int shares) {
    if (shares == 0) return;
    int size = (c->count + shares - 1) / shares, first = share * size, kept = 0;
    for (int i = 0; i < c->count; i++) {
        bool keeps = i >= first && i < first + size;
        if (keeps) {
            c->list[kept++] = c->list[i];
        } else {
            free(c->list[i].text);
            free(c->list[i].file);
        }
    }
    c->count = kept;
}

tessera_status captions_of(const struct json *json, const struct captions_choice *choice, struct captions *out, tessera_error *error) {
    const char *path = json_path(json);
    const cJSON *images = json_find(json, "images");
    *out = (struct captions){0};
    if (!cJSON_IsArray(images))
        return error_set(error, TESSERA_ERROR_FORMAT, "%s has no list \"images\"; wanted is dataset_coco.json of caption_datasets.zip",
                         path);
    size_t n = (size_t)cJSON_GetArraySize(images) + 1;
    out->list = calloc(n, sizeof *out->list);
    out->is_done = calloc(n, sizeof *out->is_done);
    tessera_status status = out->list != NULL && out->is_done != NULL
                                ? add_all(out, path, images, choice, error)
                                : error_set(error, TESSERA_ERROR_MEMORY, "out of memory for captions");
    if (status == TESSERA_OK) keep_share(out, choice->share, choice->shares);
    if (status == TESSERA_OK && out->count == 0)
        status = error_set(error, TESSERA_ERROR_ARGUMENT, "%s: nothing is left of its pictures%s%s", path,
                           choice->split != NULL ? " in the split " : "", choice->split != NULL ? choice->split : "");
    if (status != TESSERA_OK) captions_free(out);
    return status;
}

tessera_status captions_read(const char *path, const struct captions_choice *choice, struct captions *out, tessera_error *error) {
    struct json *json = NULL;
    char *text;
    size_t length;
    *out = (struct captions){0};
    TRY(file_read(path, FILE_BYTES, &text, &length, error)); /* may be a pipe */
    tessera_status status = json_parse(path, text, length, &json, error);
    free(text);
    if (status == TESSERA_OK) status = captions_of(json, choice, out, error);
    json_free(json);
    return status;
}

void captions_free(struct captions *captions) {
    for (int i = 0; i < captions->count; i++) {
        free(captions->list[i].text);
        free(captions->list[i].file);
    }
    free(captions->list);
    free(captions->is_done);
    *captions = (struct captions){0};
}
