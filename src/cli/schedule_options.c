/* See schedule_options.h. */
#include "cli/schedule_options.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "cli/generate.h"

/* Each schedule is one field that is true; the others are switched off, whatever the folder says. */
static bool add_schedule(cJSON *fields, const char *schedule) {
    static const struct {
        const char *schedule, *field;
    } kinds[] = {{"karras", "use_karras_sigmas"},
                 {"exponential", "use_exponential_sigmas"},
                 {"beta", "use_beta_sigmas"},
                 {"lu", "use_lu_lambdas"}};
    bool good = true;
    if (schedule == NULL) return true;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        good = cJSON_AddBoolToObject(fields, kinds[i].field, strcmp(schedule, kinds[i].schedule) == 0) != NULL && good;
    if (strcmp(schedule, "simple") == 0) good = cJSON_AddStringToObject(fields, "timestep_spacing", "trailing") != NULL && good;
    return good;
}

static bool add_text(cJSON *fields, const char *field, const char *text) {
    if (text == NULL) return true;
    cJSON_DeleteItemFromObject(fields, field); /* of --schedule simple */
    return cJSON_AddStringToObject(fields, field, text) != NULL;
}

/* --shift means the same at each size: the dynamic shift by size is switched off. */
static bool add_shift(cJSON *fields, const struct option_value *shift) {
    return !shift->given || (cJSON_AddNumberToObject(fields, "shift", shift->number) != NULL &&
                             cJSON_AddFalseToObject(fields, "use_dynamic_shifting") != NULL);
}

tessera_status schedule_options_read(const struct option_value *v, char **out, tessera_error *error) {
    cJSON *fields = cJSON_CreateObject();
    bool good = fields != NULL && add_schedule(fields, v[GENERATE_SCHEDULE].text) &&
                add_text(fields, "timestep_spacing", v[GENERATE_TIMESTEP_SPACING].text) &&
                add_text(fields, "prediction_type", v[GENERATE_PREDICTION_TYPE].text) &&
                add_text(fields, "final_sigmas_type", v[GENERATE_FINAL_SIGMAS].text) && add_shift(fields, &v[GENERATE_SHIFT]);
    if (good && v[GENERATE_ZERO_SNR].flag) good = cJSON_AddTrueToObject(fields, "rescale_betas_zero_snr") != NULL;
    good = good && add_text(fields, "algorithm_type", v[GENERATE_ALGORITHM_TYPE].text) &&
           add_text(fields, "solver_type", v[GENERATE_SOLVER_TYPE].text);
    if (good && v[GENERATE_SKIP_PRK_STEPS].flag) good = cJSON_AddTrueToObject(fields, "skip_prk_steps") != NULL;
    if (good && v[GENERATE_ETA].given) good = cJSON_AddNumberToObject(fields, "eta", v[GENERATE_ETA].number) != NULL;
    char *text = good && fields->child != NULL ? cJSON_PrintUnformatted(fields) : NULL;
    bool none = good && fields->child == NULL;
    cJSON_Delete(fields);
    *out = text != NULL ? strdup(text) : NULL;
    cJSON_free(text);
    return *out != NULL || none ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
}
