/* The pictures of `tessera generate`: one job makes all of this rank's, and each is written as soon
 * as it is finished.
 *
 * Each prompt starts from the given seed by itself, so its pictures do not depend on which other
 * prompts stand beside it (diffusers draws a list of prompts from one generator instead). Groups of
 * ranks (--data-parallel-degree) take turns in the list of tasks. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "cli/output.h"
#include "cli/session.h"

/* All that a run makes, in the order of its numbers. */
struct tasks {
    struct task *list;
    int count;
};

/* A task's pictures on their way to their files: what the library gets as deliver_user. */
struct delivery {
    struct session *s;
    const struct task *task;
};

/* ---- what is to be made ---- */

/* Captions whose pictures are there are not drawn again, so that an evaluation which was stopped
 * goes on. */
static tessera_status find_done(struct session *s) {
    struct captions *captions = &s->prompts.captions;
    for (int i = 0; i < captions->count; i++) {
        char *path = session_file(s, &(struct task){.place = i});
        if (path == NULL) return s->error.status;
        captions->is_done[i] = file_exists(path);
        tessera_status status = TESSERA_OK;
        if (captions->is_done[i] && !s->request.latents_only)
            status = record_check_same(path, s->record, s->values[GENERATE_PROMPT].texts[i],
                                       s->request.seed + (uint64_t)captions->list[i].number, !s->family.rounds_sizes, &s->error);
        free(path);
        TRY(status);
    }
    return TESSERA_OK;
}

/* Rank 0's files decide for all. */
static tessera_status leave_out_done(struct session *s) {
    struct captions *captions = &s->prompts.captions;
    int done = 0;
    if (captions->count == 0) return TESSERA_OK;
    tessera_status status = s->rank == 0 ? find_done(s) : TESSERA_OK;
    TRY(tessera_world_share(s->world, status, captions->is_done, (size_t)captions->count * sizeof *captions->is_done, &s->error));
    for (int i = 0; i < captions->count; i++) done += captions->is_done[i];
    if (done > 0 && s->rank == 0) fprintf(stderr, "tessera: %d of %d pictures are there already\n", done, captions->count);
    return TESSERA_OK;
}

/* How many pictures of a prompt a task has: all, or as few as keep a group of ranks busy where
 * there are several groups. */
static int pictures_of_task(const struct session *s, int pictures) {
    if (session_makes_one(s)) return 1;
    return tessera_model_groups(s->model) == 1 ? pictures : tessera_pictures_at_once(s->model, &s->request);
}

static tessera_status list_tasks(struct session *s, struct tasks *out) {
    const struct option_value *prompts = &s->values[GENERATE_PROMPT];
    const struct captions *captions = &s->prompts.captions;
    bool one = session_makes_one(s);
    int first = one ? s->source.index : 0, end = one ? first + 1 : s->request.num_images;
    int together = pictures_of_task(s, end - first), number = 0;
    int seeds = one || !s->values[GENERATE_BATCH_COUNT].given ? 1 : s->values[GENERATE_BATCH_COUNT].integer;
    int requests = prompts->count * seeds;
    out->list = calloc((size_t)requests * (size_t)((end - first + together - 1) / together), sizeof *out->list);
    if (out->list == NULL)
        return error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for the list of %d pictures", session_pictures(s));
    for (int i = 0; i < requests; i++) {
        if (captions->count > 0 && captions->is_done[i]) continue;
        for (int k = first; k < end; k += together) {
            struct task *task = &out->list[out->count++];
            *task =
                (struct task){.place = i / seeds,
                              .prompt = prompts->texts[i / seeds],
                              .seed = s->request.seed + (captions->count > 0 ? (uint64_t)captions->list[i].number : (uint64_t)(i % seeds)),
                              .index = k,
                              .number = number,
                              .total = requests * (end - first),
                              .count = end - k < together ? end - k : together};
            number += task->count;
        }
    }
    return TESSERA_OK;
}

static bool is_mine(const struct session *s, int task) {
    return task % tessera_model_groups(s->model) == tessera_model_group(s->model);
}

static tessera_status choose_copies(struct session *s, const struct task *task) {
    for (int i = 0; i < task->count; i++) {
        struct task one = task_of(task, i);
        char *name = session_name(s, &one);
        if (name == NULL) return s->error.status;
        tessera_status status = output_free_copy(name, &s->copies[one.number], &s->error);
        if (status == TESSERA_OK && s->copies[one.number] > 0 && !s->quiet)
            fprintf(stderr, "tessera: %s exists: this picture gets number %d (--overwrite replaces the file)\n", name,
                    s->copies[one.number]);
        free(name);
        TRY(status);
    }
    return TESSERA_OK;
}

/* No existing file is written over without --overwrite. Rank 0's files decide for all. */
static tessera_status spare_files(struct session *s, const struct tasks *tasks) {
    const struct option_value *v = s->values;
    size_t count = (size_t)session_pictures(s);
    if (v[GENERATE_OVERWRITE].flag || s->prompts.captions.count > 0 || output_is_stream(v[GENERATE_OUTPUT].text)) return TESSERA_OK;
    s->copies = calloc(count, sizeof *s->copies);
    tessera_status status = s->copies != NULL ? TESSERA_OK : error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory");
    for (int i = 0; i < tasks->count && s->rank == 0 && status == TESSERA_OK; i++) status = choose_copies(s, &tasks->list[i]);
    return tessera_world_share(s->world, status, s->copies, count * sizeof *s->copies, &s->error);
}

/* ---- making them ---- */

static tessera_status deliver(void *user, int image, const tessera_image *picture, tessera_error *error) {
    const struct delivery *delivery = user;
    struct session *s = delivery->s;
    const struct task one = task_of(delivery->task, image - delivery->task->index);
    progress_clear(&s->progress);
    latent_preview_clear(&s->latent_preview);
    if (!s->writes) return TESSERA_OK;
    tessera_status status = session_write_picture(s, picture, &one);
    if (status != TESSERA_OK) *error = s->error;
    return status;
}

static tessera_status run_job(struct session *s, const tessera_request *requests, int count) {
    tessera_job *job = tessera_job_new(s->model, requests, count, &s->error);
    tessera_status status = job != NULL ? tessera_job_run(job, &s->error) : s->error.status;
    progress_clear(&s->progress);
    latent_preview_clear(&s->latent_preview);
    for (int i = 0; i < count && status == TESSERA_OK; i++) session_add_costs(s, tessera_job_image(job, i));
    tessera_job_free(job);
    return status;
}

/* All tasks of this rank's group, in one job. */
static tessera_status make_tasks(struct session *s, const struct tasks *tasks) {
    tessera_request *requests = calloc((size_t)tasks->count + 1, sizeof *requests);
    struct delivery *deliveries = calloc((size_t)tasks->count + 1, sizeof *deliveries);
    tessera_status status = TESSERA_OK;
    int count = 0;
    for (int i = 0; i < tasks->count && requests != NULL && deliveries != NULL; i++) {
        const struct task *task = &tasks->list[i];
        if (!is_mine(s, i)) continue;
        deliveries[count] = (struct delivery){s, task};
        requests[count] = s->request;
        requests[count].prompt = task->prompt;
        requests[count].seed = task->seed;
        requests[count].first_image = task->index;
        requests[count].made_images = task->count;
        requests[count].deliver = deliver;
        requests[count].deliver_user = &deliveries[count];
        count++;
    }
    if (requests == NULL || deliveries == NULL)
        status = error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for the pictures' requests");
    if (status == TESSERA_OK && count > 0) status = run_job(s, requests, count);
    free(deliveries);
    free(requests);
    return status;
}

/* Waits for all ranks. */
static tessera_status meet(struct session *s) {
    return tessera_world_share(s->world, TESSERA_OK, NULL, 0, &s->error);
}

/* All runs of this group's pictures: one, or as many as --warmup-times and --test-times say; those
 * of the last are written. */
static tessera_status make_runs(struct session *s, const struct tasks *tasks) {
    struct benchmark *b = &s->benchmark;
    int total = b->warmup_runs + b->runs;
    bool timed = benchmark_wanted(s->values);
    for (int run = 0; run < total; run++) {
        if (timed) TRY(meet(s));
        double start = clock_seconds();
        s->writes = run + 1 == total;
        s->blocks = s->blocks_skipped = 0;
        s->bytes_copied = s->bytes_moved = 0;
        memset(s->seconds, 0, sizeof s->seconds);
        memset(s->operations, 0, sizeof s->operations);
        TRY(make_tasks(s, tasks));
        if (timed) TRY(meet(s));
        if (run >= b->warmup_runs) b->seconds[run - b->warmup_runs] = clock_seconds() - start;
    }
    return TESSERA_OK;
}

/* ---- telling of them ---- */

/* What other groups have written. */
static tessera_status tell_others(struct session *s, const struct tasks *tasks) {
    for (int i = 0; i < tasks->count; i++) {
        if (is_mine(s, i)) continue;
        for (int k = 0; k < tasks->list[i].count; k++) {
            const struct task one = task_of(&tasks->list[i], k);
            TRY(session_tell_picture(s, &one));
        }
    }
    return TESSERA_OK;
}

static tessera_status make_pictures(struct session *s, struct tasks *tasks) {
    TRY(leave_out_done(s));
    s->peaks = calloc((size_t)tessera_world_size(s->world), sizeof *s->peaks);
    tessera_status status = s->peaks != NULL ? list_tasks(s, tasks) : error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory");
    TRY(tessera_world_share(s->world, status, NULL, 0, &s->error));
    TRY(spare_files(s, tasks));
    TRY(make_runs(s, tasks));
    if (s->values[GENERATE_COMM_STATS].flag) TRY(tessera_world_print_stats(s->world, stderr, &s->error));
    TRY(tessera_world_peak_memory(s->world, s->peaks, &s->error));
    TRY(tessera_world_finish(s->world, &s->error));
    return s->rank == 0 ? tell_others(s, tasks) : TESSERA_OK;
}

tessera_status session_make_pictures(struct session *s) {
    struct tasks tasks = {0};
    tessera_status status = make_pictures(s, &tasks);
    free(tasks.list);
    return status;
}
