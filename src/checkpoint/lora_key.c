/* Reading the keys of LoRA files: tables of beginnings and endings, and the modules' older names. */
#include <stdio.h>
#include <string.h>

#include "checkpoint/lora_key.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const struct {
    const char *text;
    unsigned components;
} prefixes[] = {
    {"unet.", LORA_DENOISER},
    {"transformer.", LORA_DENOISER},
    {"text_encoder.", LORA_TEXT_1},
    {"text_encoder_2.", LORA_TEXT_2},
    {"text_encoder_3.", LORA_TEXT_3},
    {"lora_unet_", LORA_DENOISER},
    {"lora_transformer_", LORA_DENOISER},
    {"lora_te_", LORA_TEXT_1},
    {"lora_te1_", LORA_TEXT_1},
    {"lora_te2_", LORA_TEXT_2},
    {"lora_te3_", LORA_TEXT_2 | LORA_TEXT_3},
    {"diffusion_model.", LORA_DENOISER},
    {"base_model.model.", LORA_DENOISER},
    {"lycoris_", LORA_DENOISER},
    {"text_encoders.clip_l.transformer.", LORA_TEXT_1},
    {"text_encoders.clip_g.transformer.", LORA_TEXT_2},
    {"text_encoders.t5xxl.transformer.", LORA_TEXT_2 | LORA_TEXT_3},
};

static const struct {
    const char *text;
    enum lora_role role;
    bool old_module; /* the module has its older name: to_out for to_out.0, and so on */
} suffixes[] = {
    {".lora_A.weight", LORA_DOWN, false},
    {".lora_B.weight", LORA_UP, false},
    {".lora_A.default.weight", LORA_DOWN, false},
    {".lora_B.default.weight", LORA_UP, false},
    {".lora_down.weight", LORA_DOWN, false},
    {".lora_mid.weight", LORA_MID, false},
    {".lora_up.weight", LORA_UP, false},
    {".lora.down.weight", LORA_DOWN, false},
    {".lora.up.weight", LORA_UP, false},
    {".lora_linear_layer.down.weight", LORA_DOWN, false},
    {".lora_linear_layer.up.weight", LORA_UP, false},
    {"_lora.down.weight", LORA_DOWN, true},
    {"_lora.up.weight", LORA_UP, true},
    {".lora.alpha", LORA_ALPHA, false},
    {".alpha", LORA_ALPHA, false},
    {".dora_scale", LORA_DORA_SCALE, false},
    {".lora_magnitude_vector", LORA_DORA_SCALE, false},
    {".lora_magnitude_vector.weight", LORA_DORA_SCALE, false},
    {".lora_magnitude_vector.default.weight", LORA_DORA_SCALE, false},
    {".hada_w1_a", LOHA_W1_A, false},
    {".hada_w1_b", LOHA_W1_B, false},
    {".hada_t1", LOHA_T1, false},
    {".hada_w2_a", LOHA_W2_A, false},
    {".hada_w2_b", LOHA_W2_B, false},
    {".hada_t2", LOHA_T2, false},
    {".lokr_w1", LOKR_W1, false},
    {".lokr_w1_a", LOKR_W1_A, false},
    {".lokr_w1_b", LOKR_W1_B, false},
    {".lokr_w2", LOKR_W2, false},
    {".lokr_w2_a", LOKR_W2_A, false},
    {".lokr_w2_b", LOKR_W2_B, false},
    {".lokr_t2", LOKR_T2, false},
    {".diff", LORA_DIFF, false},
};

/* XLabs' modules end in "processor.NAME"; the original checkpoint's names for them. Its single
 * blocks change query, key and value alone, three of the seven bands of "linear1": LORA_XLABS_QKV. */
static const struct {
    const char *text, *name;
} xlabs_modules[] = {
    {".processor.qkv_lora1", ".img_attn.qkv"},   {".processor.qkv_lora2", ".txt_attn.qkv"}, {".processor.proj_lora1", ".img_attn.proj"},
    {".processor.proj_lora2", ".txt_attn.proj"}, {".processor.qkv_lora", LORA_XLABS_QKV},   {".processor.proj_lora", ".linear2"},
};

static const struct {
    const char *text, *kind;
} refused[] = {
    {".oft_", "OFT"},
    {".boft_", "BOFT"},
    {".diff_b", "a change of biases"},
    {".lora_B.bias", "a change of biases"},
    {".lora_up.bias", "a change of biases"},
};

static const struct {
    unsigned component; /* or 0: a text encoder */
    const char *old, *name;
} old_modules[] = {
    {LORA_DENOISER, "to_out", "to_out.0"}, {0, "to_q", "q_proj"}, {0, "to_k", "k_proj"}, {0, "to_v", "v_proj"}, {0, "to_out", "out_proj"},
};

static bool ends_with(const char *text, size_t length, const char *end) {
    size_t n = strlen(end);
    return length >= n && memcmp(text + length - n, end, n) == 0;
}

unsigned lora_component(const char *name) {
    for (size_t i = 0; i < COUNT(prefixes); i++) {
        size_t length = strlen(name);
        if (strncmp(prefixes[i].text, name, length) == 0 && strcmp(prefixes[i].text + length, ".") == 0) return prefixes[i].components;
    }
    return 0;
}

/* Takes `count` characters out of a text. */
static void cut(char *at, size_t count) {
    size_t rest = strlen(at);
    if (count <= rest) memmove(at, at + count, rest - count + 1);
}

/* The module's one spelling: no ".processor" (diffusers' attention processors), no "text_model."
 * (transformers before 5), no dots. */
static void unify(unsigned components, char *module) {
    bool denoiser = (components & LORA_DENOISER) != 0;
    char *processor = denoiser ? strstr(module, ".processor.") : NULL;
    if (processor != NULL) cut(processor, strlen(".processor"));
    for (char *c = module; *c != 0; c++) {
        if (*c == '.') *c = '_';
    }
    static const char text_model[] = "text_model_";
    if (!denoiser && strncmp(module, text_model, strlen(text_model)) == 0) cut(module, strlen(text_model));
}

bool lora_module_name(unsigned component, const char *weight, char *out, size_t capacity) {
    size_t length = strlen(weight);
    if (!ends_with(weight, length, ".weight")) return false;
    length -= strlen(".weight");
    if (length >= capacity) return false;
    memcpy(out, weight, length);
    out[length] = 0;
    unify(component, out);
    return true;
}

/* Puts the module's present name in the place of an older one at its end. */
static void renew(struct lora_key *key) {
    size_t length = strlen(key->module);
    bool denoiser = (key->components & LORA_DENOISER) != 0;
    for (size_t i = 0; i < COUNT(old_modules); i++) {
        const char *old = old_modules[i].old;
        if ((old_modules[i].component == LORA_DENOISER) != denoiser || !ends_with(key->module, length, old)) continue;
        size_t begin = length - strlen(old);
        snprintf(key->module + begin, sizeof key->module - begin, "%s", old_modules[i].name);
        return;
    }
}

/* XLabs' key below its prefix: "double_blocks.0.processor.qkv_lora1.down.weight"; false if `module`
 * is none. */
static bool parse_xlabs(const char *module, struct lora_key *out) {
    size_t length = strlen(module);
    bool down = ends_with(module, length, ".down.weight");
    if (!down && !ends_with(module, length, ".up.weight")) return false;
    length -= strlen(down ? ".down.weight" : ".up.weight");
    for (size_t i = 0; i < COUNT(xlabs_modules); i++) {
        if (!ends_with(module, length, xlabs_modules[i].text)) continue;
        size_t block = length - strlen(xlabs_modules[i].text);
        if (block == 0 || block + sizeof ".img_attn.proj" > sizeof out->module) return false;
        snprintf(out->module, sizeof out->module, "%.*s%s", (int)block, module, xlabs_modules[i].name);
        out->role = down ? LORA_DOWN : LORA_UP;
        unify(out->components, out->module);
        return true;
    }
    return false;
}

static tessera_status refuse(const char *file, const char *key, tessera_error *error) {
    for (size_t i = 0; i < COUNT(refused); i++) {
        if (strstr(key, refused[i].text) == NULL) continue;
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: key \"%.300s\" is of %s; LoRA, LoCon, DoRA, LoHa and LoKr are supported: merge this one into its model "
                         "with the program that made it, and load that model",
                         file, key, refused[i].kind);
    }
    return TESSERA_OK;
}

tessera_status lora_key_parse(const char *file, const char *key, struct lora_key *out, tessera_error *error) {
    *out = (struct lora_key){.components = LORA_DENOISER};
    TRY(refuse(file, key, error));
    const char *module = key;
    for (size_t i = 0; i < COUNT(prefixes); i++) {
        if (strncmp(key, prefixes[i].text, strlen(prefixes[i].text)) != 0) continue;
        module += strlen(prefixes[i].text);
        out->components = prefixes[i].components;
        break;
    }
    if (out->components == LORA_DENOISER && parse_xlabs(module, out)) return TESSERA_OK;
    size_t length = strlen(module), i = 0;
    while (i < COUNT(suffixes) && !ends_with(module, length, suffixes[i].text)) i++;
    if (i == COUNT(suffixes)) {
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "%s: key \"%.300s\" is none of a LoRA: it ends neither in lora_A/lora_B nor in lora_down/lora_up, alpha or a "
                         "part of DoRA, LoHa or LoKr",
                         file, key);
    }
    length -= strlen(suffixes[i].text);
    if (length == 0 || length + sizeof ".0" > sizeof out->module) {
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: key \"%.300s\" names no module", file, key);
    }
    out->role = suffixes[i].role;
    memcpy(out->module, module, length);
    if (suffixes[i].old_module) renew(out);
    unify(out->components, out->module);
    return TESSERA_OK;
}
