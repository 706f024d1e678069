/* A block's state packed and unpacked: of every family, at every boundary, what comes is what its
 * model expects and leads to the same prediction bit for bit, skips and conditioning too; constants
 * come once and then by their digests; and a message of which any one field differs is refused with
 * that field's name. */
#include "models/state.h"

#include <math.h>
#include <stdlib.h>

#include "denoiser_test.h"
#include "parallel/cut.h"

enum { JOB = 7, ALL = DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT | DENOISER_CARRIES_COND };

/* The receiver, and the job's constants in it. */
struct receiver {
    const struct denoiser *denoiser;
    struct run *run;
    const struct denoiser_inputs *in;
    struct state_store store;
    struct denoiser_map maps[DENOISER_MAX_SKIPS]; /* of the skips that blocks have left so far */
    int num_maps;
};

/* What block `index` takes from the stack and leaves there. */
static void follow_skips(struct receiver *r, int index) {
    struct denoiser_block_info info;
    r->denoiser->class->describe(r->denoiser, index, &info);
    r->num_maps -= info.pops;
    for (int i = 0; i < info.pushes; i++) r->maps[r->num_maps++] = info.pushed[i];
}

static struct denoiser_state expected_before(const struct receiver *r, int block) {
    return denoiser_state_expected(r->denoiser, r->run, r->in, block, ALL, r->maps, r->num_maps);
}

/* Memory of the state's message, aligned; the caller frees. */
static uint8_t *packed(const struct denoiser_state *state, struct state_message *message, size_t *size) {
    tessera_error error = {0};
    *size = denoiser_state_bytes(state, message->by_digest);
    uint8_t *bytes = aligned_alloc(64, *size);
    CHECK(bytes != NULL && denoiser_state_pack(state, message, NULL, bytes, &error) == TESSERA_OK, "%s", error.message);
    return bytes;
}

static tessera_status unpack(struct receiver *r, int block, const uint8_t *bytes, size_t size, struct denoiser_state *out,
                             struct state_message *came, tessera_error *error) {
    struct denoiser_state expected = expected_before(r, block);
    *came = (struct state_message){.job = JOB, .constants = denoiser_state_constants(r->denoiser)};
    return denoiser_state_unpack(bytes, size, &expected, &r->store, out, came, error);
}

/* ---- a pass of which every state goes through the door ---- */

/* A copy of the tensors that lie in the message. */
static void copy_in(struct run *run, struct denoiser_state *state) {
    struct tensor *fields[4 + DENOISER_MAX_SKIPS] = {&state->picture, &state->text, &state->text_mask, &state->cond};
    for (int i = 0; i < state->num_skips; i++) fields[4 + i] = &state->skips[i];
    for (int i = 0; i < 4 + state->num_skips; i++) {
        if (fields[i]->ndim == 0) continue;
        struct tensor t = run_tensor(run, fields[i]->dtype, fields[i]->ndim, fields[i]->shape);
        memcpy(t.data, fields[i]->data, tensor_bytes(&t));
        *fields[i] = t;
    }
}

/* The state before `block`, as another process gets it; constants by digest from the second message
 * on. */
static struct denoiser_state sent(struct receiver *r, int block, struct denoiser_state state, struct state_message *message) {
    struct denoiser_state got = {0};
    struct state_message came;
    tessera_error error = {0};
    size_t size;
    message->skipped = block % 2 == 1;
    message->by_digest = message->constants;
    message->constants = denoiser_state_constants(r->denoiser);
    uint8_t *bytes = packed(&state, message, &size);
    CHECK(unpack(r, block, bytes, size, &got, &came, &error) == TESSERA_OK, "block %d: %s", block, error.message);
    CHECK(came.skipped == message->skipped, "block %d: another flag", block);
    copy_in(r->run, &got);
    free(bytes);
    return got;
}

static void check_pass(const struct case_io *c, struct component_test *t, const struct denoiser_inputs *in) {
    const struct denoiser *m = t->component.denoiser;
    struct receiver r = {.denoiser = m, .run = &t->run, .in = in, .store.backend = t->backend};
    struct state_message message = {.job = JOB};
    struct tensor whole = denoiser_forward(m, &t->run, in);
    struct denoiser_state state = m->class->embed(m, &t->run, in, DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT);
    (void)c;
    for (int i = 0; i < m->num_blocks; i++) {
        state = sent(&r, i, state, &message);
        state = m->class->block(m, &t->run, i, state);
        follow_skips(&r, i);
    }
    struct tensor got = m->class->finish(m, &t->run, state);
    CHECK(got.data != NULL && memcmp(got.data, whole.data, tensor_bytes(&whole)) == 0, "%s: %s", m->class->name, t->run.error.message);
    CHECK(r.store.count == (m->text_stream ? 0 : 1) + (m->form.text_mask && in->text_mask.data != NULL), "%s: %d constants", m->class->name,
          r.store.count);
    state_store_close(&r.store);
}

/* ---- what is refused ---- */

/* The state as the first block gets it, in a message. */
struct sample {
    struct receiver receiver;
    struct denoiser_state state;
    struct state_message message;
    uint8_t *bytes;
    size_t size;
};

/* Each byte of the head and of the records matters, but for the flag of a skipped stage. */
static void check_every_byte(struct sample *s) {
    size_t records = 2u + (s->state.text.ndim > 0) + (s->state.text_mask.ndim > 0);
    for (size_t i = 0; i < STATE_HEAD_BYTES + STATE_RECORD_BYTES * records; i++) {
        struct denoiser_state got;
        struct state_message came;
        tessera_error error = {0};
        s->bytes[i] ^= 1;
        tessera_status status = unpack(&s->receiver, 0, s->bytes, s->size, &got, &came, &error);
        CHECK((i == 6) == (status == TESSERA_OK) && (i == 6 || strstr(error.message, "field ") != NULL), "byte %zu: %s", i, error.message);
        s->bytes[i] ^= 1;
    }
}

static void check_every_length(struct sample *s) {
    for (size_t cut = 0; cut < s->size; cut += 1 + cut / 8) {
        struct denoiser_state got;
        struct state_message came;
        tessera_error error = {0};
        CHECK(unpack(&s->receiver, 0, s->bytes, cut, &got, &came, &error) == TESSERA_ERROR_FORMAT, "%zu bytes: %s", cut, error.message);
    }
}

/* A number that is not finite, anywhere in a field, is refused with the field's name. */
static void check_not_finite(struct sample *s) {
    const float bad[] = {NAN, INFINITY, -INFINITY};
    struct tensor picture = s->state.picture;
    size_t first = s->size;
    for (size_t at = STATE_HEAD_BYTES; at + tensor_bytes(&picture) <= s->size && first == s->size; at += 64)
        if (memcmp(s->bytes + at, picture.data, tensor_bytes(&picture)) == 0) first = at;
    CHECK(first < s->size, "the picture lies in the message");
    for (int i = 0; i < 3; i++) {
        struct denoiser_state got;
        struct state_message came;
        tessera_error error = {0};
        uint8_t kept[sizeof(float)];
        size_t bytes = dtype_size(picture.dtype);
        memcpy(kept, s->bytes + first, bytes);
        dtype_convert(s->bytes + first, picture.dtype, &bad[i], DTYPE_F32, 1);
        tessera_status status = unpack(&s->receiver, 0, s->bytes, s->size, &got, &came, &error);
        CHECK(status == TESSERA_ERROR_FORMAT && strstr(error.message, "field picture") != NULL, "%g: %s", (double)bad[i], error.message);
        memcpy(s->bytes + first, kept, bytes);
    }
}

/* A sender whose state has another form is refused by the name of the field. */
static void check_named(struct sample *s, const char *field, struct tensor *t, int dimension) {
    struct denoiser_state got;
    struct state_message came, message = {.job = JOB, .constants = s->message.constants};
    tessera_error error = {0};
    char name[32];
    size_t size;
    if (t->ndim == 0) return;
    snprintf(name, sizeof name, "field %s:", field);
    t->shape[dimension]--;
    uint8_t *bytes = packed(&s->state, &message, &size);
    t->shape[dimension]++;
    tessera_status status = unpack(&s->receiver, 0, bytes, size, &got, &came, &error);
    CHECK(status == TESSERA_ERROR_FORMAT && strstr(error.message, name) != NULL, "%s: %s", name, error.message);
    free(bytes);
}

static void check_job_and_digests(struct sample *s) {
    struct denoiser_state expected = expected_before(&s->receiver, 0), got;
    struct state_message came = {.job = JOB + 1, .constants = s->message.constants}, again = s->message;
    struct state_store empty = {.backend = s->receiver.store.backend};
    tessera_error error = {0};
    size_t size;
    tessera_status status = denoiser_state_unpack(s->bytes, s->size, &expected, &s->receiver.store, &got, &came, &error);
    CHECK(status == TESSERA_ERROR_FORMAT && strstr(error.message, "field job") != NULL, "another job: %s", error.message);
    if (s->state.text.ndim == 0 || (again.constants & 1u << STATE_TEXT) == 0) return;
    again.by_digest = again.constants;
    uint8_t *bytes = packed(&s->state, &again, &size);
    CHECK(size < s->size, "%zu bytes where constants go by digest, %zu without", size, s->size);
    came = (struct state_message){.job = JOB, .constants = s->message.constants};
    status = denoiser_state_unpack(bytes, size, &expected, &empty, &got, &came, &error);
    CHECK(status == TESSERA_ERROR_FORMAT && strstr(error.message, "digest") != NULL, "unknown digest: %s", error.message);
    free(bytes);
}

/* A peer that sends another "constant" each time does not fill the memory. */
static void check_store_is_bounded(struct sample *s) {
    struct denoiser_state got;
    struct state_message came;
    tessera_error error = {0};
    if ((s->message.constants & 1u << STATE_TEXT) == 0) return;
    tessera_status status = TESSERA_OK;
    for (int i = 0; i < STATE_STORE_MOST + 1 && status == TESSERA_OK; i++) {
        *(uint8_t *)s->state.text.data += 1;
        struct state_message message = {.job = JOB, .constants = s->message.constants};
        size_t size;
        uint8_t *bytes = packed(&s->state, &message, &size);
        status = unpack(&s->receiver, 0, bytes, size, &got, &came, &error);
        free(bytes);
    }
    CHECK(status == TESSERA_ERROR_FORMAT && strstr(error.message, "field text") != NULL, "new constants: %s", error.message);
    CHECK(s->receiver.store.count <= STATE_STORE_MOST, "%d constants", s->receiver.store.count);
}

static void check_refusals(const struct case_io *c, struct component_test *t, const struct denoiser_inputs *in) {
    const struct denoiser *m = t->component.denoiser;
    struct sample s = {.receiver = {.denoiser = m, .run = &t->run, .in = in, .store.backend = t->backend},
                       .message = {.job = JOB, .constants = denoiser_state_constants(m)}};
    s.state = m->class->embed(m, &t->run, in, DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT);
    s.bytes = packed(&s.state, &s.message, &s.size);
    (void)c;
    check_every_byte(&s);
    check_every_length(&s);
    check_not_finite(&s);
    check_named(&s, "picture", &s.state.picture, 1);
    check_named(&s, "text", &s.state.text, 1);
    check_named(&s, "text", &s.state.text, 2);
    check_named(&s, "text_mask", &s.state.text_mask, 1);
    check_named(&s, "cond", &s.state.cond, 1);
    check_job_and_digests(&s);
    check_store_is_bounded(&s);
    state_store_close(&s.receiver.store);
    free(s.bytes);
}

int main(void) {
    static const char *const cases[] = {"sd3", "flux_dev", "pixart_sigma", "hunyuandit", "unet_sd15", "unet_sdxl"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char folder[64];
        snprintf(folder, sizeof folder, "tests/cases/%s", cases[i]);
        for (int dtype = 0; dtype < 2; dtype++) with_denoiser_case(folder, dtype == 0 ? DTYPE_F32 : DTYPE_BF16, check_pass);
        with_denoiser_case(folder, DTYPE_F32, check_refusals);
    }
    return CHECK_REPORT();
}
