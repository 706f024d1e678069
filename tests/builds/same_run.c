/* same_run OLD.png NEW.png: exits 0 if both pictures have the same pixels and every field of the
 * old record has the same value in the new one. Fields that only the new record has are printed,
 * one "new field NAME" a line: a later build may know more, never something else. For
 * compare_builds.sh. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "cli/record.h"

struct side {
    tessera_picture picture;
    struct json *record;
};

static tessera_status open_side(const char *path, struct side *side, tessera_error *error) {
    side->picture = (tessera_picture)TESSERA_PICTURE;
    TRY(tessera_picture_read(path, &side->picture, error));
    const char *text = tessera_picture_text(&side->picture, RECORD_KEY);
    if (text == NULL) return error_set(error, TESSERA_ERROR_FORMAT, "%s: no record", path);
    return json_parse(path, text, strlen(text), &side->record, error);
}

static bool same_pixels(const tessera_picture *a, const tessera_picture *b) {
    return a->width == b->width && a->height == b->height &&
           memcmp(a->pixels, b->pixels, (size_t)a->width * (size_t)a->height * 3) == 0;
}

static bool same_record(const struct json *old, const struct json *new) {
    bool same = true;
    const cJSON *field;
    cJSON_ArrayForEach(field, json_root(old)) {
        const cJSON *other = cJSON_GetObjectItemCaseSensitive(json_root(new), field->string);
        bool version = strcmp(field->string, "version") == 0; /* the only one that a build itself decides */
        if (version || (cJSON_IsNull(field) && other == NULL) || cJSON_Compare(field, other, true)) continue;
        fprintf(stderr, "record: %s differs\n", field->string);
        same = false;
    }
    cJSON_ArrayForEach(field, json_root(new)) {
        if (cJSON_GetObjectItemCaseSensitive(json_root(old), field->string) == NULL) printf("new field %s\n", field->string);
    }
    return same;
}

int main(int argc, char **argv) {
    struct side sides[2] = {0};
    tessera_error error = {0};
    if (argc != 3) return fprintf(stderr, "usage: same_run OLD.png NEW.png\n"), 2;
    for (int i = 0; i < 2; i++)
        if (open_side(argv[1 + i], &sides[i], &error) != TESSERA_OK) return fprintf(stderr, "same_run: %s\n", error.message), 2;
    bool pixels = same_pixels(&sides[0].picture, &sides[1].picture), records = same_record(sides[0].record, sides[1].record);
    if (!pixels) fprintf(stderr, "pixels differ\n");
    for (int i = 0; i < 2; i++) {
        tessera_picture_free(&sides[i].picture);
        json_free(sides[i].record);
    }
    return pixels && records ? 0 : 1;
}
