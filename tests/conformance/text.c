/* Kinds tokenizer (ids, exactly) and text_encoder. */
#include <stdio.h>

#include <cjson/cJSON.h>

#include "conformance.h"
#include "tokenizers/tokenizer.h"

static void check_prompt(struct conformance_case *c, const struct tokenizer *tokenizer, const char *prompt, const cJSON *wanted,
                         int max_length) {
    tessera_error error = {0};
    int32_t *ids = malloc(sizeof *ids * (size_t)max_length);
    int wrong = -1, i = 0;
    if (tokenizer_encode(tokenizer, prompt, max_length, 0, ids, NULL, NULL, &error) != TESSERA_OK) {
        case_error(c, &error);
    } else {
        const cJSON *id;
        cJSON_ArrayForEach(id, wanted) {
            if (i >= max_length || ids[i] != id->valueint) {
                wrong = i;
                break;
            }
            i++;
        }
        c->compared++;
        if (wrong >= 0 || i != max_length) case_fail(c, "prompt \"%.40s\": id %d is wrong", prompt, wrong >= 0 ? wrong : i);
    }
    free(ids);
}

void conform_tokenizer(struct conformance_case *c) {
    tessera_error error = {0};
    struct tokenizer *tokenizer = NULL;
    int64_t max_length = 0;
    char *folder = file_join(c->folder, "tokenizer");
    tessera_status status = tokenizer_open(folder, &tokenizer, &error);
    if (status == TESSERA_OK) status = json_int(c->io.json, "max_length", 77, 1, 1 << 20, &max_length, &error);
    if (status == TESSERA_OK) {
        const cJSON *prompts = json_find(c->io.json, "prompts"), *ids = json_find(c->io.json, "input_ids");
        for (int i = 0; i < cJSON_GetArraySize(prompts); i++) {
            const cJSON *prompt = cJSON_GetArrayItem(prompts, i);
            check_prompt(c, tokenizer, cJSON_GetStringValue(prompt), cJSON_GetArrayItem(ids, i), (int)max_length);
        }
    } else {
        case_error(c, &error);
    }
    tokenizer_free(tokenizer);
    free(folder);
}

static void check_outputs(struct conformance_case *c, const struct text_encoder *encoder, const int32_t *ids, const float *mask,
                          struct tensor shape, const char *last_name) {
    struct text_encoder_output out = text_encoder_encode(encoder, &c->run, ids, mask, shape.shape[0], shape.shape[1], 0);
    if (run_failed(&c->run)) {
        case_error(c, &c->run.error);
        return;
    }
    out = (struct text_encoder_output){.last_hidden_state = case_host(c, out.last_hidden_state),
                                       .penultimate = case_host(c, out.penultimate),
                                       .pooled = case_host(c, out.pooled)};
    struct tensor last = case_tensor(&c->io, last_name), penultimate = case_tensor(&c->io, "out.penultimate"),
                  pooled = case_tensor(&c->io, "out.pooled");
    case_check(c, last_name, out.last_hidden_state, last);
    if (penultimate.data != NULL) case_check(c, "out.penultimate", out.penultimate, penultimate);
    if (pooled.data != NULL) case_check(c, "out.pooled", out.pooled, pooled);
}

void conform_text_encoder(struct conformance_case *c) {
    struct component component;
    if (!case_component(c, &component)) return;
    struct tensor input = case_tensor(&c->io, "in.input_ids"), mask_tensor = case_tensor(&c->io, "in.attention_mask");
    int32_t *ids = case_ids(&input);
    float *mask = case_floats(&mask_tensor);
    if (component.text_encoder == NULL || ids == NULL || input.ndim != 2) {
        case_fail(c, "model/ is no text encoder, or in.input_ids is missing");
    } else {
        check_outputs(c, component.text_encoder, ids, mask, input, "out.last_hidden_state");
        if (case_tensor(&c->io, "out.last_hidden_state_nomask").data != NULL)
            check_outputs(c, component.text_encoder, ids, NULL, input, "out.last_hidden_state_nomask");
    }
    free(ids);
    free(mask);
    component_close(&component);
}
