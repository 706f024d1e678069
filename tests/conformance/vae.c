/* Kind vae: one encoding, one decoding. Many ranks share the rows of the picture. */
#include <stdio.h>

#include "conformance.h"
#include "parallel/exchange.h"
#include "spread.h"

static void check_picture(struct conformance_case *c, const char *name, struct tensor got) {
    struct tensor stored = case_tensor(&c->io, name), wanted = case_channels_last(&stored);
    case_check(c, name, got, wanted);
    free(wanted.data);
}

/* Channels first .. first + count of [N, H, W, C], in host memory. */
static struct tensor channels(struct conformance_case *c, struct tensor t, int64_t first, int64_t count) {
    struct tensor out = case_room(c, DTYPE_F32, SHAPE(t.shape[0], t.shape[1], t.shape[2], count));
    if (out.data == NULL) return out;
    int64_t positions = t.shape[0] * t.shape[1] * t.shape[2];
    for (int64_t i = 0; i < positions; i++)
        memcpy((float *)out.data + i * count, (const float *)t.data + i * t.shape[3] + first, (size_t)count * sizeof(float));
    return out;
}

/* This rank's rows of a picture [N, H, W, C], in host memory. */
static struct tensor my_rows(struct conformance_case *c, struct run *run, const struct autoencoder *vae, struct tensor picture) {
    int64_t width = picture.shape[2] * picture.shape[3];
    struct span mine = vae->class->rows(vae, run, picture.shape[1], picture.shape[2]);
    struct tensor out = case_room(c, DTYPE_F32, SHAPE(picture.shape[0], mine.count, picture.shape[2], picture.shape[3]));
    if (out.data == NULL) return out;
    for (int64_t b = 0; b < picture.shape[0]; b++)
        memcpy((float *)out.data + b * mine.count * width, (const float *)picture.data + (b * picture.shape[1] + mine.first) * width,
               (size_t)(mine.count * width) * sizeof(float));
    return out;
}

/* All ranks' rows, on each. */
static struct tensor all_rows(struct run *run, struct tensor rows) {
    struct tensor all = rows;
    if (!parallel_cuts_positions(run->parallel)) return all;
    for (int root = 0; root < comm_size(run->parallel->cut_group); root++) {
        struct tensor here = exchange_gather_rows(run, rows, root);
        if (root == comm_rank(run->parallel->cut_group)) all = here;
    }
    return all;
}

/* Moments of the image and the picture of the latents; either may be empty. */
struct results {
    struct tensor moments, picture;
};

static struct results compute(struct conformance_case *c, const struct autoencoder *vae, struct run *run, struct tensor image,
                              struct tensor latents, bool tiling) {
    struct results r = {0};
    if (image.data != NULL) r.moments = autoencoder_encode(vae, run, my_rows(c, run, vae, image));
    if (latents.data == NULL) return r;
    r.picture = autoencoder_decode(vae, run, latents, tiling);
    return r;
}

/* This rank's operations, against those of the same alone. */
static void check_work(struct conformance_case *c, const struct autoencoder *vae, struct tensor image, struct tensor latents) {
    struct conformance_work *w = &c->work;
    struct run alone = c->run;
    alone.parallel = NULL;
    alone.operations = 0;
    compute(c, vae, &alone, image, latents, false);
    int64_t rows = latents.data != NULL ? latents.shape[1] : image.shape[1], ranks = c->world->ranks;
    if (latents.data == NULL) rows /= vae->scale;
    w->operations = c->run.operations / alone.operations;
    w->operations_limit = SPREAD_OPERATIONS_SLACK * (double)((rows + ranks - 1) / ranks) / (double)rows;
    w->weights = w->weights_limit = 1.0;
    if (w->operations > w->operations_limit && c->world->weights == NULL)
        case_fail(c, "operations are %.3g of one rank's, at most %.3g is right", w->operations, w->operations_limit);
}

static void check_vae(struct conformance_case *c, const struct autoencoder *vae) {
    struct tensor image = case_tensor(&c->io, "in.image"), latents = case_tensor(&c->io, "in.latents");
    bool tiling = false;
    tessera_error error = {0};
    if (json_bool(c->io.json, "tiling", false, &tiling, &error) != TESSERA_OK) case_error(c, &error);
    bool encodes = image.data != NULL && case_tensor(&c->io, "out.mean").data != NULL;
    bool decodes = latents.data != NULL && case_tensor(&c->io, "out.image").data != NULL;
    struct tensor x = encodes ? case_channels_last(&image) : (struct tensor){0};
    struct tensor z = decodes ? case_channels_last(&latents) : (struct tensor){0};
    uint64_t sent = comm_stats_read(c->world->comm, NULL).bytes_sent;
    struct results r = compute(c, vae, &c->run, x, z, tiling);
    c->work.bytes = comm_stats_read(c->world->comm, NULL).bytes_sent - sent;
    if (c->world->ranks > 1 && !tiling && !run_failed(&c->run)) check_work(c, vae, x, z);
    if (decodes && !tiling) r.picture = all_rows(&c->run, r.picture);
    r = (struct results){.moments = case_host(c, r.moments), .picture = case_host(c, r.picture)};
    if (run_failed(&c->run)) {
        case_error(c, &c->run.error);
    } else {
        if (encodes) check_picture(c, "out.mean", channels(c, r.moments, 0, vae->latent_channels));
        if (encodes) check_picture(c, "out.logvar", channels(c, r.moments, vae->latent_channels, vae->latent_channels));
        if (decodes) check_picture(c, "out.image", r.picture);
    }
    free(x.data);
    free(z.data);
}

void conform_vae(struct conformance_case *c) {
    struct component component;
    const int *degrees = c->mesh->degrees;
    if (degrees[MESH_CFG] * degrees[MESH_ULYSSES] * degrees[MESH_TENSOR] > 1) {
        spread_cannot_have(c, "an autoencoder's picture is cut by rows only: use the ring axis");
        return;
    }
    if (!case_component(c, &component)) return;
    if (component.autoencoder == NULL)
        case_fail(c, "model/ is no autoencoder");
    else
        check_vae(c, component.autoencoder);
    component_close(&component);
}
