/* How far answers lie apart, and how far those of honest workers with other kernels may. See
 * client_parts.h.
 *
 * Rounding differs between models by their depth, widths and type, and between states, so it is
 * measured where it decides: when answers to a state lie further apart than any before, this machine
 * computes that state by its reproducible and by its best kernels, and answers agree up to ROOM
 * times their distance. docs/verify-study.md has distances of honest workers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "split/client_parts.h"
#include "split/projection.h"

enum { ALIGNMENT = 64 };
#define ROOM 2.5 /* times the distance of this machine's two kinds of kernels */
/* At least: twice what honest workers of the embedded model lie apart. */
#define LEAST_F32 2.4e-7
#define LEAST_BF16 4.4e-3

static float number_at(const struct tensor *t, int64_t i) {
    return t->dtype == DTYPE_F32 ? ((const float *)t->data)[i] : bf16_widen(((const uint16_t *)t->data)[i]);
}

/* Adds the projections of a tensor's difference, and of the first one's numbers. */
static void project(const struct tensor *a, const struct tensor *b, uint64_t seed, double *difference, double *size) {
    int64_t count = tensor_count(a);
    for (int64_t i = 0; i < count; i++) {
        uint64_t signs = projection_seed(seed ^ (uint64_t)i);
        double x = number_at(a, i);
        projection_add(signs, x - number_at(b, i), difference);
        projection_add(signs, x, size);
    }
}

double client_distance(const struct denoiser_state *a, const struct denoiser_state *b, uint64_t seed) {
    double difference[PROJECTIONS] = {0}, size[PROJECTIONS] = {0};
    const struct tensor *const left[] = {&a->picture, &a->text}, *const right[] = {&b->picture, &b->text};
    for (int i = 0; i < 2; i++)
        if (left[i]->ndim > 0) project(left[i], right[i], projection_seed(seed + (uint64_t)i), difference, size);
    for (int i = 0; i < a->num_skips; i++) project(&a->skips[i], &b->skips[i], projection_seed(seed + 2 + (uint64_t)i), difference, size);
    return projection_ratio(difference, size, PROJECTIONS);
}

/* Reads an answer of this machine's; *copy is its memory, to be freed. */
static tessera_status read_answer(struct client *c, int part, const struct denoiser_state *state, const struct split_answer *answer,
                                  uint8_t **copy, struct denoiser_state *out, tessera_error *error) {
    struct split_shape shape = split_shape_of(state);
    *copy = aligned_alloc(ALIGNMENT, (answer->size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (*copy == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for comparing answers");
    memcpy(*copy, answer->bytes, answer->size);
    return split_answer_read(c->job.denoiser, c->job.run, &c->parts[part].range, &shape, 0, *copy, answer->size, out, error);
}

tessera_status client_answer_distance(struct client *c, int part, const struct denoiser_state *state, const struct split_answer *a,
                                      const struct denoiser_state *b, double *distance, tessera_error *error) {
    struct denoiser_state own;
    uint8_t *copy = NULL;
    tessera_status status = read_answer(c, part, state, a, &copy, &own, error);
    if (status == TESSERA_OK) *distance = client_distance(&own, b, 1);
    free(copy);
    return status;
}

/* By the kernels that part->own has not. */
static tessera_status distance_of_kernels(struct client *c, int part, const struct denoiser_state *state, const struct split_answer *known,
                                          double *distance, tessera_error *error) {
    struct split_part *other = NULL;
    struct split_answer answer = {0};
    struct denoiser_state read;
    uint8_t *copy = NULL;
    tessera_kernels kernels = c->parts[part].is_reproducible ? TESSERA_KERNELS_BEST : TESSERA_KERNELS_REPRODUCIBLE;
    tessera_status status = split_part_open_with(c->parts[part].own, kernels, &other, error);
    if (status == TESSERA_OK) status = client_compute_on(c, other, state, false, &answer, error);
    if (status == TESSERA_OK) status = read_answer(c, part, state, &answer, &copy, &read, error);
    if (status == TESSERA_OK) status = client_answer_distance(c, part, state, known, &read, distance, error);
    free(copy);
    split_answer_free(&answer);
    split_part_close(other);
    return status;
}

double client_least_tolerance(const struct client *c) {
    return c->job.run->dtype == DTYPE_F32 ? LEAST_F32 : LEAST_BF16;
}

static tessera_status measure(struct client *c, int part, const struct denoiser_state *state, const struct split_answer *known,
                              double *tolerance, tessera_error *error) {
    double distance = 0;
    TRY(distance_of_kernels(c, part, state, known, &distance, error));
    *tolerance = fmax(ROOM * distance, client_least_tolerance(c));
    return TESSERA_OK;
}

tessera_status client_measure_tolerance(struct client *c, int part, const struct denoiser_state *state, tessera_error *error) {
    struct split_answer known;
    double tolerance = 0;
    tessera_status status = client_compute(c, part, state, false, &known, error);
    if (status == TESSERA_OK) status = measure(c, part, state, &known, &tolerance, error);
    split_answer_free(&known);
    if (status == TESSERA_OK) c->parts[part].tolerance = fmax(c->parts[part].tolerance, tolerance);
    return status;
}

tessera_status client_test_agrees(struct client *c, int part, const struct denoiser_state *state, const struct split_answer *known,
                                  const struct denoiser_state *answer, double *distance, bool *agrees, tessera_error *error) {
    double tolerance = client_least_tolerance(c);
    TRY(client_answer_distance(c, part, state, known, answer, distance, error));
    if (*distance > tolerance) TRY(measure(c, part, state, known, &tolerance, error));
    *agrees = *distance <= tolerance;
    return TESSERA_OK;
}
