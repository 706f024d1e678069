/* The files of `tessera generate`: their names, what is written into them, and what a person sees
 * of it. */
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "cli/output.h"
#include "cli/parameters.h"
#include "cli/preview.h"
#include "cli/session.h"

struct task task_of(const struct task *task, int i) {
    return (struct task){task->place, task->prompt, task->seed, task->index + i, task->number + i, task->total, 1};
}

static char *name_output(struct session *s, const struct task *task) {
    const char *output = s->values[GENERATE_OUTPUT].text;
    char *name = NULL;
    if (s->prompts.captions.count > 0) return prompts_caption_path(s->values, &s->prompts, task->place, output, &s->error);
    if (output != NULL || s->source.path == NULL || !session_makes_one(s))
        return output_name(output, task->prompt, task->seed, task->number, task->total, &s->error);
    size_t n = strlen(s->source.path);
    if (n > 4 && strcasecmp(s->source.path + n - 4, ".png") == 0) n -= 4;
    if (asprintf(&name, "%.*s-again.png", (int)n, s->source.path) >= 0) return name;
    error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for a file name");
    return NULL;
}

static tessera_status write_picture(struct session *s, const char *path, const tessera_image *image, const struct task *task) {
    if (!record_settle_size(s->record, image->width, image->height))
        return error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for the picture's record");
    char *record = record_text(s->record, task->prompt, task->seed, task->index);
    char *description = NULL;
    char *parameters = parameters_text(s->values, &s->family, task->prompt, task->seed);
    if (asprintf(&description, "%s; %dx%d, %d steps, guidance %g, seed %llu, picture %d of %d, %s", task->prompt, image->width,
                 image->height, s->request.num_inference_steps, (double)s->request.guidance_scale, (unsigned long long)task->seed,
                 task->index + 1, s->request.num_images, s->values[GENERATE_DTYPE].text) < 0)
        description = NULL;
    tessera_status status;
    if (record == NULL || description == NULL || parameters == NULL) {
        status = error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for the picture's record");
    } else {
        const tessera_text text[] = {{"Title", task->prompt},
                                     {"Software", "Tessera " TESSERA_VERSION},
                                     {"Description", description},
                                     {PARAMETERS_KEY, parameters},
                                     {RECORD_KEY, record}};
        void *stream = output_is_stream(path) ? stdout : NULL;
        status = tessera_png_write(stream != NULL ? "standard output" : path, stream, image->pixels, image->width, image->height, text,
                                   (int)(sizeof text / sizeof *text), &s->error);
    }
    free(parameters);
    free(description);
    free(record);
    return status;
}

static tessera_status note_picture(struct session *s, const char *path, const struct task *task) {
    cJSON *entry = cJSON_CreateObject();
    if (entry == NULL || !cJSON_AddItemToArray(s->pictures, entry) || cJSON_AddStringToObject(entry, "file", path) == NULL ||
        cJSON_AddStringToObject(entry, "prompt", task->prompt) == NULL || !cJSON_AddItemToObject(entry, "seed", record_seed(task->seed)) ||
        cJSON_AddNumberToObject(entry, "index", task->index) == NULL)
        return error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for the report");
    return TESSERA_OK;
}

/* "lion.png" becomes "lion.safetensors" where latents are wanted. */
char *session_name(struct session *s, const struct task *task) {
    char *name = name_output(s, task), *latents = NULL;
    if (name == NULL || !s->request.latents_only) return name;
    size_t n = strlen(name);
    if (n > 4 && strcasecmp(name + n - 4, ".png") == 0) n -= 4;
    if (n > 12 && strcasecmp(name + n - 12, ".safetensors") == 0) n -= 12;
    if (asprintf(&latents, "%.*s.safetensors", (int)n, name) < 0) latents = NULL;
    free(name);
    if (latents == NULL) error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for a file name");
    return latents;
}

char *session_file(struct session *s, const struct task *task) {
    char *name = session_name(s, task);
    if (name == NULL || s->copies == NULL) return name;
    char *copy = output_copy_name(name, s->copies[task->number], &s->error);
    free(name);
    return copy;
}

/* Shows the picture that was written to `path`, and says whether it is that of --from. With several
 * ranks on request only: standard output is then a terminal of mpirun's, whether or not a person
 * has one. */
static void show_picture(struct session *s, const char *path, const tessera_image *image) {
    const struct option_value *v = s->values;
    const char *kind = v[GENERATE_PREVIEW].text != NULL ? v[GENERATE_PREVIEW].text : tessera_world_size(s->world) > 1 ? "none" : "auto";
    if (image->pixels == NULL) return;
    if (!v[GENERATE_JSON].flag && !v[GENERATE_NO_PREVIEW].flag && !output_is_stream(path))
        preview_show(kind, path, image->pixels, image->width, image->height);
    fflush(stdout);
    if (session_makes_one(s)) record_source_compare(&s->source, image->pixels, image->width, image->height);
}

static tessera_status write_result(struct session *s, const char *path, const tessera_image *image, const struct task *task) {
    return s->request.latents_only ? latents_write(path, s->model, &s->request, image, &s->error) : write_picture(s, path, image, task);
}

/* A message about the file `fresh` names the one that the person asked for. */
static void name_result(tessera_error *error, const char *fresh, const char *path) {
    tessera_error said = *error;
    size_t length = strlen(fresh);
    if (strncmp(said.message, fresh, length) == 0) error_set(error, said.status, "%s%s", path, said.message + length);
}

/* The same, under the next free name if another process has taken *path since session_make_pictures
 * looked. */
static tessera_status write_new_result(struct session *s, char **path, const tessera_image *image, const struct task *task) {
    char *fresh = NULL;
    bool taken = true;
    if (asprintf(&fresh, "%s.%ld.new", *path, (long)getpid()) < 0)
        return error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for a file name");
    tessera_status status = write_result(s, fresh, image, task);
    while (status == TESSERA_OK && taken) {
        status = file_rename_new(fresh, *path, &taken, &s->error);
        if (status != TESSERA_OK || !taken) break;
        s->copies[task->number]++;
        free(*path);
        *path = session_file(s, task);
        if (*path == NULL) status = s->error.status;
    }
    if (status != TESSERA_OK) {
        unlink(fresh);
        if (*path != NULL) name_result(&s->error, fresh, *path);
    }
    free(fresh);
    return status;
}

tessera_status session_write_picture(struct session *s, const tessera_image *image, const struct task *task) {
    char *path = session_file(s, task);
    if (path == NULL) return s->error.status;
    struct stat about;
    bool is_new = s->copies != NULL && !(stat(path, &about) == 0 && !S_ISREG(about.st_mode)); /* a device keeps its name */
    tessera_status status = is_new ? write_new_result(s, &path, image, task) : write_result(s, path, image, task);
    if (status == TESSERA_OK) status = note_picture(s, path, task);
    if (status == TESSERA_OK) s->written++;
    if (status == TESSERA_OK && s->rank == 0) {
        if (!s->values[GENERATE_JSON].flag && !output_is_stream(path)) printf("%s\n", path);
        show_picture(s, path, image);
    }
    free(path);
    return status;
}

tessera_status session_tell_picture(struct session *s, const struct task *task) {
    char *path = session_file(s, task);
    if (path == NULL) return s->error.status;
    tessera_status status = note_picture(s, path, task);
    if (status == TESSERA_OK) s->written++;
    if (status == TESSERA_OK && !s->values[GENERATE_JSON].flag && !output_is_stream(path)) printf("%s\n", path);
    free(path);
    return status;
}
