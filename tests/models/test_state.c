/* A block's state packed and unpacked: what every family's states look like comes back bit for bit, skips and conditioning too; what is
 * sent once comes from the store; and a message of which any one field differs is refused with that field's name. */
#include "models/state.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { ROOM = 1 << 16 };

static uint32_t seed = 1;

/* A tensor of numbers that look random; the test's end frees nothing, as each is of static memory. */
static struct tensor filled(enum dtype dtype, int ndim, const int64_t *shape) {
    static uint8_t room[ROOM];
    static size_t used = 0;
    struct tensor t = tensor_of(room + used, dtype, ndim, shape);
    for (size_t i = 0; i < tensor_bytes(&t); i++) room[used + i] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
    used += (tensor_bytes(&t) + 63) / 64 * 64;
    return t;
}

struct family {
    const char *name;
    struct denoiser_state state;
};

/* The forms in which the families' blocks hand on their states. */
static int make_families(struct family out[5]) {
    out[0] = (struct family){.name = "SD3, Flux", .state = {.rows = 4, .columns = 3, .text_tokens = 5}};
    out[0].state.picture = filled(DTYPE_BF16, SHAPE(2, 12, 8));
    out[0].state.text = filled(DTYPE_BF16, SHAPE(2, 5, 8));
    out[0].state.cond = filled(DTYPE_F32, SHAPE(2, 16));
    out[1] = (struct family){.name = "Flux, after its text", .state = {.rows = 4, .columns = 3}};
    out[1].state.picture = filled(DTYPE_F32, SHAPE(1, 17, 8));
    out[1].state.cond = filled(DTYPE_F32, SHAPE(1, 16));
    out[2] = (struct family){.name = "PixArt", .state = {.rows = 2, .columns = 2}};
    out[2].state.picture = filled(DTYPE_F32, SHAPE(2, 4, 8));
    out[2].state.text = filled(DTYPE_F32, SHAPE(2, 7, 8));
    out[2].state.text_mask = filled(DTYPE_F32, SHAPE(2, 7));
    out[2].state.cond = filled(DTYPE_F32, SHAPE(2, 48));
    out[3] = (struct family){.name = "HunyuanDiT", .state = {.rows = 2, .columns = 2, .num_skips = 2}};
    out[3].state.picture = filled(DTYPE_BF16, SHAPE(2, 4, 8));
    out[3].state.text = filled(DTYPE_BF16, SHAPE(2, 3, 8));
    out[3].state.cond = filled(DTYPE_F32, SHAPE(2, 8));
    for (int i = 0; i < 2; i++) out[3].state.skips[i] = filled(DTYPE_BF16, SHAPE(2, 4, 8));
    out[4] = (struct family){.name = "U-Net", .state = {.rows = 8, .columns = 8, .num_skips = 12}};
    out[4].state.picture = filled(DTYPE_BF16, SHAPE(2, 2, 2, 16));
    out[4].state.text = filled(DTYPE_BF16, SHAPE(2, 7, 8));
    out[4].state.cond = filled(DTYPE_F32, SHAPE(2, 32));
    for (int i = 0; i < 12; i++) out[4].state.skips[i] = filled(DTYPE_BF16, SHAPE(2, 8 >> i / 4, 8 >> i / 4, 4 + i));
    return 5;
}

static bool same_tensor(const struct tensor *a, const struct tensor *b) {
    bool same = a->ndim == b->ndim && (a->ndim == 0 || (a->dtype == b->dtype && tensor_bytes(a) == tensor_bytes(b)));
    return same && (a->ndim == 0 || memcmp(a->data, b->data, tensor_bytes(a)) == 0);
}

static bool same_state(const struct denoiser_state *a, const struct denoiser_state *b) {
    bool same = same_tensor(&a->picture, &b->picture) && same_tensor(&a->text, &b->text) && same_tensor(&a->text_mask, &b->text_mask) &&
                same_tensor(&a->cond, &b->cond) && a->num_skips == b->num_skips && a->rows == b->rows && a->columns == b->columns;
    for (int i = 0; same && i < a->num_skips; i++) same = same_tensor(&a->skips[i], &b->skips[i]);
    return same;
}

/* A store of one tensor. */
static const void *find(void *user, const uint8_t digest[STATE_DIGEST_BYTES], size_t bytes) {
    const struct tensor *t = user;
    uint8_t own[STATE_DIGEST_BYTES];
    denoiser_state_digest(t->data, tensor_bytes(t), own);
    return bytes == tensor_bytes(t) && memcmp(own, digest, sizeof own) == 0 ? t->data : NULL;
}

/* What the receiver expects: the forms alone. */
static struct denoiser_state form_of(struct denoiser_state state) {
    state.picture.data = state.text.data = state.text_mask.data = state.cond.data = NULL;
    for (int i = 0; i < state.num_skips; i++) state.skips[i].data = NULL;
    return state;
}

static void test_round_trip(struct family *f, uint8_t *bytes) {
    struct denoiser_state expected = form_of(f->state), got;
    const struct state_store store = {find, &f->state.text};
    for (int by_digest = 0; by_digest < 2; by_digest++) {
        struct state_message sent = {.job = 7, .skipped = by_digest == 1}, came;
        if (by_digest && f->state.text.ndim == 0) continue;
        sent.by_digest = by_digest ? 1u << STATE_TEXT : 0;
        tessera_error error = {0};
        size_t size = denoiser_state_bytes(&expected, sent.by_digest);
        denoiser_state_pack(&f->state, &sent, bytes);
        CHECK(denoiser_state_unpack(bytes, size, &expected, &store, &got, &came, &error) == TESSERA_OK, "%s: %s", f->name, error.message);
        CHECK(same_state(&got, &f->state), "%s: another state came out", f->name);
        CHECK(came.job == 7 && came.skipped == sent.skipped && came.by_digest == sent.by_digest, "%s: another message", f->name);
        if (by_digest) {
            tessera_status status = denoiser_state_unpack(bytes, size, &expected, NULL, &got, &came, &error);
            CHECK(status == TESSERA_ERROR_FORMAT && strstr(error.message, "digest") != NULL, "%s: %s", f->name, error.message);
        }
    }
}

/* Each byte of the head and of the records matters, but for the job's number and the flag of a skipped stage. */
static void test_every_field(struct family *f, uint8_t *bytes) {
    struct denoiser_state expected = form_of(f->state), got;
    struct state_message message = {.job = 7};
    size_t size = denoiser_state_bytes(&expected, 0), records = f->state.num_skips + 1u + (f->state.text.ndim > 0) +
                  (f->state.text_mask.ndim > 0) + (f->state.cond.ndim > 0);
    denoiser_state_pack(&f->state, &message, bytes);
    for (size_t i = 0; i < STATE_HEAD_BYTES + 64 * records; i++) {
        tessera_error error = {0};
        bool free_field = i == 6 || (i >= 8 && i < 16);
        bytes[i] ^= 1;
        tessera_status status = denoiser_state_unpack(bytes, size, &expected, NULL, &got, &message, &error);
        CHECK(free_field == (status == TESSERA_OK) && (free_field || strstr(error.message, "field ") != NULL), "%s: byte %zu: %s", f->name, i,
              error.message);
        bytes[i] ^= 1;
    }
    for (size_t cut = 0; cut < size; cut += 1 + cut / 8) {
        tessera_error error = {0};
        CHECK(denoiser_state_unpack(bytes, cut, &expected, NULL, &got, &message, &error) == TESSERA_ERROR_FORMAT, "%s: %zu bytes", f->name, cut);
    }
}

static void test_names_what_differs(struct family *f, uint8_t *bytes) {
    struct denoiser_state expected = form_of(f->state), got;
    struct state_message message = {0};
    tessera_error error = {0};
    denoiser_state_pack(&f->state, &message, bytes);
    expected.cond.shape[1]++;
    tessera_status status = denoiser_state_unpack(bytes, denoiser_state_bytes(&f->state, 0), &expected, NULL, &got, &message, &error);
    CHECK(status == TESSERA_ERROR_FORMAT && strstr(error.message, "cond") != NULL, "%s: %s", f->name, error.message);
}

int main(void) {
    struct family families[5];
    uint8_t *bytes = aligned_alloc(64, ROOM);
    int count = make_families(families);
    if (bytes == NULL) return 1;
    for (int i = 0; i < count; i++) {
        test_round_trip(&families[i], bytes);
        test_every_field(&families[i], bytes);
        test_names_what_differs(&families[i], bytes);
    }
    free(bytes);
    return CHECK_REPORT();
}
