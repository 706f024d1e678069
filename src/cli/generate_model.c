/* The model of `tessera generate`: which one, how its ranks share the work, and what its pictures
 * have in common. */
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "cli/binding.h"
#include "cli/device_maps.h"
#include "cli/find_model.h"
#include "cli/habits.h"
#include "cli/kernel_options.h"
#include "cli/like.h"
#include "cli/lora_options.h"
#include "cli/plan_options.h"
#include "cli/preview.h"
#include "cli/request_options.h"
#include "cli/schedule_options.h"
#include "cli/session.h"

/* ---- the model ---- */
static tessera_status choose_model(struct session *s) {
    const char *given = s->values[GENERATE_MODEL].text;
    if (given != NULL && !file_exists(given)) given = like_model(given);
    bool recorded = given != NULL && !s->model_is_given && s->source.json != NULL && !file_exists(given) &&
                    !tessera_model_is_on_hub(given) && !text_is_choice(TESSERA_EMBEDDED_MODELS, given);
    if (given != NULL && !recorded) {
        TRY(find_model(given, s->values[GENERATE_VARIANT].text, s->quiet || s->rank > 0, &s->model_folder, &s->error));
    } else {
        tessera_error missing = {0};
        tessera_status status = tessera_model_find(TESSERA_EMBEDDED_MODEL, NULL, NULL, NULL, &s->model_folder, &missing);
        if (status != TESSERA_OK) return error_set(&s->error, status, "no model: give --model FOLDER (%s)", missing.message);
        s->moved_model = recorded ? given : NULL;
        s->values[GENERATE_MODEL].text = s->model_folder;
    }
    return TESSERA_OK;
}

/* --from draws with the record's model alone, wherever it lies now, unless --model says otherwise. */
static tessera_status check_recorded_model(struct session *s) {
    const char *was = "";
    if (s->source.json == NULL || s->model_is_given) return TESSERA_OK;
    TRY(json_string(s->source.json, "model_fingerprint", "", &was, &s->error));
    if (strcmp(was, s->facts.model_fingerprint) == 0) return TESSERA_OK;
    if (s->moved_model != NULL)
        return error_set(&s->error, TESSERA_ERROR_IO, "%s, the model of %s, is not there: give --model where it is", s->moved_model,
                         s->source.path);
    return error_set(&s->error, TESSERA_ERROR_ARGUMENT,
                     "%s is not the model that made %s (fingerprint %s, was %s): give --model FOLDER, or --model %s to draw with this one",
                     s->model_folder, s->source.path, s->facts.model_fingerprint, was, s->model_folder);
}

/* Puts what is in force back into the values, from which the record is written. */
static void settle_values(struct session *s) {
    request_options_settle(&s->request, s->values);
    s->values[GENERATE_THREADS].integer = tessera_model_threads(s->model);
    s->values[GENERATE_THREADS].given = true;
    if (s->values[GENERATE_DTYPE].text == NULL) s->values[GENERATE_DTYPE].text = "bf16";
    mesh_options_settle(&s->mesh, s->family.is_unet, s->values);
}

/* The ranks of a run must agree on the request. */
static tessera_status check_same_options(struct session *s) {
    struct record_facts none = {.kernel_path = "", .mesh = s->mesh.text, .ranks = s->mesh.ranks};
    cJSON *options = record_object(s->values, &none);
    for (int i = 0; options != NULL && i < s->values[GENERATE_PROMPT].count; i++)
        cJSON_AddStringToObject(options, "prompt", s->values[GENERATE_PROMPT].texts[i]);
    char *text = options != NULL ? cJSON_PrintUnformatted(options) : NULL;
    tessera_status status = tessera_world_check_same(s->world, "options", text != NULL ? text : "(out of memory)", &s->error);
    cJSON_free(text);
    cJSON_Delete(options);
    return status;
}

/* One line: what was chosen where no option says it. */
static void tell_choice(const struct session *s) {
    int data = mesh_options_degree(s->mesh.mesh.data);
    char pictures[32] = "";
    if (data > 1) snprintf(pictures, sizeof pictures, "data %d%s", data, s->mesh.ranks > 1 ? " x " : "");
    fprintf(stderr, "tessera: no option says how %d ranks share the work: chose %s%s, which is exact (--parallel auto says why)\n",
            tessera_world_size(s->world), pictures, data > 1 && s->mesh.ranks == 1 ? "" : s->mesh.text);
}

/* The family and what guides the pictures, which say how ranks can share them: only ranks' shares
 * and plans ask before the model is open. */
static tessera_status describe_guidance(struct session *s, const tessera_model_options *options) {
    struct option_value *v = s->values;
    tessera_request defaults = TESSERA_REQUEST;
    if (tessera_world_size(s->world) == 1 && v[GENERATE_DEVICE_MAP].text == NULL) return TESSERA_OK;
    s->family = (tessera_family)TESSERA_FAMILY;
    bool from_picture = v[GENERATE_INIT_IMAGE].given;
    tessera_status status = tessera_model_describe(s->model_folder, options, from_picture, &s->family, &defaults, &s->error);
    TRY(tessera_world_share(s->world, status, NULL, 0, &s->error));
    habits_apply_family(v, &s->family, false);
    s->guided = request_options_guided(v, &s->family, &defaults);
    return TESSERA_OK;
}

/* A picture without guidance has one prediction a step, which --parallelism cannot split. */
static void unsplit_unguided(struct session *s) {
    if (s->guided || !mesh_options_unsplit(s->values, &s->mesh) || s->rank > 0 || s->quiet) return;
    fprintf(stderr, "tessera: these pictures are not guided, so --parallelism %s has no predictions to split: %s\n",
            s->values[GENERATE_PARALLELISM].text, s->mesh.text);
}

/* What the planner has to know of the pictures. */
static tessera_plan_request plan_request_of(const struct session *s) {
    const struct option_value *v = s->values;
    const struct plan_options options = {.width = &v[GENERATE_WIDTH],
                                         .height = &v[GENERATE_HEIGHT],
                                         .steps = &v[GENERATE_STEPS],
                                         .max_sequence_length = &v[GENERATE_MAX_SEQUENCE_LENGTH],
                                         .guidance_scale = &v[GENERATE_GUIDANCE_SCALE],
                                         .has_negative_prompt = s->guided && s->family.distilled,
                                         .no_binning = v[GENERATE_NO_RESOLUTION_BINNING].flag,
                                         .num_images = session_pictures(s)};
    return plan_options_request(&options);
}

/* Room for how fast each rank is, where it is to be measured. */
static tessera_status prepare_weights(struct session *s) {
    if (s->mesh.rank_weights != NULL || !s->values[GENERATE_PARALLEL].given) return TESSERA_OK;
    s->mesh.rank_weights = calloc((size_t)tessera_world_size(s->world), sizeof *s->mesh.rank_weights);
    return s->mesh.rank_weights != NULL ? TESSERA_OK : error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory");
}

/* The mesh, by measuring, on --parallel auto or where no option says it; rank 0 says which, and on
 * request why. */
static tessera_status choose_mesh(struct session *s, const tessera_model_options *options) {
    const struct option_value *v = s->values;
    bool silent = !v[GENERATE_PARALLEL].given;
    if (silent && (tessera_world_size(s->world) == 1 || mesh_options_given(v))) return TESSERA_OK;
    tessera_plan_request request = plan_request_of(s);
    tessera_mesh chosen = s->mesh.mesh;
    double *measured = chosen.rank_weights == NULL ? s->mesh.rank_weights : NULL;
    char reason[1024];
    TRY(binding_choose(s->world, NULL, options->threads, &s->error)); /* measured as in a run */
    TRY(tessera_mesh_choose(s->model_folder, options, &request, v[GENERATE_ALLOW_DISPLACED].flag, &chosen, measured, reason, sizeof reason,
                            &s->error));
    mesh_options_choose(&s->mesh, &chosen);
    if (s->rank == 0 && silent && !s->quiet) tell_choice(s);
    if (s->rank == 0 && (!silent || s->verbose)) fprintf(stderr, "%s\n", reason);
    return TESSERA_OK;
}

/* --device-map: the same map on all ranks, of which rank 0 tells. */
static tessera_status open_map(struct session *s, const tessera_model_options *options) {
    const char *word = s->values[GENERATE_DEVICE_MAP].text;
    uint64_t memory[tessera_world_size(s->world)];
    if (word == NULL) return TESSERA_OK;
    memcpy(memory, s->limits, sizeof memory);
    TRY(device_maps_limits(s->world, memory, &s->error));
    tessera_plan_request request = plan_request_of(s);
    s->map = tessera_map_open(s->model_folder, options, &request, word, tessera_world_size(s->world), memory, &s->error);
    tessera_status status = s->map != NULL ? TESSERA_OK : s->error.status;
    TRY(tessera_world_share(s->world, status, NULL, 0, &s->error));
    char *text = tessera_map_json(s->map);
    status = tessera_world_check_same(s->world, "device map", text != NULL ? text : "(out of memory)", &s->error);
    free(text);
    TRY(status);
    if (s->rank == 0 && !s->quiet) device_maps_print(stderr, s->map, word);
    s->mesh.mesh.map = s->map;
    return tessera_world_share(s->world, tessera_map_check(s->map, &s->error), NULL, 0, &s->error);
}

/* What a map was made for is what is done; how many blocks stay in memory is decided with the
 * memory that there is then. */
static const char *offload_of_map(const struct session *s, const char *given) {
    const char *offload = tessera_map_offload(s->map);
    return s->map != NULL && strcmp(offload, "blocks") != 0 ? offload : given;
}

/* All of the model that can be wrong on one rank alone: its folder, its LoRA files, which model it
 * is. */
static tessera_status find_files(struct session *s) {
    TRY(choose_model(s));
    TRY(habits_apply_model(s->values, s->model_folder, &s->error));
    TRY(lora_options_read(&s->values[GENERATE_LORA], &s->loras, &s->error));
    TRY(prepare_weights(s));
    TRY(tessera_path_fingerprint(s->model_folder, s->facts.model_fingerprint, &s->error));
    TRY(check_recorded_model(s));
    int count = s->values[GENERATE_LORA].count;
    return count > 0 ? tessera_loras_fingerprint(s->loras, count, s->facts.lora_fingerprint, &s->error) : TESSERA_OK;
}

static tessera_model_options options_of(const struct session *s) {
    const struct option_value *v = s->values;
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    options.mesh = &s->mesh.mesh;
    options.threads = v[GENERATE_THREADS].integer;
    options.vae_tiling = v[GENERATE_VAE_TILING].flag;
    options.config = v[GENERATE_CONFIG].text;
    options.variant = v[GENERATE_VARIANT].text;
    options.vae = v[GENERATE_VAE].text;
    options.transformer = v[GENERATE_TRANSFORMER].text;
    options.text_encoder = v[GENERATE_TEXT_ENCODER].text;
    options.text_encoder_2 = v[GENERATE_TEXT_ENCODER_2].text;
    options.text_encoder_3 = v[GENERATE_TEXT_ENCODER_3].text;
    options.offload = v[GENERATE_OFFLOAD].text;
    options.max_memory = s->limits[s->rank];
    options.loras = s->loras;
    options.num_loras = v[GENERATE_LORA].count;
    options.dtype = v[GENERATE_DTYPE].text != NULL && strcmp(v[GENERATE_DTYPE].text, "f32") == 0 ? TESSERA_F32 : TESSERA_BF16;
    options.kernels = kernel_options_read(&v[GENERATE_KERNELS]);
    options.workers = s->workers;
    return options;
}

/* What all pictures have in common, and how a person follows them. */
static tessera_status set_request(struct session *s) {
    const struct option_value *v = s->values;
    int unit = tessera_model_size_unit(s->model, &s->error);
    if (unit == 0) return s->error.status;
    TRY(given_pictures_scale(v, unit, s->rank == 0, &s->given, &s->error));
    TRY(request_options_read(v, &s->given, s->model, &s->request, &s->error));
    TRY(schedule_options_read(v, &s->scheduler_config, &s->error));
    s->request.scheduler_config = s->scheduler_config;
    if (s->embeds.file != NULL) s->request.states = &s->embeds.states;
    s->request.progress = progress_report;
    s->request.progress_user = &s->progress;
    s->notices.progress = &s->progress;
    s->request.notice = notice_print;
    s->request.notice_user = &s->notices;
    return TESSERA_OK;
}

/* The opened model's facts, and the record that each picture gets. */
static tessera_status describe(struct session *s) {
    s->facts.kernel_path = tessera_model_kernel_path(s->model);
    s->facts.mesh = s->mesh.text;
    s->facts.ranks = s->mesh.ranks;
    if (s->embeds.file != NULL) TRY(embeds_check(&s->embeds, s->model, &s->error));
    s->family = (tessera_family)TESSERA_FAMILY;
    tessera_family_describe(tessera_model_pipeline_class(s->model), &s->family);
    habits_apply_family(s->values, &s->family, s->rank == 0 && !s->quiet);
    TRY(set_request(s));
    if (s->verbose)
        fprintf(stderr, "tessera: model %s, %s; kernels %s, %d threads; mesh %s\n", s->model_folder, tessera_model_pipeline_class(s->model),
                s->facts.kernel_path, tessera_model_threads(s->model), s->facts.mesh);
    settle_values(s);
    s->record = record_object(s->values, &s->facts);
    s->pictures = cJSON_CreateArray();
    if (s->record == NULL || s->pictures == NULL)
        return error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for the picture's record");
    if (s->source.json != NULL && s->rank == 0) record_source_report(&s->source, s->values, &s->facts);
    return TESSERA_OK;
}

static void follow_step(void *user, const tessera_step *step) {
    struct session *s = user;
    progress_clear(&s->progress);
    if (s->rank == 0) latent_preview_show(&s->latent_preview, step);
}

/* --preview KIND shows pictures on their way, too. All ranks take part in its fit; rank 0 knows its
 * terminal. */
static tessera_status open_latent_preview(struct session *s) {
    const struct option_value *v = s->values;
    const char *kind = v[GENERATE_PREVIEW].text;
    tessera_error why = {0};
    if (kind == NULL || v[GENERATE_JSON].flag || v[GENERATE_NO_PREVIEW].flag) return TESSERA_OK;
    bool shows = strcmp(preview_kind(kind), "none") != 0 && isatty(STDOUT_FILENO) == 1;
    TRY(tessera_world_share(s->world, TESSERA_OK, &shows, sizeof shows, &s->error));
    if (!shows) return TESSERA_OK;
    s->request.step = follow_step;
    s->request.step_user = s;
    if (latent_preview_open(&s->latent_preview, s->model, &why) != TESSERA_OK && s->rank == 0)
        fprintf(stderr, "tessera: no preview while denoising: %s\n", why.message);
    return TESSERA_OK;
}

tessera_status session_open_model(struct session *s) {
    TRY(check_same_options(s));
    double start = clock_seconds();
    tessera_status status = find_files(s);
    TRY(tessera_world_share(s->world, status, NULL, 0, &s->error));
    TRY(tessera_world_check_same(s->world, "model files (fingerprint)", s->facts.model_fingerprint, &s->error));
    TRY(session_open_workers(s));
    tessera_model_options options = options_of(s);
    TRY(describe_guidance(s, &options));
    unsplit_unguided(s);
    TRY(choose_mesh(s, &options));
    TRY(open_map(s, &options));
    options.offload = offload_of_map(s, options.offload);
    TRY(binding_choose(s->world, &s->mesh.mesh, options.threads, &s->error));
    s->model = tessera_model_open(s->model_folder, &options, &s->error);
    if (s->model == NULL) return s->error.status;
    for (int i = 0; s->rank == 0 && tessera_model_notice(s->model, i) != NULL; i++)
        fprintf(stderr, "tessera: note: %s\n", tessera_model_notice(s->model, i));
    s->seconds_open = clock_seconds() - start;
    status = describe(s);
    TRY(tessera_world_share(s->world, status, NULL, 0, &s->error));
    return open_latent_preview(s);
}
