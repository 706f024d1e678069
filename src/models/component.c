/* A component's weights, segment by segment: each segment's layers are described when the component
 * is opened, get data when the segment is loaded, and lose it when it is dropped. All three are one
 * pass of the class's function for the segment; the loader's mode tells them apart.
 *
 *     open ---> described <--- drop / load ---> loaded
 *
 * A segment has an arena of its own, which is unmapped as a whole; what its layers borrow from the
 * mapped file is given back page by page. */
#include <stdlib.h>
#include <string.h>

#include "models/component.h"

struct loader component_loader(const struct component *c, enum load_mode mode, struct arena *arena) {
    return (struct loader){.mode = mode, .scope = c->scope, .weights = c->weights, .hooks = &c->hooks, .arena = arena, .dtype = c->dtype};
}

static void run_text_encoder(struct component *c, int segment, struct loader *loader) {
    const struct text_encoder_class *class = c->text_encoder->class;
    if (segment == COMPONENT_EMBED)
        class->load_embed(c->text_encoder, loader);
    else if (segment == c->num_blocks)
        class->load_finish(c->text_encoder, loader);
    else
        class->load_block(c->text_encoder, segment, loader);
}

static void run_denoiser(struct component *c, int segment, struct loader *loader) {
    const struct denoiser_class *class = c->denoiser->class;
    if (segment == COMPONENT_EMBED)
        class->load_embed(c->denoiser, loader);
    else if (segment == c->num_blocks)
        class->load_finish(c->denoiser, loader);
    else
        class->load_block(c->denoiser, segment, loader);
}

/* The class's function for a segment. */
static void run_segment(struct component *c, int segment, struct loader *loader) {
    if (c->denoiser != NULL) run_denoiser(c, segment, loader);
    if (c->text_encoder != NULL) run_text_encoder(c, segment, loader);
    if (c->autoencoder != NULL && segment >= 0 && segment < c->num_blocks)
        c->autoencoder->class->load_segment(c->autoencoder, (enum autoencoder_segment)segment, loader);
}

bool component_has_segment(const struct component *c, int segment) {
    if (segment == COMPONENT_EMBED) return !c->no_embed && load_scope_has(&c->scope, 0);
    if (segment == c->num_blocks) return !c->no_finish && load_scope_has(&c->scope, segment - 1);
    bool elsewhere = false;
    for (int i = 0; i < c->num_elsewhere; i++)
        elsewhere = elsewhere || (segment >= c->elsewhere[i].first && segment < c->elsewhere[i].first + c->elsewhere[i].count);
    return !elsewhere && load_scope_has(&c->scope, segment);
}

static void ask_nothing(void *user, const char *name, int ndim, const int64_t *shape) {
    (void)user, (void)name, (void)ndim, (void)shape;
}

const struct load_hooks component_asks_nothing = {.record = ask_nothing};

tessera_status component_ask(struct component *c, int segment, const struct load_hooks *hooks, tessera_error *error) {
    struct loader loader = component_loader(c, LOAD_DESCRIBE, c->arena);
    loader.hooks = hooks;
    run_segment(c, segment, &loader);
    return load_failed(&loader) ? error_set(error, loader.error.status, "%s", loader.error.message) : TESSERA_OK;
}

tessera_status component_describe_segments(struct component *c, tessera_error *error) {
    c->segments = calloc((size_t)c->num_blocks + 2, sizeof *c->segments);
    if (c->segments == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a list of %d blocks", c->num_blocks);
    for (int segment = COMPONENT_EMBED; segment <= c->num_blocks; segment++) {
        struct component_segment *p = &c->segments[segment + 1];
        struct loader loader = component_loader(c, LOAD_DESCRIBE, c->arena);
        bool unknown = c->scope_only && !component_has_segment(c, segment);
        if (unknown) loader.hooks = &component_asks_nothing;
        loader.notes_spans = c->weights != NULL && !unknown;
        run_segment(c, segment, &loader);
        p->spans = loader.spans;
        p->num_spans = loader.num_spans;
        if (load_failed(&loader)) return error_set(error, loader.error.status, "%s", loader.error.message);
        p->bytes = loader.bytes;
        p->arena_bytes = load_arena_bytes(&loader);
        p->converted = loader.converted;
        for (int i = 0; i < p->num_spans; i++) p->stored += p->spans[i].bytes;
        if (component_has_segment(c, segment)) c->weight_bytes += loader.bytes;
    }
    return TESSERA_OK;
}

void component_drop_block(struct component *c, int segment) {
    struct component_segment *p = &c->segments[segment + 1];
    if (p->arena == NULL) return;
    struct loader loader = component_loader(c, LOAD_FORGET, c->arena);
    run_segment(c, segment, &loader);
    arena_free(p->memory);
    arena_free(p->arena);
    p->memory = p->arena = NULL;
}

tessera_status component_load_block(struct component *c, int segment, tessera_error *error) {
    struct component_segment *p = &c->segments[segment + 1];
    if (p->arena != NULL) return TESSERA_OK;
    p->arena = arena_new(p->arena_bytes, error);
    if (p->arena == NULL) return error->status;
    struct loader loader = component_loader(c, LOAD_READ, p->arena);
    loader.copies = p->copies;
    if (c->backend != NULL && !c->backend->shares_host) {
        loader.backend = c->backend;
        loader.memory = p->memory = c->backend->ops->arena(c->backend, p->arena_bytes, &loader.error);
    }
    if (!load_failed(&loader)) run_segment(c, segment, &loader);
    if (!load_failed(&loader)) {
        arena_trim(p->arena, arena_mark(p->arena)); /* what conversions needed beside */
        return TESSERA_OK;
    }
    component_drop_block(c, segment);
    return error_set(error, loader.error.status, "%s", loader.error.message);
}

tessera_status component_load(struct component *c, tessera_error *error) {
    for (int segment = COMPONENT_EMBED; segment <= c->num_blocks; segment++)
        if (component_has_segment(c, segment)) TRY(component_load_block(c, segment, error));
    return TESSERA_OK;
}

void component_watch(struct component *c, const struct segment_watch *watch) {
    if (c->denoiser != NULL) c->denoiser->watch = watch;
    if (c->text_encoder != NULL) c->text_encoder->watch = watch;
    if (c->autoencoder != NULL) c->autoencoder->watch = watch;
}

void component_close(struct component *c) {
    for (int i = 0; c->segments != NULL && i < c->num_blocks + 2; i++) {
        arena_free(c->segments[i].memory);
        arena_free(c->segments[i].arena);
        free(c->segments[i].spans);
    }
    free(c->segments);
    arena_free(c->arena);
    weights_close(c->weights);
    json_free(c->config);
    memset(c, 0, sizeof *c);
}
