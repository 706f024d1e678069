/* LoRA files: keys, the product and slices of it, the factor, fused modules, all keys of the
 * reference cases, and what is refused. */
#include <dirent.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "checkpoint/lora.h"
#include "checkpoint/lora_key.h"
#include "checkpoint/lora_merge.h"
#include "models/registry.h"
#include "safetensors_write.h"

static float pseudo_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / (float)(1 << 24) - 0.5f;
}

/* ---- keys ---- */

static void test_keys(void) {
    static const struct {
        const char *key, *module;
        unsigned components;
        enum lora_role role;
    } good[] = {
        {"unet.mid_block.attentions.0.proj_in.lora_A.weight", "mid_block_attentions_0_proj_in", LORA_DENOISER, LORA_DOWN},
        {"transformer.proj_out.lora_B.weight", "proj_out", LORA_DENOISER, LORA_UP},
        {"transformer.proj_out.lora_B.default.weight", "proj_out", LORA_DENOISER, LORA_UP},
        {"unet.m.attn1.processor.to_q_lora.down.weight", "m_attn1_to_q", LORA_DENOISER, LORA_DOWN},
        {"m.attn1.processor.to_out_lora.up.weight", "m_attn1_to_out_0", LORA_DENOISER, LORA_UP},
        {"unet.m.attn1.to_k.lora.down.weight", "m_attn1_to_k", LORA_DENOISER, LORA_DOWN},
        {"text_encoder.text_model.encoder.layers.0.self_attn.to_out_lora.up.weight", "encoder_layers_0_self_attn_out_proj", LORA_TEXT_1,
         LORA_UP},
        {"text_encoder_2.encoder.layers.0.mlp.fc1.lora_linear_layer.up.weight", "encoder_layers_0_mlp_fc1", LORA_TEXT_2, LORA_UP},
        {"text_encoder_3.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight", "encoder_block_0_layer_0_SelfAttention_q", LORA_TEXT_3,
         LORA_DOWN},
        {"lora_unet_input_blocks_4_1_proj_in.lora_down.weight", "input_blocks_4_1_proj_in", LORA_DENOISER, LORA_DOWN},
        {"lora_unet_conv_in.lora_mid.weight", "conv_in", LORA_DENOISER, LORA_MID},
        {"lora_te_text_model_encoder_layers_0_mlp_fc1.alpha", "encoder_layers_0_mlp_fc1", LORA_TEXT_1, LORA_ALPHA},
        {"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", "encoder_layers_0_mlp_fc1", LORA_TEXT_2, LORA_UP},
        {"double_blocks.3.processor.qkv_lora1.down.weight", "double_blocks_3_img_attn_qkv", LORA_DENOISER, LORA_DOWN},
        {"diffusion_model.double_blocks.3.processor.proj_lora2.up.weight", "double_blocks_3_txt_attn_proj", LORA_DENOISER, LORA_UP},
        {"single_blocks.3.processor.qkv_lora.up.weight", "single_blocks_3_linear1_qkv", LORA_DENOISER, LORA_UP},
        {"single_blocks.3.processor.proj_lora.up.weight", "single_blocks_3_linear2", LORA_DENOISER, LORA_UP},
        {"lora_unet_a.dora_scale", "a", LORA_DENOISER, LORA_DORA_SCALE},
        {"unet.a.lora_magnitude_vector", "a", LORA_DENOISER, LORA_DORA_SCALE},
        {"lora_unet_a.hada_w1_a", "a", LORA_DENOISER, LOHA_W1_A},
        {"lora_te_a.hada_t2", "a", LORA_TEXT_1, LOHA_T2},
        {"lycoris_a_b.lokr_w2_b", "a_b", LORA_DENOISER, LOKR_W2_B},
        {"lora_unet_a.lokr_t2", "a", LORA_DENOISER, LOKR_T2},
        {"lora_unet_a.diff", "a", LORA_DENOISER, LORA_DIFF},
        {"lora_te3_encoder_block_0_layer_0_SelfAttention_q.alpha", "encoder_block_0_layer_0_SelfAttention_q", LORA_TEXT_2 | LORA_TEXT_3,
         LORA_ALPHA},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct lora_key key;
        tessera_error error = {0};
        CHECK(lora_key_parse("f", good[i].key, &key, &error) == TESSERA_OK, "%s: %s", good[i].key, error.message);
        CHECK(strcmp(key.module, good[i].module) == 0, "%s gives %s", good[i].key, key.module);
        CHECK(key.components == good[i].components && key.role == good[i].role, "%s: %u %d", good[i].key, key.components, (int)key.role);
    }
    static const char *const bad[][2] = {
        {"unet.x.lora_B.bias", "biases"}, {"unet.conv_in.weight", "none of a LoRA"}, {"unet..lora_A.weight.lora", "none of a"},
        {".alpha", "names no module"},    {"lora_unet_x.diff_b", "biases"},          {"unet.x.oft_R.weight", "OFT"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct lora_key key;
        tessera_error error = {0};
        CHECK(lora_key_parse("f.safetensors", bad[i][0], &key, &error) != TESSERA_OK, "%s is taken", bad[i][0]);
        CHECK(strstr(error.message, bad[i][1]) != NULL && strstr(error.message, bad[i][0]) != NULL, "%s", error.message);
    }
    char name[64];
    CHECK(lora_module_name(LORA_TEXT_1, "text_model.encoder.layers.0.mlp.fc1.weight", name, sizeof name), "a module's weight");
    CHECK(strcmp(name, "encoder_layers_0_mlp_fc1") == 0, "%s", name);
    CHECK(!lora_module_name(LORA_TEXT_1, "encoder.layers.0.mlp.fc1.bias", name, sizeof name), "a bias is no module's weight");
    CHECK(lora_component("unet") == LORA_DENOISER && lora_component("text_encoder_3") == LORA_TEXT_3 && lora_component("vae") == 0,
          "components");
}

/* ---- the product ---- */

enum { ROWS = 13, INPUTS = 131, RANK = 6, TAPS = 9, SHARES = 3 };

struct numbers {
    float down[RANK * INPUTS * TAPS], up[ROWS * RANK], mid[RANK * RANK * TAPS], weight[ROWS * INPUTS * TAPS];
};

static void draw_numbers(struct numbers *n) {
    uint32_t state = 5;
    for (int i = 0; i < RANK * INPUTS * TAPS; i++) n->down[i] = pseudo_random(&state);
    for (int i = 0; i < ROWS * RANK; i++) n->up[i] = pseudo_random(&state);
    for (int i = 0; i < RANK * RANK * TAPS; i++) n->mid[i] = pseudo_random(&state);
    for (int i = 0; i < ROWS * INPUTS * TAPS; i++) n->weight[i] = pseudo_random(&state);
}

/* W[o, i, k] + 0.5 * sum over r of B[o, r] A'[r, i, k], in float64. */
static double expected(const struct numbers *n, int taps, bool mid, int o, int i, int k) {
    double sum = 0;
    for (int r = 0; r < RANK; r++) {
        double a = mid ? 0 : n->down[(r * INPUTS + i) * taps + k];
        for (int b = 0; mid && b < RANK; b++) a += (double)n->mid[(r * RANK + b) * taps + k] * n->down[b * INPUTS + i];
        sum += n->up[o * RANK + r] * a;
    }
    return n->weight[(o * INPUTS + i) * taps + k] + 0.5 * sum;
}

/* Some rows and inputs of `whole`, [..., inputs, taps], one after the other. */
static void take_piece(const float *whole, struct span rows, struct span some, int64_t inputs, int64_t taps, float *out) {
    for (int64_t row = rows.first; row < rows.first + rows.count; row++, out += some.count * taps)
        memcpy(out, whole + (row * inputs + some.first) * taps, (size_t)(some.count * taps) * sizeof *out);
}

/* Every share of the rows and of the inputs, merged alone, has the bits of the whole. */
static void check_shares(const struct lora_product *product, const float *before, const float *after, int64_t taps) {
    static float have[ROWS * INPUTS * TAPS], want[ROWS * INPUTS * TAPS];
    tessera_error error = {0};
    for (int share = 0; share < SHARES * SHARES; share++) {
        struct span rows = cut_evenly(ROWS, SHARES, share / SHARES), some = cut_evenly(INPUTS, SHARES, share % SHARES);
        take_piece(before, rows, some, INPUTS, taps, have);
        take_piece(after, rows, some, INPUTS, taps, want);
        CHECK(lora_merge_piece(product, rows, some, have, &error) == TESSERA_OK, "%s", error.message);
        CHECK(memcmp(have, want, (size_t)(rows.count * some.count * taps) * sizeof *have) == 0, "share %d, %d taps", share, (int)taps);
    }
}

static void test_product(const struct numbers *n, int taps, bool mid) {
    int side = taps == 1 ? 1 : 3;
    struct lora_product product = {.up = tensor_of((void *)n->up, DTYPE_F32, SHAPE(ROWS, RANK, 1, 1)), .factor = 0.5f, .threads = 2};
    product.down = tensor_of((void *)n->down, DTYPE_F32, SHAPE(RANK, INPUTS, mid ? 1 : side, mid ? 1 : side));
    if (mid) product.mid = tensor_of((void *)n->mid, DTYPE_F32, SHAPE(RANK, RANK, side, side));
    CHECK(lora_product_fits(&product, ROWS, SHAPE(ROWS, INPUTS, side, side)), "a convolution's");
    CHECK(lora_product_fits(&product, ROWS, SHAPE(ROWS, INPUTS)) == (taps == 1), "a matrix is a convolution of one tap only");
    CHECK(!lora_product_fits(&product, ROWS, SHAPE(ROWS, INPUTS, 2, 2)), "another kernel");
    CHECK(!lora_product_fits(&product, ROWS, SHAPE(ROWS, INPUTS + 1, side, side)), "other inputs");
    CHECK(!lora_product_fits(&product, ROWS + 1, SHAPE(ROWS + 1, INPUTS, side, side)), "other outputs");
    static float whole[ROWS * INPUTS * TAPS];
    int64_t columns = INPUTS * taps;
    memcpy(whole, n->weight, sizeof whole);
    tessera_error error = {0};
    CHECK(lora_merge_piece(&product, (struct span){0, ROWS}, (struct span){0, INPUTS}, whole, &error) == TESSERA_OK, "%s", error.message);
    check_shares(&product, n->weight, whole, taps);
    double worst = 0;
    for (int j = 0; j < ROWS * columns; j++) {
        double want = expected(n, taps, mid, j / (int)columns, j % (int)columns / taps, j % taps);
        worst = fmax(worst, fabs(whole[j] - want));
    }
    CHECK(worst < 1e-6, "%d taps, mid %d: off by %g", taps, mid, worst);
}

static int threads_of_process(void) {
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *task; tasks != NULL && (task = readdir(tasks)) != NULL;) count += task->d_name[0] != '.';
    if (tasks != NULL) closedir(tasks);
    return count;
}

/* One thread merges where one is allowed, whatever OpenMP would take. First of all tests: OpenMP's
 * threads stay. */
static void test_threads(const struct numbers *n) {
    static float whole[ROWS * INPUTS];
    struct lora_product product = {.up = tensor_of((void *)n->up, DTYPE_F32, SHAPE(ROWS, RANK, 1, 1)), .factor = 1, .threads = 1};
    product.down = tensor_of((void *)n->down, DTYPE_F32, SHAPE(RANK, INPUTS));
    tessera_error error = {0};
    int before = threads_of_process();
    omp_set_num_threads(3);
    CHECK(lora_merge_piece(&product, (struct span){0, ROWS}, (struct span){0, INPUTS}, whole, &error) == TESSERA_OK, "%s", error.message);
    CHECK(threads_of_process() == before, "%d threads, but %d before a merge with one", threads_of_process(), before);
}

/* ---- files ---- */

/* The bytes of a file of F32 tensors that are all `value`; the caller frees. `shapes` are JSON lists. */
struct spec {
    const char *name, *shape;
    int count;
    float value;
};

static uint8_t *make_file(const char *metadata, const struct spec *specs, int count, size_t *length) {
    char *header = NULL, *file = NULL;
    size_t header_length = 0, end = 0;
    FILE *stream = open_memstream(&header, &header_length);
    fprintf(stream, "{\"__metadata__\":{%s}", metadata);
    for (int i = 0; i < count; i++) {
        size_t begin = end;
        end += (size_t)specs[i].count * sizeof(float);
        fprintf(stream, ",\"%s\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}", specs[i].name, specs[i].shape, begin, end);
    }
    fputc('}', stream);
    fclose(stream);
    stream = open_memstream(&file, length);
    for (int i = 0; i < 8; i++) fputc((int)(header_length >> (8 * i) & 0xff), stream);
    fwrite(header, 1, header_length, stream);
    for (int i = 0; i < count; i++) {
        for (int j = 0; j < specs[i].count; j++) fwrite(&specs[i].value, sizeof(float), 1, stream);
    }
    fclose(stream);
    free(header);
    return (uint8_t *)file;
}

/* Merges the file into a zero weight [2, 3] of a component and returns its first number; NAN if the
 * hooks do not change it. */
static float merge_one(const char *metadata, const struct spec *specs, int count, const char *component, const char *weight,
                       tessera_error *error) {
    size_t length;
    uint8_t *bytes = make_file(metadata, specs, count, &length);
    struct lora_set *set = NULL;
    struct load_hooks hooks = {0};
    float values[6] = {0}, result = NAN;
    struct tensor t = tensor_of(values, DTYPE_F32, SHAPE(2, 3));
    tessera_status status = lora_set_parse("lora.safetensors", bytes, length, 2, &set, error);
    if (status == TESSERA_OK) status = lora_hooks_for(set, component, NULL, &hooks, error);
    if (status == TESSERA_OK && hooks.changes(hooks.user, weight)) {
        status = hooks.change(hooks.user, weight, (struct load_piece){t.shape, {0, 2}, {0, 3}}, &t, error);
        if (status == TESSERA_OK) result = values[0];
    }
    if (status == TESSERA_OK) lora_set_check(set, error);
    lora_set_close(set);
    free(bytes);
    return result;
}

#define A(name)                                                                                                                            \
    { name, "[4,3]", 12, 1.0f }
#define B(name)                                                                                                                            \
    { name, "[2,4]", 8, 0.5f }

/* Without alpha the change is scale * (sum over 4 ranks of 1 * 0.5) = 4; alpha 1 makes it a quarter. */
static void test_factor(void) {
    const struct spec peft[] = {A("unet.a.to_q.lora_A.weight"), B("unet.a.to_q.lora_B.weight")};
    const struct spec kohya[] = {
        A("lora_unet_a_to_q.lora_down.weight"), B("lora_unet_a_to_q.lora_up.weight"), {"lora_unet_a_to_q.alpha", "[]", 1, 1.0f}};
    static const char adapter[] = "\"lora_adapter_metadata\":\"{\\\"unet.lora_alpha\\\":2,\\\"unet.alpha_pattern\\\":{\\\"%s\\\":8},"
                                  "\\\"unet.use_rslora\\\":%s}\"";
    char metadata[256];
    tessera_error error = {0};
    CHECK(merge_one("", peft, 2, "unet", "a.to_q.weight", &error) == 4, "no alpha: %s", error.message);
    CHECK(merge_one("", kohya, 3, "unet", "a.to_q.weight", &error) == 1, "alpha 1 of rank 4: %s", error.message);
    snprintf(metadata, sizeof metadata, adapter, "to_k", "false");
    CHECK(merge_one(metadata, peft, 2, "unet", "a.to_q.weight", &error) == 2, "peft's alpha 2: %s", error.message);
    snprintf(metadata, sizeof metadata, adapter, "q", "false");
    CHECK(merge_one(metadata, peft, 2, "unet", "a.to_q.weight", &error) == 2, "a pattern is whole names: %s", error.message);
    snprintf(metadata, sizeof metadata, adapter, "to_q", "false");
    CHECK(merge_one(metadata, peft, 2, "unet", "a.to_q.weight", &error) == 8, "a pattern's alpha 8: %s", error.message);
    snprintf(metadata, sizeof metadata, adapter, "to_k", "true");
    CHECK(merge_one(metadata, peft, 2, "unet", "a.to_q.weight", &error) == 4, "alpha over the root of the rank: %s", error.message);
    CHECK(isnan(merge_one("", peft, 2, "unet", "a.to_v.weight", &error)), "another weight is not changed");
}

static void check_refused(const struct spec *specs, int count, const char *component, const char *weight, const char *first,
                          const char *second) {
    tessera_error error = {0};
    merge_one("", specs, count, component, weight, &error);
    CHECK(strstr(error.message, "lora.safetensors") != NULL && strstr(error.message, first) != NULL &&
              strstr(error.message, second) != NULL,
          "want %s, %s: %s", first, second, error.message);
}

static void test_refused(void) {
    const struct spec unmatched[] = {A("unet.a.lora_A.weight"), B("unet.a.lora_B.weight"), A("unet.b.lora_A.weight"),
                                     B("unet.b.lora_B.weight")};
    check_refused(unmatched, 4, "unet", "c.weight", "unet.a.lora_A.weight", "2 such modules");
    const struct spec mixed[] = {A("unet.a.lora_A.weight"), B("unet.a.lora_B.weight"), A("lora_unet_a.hada_w1_a")};
    check_refused(mixed, 3, "unet", "a.weight", "unet.a.lora_A.weight", "two kinds");
    const struct spec lonely[] = {A("unet.a.lora_A.weight")};
    check_refused(lonely, 1, "unet", "a.weight", "unet.a.lora_A.weight", "has no lora_B");
    const struct spec misfit[] = {{"unet.a.lora_A.weight", "[4,5]", 20, 1}, B("unet.a.lora_B.weight")};
    check_refused(misfit, 2, "unet", "a.weight", "[4, 5]", "[2, 3]");
    const struct spec twice[] = {A("unet.a.lora_A.weight"), B("unet.a.lora_B.weight"), A("lora_unet_a.lora_down.weight")};
    check_refused(twice, 3, "unet", "a.weight", "lora_unet_a.lora_down.weight", "same tensor of one");
    const struct spec rankless[] = {{"unet.a.lora_A.weight", "[0,3]", 0, 1}, B("unet.a.lora_B.weight")};
    check_refused(rankless, 2, "unet", "a.weight", "unet.a.lora_A.weight", "[0, 3]");
    check_refused(NULL, 0, "unet", "a.weight", "holds no tensors", "");
    const struct spec infinite[] = {A("unet.a.lora_A.weight"), B("unet.a.lora_B.weight"), {"unet.a.alpha", "[1]", 1, INFINITY}};
    check_refused(infinite, 3, "unet", "a.weight", "unet.a.lora_A.weight", "alpha");
}

/* What is left out of a file: modules that the model does not have, and keys that are none of an
 * adapter. One line says so. */
static void test_left_out(void) {
    const struct spec some[] = {A("unet.a.lora_A.weight"), B("unet.a.lora_B.weight"), A("unet.b.lora_A.weight"), B("unet.b.lora_B.weight"),
                                A("bundle_emb.sks.string_to_param")};
    size_t length;
    char text[600] = "";
    uint8_t *bytes = make_file("", some, 5, &length);
    struct lora_set *set = NULL;
    struct load_hooks hooks;
    tessera_error error = {0};
    CHECK(lora_set_parse("some.safetensors", bytes, length, 1, &set, &error) == TESSERA_OK, "%s", error.message);
    if (set == NULL) return;
    CHECK(lora_hooks_for(set, "unet", NULL, &hooks, &error) == TESSERA_OK && hooks.changes(hooks.user, "a.weight"), "%s", error.message);
    CHECK(lora_set_check(set, &error) == TESSERA_OK, "%s", error.message);
    CHECK(lora_set_notice(set, 0, text, sizeof text), "something is left out");
    CHECK(strstr(text, "some.safetensors: \"unet.b.lora_A.weight\" and 1 more") != NULL, "%s", text);
    CHECK(hooks.changes(hooks.user, "b.weight") && lora_set_notice(set, 0, text, sizeof text), "one key is still none");
    CHECK(strstr(text, "\"bundle_emb.sks.string_to_param\" is left out") != NULL, "%s", text);
    lora_set_close(set);
    free(bytes);
    bytes = make_file("", some, 4, &length);
    CHECK(lora_set_parse("some.safetensors", bytes, length, 1, &set, &error) == TESSERA_OK, "%s", error.message);
    CHECK(lora_hooks_for(set, "unet", NULL, &hooks, &error) == TESSERA_OK && hooks.changes(hooks.user, "a.weight"), "%s", error.message);
    CHECK(hooks.changes(hooks.user, "b.weight") && !lora_set_notice(set, 0, text, sizeof text), "nothing is left out: %s", text);
    lora_set_close(set);
    free(bytes);
}

/* A text encoder may be of the same names in another model: that the denoiser has none of its
 * modules says that the file is for another. */
static void test_other_denoiser(void) {
    const struct spec other[] = {A("unet.a.lora_A.weight"), B("unet.a.lora_B.weight"), A("text_encoder.q.lora_A.weight"),
                                 B("text_encoder.q.lora_B.weight")};
    size_t length;
    uint8_t *bytes = make_file("", other, 4, &length);
    struct lora_set *set = NULL;
    struct load_hooks hooks;
    tessera_error error = {0};
    CHECK(lora_set_parse("other.safetensors", bytes, length, 1, &set, &error) == TESSERA_OK, "%s", error.message);
    CHECK(lora_hooks_for(set, "text_encoder", NULL, &hooks, &error) == TESSERA_OK && hooks.changes(hooks.user, "q.weight"), "%s",
          error.message);
    CHECK(lora_set_check(set, &error) == TESSERA_OK, "only the text encoder was asked for: %s", error.message);
    CHECK(lora_hooks_for(set, "unet", NULL, &hooks, &error) == TESSERA_OK, "%s", error.message);
    CHECK(lora_set_check(set, &error) == TESSERA_ERROR_FORMAT && strstr(error.message, "\"unet.a.lora_A.weight\" names no module") != NULL,
          "%s", error.message);
    lora_set_close(set);
    free(bytes);
}

/* kohya's "te3" is T5: the second text encoder of Flux, the third of SD3, where the second has no
 * such names. */
static void test_third_encoder(void) {
    const struct spec t5[] = {A("lora_te3_e_0_q.lora_down.weight"), B("lora_te3_e_0_q.lora_up.weight"),
                              A("lora_te3_e_1_q.lora_down.weight"), B("lora_te3_e_1_q.lora_up.weight")};
    tessera_error error = {0};
    CHECK(merge_one("", t5, 2, "text_encoder_3", "e.0.q.weight", &error) == 4, "SD3: %s", error.message);
    CHECK(merge_one("", t5, 2, "text_encoder_2", "e.0.q.weight", &error) == 4, "Flux: %s", error.message);
    CHECK(error.message[0] == 0, "%s", error.message);
    check_refused(t5, 4, "text_encoder_3", "e.2.q.weight", "lora_te3_e_0_q", "2 such modules");
}

/* Flux's fused query, key and value: to_k is the middle third of B's rows. */
static void test_fused(void) {
    enum { WIDTH = 64 };
    static float up[3 * WIDTH], down[WIDTH], weight[WIDTH * WIDTH];
    for (int i = 0; i < 3 * WIDTH; i++) up[i] = (float)i;
    down[5] = 1;
    const struct safetensors_entry entries[] = {
        {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", tensor_of(down, DTYPE_F32, SHAPE(1, WIDTH))},
        {"lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight", tensor_of(up, DTYPE_F32, SHAPE(3 * WIDTH, 1))},
    };
    char path[] = "/tmp/tessera-lora-XXXXXX";
    int descriptor = mkstemp(path);
    tessera_error error = {0};
    struct lora_set *set = NULL;
    struct load_hooks hooks = {0};
    struct tensor t = tensor_of(weight, DTYPE_F32, SHAPE(WIDTH, WIDTH));
    static const char to_k[] = "transformer_blocks.0.attn.to_k.weight";
    CHECK(descriptor >= 0 && safetensors_write(path, entries, 2, &error) == TESSERA_OK, "%s", error.message);
    CHECK(lora_set_open(&(tessera_lora){.path = path, .scale = 1}, 1, &set, &error) == TESSERA_OK, "%s", error.message);
    if (set == NULL) return;
    CHECK(lora_hooks_for(set, "transformer", "tests/cases/flux_dev/model", &hooks, &error) == TESSERA_OK, "%s", error.message);
    CHECK(hooks.changes(hooks.user, to_k) && !hooks.changes(hooks.user, "transformer_blocks.1.attn.to_k.weight"), "block 0 only");
    const struct load_piece all = {t.shape, {0, WIDTH}, {0, WIDTH}};
    CHECK(hooks.change(hooks.user, to_k, all, &t, &error) == TESSERA_OK, "%s", error.message);
    CHECK(weight[5] == WIDTH && weight[(WIDTH - 1) * WIDTH + 5] == 2 * WIDTH - 1 && weight[6] == 0, "%g", (double)weight[5]);
    CHECK(truncate(path, 300) == 0, "cannot cut %s", path); /* through the map this would be the end of the program */
    CHECK(hooks.change(hooks.user, to_k, all, &t, &error) == TESSERA_ERROR_IO && strstr(error.message, path) != NULL, "%s", error.message);
    lora_set_close(set);
    remove(path);
}

/* A weight of [rows, inputs, side, side] and the LoRA of its module, whose B has `total` rows: top
 * and bottom are those of the weight's first and last row. */
struct pieces {
    const char *component, *folder, *weight, *module;
    int64_t total, top, bottom, rows, inputs, side;
};

/* Merges a piece of the weight of zeros into `values`. */
static void merge_piece(const struct load_hooks *hooks, const struct pieces *p, struct span rows, struct span inputs, float *values) {
    const int64_t shape[] = {p->rows, p->inputs, p->side, p->side};
    tessera_error error = {0};
    struct tensor t = tensor_of(values, DTYPE_F32, p->side > 1 ? 4 : 2, (int64_t[]){rows.count, inputs.count, p->side, p->side});
    memset(values, 0, tensor_bytes(&t));
    struct load_piece piece = {shape, rows, inputs};
    CHECK(hooks->change(hooks->user, p->weight, piece, &t, &error) == TESSERA_OK, "%s: %s", p->weight, error.message);
}

/* Is the first element of a row of the weight what row `source` of B makes of A? */
static void check_source(const struct pieces *p, const float *up, const float *down, int64_t source, float have) {
    double sum = 0;
    for (int64_t r = 0; r < RANK; r++) sum += (double)up[source * RANK + r] * down[r * p->inputs * p->side * p->side];
    CHECK(fabs(sum - have) < 1e-6, "%s: row %d of B gives %g, not %g", p->weight, (int)source, sum, (double)have);
}

/* What the hooks change in shares of a weight, they change in the whole: bands, halves that change
 * places, kernels. */
static void test_pieces(const struct pieces *p) {
    enum { MOST = 128 * 64 };
    static float up[MOST], down[MOST], whole[MOST], have[MOST], want[MOST];
    uint32_t state = 7;
    for (int i = 0; i < MOST; i++) up[i] = pseudo_random(&state), down[i] = pseudo_random(&state);
    char keys[2][96], path[] = "/tmp/tessera-lora-XXXXXX";
    snprintf(keys[0], sizeof keys[0], "lora_unet_%s.lora_down.weight", p->module);
    snprintf(keys[1], sizeof keys[1], "lora_unet_%s.lora_up.weight", p->module);
    const struct safetensors_entry entries[] = {{keys[0], tensor_of(down, DTYPE_F32, SHAPE(RANK, p->inputs, p->side, p->side))},
                                                {keys[1], tensor_of(up, DTYPE_F32, SHAPE(p->total, RANK, 1, 1))}};
    int descriptor = mkstemp(path);
    tessera_error error = {0};
    struct lora_set *set = NULL;
    struct load_hooks hooks = {0};
    CHECK(descriptor >= 0 && safetensors_write(path, entries, 2, &error) == TESSERA_OK, "%s", error.message);
    CHECK(lora_set_open(&(tessera_lora){.path = path, .scale = 1}, 1, &set, &error) == TESSERA_OK, "%s", error.message);
    if (set == NULL) return;
    CHECK(lora_hooks_for(set, p->component, p->folder, &hooks, &error) == TESSERA_OK, "%s", error.message);
    CHECK(hooks.changes(hooks.user, p->weight), "%s is changed", p->weight);
    merge_piece(&hooks, p, (struct span){0, p->rows}, (struct span){0, p->inputs}, whole);
    check_source(p, up, down, p->top, whole[0]);
    check_source(p, up, down, p->bottom, whole[(p->rows - 1) * p->inputs * p->side * p->side]);
    for (int share = 0; share < SHARES * SHARES; share++) {
        struct span rows = cut_evenly(p->rows, SHARES, share / SHARES), inputs = cut_evenly(p->inputs, SHARES, share % SHARES);
        int64_t taps = p->side * p->side;
        take_piece(whole, rows, inputs, p->inputs, taps, want);
        merge_piece(&hooks, p, rows, inputs, have);
        CHECK(memcmp(have, want, (size_t)(rows.count * inputs.count * taps) * sizeof *have) == 0, "%s: share %d", p->weight, share);
    }
    lora_set_close(set);
    remove(path);
    close(descriptor);
}

/* Every key of a case's file finds its module when the model is opened. */
static void test_case(const char *lora, const char *model, const char *const *components) {
    char path[128], folder[128];
    tessera_error error = {0};
    struct lora_set *set = NULL;
    snprintf(path, sizeof path, "tests/cases/%s/lora.safetensors", lora);
    CHECK(lora_set_open(&(tessera_lora){.path = path, .scale = 1}, 1, &set, &error) == TESSERA_OK, "%s", error.message);
    for (int i = 0; set != NULL && components[i] != NULL; i++) {
        struct load_hooks hooks;
        struct component component = {0};
        snprintf(folder, sizeof folder, "tests/cases/%s/model/%s", model, components[i]);
        CHECK(lora_hooks_for(set, components[i], folder, &hooks, &error) == TESSERA_OK, "%s", error.message);
        struct component_source source = {.folder = folder, .hooks = &hooks};
        CHECK(component_open(&source, DTYPE_F32, &component, &error) == TESSERA_OK, "%s", error.message);
        CHECK(component_load(&component, &error) == TESSERA_OK, "%s", error.message);
        lora_hooks_found(set, components[i], component.weights);
        component_close(&component);
    }
    char text[600] = "";
    CHECK(set == NULL || (lora_set_check(set, &error) == TESSERA_OK && !lora_set_notice(set, 0, text, sizeof text)), "%s%s", error.message,
          text);
    lora_set_close(set);
}

int main(void) {
    static struct numbers numbers;
    draw_numbers(&numbers);
    test_threads(&numbers);
    test_keys();
    test_product(&numbers, 1, false);
    test_product(&numbers, TAPS, false);
    test_product(&numbers, TAPS, true);
    test_product(&numbers, 1, true);
    test_factor();
    test_refused();
    test_left_out();
    test_other_denoiser();
    test_third_encoder();
    test_fused();
    const struct pieces pieces[] = {
        {"unet", NULL, "down.to_q.weight", "down_to_q", 50, 0, 49, 50, 64, 1},
        {"unet", NULL, "down.conv1.weight", "down_conv1", 50, 0, 49, 50, 16, 3},
        {"transformer", "tests/cases/flux_dev/model", "transformer_blocks.0.attn.to_k.weight", "double_blocks_0_img_attn_qkv", 192, 64, 127,
         64, 64, 1},
        {"transformer", "tests/cases/sd3/model", "norm_out.linear.weight", "final_layer_adaLN_modulation_1", 128, 64, 63, 128, 64, 1},
    };
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) test_pieces(&pieces[i]);
    test_case("pipeline_sd15_lora", "pipeline_sd15", (const char *const[]){"unet", "text_encoder", NULL});
    test_case("pipeline_sd15_lora_kohya", "pipeline_sd15", (const char *const[]){"unet", "text_encoder", NULL});
    test_case("pipeline_sdxl_lora_kohya", "pipeline_sdxl", (const char *const[]){"unet", "text_encoder", "text_encoder_2", NULL});
    test_case("pipeline_sd3_lora", "pipeline_sd3", (const char *const[]){"transformer", "text_encoder_2", NULL});
    test_case("pipeline_flux_lora", "pipeline_flux", (const char *const[]){"transformer", "text_encoder", NULL});
    test_case("pipeline_flux_lora_kohya", "pipeline_flux", (const char *const[]){"transformer", "text_encoder", NULL});
    struct lora_set *set = NULL;
    tessera_error error = {0};
    CHECK(lora_set_open(&(tessera_lora){.path = "missing.safetensors", .scale = 1}, 1, &set, &error) == TESSERA_ERROR_IO && set == NULL,
          "%s", error.message);
    CHECK(lora_set_open(&(tessera_lora){.path = "x", .scale = NAN}, 1, &set, &error) == TESSERA_ERROR_ARGUMENT && set == NULL, "%s",
          error.message);
    return CHECK_REPORT();
}
