/* See factory.h. */
#include "split/factory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "parallel/balance.h"
#include "split/client_folder.h"

static const char ending[] = ".safetensors";

struct factory {
    const struct factory_options *options;
    char *folder;   /* the denoiser's; owned */
    int num_blocks; /* of the model */
    struct split_range range;
    int *bounds; /* [parts + 1]: where each part begins, in blocks of the model; owned */
    struct manifest manifest;
};

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for splitting a model");
}

/* The output's length without its ending; -1 where it has another. */
static int stem_of(const char *output) {
    size_t length = strlen(output), end = sizeof ending - 1;
    return length > end && strcmp(output + length - end, ending) == 0 ? (int)(length - end) : -1;
}

char *factory_manifest_path(const char *output) {
    char *path = NULL;
    int stem = stem_of(output);
    return asprintf(&path, "%.*s.manifest.json", stem >= 0 ? stem : (int)strlen(output), output) > 0 ? path : NULL;
}

static char *part_path(const struct factory_options *options, int part) {
    char *path = NULL;
    if (options->parts == 1) return strdup(options->output);
    return asprintf(&path, "%.*s-%d-of-%d%s", stem_of(options->output), options->output, part + 1, options->parts, ending) > 0 ? path
                                                                                                                               : NULL;
}

/* ---- which blocks ---- */

static tessera_status choose_range(struct factory *f, tessera_error *error) {
    const struct factory_options *o = f->options;
    int n = f->num_blocks;
    f->range = (struct split_range){o->first >= 0 ? o->first : 1,
                                    o->last >= 0        ? o->last + 1
                                    : o->has_last_block ? n
                                                        : n - 1,
                                    o->has_last_block};
    if (o->first < 0 && o->last < 0 && f->range.end <= f->range.first)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "%s: has %d blocks, of which none is between the first and the last: say which with --split-start and --split-end",
                         f->folder, n);
    TRY(split_range_check(&f->range, n, error));
    if (o->parts >= 1 && o->parts <= f->range.end - f->range.first) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT, "--parts %d: blocks %d to %d make 1 to %d parts", o->parts, f->range.first,
                     f->range.end - 1, f->range.end - f->range.first);
}

static tessera_status balance(struct factory *f, const struct component *component, tessera_error *error) {
    int count = f->range.end - f->range.first, parts = f->options->parts;
    double *bytes = calloc((size_t)count, sizeof *bytes);
    f->bounds = calloc((size_t)parts + 1, sizeof *f->bounds);
    bool good = bytes != NULL && f->bounds != NULL;
    for (int i = 0; i < count && good; i++) bytes[i] = (double)component->segments[f->range.first + i + 1].stored;
    if (good && f->range.finish) bytes[count - 1] += (double)component->segments[f->num_blocks + 1].stored;
    good = good && balance_work(bytes, count, NULL, parts, f->bounds);
    for (int i = 0; i <= parts && good; i++) f->bounds[i] += f->range.first;
    free(bytes);
    return good ? TESSERA_OK : out_of_memory(error);
}

static tessera_status plan(struct factory *f, tessera_error *error) {
    struct component component = {0};
    const struct component_source source = {.folder = f->folder};
    TRY(component_open(&source, DTYPE_F32, &component, error));
    f->num_blocks = component.num_blocks;
    tessera_status status = component.denoiser != NULL
                                ? choose_range(f, error)
                                : error_set(error, TESSERA_ERROR_ARGUMENT, "%s: holds no denoiser (a transformer or a U-Net)", f->folder);
    if (status == TESSERA_OK) status = balance(f, &component, error);
    component_close(&component);
    return status;
}

/* ---- writing ---- */

/* The part's line in the manifest, and with the first one what all have in common. */
static tessera_status list_part(struct manifest *m, const char *model, const char *path, const struct part_file *part, int blocks,
                                tessera_error *error) {
    const char *slash = strrchr(path, '/');
    struct manifest_part *line = &m->parts[m->count++];
    *line = (struct manifest_part){.file = strdup(slash != NULL ? slash + 1 : path), .range = part->header.range, .bytes = part->bytes};
    memcpy(line->digest, part->header.digest, sizeof line->digest);
    if (m->model == NULL) {
        m->blocks = blocks;
        m->model = strdup(model);
        m->class_name = strdup(part->header.class_name);
        m->configuration = strdup(part->header.configuration);
    }
    return line->file != NULL && m->model != NULL && m->class_name != NULL && m->configuration != NULL ? TESSERA_OK : out_of_memory(error);
}

static tessera_status write_part(struct factory *f, int index, const char *path, tessera_error *error) {
    const struct factory_options *o = f->options;
    struct part_file part;
    const struct split_range range = {f->bounds[index], f->bounds[index + 1], f->range.finish && index == o->parts - 1};
    TRY(part_file_of_model(f->folder, &range, DTYPE_F32, false, &part, error));
    tessera_status status = part_file_write(&part, path, error);
    if (status == TESSERA_OK) status = list_part(&f->manifest, o->model, path, &part, f->num_blocks, error);
    if (status == TESSERA_OK && o->report != NULL) o->report(o->user, path, &part);
    part_file_close(&part);
    return status;
}

static tessera_status write_parts(struct factory *f, tessera_error *error) {
    const struct factory_options *o = f->options;
    f->manifest.parts = calloc((size_t)o->parts, sizeof *f->manifest.parts);
    if (f->manifest.parts == NULL) return out_of_memory(error);
    for (int i = 0; i < o->parts; i++) {
        if (o->stop != NULL && o->stop(o->user)) return error_set(error, TESSERA_ERROR_CANCELLED, "stopped on request");
        char *path = part_path(o, i);
        tessera_status status = path != NULL ? write_part(f, i, path, error) : out_of_memory(error);
        free(path);
        TRY(status);
    }
    if (o->owner == NULL) return TESSERA_OK;
    char *path = factory_manifest_path(o->output);
    tessera_status status = path != NULL ? manifest_write(&f->manifest, o->owner, path, error) : out_of_memory(error);
    free(path);
    return status;
}

tessera_status factory_split(const struct factory_options *options, tessera_error *error) {
    struct factory f = {.options = options};
    if (stem_of(options->output) < 1 || options->output[stem_of(options->output) - 1] == '/')
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--output-file %s: a part is a safetensors file: let its name end in %s",
                         options->output, ending);
    TRY(part_file_denoiser_folder(options->folder, &f.folder, error));
    tessera_status status = plan(&f, error);
    if (status == TESSERA_OK) status = write_parts(&f, error);
    if (status == TESSERA_OK && options->client_folder != NULL)
        status = client_folder_write(options->folder, &f.range, options->client_folder, error);
    manifest_free(&f.manifest);
    free(f.bounds);
    free(f.folder);
    return status;
}
