/* See habits.h. Names are those of sd-cli's --help (stable-diffusion.cpp), of A1111's menus and of
 * ComfyUI's KSampler. */
#include "cli/habits.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "cli/generate.h"
#include "cli/quantity.h"
#include "tessera_files.h"

/* Spellings as plain_name leaves them. */
static const struct sampler {
    const char *name, *class_name;
    const char *algorithm, *solver; /* of DPMSolverMultistepScheduler; NULL: the configuration's */
} samplers[] = {
    {"euler", "EulerDiscreteScheduler", NULL, NULL},
    {"eulera", "EulerAncestralDiscreteScheduler", NULL, NULL},
    {"eulerancestral", "EulerAncestralDiscreteScheduler", NULL, NULL},
    {"dpm++2m", "DPMSolverMultistepScheduler", NULL, NULL},
    {"dpmpp2m", "DPMSolverMultistepScheduler", NULL, NULL},
    {"dpm++2msde", "DPMSolverMultistepScheduler", "sde-dpmsolver++", "midpoint"},
    {"dpmpp2msde", "DPMSolverMultistepScheduler", "sde-dpmsolver++", "midpoint"},
    {"dpmpp2msdegpu", "DPMSolverMultistepScheduler", "sde-dpmsolver++", "midpoint"},
    {"dpm++2msdeheun", "DPMSolverMultistepScheduler", "sde-dpmsolver++", "heun"},
    {"dpmpp2msdeheun", "DPMSolverMultistepScheduler", "sde-dpmsolver++", "heun"},
    {"dpmpp2msdeheungpu", "DPMSolverMultistepScheduler", "sde-dpmsolver++", "heun"},
    {"dpmsolver", "DPMSolverMultistepScheduler", NULL, NULL},
    {"dpmsolver++", "DPMSolverMultistepScheduler", NULL, NULL},
    {"unipc", "UniPCMultistepScheduler", NULL, NULL},
    {"ddim", "DDIMScheduler", NULL, NULL},
    {"ddpm", "DDPMScheduler", NULL, NULL},
    {"plms", "PNDMScheduler", NULL, NULL},
    {"pndm", "PNDMScheduler", NULL, NULL},
    {"lcm", "LCMScheduler", NULL, NULL},
    {"flow", "FlowMatchEulerDiscreteScheduler", NULL, NULL},
    {"flowmatcheuler", "FlowMatchEulerDiscreteScheduler", NULL, NULL},
};

/* Schedules of sigmas that --scheduler names in sd-cli and ComfyUI, "Schedule type" in A1111; NULL:
 * the model's own. */
static const struct {
    const char *name, *schedule;
} schedules[] = {{"discrete", NULL},
                 {"normal", NULL},
                 {"automatic", NULL},
                 {"default", NULL},
                 {"karras", "karras"},
                 {"exponential", "exponential"},
                 {"beta", "beta"},
                 {"lu", "lu"},
                 {"simple", "simple"},
                 {"uniform", "uniform"},
                 {"sgmuniform", "sgm_uniform"},
                 {"ddimuniform", "ddim_uniform"},
                 {"ays", "ays"},
                 {"gits", "gits"},
                 {"smoothstep", "smoothstep"},
                 {"kloptimal", "kl_optimal"},
                 {"polyexponential", "polyexponential"},
                 {"bongtangent", "bong_tangent"}};

enum { NAME_BYTES = 48 };

/* "DPM++ 2M" and "dpm++_2m" are one name: letters in lower case, without blanks, underscores and
 * hyphens; k-diffusion's "k_" is left out. */
static void plain_name(const char *name, char out[NAME_BYTES]) {
    size_t n = 0;
    if (strncasecmp(name, "k_", 2) == 0) name += 2;
    for (; *name != 0 && n + 1 < NAME_BYTES; name++)
        if (strchr(" _-", *name) == NULL) out[n++] = (char)tolower((unsigned char)*name);
    out[n] = 0;
}

static bool find_schedule(const char *plain, const char **schedule) {
    for (size_t i = 0; i < sizeof schedules / sizeof *schedules; i++) {
        if (strcmp(plain, schedules[i].name) != 0) continue;
        *schedule = schedules[i].schedule;
        return true;
    }
    return false;
}

static bool is_class(const char *name) {
    size_t length = strlen(name);
    return length > 9 && strcmp(name + length - 9, "Scheduler") == 0;
}

/* A sampler's short name, and the schedule that may stand behind it; NULL: there is no such sampler. */
static const struct sampler *find_sampler(const char *name, const char **schedule) {
    char plain[NAME_BYTES];
    *schedule = NULL;
    plain_name(name, plain);
    for (size_t i = 0; i < sizeof samplers / sizeof *samplers; i++) {
        size_t n = strlen(samplers[i].name);
        if (strncmp(plain, samplers[i].name, n) == 0 && (plain[n] == 0 || find_schedule(plain + n, schedule)))
            return &samplers[i];
    }
    return NULL;
}

const char *habits_sampler_title(const char *class_name, const char *algorithm, const char *solver) {
    if (algorithm != NULL && strcmp(algorithm, "sde-dpmsolver++") == 0)
        return solver != NULL && strcmp(solver, "heun") == 0 ? "DPM++ 2M SDE Heun" : "DPM++ 2M SDE";
    static const char *const titles[][2] = {{"EulerDiscreteScheduler", "Euler"},
                                            {"EulerAncestralDiscreteScheduler", "Euler a"},
                                            {"DPMSolverMultistepScheduler", "DPM++ 2M"},
                                            {"UniPCMultistepScheduler", "UniPC"},
                                            {"DDIMScheduler", "DDIM"},
                                            {"PNDMScheduler", "PLMS"},
                                            {"LCMScheduler", "LCM"},
                                            {"FlowMatchEulerDiscreteScheduler", "Euler"}};
    for (size_t i = 0; i < sizeof titles / sizeof *titles; i++)
        if (strcmp(class_name, titles[i][0]) == 0) return titles[i][1];
    return NULL;
}

static tessera_status give(struct option_value *values, int option, const char *text, tessera_error *error) {
    if (values[option].given) return TESSERA_OK;
    values[option].spelling = NULL;
    return options_read_value(&generate_options[option], text, &values[option], error);
}

/* What a short name says beside the class. */
static tessera_status give_sampler(struct option_value *values, const struct sampler *sampler, tessera_error *error) {
    if (sampler->algorithm != NULL) TRY(give(values, GENERATE_ALGORITHM_TYPE, sampler->algorithm, error));
    if (sampler->solver != NULL) TRY(give(values, GENERATE_SOLVER_TYPE, sampler->solver, error));
    if (strcmp(sampler->class_name, "PNDMScheduler") != 0) return TESSERA_OK;
    return give(values, GENERATE_SKIP_PRK_STEPS, "true", error);
}

/* What a picture's record says of another sampler than the command line's is left out. */
static void forget_other_sampler(struct option_value *values, const char *class_name) {
    static const struct {
        int option;
        const char *class_name;
    } own[] = {{GENERATE_ALGORITHM_TYPE, "DPMSolverMultistepScheduler"},
               {GENERATE_SOLVER_TYPE, "DPMSolverMultistepScheduler"},
               {GENERATE_SKIP_PRK_STEPS, "PNDMScheduler"}};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (values[own[i].option].spelling == NULL && strcmp(class_name, own[i].class_name) != 0)
            values[own[i].option] = (struct option_value){0};
}

/* --scheduler and --sampling-method: each may be a sampler or a schedule of sigmas. */
static tessera_status apply_sampler(struct option_value *values, tessera_error *error) {
    const int options[] = {GENERATE_SCHEDULER, GENERATE_SAMPLER};
    const char *class_name = NULL, *schedule = NULL, *found;
    char plain[NAME_BYTES], name[OPTION_SPELLING_BYTES];
    if (values[GENERATE_SAMPLER].spelling != NULL && values[GENERATE_SCHEDULER].spelling == NULL)
        values[GENERATE_SCHEDULER].text = NULL; /* a record's */
    for (int i = 0; i < 2; i++) {
        struct option_value *value = &values[options[i]];
        if (value->text == NULL) continue;
        plain_name(value->text, plain);
        options_spelling(&generate_options[options[i]], value, name);
        if (find_schedule(plain, &found)) {
            schedule = found;
            continue;
        }
        const struct sampler *sampler = find_sampler(value->text, &found);
        if (sampler == NULL && !is_class(value->text))
            return error_set(error, TESSERA_ERROR_ARGUMENT,
                             "%s %s: there is no such sampler here; choose from euler, euler_a, dpm++2m, dpm++2m_sde, unipc, ddim, ddpm, plms, lcm",
                             name, value->text);
        const char *of_name = sampler != NULL ? sampler->class_name : value->text;
        if (class_name != NULL && strcmp(class_name, of_name) != 0)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "%s %s and --scheduler %s: two samplers; give one", name, value->text,
                             class_name);
        class_name = of_name;
        forget_other_sampler(values, of_name);
        if (sampler != NULL) TRY(give_sampler(values, sampler, error));
        values[GENERATE_SAMPLER].flag = sampler != NULL; /* a short name, which may mean a class of flow matching */
        if (found != NULL) schedule = found;
    }
    values[GENERATE_SCHEDULER].text = class_name;
    if (schedule == NULL) return TESSERA_OK;
    if (give(values, GENERATE_SCHEDULE, schedule, NULL) == TESSERA_OK) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT,
                     "there is no schedule \"%s\" here; choose from karras, exponential, beta, lu, simple, or leave it out for the model's own",
                     schedule);
}

/* --size WxH */
static tessera_status apply_size(struct option_value *values, tessera_error *error) {
    const char *text = values[GENERATE_SIZE].text;
    int width, height;
    if (text == NULL) return TESSERA_OK;
    if (!quantity_read_size(text, &width, &height))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--size %s: must be WIDTHxHEIGHT, such as 768x512", text);
    const int numbers[] = {width, height}, options[] = {GENERATE_WIDTH, GENERATE_HEIGHT};
    for (int i = 0; i < 2; i++) {
        char digits[16];
        snprintf(digits, sizeof digits, "%d", numbers[i]);
        TRY(give(values, options[i], digits, error));
    }
    return TESSERA_OK;
}

/* sd-cli's -M; DistriFusion's two words stay. */
static tessera_status apply_mode(struct option_value *values, tessera_error *error) {
    struct option_value *mode = &values[GENERATE_MODE];
    const char *const no_effect[] = {"img_gen", "txt2img", "img2img"}, *const stay[] = {"generation", "benchmark"};
    if (mode->text == NULL) return TESSERA_OK;
    for (size_t i = 0; i < sizeof no_effect / sizeof *no_effect; i++)
        if (strcmp(mode->text, no_effect[i]) == 0) {
            mode->text = NULL;
            return TESSERA_OK;
        }
    for (size_t i = 0; i < sizeof stay / sizeof *stay; i++)
        if (strcmp(mode->text, stay[i]) == 0) return TESSERA_OK;
    if (strcmp(mode->text, "convert") == 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--mode convert is a command of its own here: tessera convert INPUT OUTPUT --type TYPE");
    return error_set(error, TESSERA_ERROR_ARGUMENT, "--mode %s: pictures are what is made here: img_gen, or leave it out (known too: %s)",
                     mode->text, "generation, benchmark");
}

/* One encoder's file by sd-cli's word for it. */
static tessera_status give_encoder(struct option_value *values, int word, int option, tessera_error *error) {
    const char *file = values[word].text;
    if (file == NULL) return TESSERA_OK;
    if (values[option].given && strcmp(values[option].text, file) != 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--%s and --%s: both are this model's same encoder; give one of them",
                         generate_options[word].name, generate_options[option].name);
    return give(values, option, file, error);
}

tessera_status habits_apply_model(struct option_value *values, const char *model, tessera_error *error) {
    static const struct {
        const char *component;
        int option;
    } encoders[] = {{"text_encoder", GENERATE_TEXT_ENCODER},
                    {"text_encoder_2", GENERATE_TEXT_ENCODER_2},
                    {"text_encoder_3", GENERATE_TEXT_ENCODER_3}};
    tessera_family family = TESSERA_FAMILY;
    char class_name[TESSERA_CLASS_BYTES];
    if (!values[GENERATE_T5XXL].given) return TESSERA_OK;
    TRY(tessera_path_pipeline_class(model, class_name, error));
    if (!tessera_family_describe(class_name, &family)) return TESSERA_OK; /* opening the model says that it is not known */
    for (size_t i = 0; i < sizeof encoders / sizeof *encoders && family.t5_encoder != NULL; i++)
        if (strcmp(family.t5_encoder, encoders[i].component) == 0) return give_encoder(values, GENERATE_T5XXL, encoders[i].option, error);
    return error_set(error, TESSERA_ERROR_ARGUMENT, "--t5xxl: %s is a %s, which has no T5 encoder; leave the option out", model, class_name);
}

tessera_status habits_apply(struct option_value *values, tessera_error *error) {
    TRY(apply_size(values, error));
    TRY(apply_mode(values, error));
    struct option_value *threads = &values[GENERATE_THREADS], *clip_skip = &values[GENERATE_CLIP_SKIP];
    if (threads->integer < 0) threads->integer = 0;
    if (clip_skip->integer < 0) clip_skip->integer = 0, clip_skip->given = false; /* sd-cli: unspecified */
    TRY(give_encoder(values, GENERATE_CLIP_L, GENERATE_TEXT_ENCODER, error));
    TRY(give_encoder(values, GENERATE_CLIP_G, GENERATE_TEXT_ENCODER_2, error));
    return apply_sampler(values, error);
}

/* ---- what depends on the family ---- */

static void take_number(struct option_value *values, int from, int to) {
    if (!values[from].given || values[to].given) return;
    values[to].number = values[from].number;
    values[to].given = true;
}

void habits_apply_family(struct option_value *values, const tessera_family *family, bool talks) {
    bool distilled = family->distilled;
    take_number(values, GENERATE_CFG_SCALE, distilled ? GENERATE_TRUE_CFG_SCALE : GENERATE_GUIDANCE_SCALE);
    if (distilled) take_number(values, GENERATE_DISTILLED_GUIDANCE, GENERATE_GUIDANCE_SCALE);
    if (distilled && values[GENERATE_CFG_SCALE].given && values[GENERATE_TRUE_CFG_SCALE].number > 1 && !values[GENERATE_NEGATIVE_PROMPT].given) {
        values[GENERATE_NEGATIVE_PROMPT].text = "";
        values[GENERATE_NEGATIVE_PROMPT].given = true;
    }
    if (!distilled && values[GENERATE_DISTILLED_GUIDANCE].given && talks)
        fprintf(stderr, "tessera: --guidance has no effect: only Flux takes it as an input; --guidance-scale is the other kind\n");
    struct option_value *scheduler = &values[GENERATE_SCHEDULER];
    if (family->flow_matching && values[GENERATE_SAMPLER].flag && strcmp(scheduler->text, "EulerDiscreteScheduler") == 0)
        scheduler->text = "FlowMatchEulerDiscreteScheduler";
}
