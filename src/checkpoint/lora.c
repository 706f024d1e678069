/* Adapters' files: grouping their keys by module, finding a weight's module, and merging.
 *
 * A file's keys are parsed and sorted by module, so that the tensors of one module (A, B, M, alpha)
 * lie side by side; a weight finds its module by its name with underscores for dots, or by the name
 * it has in the original checkpoint. There one module may be several of diffusers' (fused query,
 * key and value): each takes its band of the module's rows. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/clock.h"
#include "base/file.h"
#include "checkpoint/layout.h"
#include "checkpoint/lora.h"
#include "checkpoint/lora_bring.h"
#include "checkpoint/lora_key.h"
#include "checkpoint/lora_module.h"

enum { COMPONENTS = 4, ALIASES = 3 };

/* A tensor of the file and what its key says. */
struct keyed_tensor {
    struct lora_key key;
    struct safetensors_entry entry; /* aligned */
};

struct lora_file {
    struct safetensors *tensors;
    struct disk_file *disk; /* the same file, for reading; NULL: it is in memory */
    struct json *adapter; /* peft's configuration, or NULL */
    float scale;
    struct keyed_tensor *keys; /* sorted by module and components */
    int num_keys;
    struct lora_module *modules;
    int num_modules;
    const char *unknown; /* the first key that is no adapter's, of num_unknown; NULL: none */
    int num_unknown;
};

/* What the hooks of one component know. */
struct use {
    struct lora_set *set;
    unsigned component;
    struct layout *layout; /* or NULL */
};

struct lora_set {
    struct lora_file *files;
    int count, threads;
    struct use uses[COMPONENTS]; /* by the number of the component's bit */
    unsigned asked;              /* the components that hooks were made for */
};

/* ---- opening ---- */

static int compare_modules(const char *a, unsigned a_components, const char *b, unsigned b_components) {
    int order = strcmp(a, b);
    return order != 0 ? order : (int)a_components - (int)b_components;
}

static int compare_keyed(const void *a, const void *b) {
    const struct keyed_tensor *x = a, *y = b;
    int order = compare_modules(x->key.module, x->key.components, y->key.module, y->key.components);
    return order != 0 ? order : (int)x->key.role - (int)y->key.role;
}

static const char *file_name(const struct lora_file *file) {
    return safetensors_path(file->tensors);
}

static tessera_status check_tensor(const struct lora_file *file, const struct keyed_tensor *keyed, tessera_error *error) {
    const struct tensor *t = &keyed->entry.tensor;
    if (!lora_role_is_readable(keyed->key.role, t->dtype)) {
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: tensor \"%.300s\" is stored as %s; a LoRA can be F32, F16 or BF16",
                         file_name(file), keyed->entry.name, safetensors_type_name(file->tensors, keyed->entry.name));
    }
    bool vector = keyed->key.role == LORA_DORA_SCALE || keyed->key.role == LORA_DIFF;
    bool right = keyed->key.role == LORA_ALPHA ? tensor_count(t) == 1 : t->ndim >= (vector ? 1 : 2) && t->shape[0] > 0;
    if (right) return TESSERA_OK;
    char shape[128];
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: tensor \"%.300s\" has shape %s, which no tensor of a LoRA has", file_name(file),
                     keyed->entry.name, tensor_shape_text(t->ndim, t->shape, shape, sizeof shape));
}

/* Fills in the modules from the sorted keys. */
static tessera_status group_tensors(struct lora_file *file, tessera_error *error) {
    struct lora_module *module = NULL;
    for (int i = 0; i < file->num_keys; i++) {
        struct keyed_tensor *keyed = &file->keys[i];
        TRY(check_tensor(file, keyed, error));
        if (module == NULL || compare_modules(module->name, module->components, keyed->key.module, keyed->key.components) != 0) {
            module = &file->modules[file->num_modules++];
            *module = (struct lora_module){.name = keyed->key.module, .components = keyed->key.components};
        }
        if (module->tensors[keyed->key.role] != NULL) {
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: keys \"%.300s\" and \"%.300s\" are the same tensor of one module",
                             file_name(file), module->tensors[keyed->key.role]->name, keyed->entry.name);
        }
        module->tensors[keyed->key.role] = &keyed->entry;
    }
    return TESSERA_OK;
}

/* ---- the factor ---- */

/* A field of peft's configuration, which a pipeline's file keeps as "<component>.<field>", a
 * model's as "<field>". */
static const cJSON *adapter_field(const struct lora_file *file, const char *key, const char *field) {
    char name[64];
    const cJSON *root = json_root(file->adapter);
    snprintf(name, sizeof name, "%.*s.%s", (int)strcspn(key, "."), key, field);
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(root, name);
    return value != NULL ? value : cJSON_GetObjectItemCaseSensitive(root, field);
}

/* Does a pattern of peft's (the end of a module's name) mean this module? */
static bool pattern_matches(const char *pattern, const char *key) {
    static const char mark[] = ".lora_";
    const char *end = strstr(key, mark);
    size_t length = strlen(pattern), module = end == NULL ? 0 : (size_t)(end - key);
    return module > length && key[module - length - 1] == '.' && memcmp(key + module - length, pattern, length) == 0;
}

/* alpha / rank as peft's configuration gives it; 1 where there is none. */
static double adapter_factor(const struct lora_file *file, const char *key, double rank) {
    if (file->adapter == NULL) return 1;
    const cJSON *alpha = adapter_field(file, key, "lora_alpha"), *pattern;
    cJSON_ArrayForEach(pattern, adapter_field(file, key, "alpha_pattern")) {
        if (!pattern_matches(pattern->string, key)) continue;
        alpha = pattern;
        break;
    }
    if (!cJSON_IsNumber(alpha)) return 1;
    bool square_root = cJSON_IsTrue(adapter_field(file, key, "use_rslora")); /* Kalajdzievski 2023: alpha / sqrt(rank) */
    return alpha->valuedouble / (square_root ? sqrt(rank) : rank);
}

/* A module must be complete; then its factor is known. */
static tessera_status complete_module(const struct lora_file *file, struct lora_module *module, tessera_error *error) {
    TRY(lora_module_complete(module, file_name(file), error));
    const char *key = lora_module_entry(module)->name;
    double rank = (double)lora_module_rank(module), factor = 1;
    if (rank > 0) {
        if (module->kind == LORA_KIND_LORA) factor = adapter_factor(file, key, rank);
        double alpha = lora_module_alpha(module, factor * rank);
        if (alpha == 0 && module->kind != LORA_KIND_LORA) alpha = rank; /* LyCORIS takes 0 for none */
        factor = alpha / rank;
    }
    module->scale = file->scale;
    module->factor = (float)(file->scale * factor);
    if (isfinite(module->factor)) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: the module of key \"%.300s\" has an alpha that is no number", file_name(file), key);
}

static tessera_status read_adapter(struct lora_file *file, tessera_error *error) {
    const char *text = safetensors_metadata(file->tensors, "lora_adapter_metadata");
    return text == NULL ? TESSERA_OK : json_parse(file_name(file), text, strlen(text), &file->adapter, error);
}

/* A key that is no adapter's is left out, and counted. */
static tessera_status read_key(struct lora_file *file, const struct safetensors_entry *entry, tessera_error *error) {
    struct keyed_tensor *keyed = &file->keys[file->num_keys];
    tessera_status status = lora_key_parse(file_name(file), entry->name, &keyed->key, error);
    if (status == TESSERA_OK) {
        keyed->entry = (struct safetensors_entry){entry->name, safetensors_tensor(file->tensors, entry->name)};
        file->num_keys++;
    } else if (status == TESSERA_ERROR_FORMAT) {
        if (file->num_unknown++ == 0) file->unknown = entry->name;
        status = TESSERA_OK;
    }
    return status;
}

/* Reads the keys of file->tensors. */
static tessera_status read_file(struct lora_file *file, tessera_error *error) {
    int count = safetensors_count(file->tensors);
    if (count == 0) return error_set(error, TESSERA_ERROR_FORMAT, "%s: the file holds no tensors", file_name(file));
    TRY(read_adapter(file, error));
    file->keys = calloc((size_t)count, sizeof *file->keys);
    file->modules = calloc((size_t)count, sizeof *file->modules);
    if (file->keys == NULL || file->modules == NULL) {
        return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for %d keys", file_name(file), count);
    }
    for (int i = 0; i < count; i++) TRY(read_key(file, safetensors_at(file->tensors, i), error));
    if (file->num_keys == 0) return lora_key_parse(file_name(file), file->unknown, &file->keys[0].key, error);
    qsort(file->keys, (size_t)file->num_keys, sizeof *file->keys, compare_keyed);
    TRY(group_tensors(file, error));
    for (int i = 0; i < file->num_modules; i++) TRY(complete_module(file, &file->modules[i], error));
    return TESSERA_OK;
}

/* A file that is mapped can be read, too. */
static tessera_status open_disk(struct lora_file *file, tessera_error *error) {
    int descriptor;
    uint64_t offset;
    if (!safetensors_locate(file->tensors, lora_module_entry(&file->modules[0])->tensor.data, &descriptor, &offset)) return TESSERA_OK;
    file->disk = calloc(1, sizeof *file->disk);
    if (file->disk == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory to read it", file_name(file));
    return disk_file_open(descriptor, file_name(file), file->disk, error);
}

static tessera_status set_new(int count, struct lora_set **out, tessera_error *error) {
    struct lora_set *set = *out = calloc(1, sizeof *set);
    if (set != NULL) set->files = calloc((size_t)count + 1, sizeof *set->files);
    if (set == NULL || set->files == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for %d LoRA files", count);
    set->count = count;
    set->threads = threads_available();
    return TESSERA_OK;
}

tessera_status lora_set_open(const tessera_lora *loras, int count, struct lora_set **out, tessera_error *error) {
    tessera_status status = set_new(count, out, error);
    for (int i = 0; status == TESSERA_OK && i < count; i++) {
        struct lora_file *file = &(*out)->files[i];
        file->scale = loras[i].scale;
        if (loras[i].path == NULL || !isfinite(loras[i].scale)) {
            status = error_set(error, TESSERA_ERROR_ARGUMENT, "LoRA %d (%s) has the scale %g; it takes a path and a finite number", i + 1,
                               loras[i].path == NULL ? "no path" : loras[i].path, (double)loras[i].scale);
        }
        if (status == TESSERA_OK) status = safetensors_open(loras[i].path, &file->tensors, error);
        if (status == TESSERA_OK) status = read_file(file, error);
        if (status == TESSERA_OK) status = open_disk(file, error);
    }
    if (status == TESSERA_OK) return status;
    lora_set_close(*out);
    *out = NULL;
    return status;
}

tessera_status lora_set_parse(const char *name, const uint8_t *data, size_t length, float scale, struct lora_set **out,
                              tessera_error *error) {
    tessera_status status = set_new(1, out, error);
    if (status != TESSERA_OK) goto fail;
    struct lora_file *file = &(*out)->files[0];
    file->scale = scale;
    status = safetensors_parse(name, data, length, &file->tensors, error);
    if (status == TESSERA_OK) status = read_file(file, error);
    if (status == TESSERA_OK) return status;
fail:
    lora_set_close(*out);
    *out = NULL;
    return status;
}

void lora_set_close(struct lora_set *set) {
    if (set == NULL) return;
    for (int i = 0; i < set->count && set->files != NULL; i++) {
        free(set->files[i].keys);
        free(set->files[i].modules);
        json_free(set->files[i].adapter);
        if (set->files[i].disk != NULL) disk_file_close(set->files[i].disk);
        free(set->files[i].disk);
        safetensors_close(set->files[i].tensors);
    }
    for (int i = 0; i < COMPONENTS; i++) layout_free(set->uses[i].layout);
    free(set->files);
    free(set);
}

void lora_set_use_threads(struct lora_set *set, int threads) {
    assert(threads >= 1);
    set->threads = threads;
}

/* ---- hooks ---- */

/* The names under which a file may know a weight's module, and which rows of that module are the
 * weight's. */
struct alias {
    char module[sizeof((struct lora_key *)0)->module];
    struct layout_change change;
};

/* XLabs' name for query, key and value of a single block: three of the seven bands of its "linear1". */
static int add_xlabs_alias(const struct layout_match *original, struct alias aliases[ALIASES], int count) {
    const struct layout_change *change = &original->change;
    const char *linear = strstr(original->name, ".linear1.weight");
    if (linear == NULL || change->how != LAYOUT_BAND || change->bands != 7 || change->first > 2) return count;
    char name[sizeof original->name + sizeof LORA_XLABS_QKV];
    snprintf(name, sizeof name, "%.*s%s.weight", (int)(linear - original->name), original->name, LORA_XLABS_QKV);
    if (!lora_module_name(LORA_DENOISER, name, aliases[count].module, sizeof aliases[count].module)) return count;
    aliases[count].change = (struct layout_change){LAYOUT_BAND, change->first, 1, 3};
    return count + 1;
}

/* Fills in `aliases`; returns how many there are. */
static int find_aliases(const struct use *use, const char *weight, struct alias aliases[ALIASES]) {
    struct layout_match original;
    int count = 0;
    if (lora_module_name(use->component, weight, aliases[count].module, sizeof aliases[count].module)) {
        aliases[count++].change = (struct layout_change){.how = LAYOUT_AS_IS};
    }
    if (use->layout == NULL || !layout_to_original(use->layout, weight, &original)) return count;
    if (lora_module_name(use->component, original.name, aliases[count].module, sizeof aliases[count].module)) {
        aliases[count++].change = original.change;
    }
    if (count > 1 && strcmp(aliases[0].module, aliases[1].module) == 0) count = 1; /* one name: merge once */
    return add_xlabs_alias(&original, aliases, count);
}

/* The file's module of that name in a component; NULL if there is none. */
static struct lora_module *find_module(const struct lora_file *file, const char *name, unsigned component) {
    int low = 0, high = file->num_modules;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (strcmp(file->modules[middle].name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < file->num_modules && strcmp(file->modules[low].name, name) == 0; low++) {
        if ((file->modules[low].components & component) != 0) return &file->modules[low];
    }
    return NULL;
}

/* Marks the modules of a weight as found; true if a file has one. */
static bool find_weight(const struct use *use, const char *name) {
    struct alias aliases[ALIASES];
    int count = find_aliases(use, name, aliases);
    bool any = false;
    for (int i = 0; i < use->set->count; i++) {
        for (int a = 0; a < count; a++) {
            struct lora_module *module = find_module(&use->set->files[i], aliases[a].module, use->component);
            if (module != NULL) module->found |= use->component;
            any = any || module != NULL;
        }
    }
    return any;
}

static bool changes(void *user, const char *name) {
    return find_weight(user, name);
}

static bool needs_whole(void *user, const char *name) {
    const struct use *use = user;
    struct alias aliases[ALIASES];
    int count = find_aliases(use, name, aliases);
    for (int i = 0; i < use->set->count * count; i++) {
        const struct lora_module *module = find_module(&use->set->files[i / count], aliases[i % count].module, use->component);
        if (module != NULL && lora_module_needs_whole(module)) return true;
    }
    return false;
}

static tessera_status misfit(const struct lora_file *file, const struct lora_module *module, const char *name, int ndim,
                             const int64_t *shape, tessera_error *error) {
    char list[512] = "", have[128], want[128];
    size_t used = 0;
    for (int i = 0; i < LORA_ROLES && used < sizeof list; i++) {
        const struct safetensors_entry *keyed = module->tensors[i];
        if (keyed == NULL || i == LORA_ALPHA) continue;
        used += (size_t)snprintf(list + used, sizeof list - used, "%s\"%.150s\" %s", used > 0 ? " and " : "", keyed->name,
                                 tensor_shape_text(keyed->tensor.ndim, keyed->tensor.shape, have, sizeof have));
    }
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: %s do not fit the model's \"%.150s\" %s: is the LoRA for another model?",
                     file_name(file), list, name, tensor_shape_text(ndim, shape, want, sizeof want));
}

/* A weight, or the piece of one, that is being changed; or whose low-rank product is being read. */
struct target {
    const char *name;
    const struct load_piece *piece;
    const float *original; /* the whole weight before any change; NULL: no module asks for it */
    struct tensor *weight;
    float *up; /* the product's rows, in the place of the weight's; NULL: the weight is changed */
};

/* Merges those rows of the piece that lie in a band of the weight; their place in the module is
 * `shift` rows further down. */
static tessera_status merge_band(const struct lora_module *module, const struct target *to, struct span band, int64_t shift,
                                 tessera_error *error) {
    int64_t first = to->piece->rows.first, end = first + to->piece->rows.count;
    if (band.first > first) first = band.first;
    if (band.first + band.count < end) end = band.first + band.count;
    if (first >= end) return TESSERA_OK;
    if (to->up != NULL) {
        float *rows = to->up + (first - to->piece->rows.first) * lora_module_low_rank(module);
        lora_module_read_up(module, (struct span){first + shift, end - first}, rows);
        return TESSERA_OK;
    }
    int64_t columns = tensor_count(to->weight) / to->piece->rows.count, skipped = (first - to->piece->rows.first) * columns;
    float *values = (float *)to->weight->data + skipped;
    struct span rows = {first + shift, end - first};
    if (lora_module_needs_whole(module))
        return lora_module_add_decomposed(module, to->weight->ndim, to->piece->shape, rows, to->original + skipped, values, error);
    return lora_module_add(module, to->weight->ndim, to->piece->shape, rows, to->piece->inputs, values, error);
}

/* Merges a module into a piece of a weight whose rows are those that `change` tells of. */
static tessera_status merge(const struct lora_file *file, const struct lora_module *module, const struct layout_change *change,
                            const struct target *to, tessera_error *error) {
    int64_t rows = to->piece->shape[0], total = lora_module_rows(module), first = 0, half = rows / 2;
    bool fits = change->how != LAYOUT_TRANSPOSE;
    if (change->how == LAYOUT_BAND) {
        int64_t band = total / change->bands;
        fits = band * change->bands == total && band * change->span == rows;
        first = band * change->first;
    } else {
        fits = fits && total == rows && (change->how != LAYOUT_SWAP_HALVES || rows % 2 == 0);
    }
    if (!fits || !lora_module_fits(module, to->weight->ndim, to->piece->shape))
        return misfit(file, module, to->name, to->weight->ndim, to->piece->shape, error);
    tessera_error local = {0};
    tessera_status status;
    if (change->how != LAYOUT_SWAP_HALVES) {
        status = merge_band(module, to, (struct span){0, rows}, first, &local);
    } else {
        status = merge_band(module, to, (struct span){0, half}, half, &local);
        if (status == TESSERA_OK) status = merge_band(module, to, (struct span){half, half}, -half, &local);
    }
    return status == TESSERA_OK ? status : error_set(error, status, "%s: %s", file_name(file), local.message);
}

static tessera_status change_weight(void *user, const char *name, struct load_piece piece, struct tensor *weight, tessera_error *error) {
    const struct use *use = user;
    struct alias aliases[ALIASES];
    int count = find_aliases(use, name, aliases);
    tessera_status status = TESSERA_OK;
    float *original = NULL;
    if (needs_whole(user, name)) {
        original = malloc(tensor_bytes(weight));
        if (original == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a copy of \"%.250s\"", name);
        memcpy(original, weight->data, tensor_bytes(weight));
    }
    const struct target target = {.name = name, .piece = &piece, .original = original, .weight = weight};
    for (int i = 0; i < use->set->count * count && status == TESSERA_OK; i++) {
        const struct lora_file *file = &use->set->files[i / count];
        const struct alias *alias = &aliases[i % count];
        const struct lora_module *module = find_module(file, alias->module, use->component);
        if (module == NULL) continue;
        struct lora_brought brought;
        status = lora_bring(module, file->tensors, file->disk, &brought, error);
        brought.module.threads = use->set->threads;
        if (status == TESSERA_OK) status = merge(file, &brought.module, &alias->change, &target, error);
        lora_let_go(&brought);
    }
    free(original);
    return status;
}

/* The module that changes the weight, number `index` of them in the order in which they are merged;
 * NULL behind the last. */
static const struct lora_module *module_at(const struct use *use, const char *name, int index, const struct lora_file **file,
                                           struct layout_change *change) {
    struct alias aliases[ALIASES];
    int count = find_aliases(use, name, aliases);
    for (int i = 0; i < use->set->count * count; i++) {
        *file = &use->set->files[i / count];
        *change = aliases[i % count].change;
        const struct lora_module *module = find_module(*file, aliases[i % count].module, use->component);
        if (module != NULL && index-- == 0) return module;
    }
    return NULL;
}

static int64_t rank_of(void *user, const char *name, int index) {
    const struct lora_file *file;
    struct layout_change change;
    const struct lora_module *module;
    for (int i = 0; index == 0 && (module = module_at(user, name, i, &file, &change)) != NULL; i++)
        if (lora_module_low_rank(module) == 0) return -1;
    module = module_at(user, name, index, &file, &change);
    return module != NULL ? lora_module_low_rank(module) : 0;
}

static tessera_status read_product(void *user, const char *name, int index, struct load_piece piece, float *down, int64_t stride, float *up,
                                   tessera_error *error) {
    const struct lora_file *file;
    struct layout_change change;
    const struct lora_module *module = module_at(user, name, index, &file, &change);
    struct tensor shape = tensor_of(NULL, DTYPE_F32, 2, piece.shape);
    const struct target target = {.name = name, .piece = &piece, .weight = &shape, .up = up};
    struct lora_brought brought;
    tessera_status status = lora_bring(module, file->tensors, file->disk, &brought, error);
    if (status == TESSERA_OK && up != NULL) status = merge(file, &brought.module, &change, &target, error);
    if (status == TESSERA_OK && down != NULL) lora_module_read_down(&brought.module, piece.inputs, down, stride);
    lora_let_go(&brought);
    return status;
}

/* The table of the original names for the class in folder/config.json; *out stays NULL for a model
 * that has no original layout. */
static tessera_status open_layout(const char *folder, struct layout **out, tessera_error *error) {
    struct json *config = NULL;
    tessera_status status = json_open_in(folder, "config.json", &config, error);
    if (status == TESSERA_OK && layout_kind_of(config) != LAYOUT_SAME) status = layout_new(layout_kind_of(config), config, out, error);
    if (status == TESSERA_ERROR_UNSUPPORTED) status = TESSERA_OK; /* only diffusers' names, then */
    json_free(config);
    return status;
}

static struct use *find_use(struct lora_set *set, unsigned component) {
    int index = 0;
    while (1u << index != component) index++;
    return &set->uses[index];
}

tessera_status lora_hooks_for(struct lora_set *set, const char *component, const char *folder, struct load_hooks *out,
                              tessera_error *error) {
    *out = (struct load_hooks){0};
    unsigned bit = lora_component(component);
    if (bit == 0) return TESSERA_OK;
    for (int i = 0; i < set->count; i++) TRY(safetensors_check(set->files[i].tensors, error));
    struct use *use = find_use(set, bit);
    layout_free(use->layout);
    *use = (struct use){.set = set, .component = bit};
    set->asked |= bit;
    if (bit == LORA_DENOISER && folder != NULL) TRY(open_layout(folder, &use->layout, error));
    *out = (struct load_hooks){.user = use, .changes = changes, .change = change_weight, .needs_whole = needs_whole, .rank = rank_of, .product = read_product};
    return TESSERA_OK;
}

void lora_hooks_found(struct lora_set *set, const char *component, const struct weights *weights) {
    unsigned bit = lora_component(component);
    if (bit == 0) return;
    for (int i = 0; i < weights_count(weights); i++) find_weight(find_use(set, bit), weights_at(weights, i)->name);
}

bool lora_reaches(const char *component) {
    return lora_component(component) != 0;
}

bool lora_file_changes(const struct lora_set *set, int file, const char *component) {
    unsigned bit = lora_component(component);
    for (int m = 0; m < set->files[file].num_modules; m++)
        if ((set->files[file].modules[m].found & bit) != 0) return true;
    return false;
}

bool lora_set_changes(const struct lora_set *set, const char *component) {
    for (int i = 0; i < set->count; i++)
        if (lora_file_changes(set, i, component)) return true;
    return false;
}

/* ---- what was not found ---- */

/* How many modules of the file no component of the model has; *first is the first one's key, *any
 * whether one was found. Modules of text encoders that the model does without do not count. */
static int count_missing(const struct lora_file *file, unsigned asked, const char **first, bool *any) {
    int count = 0;
    *any = false;
    for (int m = 0; m < file->num_modules; m++) {
        const struct lora_module *module = &file->modules[m];
        *any = *any || module->found != 0;
        if ((module->components & asked) == 0 || module->found != 0) continue;
        if (count++ == 0) *first = lora_module_entry(module)->name;
    }
    return count;
}

/* Has the file modules of the denoiser alone, and the denoiser none of them? */
static bool misses_denoiser(const struct lora_file *file, unsigned asked, const char **first) {
    const struct lora_module *some = NULL;
    for (int m = file->num_modules - 1; m >= 0; m--) {
        const struct lora_module *module = &file->modules[m];
        if (module->components != LORA_DENOISER) continue;
        if (module->found != 0) return false;
        some = module;
    }
    if (some != NULL) *first = lora_module_entry(some)->name;
    return some != NULL && (asked & LORA_DENOISER) != 0;
}

tessera_status lora_set_check(const struct lora_set *set, tessera_error *error) {
    for (int i = 0; i < set->count; i++) {
        const char *first = NULL;
        bool any;
        int count = count_missing(&set->files[i], set->asked, &first, &any);
        if (!misses_denoiser(&set->files[i], set->asked, &first) && (count == 0 || any)) continue;
        return error_set(
            error, TESSERA_ERROR_FORMAT,
            "%s: \"%.300s\" names no module of this model (%d such modules, and none that it has): is the LoRA for another model?",
            file_name(&set->files[i]), first, count);
    }
    return TESSERA_OK;
}

bool lora_set_notice(const struct lora_set *set, int file, char *text, size_t capacity) {
    const struct lora_file *f = &set->files[file];
    const char *first = f->unknown;
    bool any;
    int count = count_missing(f, set->asked, &first, &any) + f->num_unknown;
    if (count == 0) return false;
    if (count == 1)
        snprintf(text, capacity, "%s: \"%.300s\" is left out: the model has no such module", file_name(f), first);
    else
        snprintf(text, capacity, "%s: \"%.300s\" and %d more are left out: the model has no such modules", file_name(f), first, count - 1);
    return true;
}

int lora_set_count(const struct lora_set *set) {
    return set->count;
}
