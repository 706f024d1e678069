/* PixArt-alpha and PixArt-Sigma: how they encode the prompt and the sizes (Chen et al. 2023,
 * section 2.3; diffusers' PixArtAlphaPipeline): T5's last hidden state and its mask, for the
 * denoiser's cross attention; alpha's larger models also read height, width and their ratio.
 *
 * The text is lowered and stripped of space at its ends, as diffusers does with clean_caption=False
 * and, whatever clean_caption says, if ftfy and beautifulsoup4 are not installed. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "pipelines/bins.h"
#include "pipelines/prompt.h"
#include "tokenizers/text.h"

static bool is_letter(int32_t point) {
    utf8proc_category_t category = utf8proc_category(point);
    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

/* Python's str.lower writes a capital sigma (U+03A3) at the end of a word as U+03C2: after a
 * letter, and before none. */
static bool ends_in_sigma(int32_t point, bool after_letter, const char *rest, size_t length) {
    size_t size;
    if (point != 0x3A3 || !after_letter) return false;
    return length == 0 || !is_letter(text_decode(rest, length, &size));
}

/* `text` in lower case, without the space around it: the caller frees it; NULL if memory is out. */
static char *clean(const char *text) {
    struct text_bytes out = {0};
    size_t length = strlen(text), size = 0, kept = 0;
    struct text_bytes repaired = {0};
    bool after_letter = false;
    bool ok = text_append_repaired(&repaired, text, length) && text_bytes_append(&repaired, "", 1);
    for (size_t i = 0; ok && i + 1 < repaired.length; i += size) {
        int32_t point = text_decode(repaired.data + i, repaired.length - 1 - i, &size);
        bool space = text_is_space(point);
        if (space && out.length == 0) continue;
        bool final = ends_in_sigma(point, after_letter, repaired.data + i + size, repaired.length - 1 - i - size);
        ok = final ? text_append_codepoint(&out, 0x3C2) : text_append_lower(&out, point);
        after_letter = is_letter(point);
        if (!space) kept = out.length;
    }
    free(repaired.data);
    out.length = kept;
    ok = ok && text_bytes_append(&out, "", 1);
    if (!ok) free(out.data);
    return ok ? out.data : NULL;
}

static tessera_status encode_prompts(struct pipeline *p, struct run *run, const tessera_request *request, const struct prompts *prompts,
                                     struct prompt_states *states, tessera_error *error) {
    struct prompt_reading t5;
    if (request->max_sequence_length < 1)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "max-sequence-length: PixArt needs at least 1 token of text");
    struct prompt_reader reader = {
        p->class->t5_encoder, "tokenizer", .states = TEXT_STATE_LAST, .max_length = request->max_sequence_length, .limit_is_requested = true,
        .masked = true, .clean = clean};
    TRY(prompt_read(p, run, &reader, prompts, &t5, error));
    states->text = t5.states.last_hidden_state;
    states->text_mask = t5.mask;
    return TESSERA_OK;
}

static int size_conditions(const tessera_request *request, int width, int height, float *out) {
    out[0] = (float)height;
    out[1] = (float)width;
    out[2] = (float)height / (float)width;
    return 3;
}

const struct pipeline_class pixart_alpha_class = {
    .name = "PixArtAlphaPipeline",
    .num_inference_steps = 20,
    .max_sequence_length = 120,
    .guidance_scale = 4.5f,
    .strength = 0.8f,
    .sample_size = 128,
    .t5_encoder = "text_encoder",
    .nearest_size = bins_pixart,
    .scales_back = true,
    .text = TEXT_T5,
    .encode_prompts = encode_prompts,
    .size_conditions = size_conditions,
};

const struct pipeline_class pixart_sigma_class = {
    .name = "PixArtSigmaPipeline",
    .num_inference_steps = 20,
    .max_sequence_length = 300,
    .guidance_scale = 4.5f,
    .strength = 0.8f,
    .sample_size = 128,
    .t5_encoder = "text_encoder",
    .nearest_size = bins_pixart,
    .scales_back = true,
    .text = TEXT_T5,
    .encode_prompts = encode_prompts,
};
