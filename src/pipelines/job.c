/* Jobs of include/tessera.h: one or more requests, with all that belongs to them.
 *
 *     tessera_job     copies of the requests, pictures, stop flag, memory limit, outcome
 *       generation    of one request at a time: scheduler, text states, noise, generators (generation.h)
 *         denoising   scheduler states, step caches, keys and values of other patches (denoise.c)
 *
 * A job runs once. On a mesh it is a job of the ranks that make a picture together (comm/jobs.h),
 * so it ends with the same status on all of them. The model holds nothing of it: it only opens
 * components when they are first needed. */
#include <stdlib.h>
#include <string.h>

#include "pipelines/model.h"
#include "pipelines/options.h"
#include "pipelines/request.h"
#include "pipelines/sized.h"
#include "pipelines/text_ahead.h"

enum { JOB_NEW, JOB_RUNS, JOB_ENDED };

struct job_request {
    tessera_request request; /* its texts and pictures are `owned`, its loras `loras` */
    void *owned[8];
    tessera_lora *loras; /* paths owned */
    tessera_image image;
    tessera_states states; /* of its prompts, where requests after it have the same */
    int done_with;         /* the request whose states nobody needs after this one; -1: none */
};

struct tessera_job {
    tessera_model *model;
    struct job_request *requests;
    int count;
    atomic_int state;
    struct generation_control control;
    struct text_ahead ahead;
    tessera_error error;
};

/* ---- copies ---- */

/* Copies *field, of so many bytes, into the job's memory; NULL stays NULL. */
static bool own(void **owned, const void **field, size_t bytes) {
    if (*field == NULL) return true;
    *owned = malloc(bytes > 0 ? bytes : 1);
    if (*owned == NULL) return false;
    *field = memcpy(*owned, *field, bytes);
    return true;
}

static size_t text_bytes(const char *text) {
    return text != NULL ? strlen(text) + 1 : 0;
}

static bool copy_texts_and_pictures(struct job_request *to) {
    tessera_request *r = &to->request;
    size_t pixels = (size_t)r->width * (size_t)r->height * 3;
    return own(&to->owned[0], (const void **)&r->prompt, text_bytes(r->prompt)) &&
           own(&to->owned[1], (const void **)&r->negative_prompt, text_bytes(r->negative_prompt)) &&
           own(&to->owned[2], (const void **)&r->scheduler, text_bytes(r->scheduler)) &&
           own(&to->owned[3], (const void **)&r->step_cache, text_bytes(r->step_cache)) &&
           own(&to->owned[4], (const void **)&r->init_image, pixels) && own(&to->owned[5], (const void **)&r->control_image, pixels) &&
           own(&to->owned[6], (const void **)&r->scheduler_config, text_bytes(r->scheduler_config)) &&
           own(&to->owned[7], (const void **)&r->latents, r->num_latents * sizeof *r->latents);
}

static tessera_status copy_loras(struct job_request *to, tessera_error *error) {
    int count = to->request.num_loras;
    to->request.num_loras = 0; /* of those whose paths are the job's */
    TRY(loras_read(to->request.loras, count, &to->loras, error));
    to->request.loras = to->loras;
    for (; to->request.num_loras < count; to->request.num_loras++) {
        const char **path = &to->loras[to->request.num_loras].path;
        *path = strdup(*path);
        if (*path == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a job's request");
    }
    return TESSERA_OK;
}

static tessera_status copy_requests(tessera_job *job, const tessera_request *requests, tessera_error *error) {
    job->requests = calloc((size_t)job->count, sizeof *job->requests);
    if (job->requests == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a job of %d requests", job->count);
    for (int i = 0; i < job->count; i++) {
        struct job_request *to = &job->requests[i];
        tessera_request request;
        TRY(request_read(&job->model->pipeline->defaults, sized_at(requests, i), &request, error));
        TRY(request_check(&request, error));
        bool has_pictures = request.init_image != NULL || request.control_image != NULL;
        if (has_pictures && (request.width < 1 || request.height < 1))
            return error_set(error, TESSERA_ERROR_ARGUMENT, "size %dx%d: a picture that is given has at least one pixel", request.width,
                             request.height);
        *to = (struct job_request){.request = request, .states = TESSERA_STATES, .done_with = -1};
        if (!copy_texts_and_pictures(to)) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a job's request");
        TRY(copy_loras(to, error));
    }
    return TESSERA_OK;
}

/* ---- opening and closing ---- */

static tessera_status open_job(tessera_job *job, const tessera_request *requests, tessera_error *error) {
    struct team *team = &job->model->pipeline->team;
    tessera_status status = team_job_begin(team, error);
    if (status == TESSERA_OK) status = copy_requests(job, requests, error);
    return team_job_end(team, status, error);
}

tessera_job *tessera_job_new(tessera_model *model, const tessera_request *requests, int count, tessera_error *error) {
    tessera_error own_error;
    if (error == NULL) error = &own_error;
    *error = (tessera_error){0};
    if (model == NULL || requests == NULL || count < 1) {
        error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_job_new: a job needs a model and at least one request");
        return NULL;
    }
    tessera_job *job = calloc(1, sizeof *job);
    if (job == NULL) {
        error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a job");
        return NULL;
    }
    job->model = model;
    job->count = count;
    atomic_init(&job->state, JOB_NEW);
    atomic_init(&job->control.stop, false);
    job->control.ahead = &job->ahead;
    if (open_job(job, requests, error) == TESSERA_OK) return job;
    tessera_job_free(job);
    return NULL;
}

void tessera_job_free(tessera_job *job) {
    if (job == NULL) return;
    for (int i = 0; job->requests != NULL && i < job->count; i++) {
        for (size_t k = 0; k < sizeof job->requests[i].owned / sizeof job->requests[i].owned[0]; k++) free(job->requests[i].owned[k]);
        for (int k = 0; job->requests[i].loras != NULL && k < job->requests[i].request.num_loras; k++)
            free((char *)job->requests[i].loras[k].path);
        free(job->requests[i].loras);
        tessera_image_free(&job->requests[i].image);
        tessera_states_free(&job->requests[i].states);
    }
    free(job->requests);
    free(job);
}

void tessera_job_limit_memory(tessera_job *job, uint64_t bytes) {
    if (job != NULL) job->control.memory_limit = (size_t)bytes;
}

/* ---- running ---- */

static bool same_words(const char *a, const char *b) {
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* Text encoders have LoRA weights too. */
static bool same_loras(const tessera_request *a, const tessera_request *b) {
    if (a->num_loras != b->num_loras) return false;
    for (int i = 0; i < a->num_loras; i++)
        if (strcmp(a->loras[i].path, b->loras[i].path) != 0 || a->loras[i].scale != b->loras[i].scale) return false;
    return true;
}

/* Do two requests have the same encoded prompts? */
static bool same_text(const tessera_request *a, const tessera_request *b) {
    return b->states == NULL && same_words(a->prompt, b->prompt) && same_words(a->negative_prompt, b->negative_prompt) &&
           a->clip_skip == b->clip_skip && a->long_prompt == b->long_prompt && a->max_sequence_length == b->max_sequence_length &&
           a->guidance_scale == b->guidance_scale && a->true_cfg_scale == b->true_cfg_scale && same_loras(a, b);
}

/* Do both requests read their texts in the same way and need the same memory? */
static bool reads_alike(const tessera_request *a, const tessera_request *b) {
    tessera_request other = *b; /* with the same words */
    other.prompt = a->prompt, other.negative_prompt = a->negative_prompt;
    return same_text(a, &other) && (a->negative_prompt == NULL) == (b->negative_prompt == NULL) && a->width == b->width &&
           a->height == b->height && a->num_images == b->num_images;
}

static bool keeps_picture(const tessera_request *r) { /* and reads no text */
    return r->init_image != NULL && r->strength == 0.0f;
}

/* Lists the texts after that of request `number`, each once. */
static void look_ahead(tessera_job *job, int number) {
    const tessera_request *own = &job->requests[number].request;
    struct text_ahead *ahead = &job->ahead;
    ahead->count = 0;
    for (int i = number + 1; i < job->count && ahead->count < TEXT_AHEAD_MOST; i++) {
        const tessera_request *r = &job->requests[i].request;
        bool is_new = !keeps_picture(r) && !same_text(own, r) && reads_alike(own, r);
        for (int k = 0; k < ahead->count && is_new; k++) is_new = !same_text(ahead->requests[k], r);
        if (is_new) ahead->requests[ahead->count++] = r;
    }
}

/* Encodes the text of request `first` if others after it have the same, and gives them the states.
 */
static tessera_status share_text(tessera_job *job, int first, tessera_image *costs, tessera_error *error) {
    struct job_request *own = &job->requests[first];
    int last = first;
    if (own->request.states != NULL || keeps_picture(&own->request)) return TESSERA_OK;
    for (int i = first + 1; i < job->count; i++)
        if (same_text(&own->request, &job->requests[i].request)) last = i;
    if (last == first) return TESSERA_OK;
    TRY(pipeline_encode(job->model->pipeline, &own->request, &job->control, &own->states, costs, error));
    for (int i = last; i > first; i--)
        if (same_text(&own->request, &job->requests[i].request)) job->requests[i].request.states = &own->states;
    own->request.states = &own->states;
    job->requests[last].done_with = first;
    return TESSERA_OK;
}

static tessera_status run_request(tessera_job *job, int number, tessera_error *error) {
    struct job_request *r = &job->requests[number];
    tessera_image costs = TESSERA_IMAGE;
    if (r->request.states == NULL) look_ahead(job, number);
    TRY(share_text(job, number, &costs, error));
    TRY(pipeline_generate(job->model->pipeline, &r->request, &job->control, &r->image, error));
    r->image.seconds_load += costs.seconds_load;
    r->image.seconds_text += costs.seconds_text;
    r->image.operations_text += costs.operations_text;
    r->image.disk_bytes += costs.disk_bytes;
    r->image.seconds_disk += costs.seconds_disk;
    if (r->done_with >= 0) tessera_states_free(&job->requests[r->done_with].states);
    return TESSERA_OK;
}

static tessera_status run_requests(tessera_job *job, tessera_error *error) {
    for (int i = 0; i < job->count; i++) TRY(run_request(job, i, error));
    return TESSERA_OK;
}

/* Also drops the pictures of requests that were done before the failure, so that all ranks have the
 * same. */
static void drop_pictures(tessera_job *job) {
    for (int i = 0; i < job->count; i++) tessera_image_free(&job->requests[i].image);
}

tessera_status tessera_job_run(tessera_job *job, tessera_error *error) {
    int is_new = JOB_NEW;
    if (job == NULL) return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_job_run: job is NULL");
    if (!atomic_compare_exchange_strong(&job->state, &is_new, JOB_RUNS))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_job_run: this job runs already, or has run: make another");
    struct team *team = &job->model->pipeline->team;
    tessera_status status = model_enter(job->model, "tessera_job_run", &job->error);
    if (status == TESSERA_OK) {
        status = team_job_begin(team, &job->error);
        if (status == TESSERA_OK) status = run_requests(job, &job->error);
        status = team_job_end(team, status, &job->error);
        model_leave(job->model);
    }
    text_ahead_free(&job->ahead);
    if (status != TESSERA_OK) drop_pictures(job);
    job->error.status = status;
    if (status != TESSERA_OK && error != NULL) *error = job->error;
    atomic_store(&job->state, JOB_ENDED);
    return status;
}

void tessera_job_stop(tessera_job *job) {
    if (job != NULL) atomic_store(&job->control.stop, true);
}

bool tessera_job_ended(const tessera_job *job) {
    return job != NULL && atomic_load(&job->state) == JOB_ENDED;
}

tessera_status tessera_job_status(const tessera_job *job, tessera_error *error) {
    if (job == NULL) return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_job_status: job is NULL");
    if (atomic_load(&job->state) != JOB_ENDED) return TESSERA_OK;
    if (job->error.status != TESSERA_OK && error != NULL) *error = job->error;
    return job->error.status;
}

const tessera_image *tessera_job_image(const tessera_job *job, int request) {
    bool there = job != NULL && tessera_job_ended(job) && job->error.status == TESSERA_OK && request >= 0 && request < job->count;
    return there ? &job->requests[request].image : NULL;
}
