/* A picture that goes back some steps and takes them again ends with the same bits, with every kind
 * of sampler. */
#include "pipelines/rewind.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { COUNT = 96, STEPS = 10 };

static float number(unsigned *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(*seed >> 8) / 8388608.0f - 1.0f;
}

/* What a denoiser might say of x at a step. */
static void predict(const float *x, int step, float *out) {
    for (int i = 0; i < COUNT; i++) out[i] = 0.3f * x[i] + 0.01f * (float)(step + i % 7);
}

static void take_steps(struct rewind *past, const struct scheduler *s, int first, int end, unsigned *noise_seed, float *x,
                       struct scheduler_state *state) {
    float prediction[COUNT], noise[COUNT];
    tessera_error error = {0};
    for (int i = first; i < end; i++) {
        const float *drawn = s->wants_noise ? rewind_noise(past, i) : NULL;
        for (int k = 0; k < COUNT && s->wants_noise && drawn == NULL; k++) noise[k] = number(noise_seed);
        if (s->wants_noise && drawn == NULL) drawn = noise;
        predict(x, i, prediction);
        CHECK(rewind_note(past, i, prediction, drawn, &error) == TESSERA_OK, "%s", error.message);
        scheduler_step(s, state, i, x, prediction, drawn, COUNT);
    }
}

static void test_sampler(const char *path) {
    struct scheduler *s = NULL;
    struct scheduler_state state = {0};
    struct rewind past = {0};
    tessera_error error = {0};
    float x[COUNT], end[COUNT], middle[COUNT];
    unsigned seed = 3, noise_seed = 5;
    CHECK(scheduler_open(path, NULL, &s, &error) == TESSERA_OK, "%s", error.message);
    if (s == NULL) return;
    CHECK(scheduler_set_timesteps(s, STEPS, 0, &error) == TESSERA_OK, "%s", error.message);
    int steps = s->num_steps;
    for (int i = 0; i < COUNT; i++) x[i] = number(&seed);
    CHECK(scheduler_state_init(s, COUNT, &state, &error) == TESSERA_OK, "%s", error.message);
    CHECK(rewind_open(&past, s, 0, steps, COUNT, x, &error) == TESSERA_OK, "%s", error.message);
    take_steps(&past, s, 0, 4, &noise_seed, x, &state);
    memcpy(middle, x, sizeof x);
    take_steps(&past, s, 4, steps, &noise_seed, x, &state);
    memcpy(end, x, sizeof x);
    static const int back[] = {4, 0, 7};
    for (int i = 0; i < 3; i++) {
        CHECK(rewind_to(&past, back[i], x, &state, &error) == TESSERA_OK, "%s", error.message);
        if (back[i] == 4) CHECK(memcmp(x, middle, sizeof x) == 0, "%s: step 4 is another", path);
        take_steps(&past, s, back[i], steps, &noise_seed, x, &state);
        CHECK(memcmp(x, end, sizeof x) == 0, "%s: from step %d on", path, back[i]);
    }
    rewind_close(&past);
    scheduler_state_free(&state);
    scheduler_free(s);
}

int main(void) {
    static const char *const cases[] = {"flow_euler_10",      "ddim_10", "ddpm_leading_10", "dpmpp_2m_10", "dpmpp_2m_sde_10",
                                        "euler_ancestral_10", "pndm_10", "unipc_10"};
    char path[128];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(path, sizeof path, "tests/cases/scheduler_%s", cases[i]);
        test_sampler(path);
    }
    return CHECK_REPORT();
}
