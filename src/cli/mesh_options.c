/* See mesh_options.h. */
#include "cli/mesh_options.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "cli/generate.h"

/* The axis to which --parallelism gives ranks. */
static int *axis_of(const char *kind, tessera_mesh *mesh) {
    return strcmp(kind, "tensor") == 0 ? &mesh->tensor : &mesh->patch;
}

/* DistriFusion's --parallelism: the ranks that are left, split by guidance where they are even, go
 * to one axis. */
static void apply_parallelism(const struct option_value *v, tessera_mesh *mesh) {
    const char *kind = v[GENERATE_PARALLELISM].text;
    if (kind == NULL) return;
    int *axis = axis_of(kind, mesh);
    const int claimed[] = {mesh->data, mesh->cfg, mesh->pipefusion, mesh->ring, mesh->ulysses, mesh->tensor};
    int left = tessera_world_size(mesh->world);
    for (size_t i = 0; i < sizeof claimed / sizeof *claimed; i++) left /= mesh_options_degree(claimed[i]);
    if (mesh->cfg == 1 && left > 0 && left % 2 == 0 && !v[GENERATE_NO_SPLIT_BATCH].flag) {
        mesh->cfg = 2;
        left /= 2;
    }
    if (left > 1) *axis = left;
    mesh->patch_strategy = strcmp(kind, "tensor") != 0 ? kind : NULL;
    mesh->split_scheme = v[GENERATE_SPLIT_SCHEME].text;
    mesh->sync_mode = v[GENERATE_SYNC_MODE].text;
    mesh->published_group_norm = v[GENERATE_PUBLISHED_GROUP_NORM].flag;
    mesh->split_text = v[GENERATE_SPLIT_TEXT].flag;
    mesh->comm_checkpoint = v[GENERATE_COMM_CHECKPOINT].integer;
}

/* "10 9", "10,9": the numbers of blocks, one for each stage. */
static tessera_status read_stages(const struct option_value *list, int stages, int **out, tessera_error *error) {
    int count = 0;
    if (list->count == 0) return TESSERA_OK;
    *out = calloc((size_t)stages, sizeof **out);
    if (*out == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the stages");
    for (int i = 0; i < list->count; i++)
        for (const char *text = list->texts[i]; *text != 0;) {
            char *end;
            long blocks = strtol(text, &end, 10);
            if (end == text || (*end != 0 && *end != ',') || blocks < 1 || blocks > 100000)
                return error_set(error, TESSERA_ERROR_ARGUMENT, "--attn-layer-num-for-pp takes whole numbers from 1, not '%s'",
                                 list->texts[i]);
            if (count < stages) (*out)[count] = (int)blocks;
            count++;
            text = *end == ',' ? end + 1 : end;
        }
    if (count == stages) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT, "--attn-layer-num-for-pp has %d numbers for --pipefusion-parallel-degree %d", count,
                     stages);
}

/* "3,1": a weight for each rank. */
static tessera_status read_weights(const char *text, int ranks, double **out, tessera_error *error) {
    int count = 0;
    if (text == NULL) return TESSERA_OK;
    *out = calloc((size_t)ranks, sizeof **out);
    if (*out == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the ranks' weights");
    for (const char *at = text; *at != 0; count++) {
        char *end;
        double weight = strtod(at, &end);
        if (end == at || (*end != 0 && *end != ',') || !(weight > 0) || weight > 1e6)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "--rank-weights takes numbers above 0 with commas between, not '%s'", text);
        if (count < ranks) (*out)[count] = weight;
        at = *end == ',' ? end + 1 : end;
    }
    if (count == ranks) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT, "--rank-weights has %d numbers for %d rank%s", count, ranks, ranks == 1 ? "" : "s");
}

/* --parallel auto chooses them all. */
static tessera_status refuse_degrees(const struct option_value *v, tessera_error *error) {
    const int given[] = {GENERATE_DATA_DEGREE, GENERATE_CFG_PARALLEL,   GENERATE_PIPEFUSION_DEGREE, GENERATE_RING_DEGREE,
                         GENERATE_PARALLELISM, GENERATE_ULYSSES_DEGREE, GENERATE_TENSOR_DEGREE,     GENERATE_STAGE_BLOCKS};
    for (size_t i = 0; i < sizeof given / sizeof *given && v[GENERATE_PARALLEL].given; i++)
        if (v[given[i]].given)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "--parallel auto chooses all degrees: leave --%s out",
                             generate_options[given[i]].name);
    return TESSERA_OK;
}

/* --device-map places the model's components and blocks on all ranks, and nothing else. */
static tessera_status apply_map(const struct option_value *v, tessera_mesh *mesh, tessera_error *error) {
    const int others[] = {GENERATE_PARALLEL,       GENERATE_DATA_DEGREE,   GENERATE_PIPEFUSION_DEGREE, GENERATE_NUM_PIPELINE_PATCH,
                          GENERATE_RING_DEGREE,    GENERATE_ULYSSES_DEGREE, GENERATE_TENSOR_DEGREE,     GENERATE_PARALLELISM,
                          GENERATE_STAGE_BLOCKS,   GENERATE_RANK_WEIGHTS,   GENERATE_CFG_PARALLEL,      GENERATE_PARALLEL_VAE};
    int found = -1;
    if (v[GENERATE_DEVICE_MAP].text == NULL) return TESSERA_OK;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (v[others[i]].spelling != NULL) found = others[i]; /* and not by a record */
    if (found >= 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "--device-map says which rank has which components and blocks, and whole pictures go through them: leave --%s out",
                         generate_options[found].name);
    *mesh = (tessera_mesh){.struct_size = mesh->struct_size,
                           .world = mesh->world,
                           .data = 1,
                           .cfg = 1,
                           .pipefusion = tessera_world_size(mesh->world),
                           .num_pipeline_patch = 1,
                           .ring = 1,
                           .ulysses = 1,
                           .tensor = 1};
    return TESSERA_OK;
}

/* The axes of a picture that are above 1, outermost first. */
static void describe(struct mesh_options *options) {
    const tessera_mesh *m = &options->mesh;
    const char *const names[] = {"cfg", "pipefusion", m->patch_strategy != NULL ? m->patch_strategy : "patch", "ring", "ulysses", "tensor"};
    const int degrees[] = {m->cfg, m->pipefusion, m->patch, m->ring, m->ulysses, m->tensor};
    int n = 0;
    options->ranks = 1;
    for (size_t i = 0; i < sizeof degrees / sizeof *degrees; i++) {
        if (degrees[i] <= 1) continue;
        n += snprintf(options->text + n, sizeof options->text - (size_t)n, "%s%s %d", n > 0 ? " x " : "", names[i], degrees[i]);
        options->ranks = options->ranks > INT_MAX / degrees[i] ? INT_MAX : options->ranks * degrees[i];
    }
    if (n == 0) strcpy(options->text, "1");
    for (char *at = options->text; *at != 0; at++)
        if (*at == '_') *at = ' '; /* words, as in every record so far: "naive patch 2" */
}

tessera_status mesh_options_read(const struct option_value *v, tessera_world *world, struct mesh_options *out, tessera_error *error) {
    *out = (struct mesh_options){.mesh = {.struct_size = sizeof(tessera_mesh),
                                          .world = world,
                                          .data = mesh_options_degree(v[GENERATE_DATA_DEGREE].integer),
                                          .cfg = v[GENERATE_CFG_PARALLEL].flag ? 2 : 1,
                                          .pipefusion = mesh_options_degree(v[GENERATE_PIPEFUSION_DEGREE].integer),
                                          .num_pipeline_patch = v[GENERATE_NUM_PIPELINE_PATCH].integer,
                                          .ring = mesh_options_degree(v[GENERATE_RING_DEGREE].integer),
                                          .ulysses = mesh_options_degree(v[GENERATE_ULYSSES_DEGREE].integer),
                                          .tensor = mesh_options_degree(v[GENERATE_TENSOR_DEGREE].integer),
                                          .parallel_vae = v[GENERATE_PARALLEL_VAE].flag}};
    TRY(read_stages(&v[GENERATE_STAGE_BLOCKS], out->mesh.pipefusion, &out->stage_blocks, error));
    out->mesh.stage_blocks = out->stage_blocks;
    TRY(refuse_degrees(v, error));
    TRY(read_weights(v[GENERATE_RANK_WEIGHTS].text, tessera_world_size(world), &out->rank_weights, error));
    out->mesh.rank_weights = out->rank_weights;
    const struct option_value *warmup = &v[GENERATE_WARMUP_STEPS];
    if (warmup->given) out->mesh.warmup_steps = warmup->integer > 0 ? warmup->integer : -1;
    apply_parallelism(v, &out->mesh);
    TRY(apply_map(v, &out->mesh, error));
    describe(out);
    return TESSERA_OK;
}

bool mesh_options_unsplit(const struct option_value *v, struct mesh_options *options) {
    tessera_mesh *mesh = &options->mesh;
    if (v[GENERATE_PARALLELISM].text == NULL || v[GENERATE_CFG_PARALLEL].flag || mesh->cfg == 1) return false;
    mesh->cfg = 1;
    int *axis = axis_of(v[GENERATE_PARALLELISM].text, mesh);
    *axis = 2 * mesh_options_degree(*axis);
    describe(options);
    return true;
}

void mesh_options_choose(struct mesh_options *options, const tessera_mesh *mesh) {
    options->mesh = *mesh;
    describe(options);
}

static void settle(struct option_value *value, int integer) {
    value->integer = integer;
    value->given = true;
}

void mesh_options_settle(const struct mesh_options *options, bool unet, struct option_value *values) {
    const tessera_mesh *mesh = &options->mesh;
    if (mesh->map != NULL ? !unet : !values[GENERATE_NUM_PIPELINE_PATCH].given && !(unet && mesh->pipefusion > 1))
        settle(&values[GENERATE_NUM_PIPELINE_PATCH], mesh->map != NULL ? 1 : mesh->pipefusion);
    if (values[GENERATE_PARALLELISM].text == NULL) values[GENERATE_CFG_PARALLEL].flag = mesh->cfg == 2; /* chosen, too */
    settle(&values[GENERATE_PIPEFUSION_DEGREE], mesh->pipefusion);
    settle(&values[GENERATE_RING_DEGREE], mesh->ring);
    settle(&values[GENERATE_ULYSSES_DEGREE], mesh->ulysses);
    if (values[GENERATE_PARALLELISM].text == NULL) settle(&values[GENERATE_TENSOR_DEGREE], mesh->tensor);
}

bool mesh_options_shapes(int option) {
    const int shapes[] = {GENERATE_RANK_WEIGHTS,   GENERATE_CFG_PARALLEL,   GENERATE_PIPEFUSION_DEGREE, GENERATE_STAGE_BLOCKS,
                          GENERATE_RING_DEGREE,    GENERATE_ULYSSES_DEGREE, GENERATE_TENSOR_DEGREE,     GENERATE_PARALLELISM,
                          GENERATE_NO_SPLIT_BATCH, GENERATE_PARALLEL_VAE};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (shapes[i] == option) return true;
    return false;
}

bool mesh_options_given(const struct option_value *v) {
    const int given[] = {GENERATE_DATA_DEGREE,   GENERATE_PIPEFUSION_DEGREE, GENERATE_RING_DEGREE, GENERATE_ULYSSES_DEGREE,
                         GENERATE_TENSOR_DEGREE, GENERATE_PARALLELISM,       GENERATE_STAGE_BLOCKS,      GENERATE_DEVICE_MAP};
    bool any = v[GENERATE_CFG_PARALLEL].spelling != NULL || v[GENERATE_CFG_PARALLEL].flag;
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) any = any || v[given[i]].given;
    return any;
}

void mesh_options_free(struct mesh_options *options) {
    free(options->stage_blocks);
    free(options->rank_weights);
    *options = (struct mesh_options){0};
}
