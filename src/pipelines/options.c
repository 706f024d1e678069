/* See options.h. */
#include "pipelines/options.h"

#include <math.h>
#include <stdlib.h>

#include "pipelines/sized.h"
#include "pipelines/team.h"
#include "tessera_model.h"

enum { MAX_THREADS = 1024, MAX_LORAS = 1024 };

#define END_OF(type, field) (offsetof(type, field) + sizeof((type *)0)->field)

tessera_status mesh_read(const tessera_mesh *given, tessera_mesh *out, tessera_error *error) {
    *out = (tessera_mesh)TESSERA_MESH;
    if (given != NULL) TRY(sized_read(out, sizeof *out, given, END_OF(tessera_mesh, rank_weights), "mesh", error));
    return team_check_mesh(out, error);
}

static tessera_status fill_loras(const tessera_lora *given, int count, tessera_lora *out, tessera_error *error) {
    for (int i = 0; i < count; i++) {
        out[i] = (tessera_lora)TESSERA_LORA;
        TRY(sized_read(&out[i], sizeof out[i], sized_at(given, i), END_OF(tessera_lora, scale), "loras", error));
        if (out[i].path == NULL || !isfinite(out[i].scale))
            return error_set(error, TESSERA_ERROR_ARGUMENT, "loras[%d]: needs a path and a finite scale", i);
    }
    return TESSERA_OK;
}

tessera_status loras_read(const tessera_lora *given, int count, tessera_lora **out, tessera_error *error) {
    *out = NULL;
    if (count < 0 || count > MAX_LORAS || (count > 0 && given == NULL))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "loras: %d of them (at most %d), but loras is %s", count, MAX_LORAS,
                         given == NULL ? "NULL" : "given");
    tessera_lora *read = calloc((size_t)count + 1, sizeof *read);
    if (read == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the options");
    tessera_status status = fill_loras(given, count, read, error);
    if (status == TESSERA_OK)
        *out = read;
    else
        free(read);
    return status;
}

static tessera_status check_denoisers(const tessera_model_options *options, tessera_error *error) {
    if (options->num_denoisers < 0 || (options->num_denoisers > 0 && options->denoisers == NULL))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "denoisers: %d of them, but denoisers is %s", options->num_denoisers,
                         options->denoisers == NULL ? "NULL" : "given");
    for (int i = 0; i < options->num_denoisers; i++) {
        const struct denoiser_class *class = options->denoisers[i];
        if (class == NULL || class->name == NULL || class->open == NULL || class->load_embed == NULL || class->load_block == NULL ||
            class->load_finish == NULL)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "denoisers[%d]: needs a name, open, load_embed, load_block and load_finish", i);
    }
    return TESSERA_OK;
}

tessera_status model_options_read(const tessera_model_options *given, struct model_options *out, tessera_error *error) {
    *out = (struct model_options){.own = TESSERA_MODEL_OPTIONS, .mesh = TESSERA_MESH};
    tessera_model_options *own = &out->own;
    if (given != NULL) TRY(sized_read(own, sizeof *own, given, END_OF(tessera_model_options, device), "options", error));
    TRY(mesh_read(own->mesh, &out->mesh, error));
    own->mesh = &out->mesh;
    enum dtype dtype;
    TRY(dtype_of_activations(own->dtype, &dtype, error));
    if (own->threads < 0 || own->threads > MAX_THREADS)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "threads: %d: must lie between 0 (all) and %d", own->threads, MAX_THREADS);
    TRY(check_denoisers(own, error));
    TRY(loras_read(own->loras, own->num_loras, &out->loras, error));
    out->own.loras = out->loras;
    return TESSERA_OK;
}

void model_options_free(struct model_options *options) {
    free(options->loras);
    *options = (struct model_options){0};
}
