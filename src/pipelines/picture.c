/* Between pictures and latents: the autoencoder's two ends of a request.
 *
 *     encode:  z = mean + exp(logvar / 2) noise;  x_0 = (z - shift) * scaling           (Rombach et al. 2022, section 3.1)
 *     decode:  picture = decoder(x_0 / scaling + shift), from [-1, 1] to [0, 1] */
#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "parallel/exchange.h"
#include "pipelines/bins.h"
#include "pipelines/channel_order.h"
#include "pipelines/generation.h"

/* A picture that is given with the request, on its way to latents. */
struct given_picture {
    const uint8_t *pixels; /* [height, width, 3] of the request's size */
    int samples;           /* how often its latents are drawn */
    float *noise;          /* [samples, channels, rows, columns] as torch draws it */
    float *latents;        /* [samples, rows, columns, channels] */
};

/* One sample: moments [rows, columns, 2 channels], noise [channels, rows, columns] -> latents
 * [rows, columns, channels]. */
static void sample_latents(const struct generation *g, const struct autoencoder *vae, const float *moments, const float *noise,
                           float *latents) {
    const struct elementary *functions = elementary_of(g->runs[ROLE_AUTOENCODER]->backend->reproducible);
    for (int64_t i = 0; i < g->positions; i++)
        for (int64_t c = 0; c < g->channels; c++) {
            const float *m = moments + i * 2 * g->channels + c;
            float z = m[0] + functions->expf(0.5f * m[g->channels]) * noise[c * g->positions + i];
            latents[i * g->channels + c] = (z - vae->shift_factor) * vae->scaling_factor;
        }
}

static tessera_status encode(struct generation *g, const struct autoencoder *vae, const struct given_picture *picture,
                             tessera_error *error) {
    const tessera_request *r = g->request;
    struct span mine = vae->class->rows(vae, g->runs[ROLE_AUTOENCODER], r->height, r->width);
    struct tensor pixels = run_tensor(g->runs[ROLE_AUTOENCODER], DTYPE_F32, SHAPE(1, mine.count, r->width, 3));
    int64_t row = (int64_t)r->width * 3;
    const uint8_t *bytes = picture->pixels + mine.first * row;
    float *x = run_map(g->runs[ROLE_AUTOENCODER], &pixels, MAP_WRITE);
    for (int64_t i = 0; x != NULL && i < mine.count * row; i++) x[i] = (float)bytes[i] / 255.0f * 2.0f - 1.0f;
    run_unmap(g->runs[ROLE_AUTOENCODER], &pixels, x, MAP_WRITE);
    struct tensor moments = autoencoder_encode(vae, g->runs[ROLE_AUTOENCODER], pixels);
    float *m = run_map(g->runs[ROLE_AUTOENCODER], &moments, MAP_READ);
    TRY(run_status(g->runs[ROLE_AUTOENCODER], error));
    tessera_status status = pipeline_check_finite(g->pipeline, "vae", " (encoder)", m, (size_t)tensor_count(&moments), error);
    for (int64_t i = 0; i < picture->samples && status == TESSERA_OK; i++)
        sample_latents(g, vae, m, picture->noise + i * g->count, picture->latents + i * g->count);
    run_unmap(g->runs[ROLE_AUTOENCODER], &moments, m, MAP_READ);
    return status;
}

/* The rank that has the autoencoder, unless all have it. */
static int autoencoder_rank(const struct generation *g) {
    return pipeline_rank_of(g->pipeline, g->pipeline->autoencoder);
}

/* One rank encodes and sends the others what comes of it; with a parallel autoencoder each rank has
 * its rows. */
static tessera_status encode_once(struct generation *g, const struct given_picture *picture, tessera_error *error) {
    struct component *vae;
    struct team *team = &g->pipeline->team;
    if (team_rank(team) == autoencoder_rank(g) || g->runs[ROLE_AUTOENCODER]->parallel != NULL) {
        TRY(pipeline_component(g->pipeline, g->pipeline->autoencoder, &vae, error));
        if (!vae->autoencoder->has_encoder)
            return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s/vae: has no encoder: %s needs one", g->pipeline->name,
                             g->pipeline->class->has_control ? "a control picture" : "picture to picture");
        TRY(encode(g, vae->autoencoder, picture, error));
    }
    if (g->runs[ROLE_AUTOENCODER]->parallel != NULL) return TESSERA_OK;
    return team_broadcast(team, autoencoder_rank(g), picture->latents, (size_t)picture->samples * (size_t)g->count * sizeof(float), error);
}

/* So many samples of a picture's latents into *out, which the request's end frees. */
static tessera_status encode_given(struct generation *g, struct random_generator *generator, const uint8_t *pixels, int samples,
                                   float **out, tessera_error *error) {
    size_t total = (size_t)samples * (size_t)g->count;
    struct given_picture picture = {.pixels = pixels, .samples = samples, .noise = malloc(total * sizeof(float))};
    size_t scope = run_enter(g->runs[ROLE_AUTOENCODER]);
    picture.latents = *out = malloc(total * sizeof(float));
    tessera_status status = TESSERA_OK;
    if (picture.latents == NULL || picture.noise == NULL) {
        status = error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    } else {
        random_normal(generator, picture.noise, total);
        g->runs[ROLE_AUTOENCODER]->parallel = team_autoencoder(&g->pipeline->team);
        status = encode_once(g, &picture, error);
        if (status != TESSERA_OK) team_job_fail(&g->pipeline->team, error); /* before buffers go */
        g->runs[ROLE_AUTOENCODER]->parallel = NULL;
    }
    arena_trim(g->runs[ROLE_AUTOENCODER]->arena, scope);
    free(picture.noise);
    return status;
}

tessera_status generation_encode(struct generation *g, struct random_generator *generator, tessera_error *error) {
    const tessera_request *r = g->request;
    int done = 0, total = (r->control_image != NULL) + (r->init_image != NULL);
    double start = generation_clock(g);
    if (total == 0) return TESSERA_OK;
    TRY(generation_report(g, TESSERA_PHASE_ENCODE, 0, total, error));
    if (r->control_image != NULL) {
        TRY(encode_given(g, generator, r->control_image, r->num_images, &g->control_latents, error));
        TRY(generation_report(g, TESSERA_PHASE_ENCODE, ++done, total, error));
    }
    if (r->init_image != NULL) {
        TRY(encode_given(g, generator, r->init_image, 1, &g->init_latents, error));
        TRY(generation_report(g, TESSERA_PHASE_ENCODE, ++done, total, error));
    }
    g->image->seconds_encode = generation_clock(g) - start;
    return TESSERA_OK;
}

/* Where picture `made` of the request goes: a view of its place in g->image, or the room for the
 * present one. */
static tessera_image place_of(const struct generation *g, int made) {
    if (g->request->deliver != NULL) return g->one;
    tessera_image place = *g->image;
    size_t values = (size_t)place.width * (size_t)place.height * 3;
    place.count = 1;
    place.latents += (size_t)made * (size_t)g->count;
    if (place.pixels != NULL) place.pixels += (size_t)made * values;
    if (place.pixels_f32 != NULL) place.pixels_f32 += (size_t)made * values;
    return place;
}

static tessera_status deliver(const struct generation *g, int made, tessera_error *error) {
    const tessera_request *r = g->request;
    if (r->deliver == NULL || team_rank(&g->pipeline->team) != 0) return TESSERA_OK;
    tessera_error why = {0};
    tessera_status status = r->deliver(r->deliver_user, r->first_image + made, &g->one, &why);
    if (status == TESSERA_OK) return TESSERA_OK;
    return error_set(error, status, "%s", why.message[0] != 0 ? why.message : "the program did not take the picture");
}

tessera_status generation_keep_init(struct generation *g, tessera_error *error) {
    const uint8_t *init = g->request->init_image;
    size_t count = (size_t)g->image->width * (size_t)g->image->height * 3;
    for (int made = 0; made < g->image->count; made++) {
        tessera_image place = place_of(g, made);
        channels_first(place.latents, g->init_latents, g->channels, g->positions);
        for (size_t i = 0; i < count && place.pixels != NULL; i++) {
            place.pixels[i] = init[i];
            place.pixels_f32[i] = (float)init[i] / 255.0f;
        }
        TRY(deliver(g, made, error));
    }
    return generation_report(g, TESSERA_PHASE_DECODE, g->image->count, g->image->count, error);
}

/* picture [height, width, 3] in [-1, 1], of the size worked at, into the image, of the size asked
 * for. */
static void store_pixels(const struct generation *g, const tessera_image *place, const float *picture) {
    int64_t count = (int64_t)place->width * place->height * 3;
    float *out = place->pixels_f32;
    uint8_t *bytes = place->pixels;
    bins_resize_and_crop(picture, g->height, g->width, out, place->height, place->width);
    for (int64_t i = 0; i < count; i++) {
        out[i] = fminf(fmaxf(out[i] * 0.5f + 0.5f, 0.0f), 1.0f);
        bytes[i] = (uint8_t)lrintf(out[i] * 255.0f);
    }
}

/* Decoded pixels [height, width, 3], to the first rank's picture. */
static tessera_status hand_over(struct generation *g, const tessera_image *place, float *pixels, tessera_error *error) {
    struct team *team = &g->pipeline->team;
    if (team_rank(team) == 0)
        store_pixels(g, place, pixels);
    else if (g->runs[ROLE_AUTOENCODER]->parallel == NULL)
        return team_pass(team, team_rank(team), 0, pixels, (size_t)g->width * (size_t)g->height * 3 * sizeof *pixels, error);
    return TESSERA_OK;
}

/* What the first rank does where another one decodes. */
static tessera_status take_over(struct generation *g, const tessera_image *place, tessera_error *error) {
    size_t bytes = (size_t)g->width * (size_t)g->height * 3 * sizeof(float);
    float *pixels = malloc(bytes);
    if (pixels == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a picture of %dx%d", g->width, g->height);
    tessera_status status = team_pass(&g->pipeline->team, autoencoder_rank(g), 0, pixels, bytes, error);
    if (status == TESSERA_OK) store_pixels(g, place, pixels);
    if (status != TESSERA_OK) team_job_fail(&g->pipeline->team, error); /* before the buffer goes */
    free(pixels);
    return status;
}

static tessera_status decode(struct generation *g, const tessera_image *place, const float *x, tessera_error *error) {
    struct component *component;
    TRY(pipeline_component(g->pipeline, g->pipeline->autoencoder, &component, error));
    const struct autoencoder *vae = component->autoencoder;
    size_t scope = run_enter(g->runs[ROLE_AUTOENCODER]);
    struct tensor z = run_tensor(g->runs[ROLE_AUTOENCODER], DTYPE_F32, SHAPE(1, g->rows, g->columns, g->channels));
    float *latents = run_map(g->runs[ROLE_AUTOENCODER], &z, MAP_WRITE);
    for (int64_t i = 0; latents != NULL && i < g->count; i++) latents[i] = x[i] / vae->scaling_factor + vae->shift_factor;
    run_unmap(g->runs[ROLE_AUTOENCODER], &z, latents, MAP_WRITE);
    TRY(run_status(g->runs[ROLE_AUTOENCODER], error));
    struct tensor picture = autoencoder_decode(vae, g->runs[ROLE_AUTOENCODER], z, g->pipeline->vae_tiling);
    if (g->runs[ROLE_AUTOENCODER]->parallel != NULL) picture = exchange_gather_rows(g->runs[ROLE_AUTOENCODER], picture, 0);
    float *pixels = run_map(g->runs[ROLE_AUTOENCODER], &picture, MAP_READ);
    TRY(run_status(g->runs[ROLE_AUTOENCODER], error));
    tessera_status status = TESSERA_OK;
    if (pixels != NULL) /* with a parallel autoencoder the first rank alone has them */
        status = pipeline_check_finite(g->pipeline, "vae", " (decoder)", pixels, (size_t)tensor_count(&picture), error);
    if (status == TESSERA_OK) status = hand_over(g, place, pixels, error);
    if (status != TESSERA_OK) team_job_fail(&g->pipeline->team, error); /* before the buffer goes */
    run_unmap(g->runs[ROLE_AUTOENCODER], &picture, pixels, MAP_READ);
    TRY(status);
    arena_trim(g->runs[ROLE_AUTOENCODER]->arena, scope);
    return TESSERA_OK;
}

tessera_status generation_decode(struct generation *g, int made, const float *x, tessera_error *error) {
    TRY(generation_report(g, TESSERA_PHASE_DECODE, made, g->image->count, error));
    tessera_image place = place_of(g, made);
    channels_first(place.latents, x, g->channels, g->positions);
    g->runs[ROLE_AUTOENCODER]->parallel = g->pipeline->vae_tiling ? NULL : team_autoencoder(&g->pipeline->team); /* tiles stay on one rank */
    tessera_status status = TESSERA_OK;
    int rank = team_rank(&g->pipeline->team);
    bool decodes = rank == autoencoder_rank(g) || g->runs[ROLE_AUTOENCODER]->parallel != NULL;
    if (!g->request->latents_only && decodes) status = decode(g, &place, x, error);
    if (!g->request->latents_only && !decodes && rank == 0) status = take_over(g, &place, error);
    g->runs[ROLE_AUTOENCODER]->parallel = NULL;
    TRY(status);
    TRY(deliver(g, made, error));
    return generation_report(g, TESSERA_PHASE_DECODE, made + 1, g->image->count, error);
}
