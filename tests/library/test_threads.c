/* Several models and requests in one process, from several threads: a handle per thread, two
 * models, requests that differ. Each thread's pictures are, bit for bit, those that the same
 * requests give one after the other in one thread. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "tessera.h"

enum { WORKERS = 5, PICTURES = 3 };

static const char *const models[] = {"models/emoji", "tests/cases/pipeline_sd15/model"};

struct worker {
    int number;
    tessera_image images[PICTURES];
    tessera_error error;
    tessera_status status;
    int calls; /* of its callback */
};

static bool count_calls(void *user, tessera_phase phase, int done, int total) {
    (void)phase, (void)done, (void)total;
    ((struct worker *)user)->calls++;
    return true;
}

/* Opens a model of its own, makes the pictures, and frees it. Numbers that differ by 2 have the
 * same model, which then is mapped twice. */
static void *work(void *argument) {
    struct worker *w = argument;
    tessera_model_options options = {
        .struct_size = sizeof(tessera_model_options), .threads = 1 + w->number % 2, .dtype = w->number == 4 ? TESSERA_F32 : TESSERA_BF16};
    tessera_model *model = tessera_model_open(models[w->number % 2], &options, &w->error);
    tessera_request r = TESSERA_REQUEST;
    tessera_request_defaults(model, false, &r);
    w->status = model != NULL ? TESSERA_OK : w->error.status;
    for (int i = 0; i < PICTURES && w->status == TESSERA_OK; i++) {
        r.prompt = i == 0 ? "a red apple" : "a crab";
        r.seed = (uint64_t)(10 * w->number + i);
        r.width = r.height = 64;
        r.num_inference_steps = 2 + i;
        r.progress = count_calls, r.progress_user = w;
        w->images[i] = (tessera_image)TESSERA_IMAGE;
        w->status = tessera_generate(model, &r, &w->images[i], &w->error);
    }
    tessera_model_free(model);
    return NULL;
}

static void compare(const struct worker *alone, const struct worker *together) {
    CHECK(alone->status == TESSERA_OK && together->status == TESSERA_OK, "%s; %s", alone->error.message, together->error.message);
    CHECK(alone->calls == together->calls && alone->calls > 0, "the callback was called %d and %d times", alone->calls, together->calls);
    for (int i = 0; i < PICTURES && together->status == TESSERA_OK; i++) {
        const tessera_image *a = &alone->images[i], *b = &together->images[i];
        CHECK(a->width == 64 && b->width == 64, "widths %d and %d", a->width, b->width);
        CHECK(memcmp(a->pixels, b->pixels, 64 * 64 * 3) == 0, "worker %d: picture %d is another beside other threads", alone->number, i);
    }
}

int main(void) {
    static struct worker alone[WORKERS], together[WORKERS];
    pthread_t threads[WORKERS];
    for (int i = 0; i < WORKERS; i++) {
        alone[i].number = together[i].number = i;
        work(&alone[i]);
    }
    int started = 0;
    while (started < WORKERS && pthread_create(&threads[started], NULL, work, &together[started]) == 0) started++;
    CHECK(started == WORKERS, "only %d threads", started);
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < WORKERS; i++) {
        compare(&alone[i], &together[i]);
        for (int j = 0; j < PICTURES; j++) tessera_image_free(&alone[i].images[j]), tessera_image_free(&together[i].images[j]);
    }
    return CHECK_REPORT();
}
