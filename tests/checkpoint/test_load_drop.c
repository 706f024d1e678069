/* What a component holds in memory, by the system's count: nothing when it is opened, one segment's
 * weights when one is loaded, nothing when they are dropped; of weights that are lent from the
 * file, converted, misaligned in it, or rearranged when they are loaded. A type that is no wider
 * than the computing type stays as it is stored: in float32, bfloat16 weights take half of what
 * their copies would. A denoiser and a text encoder compute the same bits with a window of one or
 * two segments as with all weights in memory, and hold no more than the window. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "check.h"
#include "checkpoint/convert.h"
#include "checkpoint/random_component.h"
#include "models/stream.h"
#include "resident.h"

enum { BLOCKS = 3, TOKENS = 5, SIDE = 8, CHANNELS = 16, TEXT_WIDTH = 64 };
#define MIB ((size_t)1 << 20)

struct kind {
    const char *name, *stem, *first_block, *config;
};
/* SD3's transformer, 512 wide: some 8 million weights a block. */
static const struct kind transformer = {
    "transformer", "diffusion_pytorch_model", "transformer_blocks.0.",
    "{\"_class_name\": \"SD3Transformer2DModel\", \"attention_head_dim\": 64, \"caption_projection_dim\": 512,\n"
    " \"in_channels\": 16, \"joint_attention_dim\": 64, \"num_attention_heads\": 8, \"num_layers\": 3,\n"
    " \"out_channels\": 16, \"patch_size\": 2, \"pooled_projection_dim\": 64, \"pos_embed_max_size\": 16,\n"
    " \"sample_size\": 32}\n"};
/* T5's encoder with blocks of some 9 million weights. */
static const struct kind text_encoder = {
    "text_encoder", "model", "encoder.block.0.",
    "{\"architectures\": [\"T5EncoderModel\"], \"d_model\": 512, \"d_kv\": 64, \"d_ff\": 5120,\n"
    " \"feed_forward_proj\": \"gated-gelu\", \"num_heads\": 8, \"num_layers\": 3, \"vocab_size\": 100}\n"};

static bool make_model(const char *folder, const struct kind *kind, tessera_error *error) {
    struct tensor_list list = {0};
    struct random_component component = {
        .folder = folder, .name = kind->name, .stem = kind->stem, .list = &list, .seed = 1, .max_shard_bytes = SIZE_MAX};
    char *path = file_join(folder, "config.json");
    FILE *file = fopen(path, "w");
    bool good = file != NULL && fputs(kind->config, file) >= 0 && fclose(file) == 0;
    good = good && tensor_list_read(&list, folder, error) == TESSERA_OK && random_component_write(&component, error) == TESSERA_OK;
    tensor_list_clear(&list);
    free(path);
    return good;
}

/* One more byte of header: no tensor is aligned any more. */
static bool misalign(const char *folder, const struct kind *kind) {
    char name[64], *path;
    snprintf(name, sizeof name, "%s.safetensors", kind->stem);
    path = file_join(folder, name);
    FILE *file = fopen(path, "r+b");
    bool good = file != NULL && fseek(file, 0, SEEK_END) == 0;
    size_t length = good ? (size_t)ftell(file) : 0, header = 0;
    uint8_t *bytes = malloc(length + 1);
    good = good && bytes != NULL && fseek(file, 0, SEEK_SET) == 0 && fread(bytes, 1, length, file) == length;
    if (good) {
        memcpy(&header, bytes, 8);
        memmove(bytes + 8 + header + 1, bytes + 8 + header, length - 8 - header);
        bytes[8 + header++] = ' ';
        memcpy(bytes, &header, 8);
        good = fseek(file, 0, SEEK_SET) == 0 && fwrite(bytes, 1, length + 1, file) == length + 1;
    }
    if (file != NULL) fclose(file);
    free(bytes);
    free(path);
    return good;
}

/* All matrices in F32. */
static bool widen(const char *folder, const struct kind *kind) {
    char name[64];
    tessera_error error = {0};
    const struct convert_types types = {.given = true, .dtype = DTYPE_F32};
    struct convert_report report = {.types = &types};
    snprintf(name, sizeof name, "%s.safetensors", kind->stem);
    char *path = file_join(folder, name), *wide = file_join(folder, "wide.safetensors");
    bool good = convert_tensors(path, wide, &report, &error) == TESSERA_OK && rename(wide, path) == 0;
    CHECK(good, "%s", error.message);
    free(path);
    free(wide);
    return good;
}

static void write_same(const struct tensor *source, void *to) {
    memcpy(to, source->data, tensor_bytes(source));
}

/* The folder's weights, those of block 0 as something that has to be made. */
static struct weights *open_view(const char *folder, const struct kind *kind, tessera_error *error) {
    char name[64];
    struct weights *view = NULL;
    struct safetensors *file = NULL;
    snprintf(name, sizeof name, "%s.safetensors", kind->stem);
    char *path = file_join(folder, name);
    if (weights_view_new(path, &view, error) == TESSERA_OK && safetensors_open(path, &file, error) == TESSERA_OK)
        weights_view_keep(view, file, error);
    for (int i = 0; file != NULL && i < safetensors_count(file); i++) {
        const struct safetensors_entry *entry = safetensors_at(file, i);
        struct tensor tensor = entry->tensor;
        const struct weights_recipe recipe = {write_same, tensor};
        bool made = strstr(entry->name, kind->first_block) == entry->name;
        if (made) tensor.data = NULL;
        weights_view_add(view, entry->name, &tensor, made ? &recipe : NULL, error);
    }
    if (file != NULL) weights_view_finish(view, error);
    free(path);
    return view;
}

/* What block 0's weights take in the narrower of their own type and `dtype`. */
static size_t least_bytes(const struct component *c, const struct kind *kind, enum dtype dtype) {
    size_t bytes = 0;
    for (int i = 0; i < weights_count(c->weights); i++) {
        const struct safetensors_entry *entry = weights_at(c->weights, i);
        size_t stored = dtype_size(entry->tensor.dtype), computed = dtype_size(dtype);
        if (strstr(entry->name, kind->first_block) == entry->name)
            bytes += (size_t)tensor_count(&entry->tensor) * (stored < computed ? stored : computed);
    }
    return bytes;
}

/* Reads a byte of each page of block `index`'s weights that are lent from the file. */
static void touch(const struct component *c, int index, const struct kind *kind, enum dtype dtype) {
    char prefix[64];
    volatile unsigned sum = 0;
    snprintf(prefix, sizeof prefix, "%.*s%d.", (int)strlen(kind->first_block) - 2, kind->first_block, index);
    for (int i = 0; i < weights_count(c->weights); i++) {
        const struct safetensors_entry *entry = weights_at(c->weights, i);
        bool lent = entry->tensor.data != NULL && (uintptr_t)entry->tensor.data % dtype_alignment(entry->tensor.dtype) == 0;
        lent = lent && dtype_size(entry->tensor.dtype) <= dtype_size(dtype); /* what is wider is converted */
        if (!lent || strncmp(entry->name, prefix, strlen(prefix)) != 0) continue;
        for (size_t at = 0; at < tensor_bytes(&entry->tensor); at += 1024) sum += ((const uint8_t *)entry->tensor.data)[at];
    }
}

/* Grown from `before` by `bytes`, up to a twentieth of a block's? */
static void check_grown(const char *what, size_t before, size_t bytes, size_t block) {
    size_t now = resident_bytes();
    double grown = (double)now - (double)before;
    CHECK(grown > (double)bytes - 0.05 * (double)block && grown < (double)bytes + 0.05 * (double)block, "%s: %.1f MiB more, not %.1f", what,
          grown / (double)MIB, (double)bytes / (double)MIB);
}

static void test_type(const char *folder, const struct kind *kind, enum dtype dtype, struct weights *weights) {
    struct component c;
    tessera_error error = {0};
    struct component_source source = {.folder = folder, .weights = weights};
    size_t start = resident_bytes();
    CHECK(component_open(&source, dtype, &c, &error) == TESSERA_OK, "%s", error.message);
    if (error.status != TESSERA_OK) return;
    size_t block = c.segments[1].bytes, least = least_bytes(&c, kind, dtype);
    CHECK(block < least + least / 20, "a block takes %zu bytes; its weights as stored or computed %zu", block, least);
    CHECK(block > 8 * MIB && c.weight_bytes > BLOCKS * block / 2, "%zu bytes a block", block);
    check_grown("opened", start, 0, block);
    for (int round = 0; round < 2; round++) {
        size_t before = resident_bytes();
        for (int i = 0; i < BLOCKS; i++) {
            CHECK(component_load_block(&c, i, &error) == TESSERA_OK, "%s", error.message);
            touch(&c, i, kind, dtype);
        }
        size_t all = c.segments[1].bytes + c.segments[2].bytes + c.segments[3].bytes;
        check_grown("loaded", before, all, block);
        component_drop_block(&c, 1);
        check_grown("one dropped", before, all - c.segments[2].bytes, block);
        component_drop_block(&c, 0);
        component_drop_block(&c, 2);
        component_drop_block(&c, 2); /* again: nothing happens */
        check_grown("all dropped", before, 0, block);
    }
    component_close(&c);
}

/* ---- windows ---- */

/* Keeps the last `size` segments that were needed, and looks at the memory while each is there. */
struct window {
    struct component *c;
    int size, segments[BLOCKS + 2], count, calls;
    size_t before, block; /* resident bytes without any segment; bytes of a block's weights */
    bool open;            /* between before and after */
};

static tessera_status bring(void *user, int segment, tessera_error *error) {
    struct window *w = user;
    CHECK(!w->open, "segment %d begins before the one before it ended", segment);
    w->open = true;
    w->calls++;
    if (w->count == w->size) {
        component_drop_block(w->c, w->segments[0]);
        memmove(w->segments, w->segments + 1, (size_t)--w->count * sizeof *w->segments);
    }
    w->segments[w->count++] = segment;
    return component_load_block(w->c, segment, error);
}

static void look(void *user, int segment) {
    struct window *w = user;
    size_t held = 0;
    char what[64];
    for (int i = 0; i < w->count; i++) held += w->c->segments[w->segments[i] + 1].bytes;
    snprintf(what, sizeof what, "window of %d, segment %d", w->size, segment);
    if (w->before > 0) check_grown(what, w->before, held, w->block);
    w->open = false;
}

static void drop_all(struct component *c) {
    for (int segment = COMPONENT_EMBED; segment <= c->num_blocks; segment++) component_drop_block(c, segment);
}

/* The component's result, of inputs that are always the same. */
static struct tensor compute(const struct component *c, struct run *run) {
    static float latents[SIDE * SIDE * CHANNELS], text[TOKENS * TEXT_WIDTH], pooled[TEXT_WIDTH];
    static const float timestep = 500.0f, mask[TOKENS] = {1, 1, 1, 1, 0};
    static const int32_t ids[TOKENS] = {3, 1, 4, 15, 92};
    if (c->text_encoder != NULL) return text_encoder_encode(c->text_encoder, run, ids, mask, 1, TOKENS, 0).last_hidden_state;
    for (int i = 0; i < SIDE * SIDE * CHANNELS; i++) latents[i] = (float)(i % 17) / 8.0f - 1.0f;
    for (int i = 0; i < TOKENS * TEXT_WIDTH; i++) text[i] = (float)(i % 13) / 6.0f - 1.0f;
    struct denoiser_inputs in = {.latents = tensor_of(latents, DTYPE_F32, SHAPE(1, SIDE, SIDE, CHANNELS)), .timesteps = &timestep};
    in.text = tensor_of(text, DTYPE_F32, SHAPE(1, TOKENS, TEXT_WIDTH));
    in.pooled = tensor_of(pooled, DTYPE_F32, SHAPE(1, TEXT_WIDTH));
    return denoiser_forward(c->denoiser, run, &in);
}

static void check_windows(struct component *c, struct run *run) {
    tessera_error error = {0};
    CHECK(component_load(c, &error) == TESSERA_OK, "%s", error.message);
    struct tensor whole = compute(c, run), got;
    CHECK(whole.data != NULL, "%s", run->error.message);
    drop_all(c);
    for (int size = 1; size <= 2 && whole.data != NULL; size++) {
        struct window w = {.c = c, .size = size, .block = c->segments[1].bytes, .before = resident_bytes()};
        component_watch(c, &(struct segment_watch){&w, bring, look});
        got = compute(c, run);
        component_watch(c, NULL);
        CHECK(w.calls == BLOCKS + 2 && !w.open, "%d segments were computed", w.calls);
        CHECK(got.data != NULL && memcmp(got.data, whole.data, tensor_bytes(&whole)) == 0, "window of %d: %s", size, run->error.message);
        drop_all(c);
        check_grown("after the window", w.before, 0, w.block);
    }
}

static tessera_status fail_at_1(void *user, int segment, tessera_error *error) {
    ++*(int *)user;
    return segment == 1 ? error_set(error, TESSERA_ERROR_IO, "segment 1 is gone") : TESSERA_OK;
}

static void count_down(void *user, int segment) {
    (void)segment;
    --*(int *)user;
}

/* An error of the watch is the run's, what had begun has ended, and nothing is computed after it. */
static void check_failure(struct component *c, struct run *run) {
    int open = 0;
    tessera_error error = {0};
    CHECK(component_load(c, &error) == TESSERA_OK, "%s", error.message);
    component_watch(c, &(struct segment_watch){&open, fail_at_1, count_down});
    struct tensor got = compute(c, run);
    component_watch(c, NULL);
    CHECK(got.data == NULL && run->error.status == TESSERA_ERROR_IO && strcmp(run->error.message, "segment 1 is gone") == 0, "%s",
          run->error.message);
    CHECK(open == 1, "%d segments are open; the one that failed counts as one", open);
}

/* ---- streams ---- */

/* Streamed with this budget it computes the same, twice, and takes no more memory; afterwards it
 * has none. */
static void check_stream(struct component *c, struct run *run, size_t budget, const struct tensor *whole) {
    tessera_error error = {0};
    struct component_stream *stream = NULL;
    size_t before = resident_bytes(), twentieth = c->segments[1].bytes / 20;
    int kept = 0, segments = 0;
    CHECK(component_stream_open(c, budget, &stream, &error) == TESSERA_OK, "%s", error.message);
    for (int round = 0; stream != NULL && round < 2; round++) {
        struct tensor got = compute(c, run);
        CHECK(got.data != NULL && memcmp(got.data, whole->data, tensor_bytes(whole)) == 0, "%zu bytes: %s", budget, run->error.message);
        size_t now = resident_bytes();
        CHECK(now <= before + budget + twentieth, "%.1f MiB of %.1f", ((double)now - (double)before) / (double)MIB, (double)budget / (double)MIB);
    }
    if (stream != NULL) {
        struct stream_counts counts = component_stream_counts(stream);
        size_t stored = 0;
        for (int i = 0; i < c->num_blocks + 2; i++) stored += c->segments[i].stored;
        component_stream_kept(stream, &kept, &segments);
        CHECK(segments == BLOCKS + 2 && (kept == segments || budget < component_stream_whole(c)), "%d of %d are kept", kept, segments);
        CHECK(counts.bytes_read >= stored && (kept < segments || counts.bytes_read < 2 * stored), "%llu bytes read",
              (unsigned long long)counts.bytes_read);
    }
    component_stream_close(stream);
    CHECK(resident_bytes() <= before + twentieth, "%.1f MiB are left", ((double)resident_bytes() - (double)before) / (double)MIB);
}

static void check_streams(struct component *c, struct run *run) {
    tessera_error error = {0};
    struct component_stream *stream = NULL;
    size_t least = component_stream_least(c);
    CHECK(component_load(c, &error) == TESSERA_OK, "%s", error.message);
    struct tensor whole = compute(c, run);
    drop_all(c);
    const size_t budgets[] = {least, 2 * least, 3 * least, component_stream_whole(c)};
    for (size_t i = 0; i < sizeof budgets / sizeof *budgets && whole.data != NULL; i++) check_stream(c, run, budgets[i], &whole);
    CHECK(component_stream_open(c, c->segments[1].bytes / 2, &stream, &error) == TESSERA_ERROR_MEMORY &&
              strstr(error.message, "more") != NULL,
          "%s", error.message);
    component_stream_close(stream);
}

/* A file that is cut while it is streamed is an error that names it. */
static void test_cut_file(const char *folder, const struct kind *kind) {
    struct component c;
    tessera_error error = {0};
    struct component_stream *stream = NULL;
    struct component_source source = {.folder = folder};
    char name[64];
    snprintf(name, sizeof name, "%s.safetensors", kind->stem);
    char *path = file_join(folder, name);
    CHECK(component_open(&source, DTYPE_BF16, &c, &error) == TESSERA_OK, "%s", error.message);
    struct backend *backend = cpu_backend_open(1, CPU_KERNELS_BEST, &error);
    struct run run = {.backend = backend, .arena = arena_new(256 * MIB, &error), .dtype = DTYPE_BF16};
    CHECK(component_stream_open(&c, 2 * component_stream_least(&c), &stream, &error) == TESSERA_OK, "%s", error.message);
    CHECK(truncate(path, 4 * MIB + 1) == 0, "cannot cut %s", path);
    struct tensor got = compute(&c, &run);
    CHECK(got.data == NULL && run.error.status == TESSERA_ERROR_IO && strstr(run.error.message, path) != NULL, "%s", run.error.message);
    component_stream_close(stream);
    arena_free(run.arena);
    backend_free(backend);
    component_close(&c);
    free(path);
}

static void test_windows(const char *folder, enum dtype dtype, struct weights *weights) {
    struct component c;
    tessera_error error = {0};
    struct component_source source = {.folder = folder, .weights = weights};
    CHECK(component_open(&source, dtype, &c, &error) == TESSERA_OK, "%s", error.message);
    if (error.status != TESSERA_OK) return;
    struct backend *backend = cpu_backend_open(1, CPU_KERNELS_BEST, &error);
    struct run run = {.backend = backend, .arena = arena_new(256 * MIB, &error), .dtype = dtype};
    CHECK(backend != NULL && run.arena != NULL, "%s", error.message);
    check_windows(&c, &run);
    check_streams(&c, &run);
    check_failure(&c, &run);
    arena_free(run.arena);
    backend_free(backend);
    component_close(&c);
}

static void remove_model(const char *folder, const struct kind *kind) {
    char weights[64];
    snprintf(weights, sizeof weights, "%s.safetensors", kind->stem);
    const char *files[] = {"config.json", weights};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = file_join(folder, files[i]);
        unlink(path);
        free(path);
    }
}

/* How the weights come to the component. */
enum form { AS_STORED, MADE, MISALIGNED, WIDE, FORMS };

static void test_form(const char *folder, const struct kind *kind, enum form form, enum dtype dtype) {
    tessera_error error = {0};
    struct weights *views[2] = {NULL, NULL};
    for (int i = 0; form == MADE && i < 2; i++) {
        views[i] = open_view(folder, kind, &error);
        CHECK(views[i] != NULL && error.status == TESSERA_OK, "%s", error.message);
    }
    if (error.status != TESSERA_OK) return;
    printf("%s, %s, %s\n", kind->name, dtype_name(dtype), (const char *[]){"as stored", "block 0 made", "misaligned", "stored wide"}[form]);
    test_type(folder, kind, dtype, views[0]);
    test_windows(folder, dtype, views[1]);
}

static void test_kind(const char *folder, const struct kind *kind) {
    tessera_error error = {0};
    bool made = make_model(folder, kind, &error);
    CHECK(made, "%s", error.message);
    for (int form = 0; made && form < FORMS; form++) {
        if (form == MISALIGNED) CHECK(misalign(folder, kind), "cannot misalign the weights");
        if (form == WIDE) CHECK(widen(folder, kind), "cannot widen the weights");
        test_form(folder, kind, (enum form)form, DTYPE_BF16); /* converted where they are stored wide */
        test_form(folder, kind, (enum form)form, DTYPE_F32);  /* lent: they are no wider than what is computed */
    }
    if (made) test_cut_file(folder, kind);
    remove_model(folder, kind);
}

int main(void) {
    char folder[] = "/tmp/tessera-test-XXXXXX";
    CHECK(mkdtemp(folder) != NULL, "no temporary folder");
    test_kind(folder, &transformer);
    test_kind(folder, &text_encoder);
    rmdir(folder);
    return CHECK_REPORT();
}
