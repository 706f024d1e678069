/* See source.h. The weights of a slot come from the first of these that applies: its own
 * safetensors file (--vae ae.safetensors), its own folder (--vae FOLDER), the single file that is
 * the model, the model's folder. LoRA files change them while they are loaded. */
#include "pipelines/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/file.h"
#include "base/text.h"
#include "checkpoint/fingerprint.h"
#include "checkpoint/published.h"
#include "hub/hub.h"
#include "pipelines/workers.h"

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
}

static bool is_plain_file(const char *path) {
    return file_exists(path) && !file_is_folder(path);
}

/* ---- the model ---- */

static tessera_status open_single_file(struct pipeline *p, const char *config, tessera_error *error) {
    TRY(single_file_open(p->name, config, &p->file, error));
    p->folder = strdup(single_file_folder(p->file));
    if (p->folder == NULL) return out_of_memory(error);
    struct single_file_marks marks = single_file_marks(p->file);
    const char *slash = strrchr(p->folder, '/');
    if (config == NULL && marks.prediction_type == NULL && slash != NULL && strcmp(slash, "/sd21") == 0)
        return notices_add(
            &p->notices, error,
            "%s: nothing in it says what it predicts: taken as Stable Diffusion 2's 768 model (v_prediction); for the 512 base "
            "model give its folder with --config",
            p->name);
    if (marks.because == NULL) return TESSERA_OK;
    if (marks.distilled != NULL && marks.prediction_type == NULL)
        return notices_add(&p->notices, error, "%s: taken as a %s model (by its %s): %d steps and no guidance where no option says otherwise",
                           p->name, marks.distilled, marks.because, marks.steps);
    if (marks.distilled != NULL)
        return notices_add(&p->notices, error,
                           "%s: taken as a %s model that predicts %s (by its %s): %d steps, no guidance and trailing timesteps where no option says "
                           "otherwise",
                           p->name, marks.distilled, marks.prediction_type, marks.because, marks.steps);
    return notices_add(&p->notices, error, "%s: the mark %s says %s%s%s", p->name, marks.because,
                       marks.prediction_type != NULL ? marks.prediction_type : "",
                       marks.prediction_type != NULL && marks.zero_terminal_snr ? " and " : "",
                       marks.zero_terminal_snr ? "zero terminal SNR (trailing timesteps)" : "");
}

static tessera_status find_folder(struct pipeline *p, const char *config, tessera_error *error) {
    if (is_plain_file(p->name)) return open_single_file(p, config, error);
    struct hub_options hub = {.variant = p->variant};
    if (hub_is_name(p->name)) return hub_resolve(p->name, &hub, &p->folder, error);
    if (file_is_forbidden(p->name)) return error_set(error, TESSERA_ERROR_IO, "%s: no permission to open this folder or file", p->name);
    if (!file_exists(p->name) && text_is_choice(TESSERA_EMBEDDED_MODELS, p->name)) return embedded_model_find(p->name, &p->folder, error);
    if (!file_is_folder(p->name))
        return error_set(error, TESSERA_ERROR_IO,
                         "%s: no such folder or file: --model takes a model folder in diffusers' layout, a single-file checkpoint, "
                         "OWNER/NAME on the Hugging Face hub, or an embedded model's name (" TESSERA_EMBEDDED_MODELS ")",
                         p->name);
    p->folder = strdup(p->name);
    return p->folder != NULL ? TESSERA_OK : out_of_memory(error);
}

tessera_status source_open(struct pipeline *p, const char *model, const tessera_model_options *options, tessera_error *error) {
    if ((p->name = strdup(model)) == NULL) return out_of_memory(error);
    if (options->variant != NULL && (p->variant = strdup(options->variant)) == NULL) return out_of_memory(error);
    TRY(find_folder(p, options->config, error));
    return json_open_in(p->folder, "model_index.json", &p->index, error);
}

tessera_status pipeline_folder_of(const struct pipeline *p, const char *name, char **out, tessera_error *error) {
    if (p->file != NULL) return single_file_folder_of(p->file, name, out, error);
    *out = file_join(p->folder, name);
    return *out != NULL ? TESSERA_OK : out_of_memory(error);
}

/* ---- components ---- */

bool pipeline_has(const struct pipeline *p, const char *name) {
    const cJSON *entry = json_find(p->index, name);
    return cJSON_IsArray(entry) && cJSON_IsString(cJSON_GetArrayItem(entry, 1));
}

enum pipeline_role pipeline_role_of(const struct pipeline *p, const struct pipeline_slot *slot) {
    if (strcmp(slot->name, p->denoiser) == 0) return ROLE_DENOISER;
    return strcmp(slot->name, p->autoencoder) == 0 ? ROLE_AUTOENCODER : ROLE_TEXT;
}

tessera_status source_weights(const struct pipeline *p, const struct pipeline_slot *slot, struct weights **out, tessera_error *error) {
    *out = NULL;
    if (slot->file != NULL) return single_file_component(slot->file, slot->name, slot->folder, out, error);
    if (p->file != NULL && !slot->replaced) return single_file_weights(p->file, slot->name, out, error);
    return weights_open_variant(slot->folder, p->variant, out, error);
}

/* Where the user's replacement `given` for a component lies: in a file, a folder, or the
 * component's folder in a model's folder. */
static tessera_status replace(const struct pipeline *p, struct pipeline_slot *slot, const char *given, tessera_error *error) {
    slot->replaced = true;
    if (is_plain_file(given)) {
        slot->file = strdup(given);
        return slot->file != NULL ? pipeline_folder_of(p, slot->name, &slot->folder, error) : out_of_memory(error);
    }
    if (hub_is_name(given))
        TRY(hub_resolve(given, NULL, &slot->folder, error));
    else if ((slot->folder = strdup(given)) == NULL)
        return out_of_memory(error);
    char *inside = file_join(slot->folder, slot->name);
    if (inside == NULL) return out_of_memory(error);
    if (!file_is_folder(inside)) {
        free(inside);
        return TESSERA_OK;
    }
    free(slot->folder);
    slot->folder = inside;
    return TESSERA_OK;
}

static tessera_status add_slot(struct pipeline *p, const char *name, const char *given, bool weigh, tessera_error *error) {
    struct pipeline_slot *slot = &p->slots[p->num_slots++];
    struct weights *weights = NULL;
    struct load_hooks hooks;
    snprintf(slot->name, sizeof slot->name, "%s", name);
    TRY(given != NULL ? replace(p, slot, given, error) : pipeline_folder_of(p, name, &slot->folder, error));
    if (!weigh) return TESSERA_OK;
    TRY(source_weights(p, slot, &weights, error));
    slot->bytes = weights_loaded_bytes(weights, p->dtype);
    tessera_status status = lora_hooks_for(p->loras, name, slot->folder, &hooks, error);
    if (status == TESSERA_OK) lora_hooks_found(p->loras, name, weights);
    weights_close(weights);
    return status;
}

/* What the request puts in the place of a component; NULL: nothing. */
static const char *given_for(const struct pipeline *p, const tessera_model_options *options, const char *name) {
    if (strcmp(name, p->denoiser) == 0) return options->transformer;
    if (strcmp(name, "text_encoder") == 0) return options->text_encoder;
    if (strcmp(name, "text_encoder_2") == 0) return options->text_encoder_2;
    if (strcmp(name, "text_encoder_3") == 0) return options->text_encoder_3;
    return strcmp(name, "vae") == 0 ? options->vae : NULL;
}

static enum component_kind kind_of(const struct pipeline *p, const cJSON *entry) {
    const char *class_name = pipeline_has(p, entry->string) ? cJSON_GetStringValue(cJSON_GetArrayItem(entry, 1)) : NULL;
    return class_name == NULL ? COMPONENT_NONE : component_kind_of(class_name, p->denoisers, p->num_denoisers);
}

/* The component of `kind` that model_index.json lists first; where it names none that is known,
 * `usual`. */
static const char *find_listed(const struct pipeline *p, enum component_kind kind, const char *usual) {
    for (const cJSON *entry = json_root(p->index)->child; entry != NULL; entry = entry->next)
        if (kind_of(p, entry) == kind) return entry->string;
    return usual;
}

/* Names under which pipelines look for components; a class there that is not known is an error when
 * it is opened. */
static bool is_usual_name(const struct pipeline *p, const char *name) {
    static const char *const names[] = {"text_encoder", "text_encoder_2", "text_encoder_3"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) return true;
    return strcmp(name, p->denoiser) == 0 || strcmp(name, p->autoencoder) == 0;
}

static tessera_status refuse_replacement(const struct pipeline *p, const char *name, const tessera_model_options *options,
                                         tessera_error *error) {
    const char *given = given_for(p, options, name);
    if (given == NULL || pipeline_has(p, name)) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: %s has no component %s to replace", given, p->class->name, name);
}

/* After all components: an error where a file is for another model, a notice of what is left out of
 * it. */
static tessera_status check_loras(struct pipeline *p, tessera_error *error) {
    char text[600];
    TRY(lora_set_check(p->loras, error));
    for (int i = 0; i < lora_set_count(p->loras); i++)
        if (lora_set_notice(p->loras, i, text, sizeof text)) TRY(notices_add(&p->notices, error, "%s", text));
    return TESSERA_OK;
}

static bool changes_text(const struct pipeline *p, int lora) {
    for (int i = 0; i < p->num_slots; i++)
        if (pipeline_role_of(p, &p->slots[i]) == ROLE_TEXT && lora_file_changes(p->loras, lora, p->slots[i].name)) return true;
    return false;
}

/* Of the files that change a text encoder, and their scales, in their order. */
static tessera_status fingerprint_adapters(struct pipeline *p, const tessera_model_options *options, tessera_error *error) {
    char print[FINGERPRINT_BYTES], text[2 * FINGERPRINT_BYTES + 32];
    for (int i = 0; i < options->num_loras; i++) {
        if (!changes_text(p, i)) continue;
        TRY(fingerprint_loras(&options->loras[i], 1, print, error));
        int n = snprintf(text, sizeof text, "%s %s %a", p->lora_fingerprint, print, (double)options->loras[i].scale);
        fingerprint_bytes(text, (size_t)n, p->lora_fingerprint);
    }
    return TESSERA_OK;
}

/* SD3 was made to do without T5: where neither the model nor the user has it, the model is taken as
 * one without. */
static tessera_status leave_out_t5(struct pipeline *p, const char *given, tessera_error *error) {
    static const char t5[] = "text_encoder_3";
    char *folder = NULL;
    if (!pipeline_has(p, t5) || given != NULL) return TESSERA_OK;
    bool held = p->file != NULL && single_file_has(p->file, t5);
    if (p->file == NULL) {
        TRY(pipeline_folder_of(p, t5, &folder, error));
        held = weights_are_in(folder) || file_is_forbidden(folder);
        free(folder);
    }
    if (held) return TESSERA_OK;
    cJSON_DeleteItemFromObjectCaseSensitive((cJSON *)json_root(p->index), t5);
    return notices_add(&p->notices, error, "%s: holds no T5 (text_encoder_3): pictures are made without it; give it with --text-encoder-3",
                       p->name);
}

/* A requested variant that a component has not got: its other weights are taken, with a word. */
static tessera_status note_variant(struct pipeline *p, tessera_error *error) {
    char lacking[256] = "";
    size_t used = 0;
    if (p->variant == NULL || p->file != NULL) return TESSERA_OK;
    for (int i = 0; i < p->num_slots; i++) {
        const struct pipeline_slot *slot = &p->slots[i];
        if (slot->replaced || slot->file != NULL || weights_have_variant(slot->folder, p->variant) || !weights_are_in(slot->folder)) continue;
        used += (size_t)snprintf(lacking + used, sizeof lacking - used, "%s%s", used > 0 ? ", " : "", slot->name);
        if (used >= sizeof lacking) break;
    }
    if (used == 0) return TESSERA_OK;
    return notices_add(&p->notices, error, "%s: no weight files of variant %.60s for %s: those that are there are taken", p->name, p->variant,
                       lacking);
}

tessera_status source_list(struct pipeline *p, const tessera_model_options *options, bool weigh, tessera_error *error) {
    static const char *const replaceable[] = {"text_encoder", "text_encoder_2", "text_encoder_3", "vae"};
    if (weigh) TRY(leave_out_t5(p, options->text_encoder_3, error));
    p->denoiser = find_listed(p, COMPONENT_DENOISER, pipeline_has(p, "unet") ? "unet" : "transformer");
    p->autoencoder = find_listed(p, COMPONENT_AUTOENCODER, "vae");
    for (const cJSON *entry = json_root(p->index)->child; entry != NULL; entry = entry->next) {
        const char *name = entry->string;
        if (!pipeline_has(p, name) || (kind_of(p, entry) == COMPONENT_NONE && !is_usual_name(p, name))) continue;
        if (p->num_slots == PIPELINE_MAX_COMPONENTS || strlen(name) >= sizeof p->slots->name)
            return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: field %.60s: more than %d components, or a name that is too long",
                             json_path(p->index), name, PIPELINE_MAX_COMPONENTS);
        TRY(add_slot(p, name, given_for(p, options, name), weigh, error));
    }
    for (size_t i = 0; i < sizeof replaceable / sizeof *replaceable; i++) TRY(refuse_replacement(p, replaceable[i], options, error));
    if (!weigh) return TESSERA_OK;
    TRY(note_variant(p, error));
    TRY(check_loras(p, error));
    return fingerprint_adapters(p, options, error);
}

tessera_status source_component(const struct pipeline *p, const struct pipeline_slot *slot, struct component *out, tessera_error *error) {
    struct load_hooks hooks;
    struct component_source source = {
        .folder = slot->folder, .hooks = &hooks, .denoisers = p->denoisers, .num_denoisers = p->num_denoisers, .backend = p->backends[pipeline_role_of(p, slot)]};
    if (strcmp(slot->name, p->denoiser) == 0)
        source.scope = team_scope(&p->team, stages_extent(p->stages, p->num_stages));
    if (strcmp(slot->name, p->denoiser) == 0 && p->between != NULL) source.elsewhere = p->between, source.num_elsewhere = p->num_stages - 1;
    struct span others = p->workers != NULL ? (struct span){p->workers->first, p->workers->end - p->workers->first} : (struct span){0};
    if (p->workers != NULL && strcmp(slot->name, p->denoiser) == 0) {
        source.elsewhere = &others, source.num_elsewhere = 1;
        source.no_finish = p->workers->finish;
        source.scope_only = true; /* their weights need not be here */
    }
    TRY(lora_hooks_for(p->loras, slot->name, slot->folder, &hooks, error));
    if (p->file != NULL && !slot->replaced) TRY(single_file_config(p->file, slot->name, &source.config, error));
    tessera_status status = source_weights(p, slot, &source.weights, error);
    if (status != TESSERA_OK) {
        json_free(source.config);
        return status;
    }
    return component_open(&source, p->dtype, out, error);
}

tessera_status source_config(const struct pipeline *p, const struct pipeline_slot *slot, struct json **out, tessera_error *error) {
    *out = NULL;
    if (p->file != NULL && !slot->replaced) TRY(single_file_config(p->file, slot->name, out, error));
    if (*out != NULL) return TESSERA_OK;
    return json_open_in(slot->folder, "config.json", out, error);
}

tessera_status source_describe(const struct pipeline *p, const struct pipeline_slot *slot, struct load_scope scope, struct component *out,
                               tessera_error *error) {
    struct component_source source = {.folder = slot->folder, .denoisers = p->denoisers, .num_denoisers = p->num_denoisers, .scope = scope};
    TRY(source_config(p, slot, &source.config, error));
    return component_describe(&source, p->dtype, out, error);
}

tessera_status source_describe_with(const struct pipeline *p, const struct pipeline_slot *slot, const struct load_hooks *hooks,
                                    struct component *out, tessera_error *error) {
    struct component_source source = {.folder = slot->folder, .denoisers = p->denoisers, .num_denoisers = p->num_denoisers, .hooks = hooks};
    TRY(source_config(p, slot, &source.config, error));
    return component_open(&source, p->dtype, out, error);
}

tessera_status source_weigh(const struct pipeline *p, const struct pipeline_slot *slot, struct load_scope scope, struct component *out,
                            tessera_error *error) {
    struct component_source source = {.folder = slot->folder, .denoisers = p->denoisers, .num_denoisers = p->num_denoisers, .scope = scope};
    bool held = p->file != NULL || slot->file != NULL || weights_are_in(slot->folder);
    if (!held) return source_describe(p, slot, scope, out, error);
    TRY(source_config(p, slot, &source.config, error));
    tessera_status status = source_weights(p, slot, &source.weights, error);
    if (status == TESSERA_OK) return component_open(&source, p->dtype, out, error);
    json_free(source.config);
    return status;
}
