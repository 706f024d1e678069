/* Opening a model folder and its components: a model that is worked through phase by phase, and folders that lie. */
#include "pipelines/pipeline.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "check.h"

#define MODEL "models/emoji"

static int open_components(const struct pipeline *p) {
    int count = 0;
    for (int i = 0; i < p->num_slots; i++) count += p->slots[i].is_open;
    return count;
}

/* Encode, free, denoise, free, decode: the same picture as with everything kept open, and nothing left open but the last phase's. */
static void test_components_close_after_their_phase(void) {
    tessera_error error = {0};
    struct pipeline *p = NULL;
    CHECK(pipeline_open(MODEL, NULL, &p, &error) == TESSERA_OK, "%s", error.message);
    if (p == NULL) return;
    tessera_request request = p->defaults;
    request.prompt = "strawberry", request.num_inference_steps = 2;
    tessera_image kept, freed;
    CHECK(p->keep_components && pipeline_generate(p, &request, &kept, &error) == TESSERA_OK, "%s", error.message);
    CHECK(open_components(p) == 4, "a small model stays open: %d of 4 components", open_components(p));
    p->keep_components = false;
    CHECK(pipeline_generate(p, &request, &freed, &error) == TESSERA_OK, "%s", error.message);
    CHECK(open_components(p) <= 1, "%d components left open", open_components(p));
    CHECK(memcmp(kept.pixels, freed.pixels, (size_t)kept.width * (size_t)kept.height * 3) == 0, "the pictures differ");
    tessera_image_free(&kept);
    tessera_image_free(&freed);
    pipeline_free(p);
}

static void write_text(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    if (file == NULL) return;
    fputs(text, file);
    fclose(file);
}

static void test_folders_that_lie(void) {
    char folder[] = "build-test-XXXXXX", path[64];
    if (mkdtemp(folder) == NULL) return;
    snprintf(path, sizeof path, "%s/model_index.json", folder);
    struct {
        const char *text, *word;
    } indexes[] = {
        {"{", "model_index.json"},
        {"{}", "_class_name"},
        {"{\"_class_name\": \"NoSuchPipeline\"}", "NoSuchPipeline"},
        {"{\"_class_name\": 3}", "_class_name"},
        {"{\"_class_name\": \"StableDiffusion3Pipeline\"}", "field transformer"},
    };
    for (size_t i = 0; i < sizeof indexes / sizeof *indexes; i++) {
        tessera_error error = {0};
        struct pipeline *p = NULL;
        write_text(path, indexes[i].text);
        CHECK(pipeline_open(folder, NULL, &p, &error) != TESSERA_OK && p == NULL, "opened %s", indexes[i].text);
        CHECK(strstr(error.message, indexes[i].word) != NULL && strstr(error.message, folder) != NULL, "%s", error.message);
    }
    remove(path);
    remove(folder);
}

int main(void) {
    test_components_close_after_their_phase();
    test_folders_that_lie();
    return CHECK_REPORT();
}
