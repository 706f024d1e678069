/* `tessera inspect`: what is in a model folder, a safetensors file or a picture, and what memory a
 * model will need.
 *
 * Weights are counted from the headers, which are checked completely; nothing is computed. The
 * figure for activations is an estimate from the widths in config.json, good to a factor of about
 * two. */
#include "cli/command.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/little_endian.h"
#include "base/text.h"
#include "cli/record.h"
#include "tensor/gguf.h"
#include "tensor/weights.h"

#define MIB (1024.0 * 1024.0)

enum inspect_option { INSPECT_JSON, INSPECT_OPTION_COUNT };

static const struct option inspect_options[INSPECT_OPTION_COUNT] = {
    [INSPECT_JSON] = {.name = "json", .type = OPTION_FLAG, .help = "one JSON object on standard output"},
};

/* "BF16" or "Q8_0, F32": the element types of "bytes_by_type". */
static void name_types(const cJSON *bytes, char *out, size_t capacity) {
    size_t n = 0;
    out[0] = 0;
    for (const cJSON *item = bytes->child; item != NULL && n < capacity; item = item->next)
        n += (size_t)snprintf(out + n, capacity - n, "%s%s", n > 0 ? ", " : "", item->string);
}

/* Adds a tensor's bytes to "bytes_by_type". */
static void count_type(cJSON *bytes, const char *type, double more) {
    cJSON *item = cJSON_GetObjectItemCaseSensitive(bytes, type);
    if (item == NULL)
        cJSON_AddNumberToObject(bytes, type, more);
    else
        cJSON_SetNumberValue(item, item->valuedouble + more);
}

static void print_types(const cJSON *bytes) {
    for (const cJSON *item = bytes->child; item != NULL; item = item->next)
        printf("%s%s %.2f MiB", item == bytes->child ? "" : ", ", item->string, item->valuedouble / MIB);
}

/* ---- a folder ---- */

/* Bytes of activations in float32 that one component needs at the default size, by its widths; 0
 * where it has none of them. */
static double estimate_activations(const char *folder, double width, double height) {
    char *path = file_join(folder, "config.json");
    struct json *config = NULL;
    double bytes = 0;
    int64_t patch = 0, heads = 0, head = 0, channels[8] = {0};
    int levels = 0;
    if (path != NULL && json_open(path, 0, &config, NULL) == TESSERA_OK) {
        json_int(config, "patch_size", 0, 0, 64, &patch, NULL);
        json_int(config, "num_attention_heads", 0, 0, 1024, &heads, NULL);
        json_int(config, "attention_head_dim", 0, 0, 1024, &head, NULL);
        json_ints(config, "block_out_channels", 1, 65536, channels, 8, &levels, NULL);
        if (patch > 0 && head > 0) /* two halves of guidance; about 16 arrays as wide as the model live at once */
            bytes = 2 * (width / 8 / (double)patch) * (height / 8 / (double)patch) * (double)(heads * head) * 16 * sizeof(float);
        else if (levels > 0) /* about three feature maps at full size */
            bytes = 3 * width * height * (double)channels[levels > 1 ? 1 : 0] * sizeof(float);
    }
    json_free(config);
    free(path);
    return bytes;
}

static tessera_status inspect_component(const char *folder, const char *name, const char *class_name, double width, double height,
                                        cJSON *list, tessera_error *error) {
    struct weights *weights = NULL;
    char types[96];
    char *path = file_join(folder, name);
    if (path == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    tessera_status status = TESSERA_OK;
    cJSON *entry = cJSON_CreateObject();
    cJSON_AddItemToArray(list, entry);
    cJSON_AddStringToObject(entry, "name", name);
    cJSON_AddStringToObject(entry, "class", class_name);
    bool light = strstr(name, "tokenizer") != NULL || strstr(name, "scheduler") != NULL || strstr(name, "feature_extractor") != NULL;
    if (!light && (status = weights_open(path, &weights, error)) == TESSERA_OK) {
        cJSON *by_type = cJSON_AddObjectToObject(entry, "bytes_by_type");
        for (int i = 0; i < weights_count(weights); i++) {
            const struct safetensors_entry *e = weights_at(weights, i);
            count_type(by_type, weights_type_name(weights, e->name), (double)tensor_bytes(&e->tensor));
        }
        name_types(by_type, types, sizeof types);
        cJSON_AddNumberToObject(entry, "tensors", weights_count(weights));
        cJSON_AddNumberToObject(entry, "parameters", (double)weights_parameters(weights));
        cJSON_AddNumberToObject(entry, "bytes", (double)weights_bytes(weights));
        cJSON_AddStringToObject(entry, "element_types", types);
        cJSON_AddNumberToObject(entry, "activation_bytes_estimate", estimate_activations(path, width, height));
        weights_close(weights);
    }
    free(path);
    return status;
}

/* The default picture's size: generation_defaults.json, else 1024. */
static void default_size(const char *folder, int64_t *width, int64_t *height) {
    char *path = file_join(folder, "generation_defaults.json");
    struct json *defaults = NULL;
    *width = *height = 1024;
    if (path != NULL && file_exists(path) && json_open(path, 0, &defaults, NULL) == TESSERA_OK) {
        json_int(defaults, "width", 1024, 1, 16384, width, NULL);
        json_int(defaults, "height", 1024, 1, 16384, height, NULL);
    }
    json_free(defaults);
    free(path);
}

static tessera_status inspect_folder(const char *folder, cJSON *root, tessera_error *error) {
    struct json *index = NULL;
    const char *class_name;
    int64_t width, height;
    char *path = file_join(folder, "model_index.json");
    if (path == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    tessera_status status = json_open(path, 0, &index, error);
    free(path);
    if (status == TESSERA_OK) status = json_string(index, "_class_name", "unknown", &class_name, error);
    if (status == TESSERA_OK) {
        default_size(folder, &width, &height);
        cJSON_AddStringToObject(root, "folder", folder);
        cJSON_AddStringToObject(root, "pipeline_class", class_name);
        cJSON_AddNumberToObject(root, "default_width", (double)width);
        cJSON_AddNumberToObject(root, "default_height", (double)height);
        cJSON *list = cJSON_AddArrayToObject(root, "components");
        const cJSON *item;
        cJSON_ArrayForEach(item, json_root(index)) {
            const cJSON *class_item = cJSON_GetArrayItem(item, 1);
            if (status == TESSERA_OK && cJSON_IsArray(item) && cJSON_IsString(class_item))
                status = inspect_component(folder, item->string, class_item->valuestring, (double)width, (double)height, list, error);
        }
    }
    json_free(index);
    return status;
}

static double number_of(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItem(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

static void sum_folder(cJSON *root) {
    double parameters = 0, bytes = 0, activations = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(root, "components")) {
        parameters += number_of(item, "parameters");
        bytes += number_of(item, "bytes");
        if (number_of(item, "activation_bytes_estimate") > activations) activations = number_of(item, "activation_bytes_estimate");
    }
    cJSON_AddNumberToObject(root, "parameters", parameters);
    cJSON_AddNumberToObject(root, "bytes", bytes);
    cJSON_AddNumberToObject(root, "weight_bytes_bf16", parameters * 2);
    cJSON_AddNumberToObject(root, "weight_bytes_f32", parameters * 4);
    cJSON_AddNumberToObject(root, "activation_bytes_estimate", activations);
}

/* Names from files go to a terminal; JSON for programs keeps them as they are. */
static void clean_texts(cJSON *item) {
    for (; item != NULL; item = item->next) {
        if (item->string != NULL) text_clean(item->string);
        if (cJSON_IsString(item)) text_clean(item->valuestring);
        clean_texts(item->child);
    }
}

static void print_folder(const cJSON *root) {
    const cJSON *item;
    printf("%s: %s\n", cJSON_GetStringValue(cJSON_GetObjectItem(root, "folder")),
           cJSON_GetStringValue(cJSON_GetObjectItem(root, "pipeline_class")));
    printf("  %-16s %-36s %8s %12s %12s  %s\n", "component", "class", "tensors", "parameters", "MiB", "types");
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(root, "components")) {
        const char *types = cJSON_GetStringValue(cJSON_GetObjectItem(item, "element_types"));
        printf("  %-16s %-36s", cJSON_GetStringValue(cJSON_GetObjectItem(item, "name")),
               cJSON_GetStringValue(cJSON_GetObjectItem(item, "class")));
        if (types != NULL)
            printf(" %8.0f %12.0f %12.2f  ", number_of(item, "tensors"), number_of(item, "parameters"), number_of(item, "bytes") / MIB);
        if (types != NULL && strchr(types, ',') == NULL) fputs(types, stdout);
        if (types != NULL && strchr(types, ',') != NULL) print_types(cJSON_GetObjectItem(item, "bytes_by_type"));
        putchar('\n');
    }
    printf("  weights: %.0f parameters, %.1f MiB stored; %.1f MiB to compute in bf16, %.1f MiB in f32\n", number_of(root, "parameters"),
           number_of(root, "bytes") / MIB, number_of(root, "weight_bytes_bf16") / MIB, number_of(root, "weight_bytes_f32") / MIB);
    printf("  activations at %.0fx%.0f: about %.0f MiB (an estimate)\n", number_of(root, "default_width"),
           number_of(root, "default_height"), number_of(root, "activation_bytes_estimate") / MIB);
}

/* ---- a file ---- */

/* __metadata__ of a file whose header safetensors_open has checked. */
static tessera_status read_metadata(const char *path, cJSON *root, tessera_error *error) {
    struct file_map map;
    struct json *header = NULL;
    uint64_t length = 0;
    TRY(file_map_open(path, &map, error));
    if (gguf_is(map.data, map.length)) { /* its values are of another form, and none of them is used */
        file_map_close(&map);
        return TESSERA_OK;
    }
    if (map.length >= 8) length = little_endian_get(map.data, 8);
    tessera_status status = TESSERA_OK;
    if (map.length >= 8 && length <= map.length - 8) status = json_parse(path, (const char *)map.data + 8, (size_t)length, &header, error);
    const cJSON *metadata = header != NULL ? cJSON_GetObjectItem(json_root(header), "__metadata__") : NULL;
    if (metadata != NULL) cJSON_AddItemToObject(root, "metadata", cJSON_Duplicate(metadata, true));
    json_free(header);
    file_map_close(&map);
    return status;
}

static tessera_status inspect_file(const char *path, cJSON *root, tessera_error *error) {
    struct safetensors *file = NULL;
    TRY(safetensors_open(path, &file, error));
    cJSON_AddStringToObject(root, "file", path);
    cJSON *by_type = cJSON_AddObjectToObject(root, "bytes_by_type");
    cJSON *list = cJSON_AddArrayToObject(root, "tensors");
    for (int i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_entry *e = safetensors_at(file, i);
        cJSON *entry = cJSON_CreateObject();
        cJSON_AddItemToArray(list, entry);
        cJSON_AddStringToObject(entry, "name", e->name);
        cJSON_AddStringToObject(entry, "dtype", safetensors_type_name(file, e->name));
        cJSON *shape = cJSON_AddArrayToObject(entry, "shape");
        for (int d = 0; d < e->tensor.ndim; d++) cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)e->tensor.shape[d]));
        cJSON_AddNumberToObject(entry, "bytes", (double)tensor_bytes(&e->tensor));
        count_type(by_type, safetensors_type_name(file, e->name), (double)tensor_bytes(&e->tensor));
    }
    safetensors_close(file);
    return read_metadata(path, root, error);
}

static void print_file(const cJSON *root) {
    const cJSON *item;
    const cJSON *tensors = cJSON_GetObjectItem(root, "tensors");
    double bytes = 0;
    cJSON_ArrayForEach(item, tensors) {
        char *shape = cJSON_PrintUnformatted(cJSON_GetObjectItem(item, "shape"));
        printf("%-5s %-24s %12.0f  %s\n", cJSON_GetStringValue(cJSON_GetObjectItem(item, "dtype")), shape != NULL ? shape : "",
               number_of(item, "bytes"), cJSON_GetStringValue(cJSON_GetObjectItem(item, "name")));
        cJSON_free(shape);
        bytes += number_of(item, "bytes");
    }
    printf("%d tensors, %.2f MiB: ", cJSON_GetArraySize(tensors), bytes / MIB);
    print_types(cJSON_GetObjectItem(root, "bytes_by_type"));
    putchar('\n');
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(root, "metadata"))
        printf("metadata %s: %s\n", item->string, cJSON_IsString(item) ? item->valuestring : "(not text)");
}

/* ---- a picture ---- */

static bool is_png(const char *path) {
    unsigned char start[8] = "";
    FILE *stream = fopen(path, "rb");
    bool png = stream != NULL && fread(start, 1, sizeof start, stream) == sizeof start && memcmp(start, "\x89PNG\r\n\x1a\n", 8) == 0;
    if (stream != NULL) fclose(stream);
    return png;
}

static tessera_status inspect_picture(const char *path, cJSON *root, tessera_error *error) {
    tessera_picture picture = TESSERA_PICTURE;
    TRY(tessera_picture_read(path, &picture, error));
    cJSON_AddStringToObject(root, "picture", path);
    cJSON_AddNumberToObject(root, "width", picture.width);
    cJSON_AddNumberToObject(root, "height", picture.height);
    const char *text = tessera_picture_text(&picture, RECORD_KEY);
    cJSON *record = text != NULL ? cJSON_Parse(text) : NULL;
    if (record != NULL) cJSON_AddItemToObject(root, "record", record);
    cJSON *texts = cJSON_AddObjectToObject(root, "text");
    for (int i = 0; i < picture.num_texts; i++)
        if (strcmp(picture.texts[i].key, RECORD_KEY) != 0) cJSON_AddStringToObject(texts, picture.texts[i].key, picture.texts[i].value);
    tessera_picture_free(&picture);
    return TESSERA_OK;
}

/* Text from a file, in which a control character would be obeyed by the terminal. */
static void print_plainly(const char *text) {
    for (; *text != 0; text++) putchar(((unsigned char)*text < ' ' && *text != '\n') || *text == 127 ? '?' : *text);
}

static void print_picture(const cJSON *root) {
    const cJSON *item;
    print_plainly(cJSON_GetStringValue(cJSON_GetObjectItem(root, "picture")));
    printf(": PNG, %.0fx%.0f\n", number_of(root, "width"), number_of(root, "height"));
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(root, "text")) {
        putchar('\n');
        print_plainly(item->string);
        puts(":");
        print_plainly(item->valuestring);
        putchar('\n');
    }
    const cJSON *record = cJSON_GetObjectItem(root, "record");
    puts(record != NULL ? "\nrecord (generate --from makes the picture again):" : "\nno record of tessera's");
    cJSON_ArrayForEach(item, record) {
        char *value = !cJSON_IsNull(item) ? cJSON_PrintUnformatted(item) : NULL;
        if (value != NULL) {
            printf("  %-28s ", item->string);
            print_plainly(value);
            putchar('\n');
        }
        cJSON_free(value);
    }
}

/* ---- */

static int run_inspect(const char *path, struct option_value *values) {
    tessera_error error = {0};
    if (path == NULL) {
        error_set(&error, TESSERA_ERROR_ARGUMENT,
                  "inspect needs a model folder, a weight file (safetensors, GGUF, or PyTorch's) or a picture");
        return command_fail(&error, true);
    }
    cJSON *root = cJSON_CreateObject();
    bool folder = file_is_folder(path), picture = !folder && is_png(path);
    tessera_status status = folder    ? inspect_folder(path, root, &error)
                            : picture ? inspect_picture(path, root, &error)
                                      : inspect_file(path, root, &error);
    if (status == TESSERA_OK && folder) sum_folder(root);
    if (status == TESSERA_OK && values[INSPECT_JSON].flag) {
        char *text = cJSON_Print(root);
        if (text != NULL) puts(text);
        cJSON_free(text);
    } else if (status == TESSERA_OK) {
        if (!picture) clean_texts(root); /* a picture's texts have lines */
        if (folder)
            print_folder(root);
        else if (picture)
            print_picture(root);
        else
            print_file(root);
    }
    cJSON_Delete(root);
    return status == TESSERA_OK ? EXIT_DONE : command_fail(&error, false);
}

const struct command inspect_command = {
    .name = "inspect",
    .usage = "inspect MODEL_FOLDER|FILE|PICTURE.png [--json]",
    .summary = "show what a model folder, a weight file or a picture's record holds",
    .details = "",
    .examples = "  tessera inspect models/emoji\n  tessera inspect models/emoji/vae/diffusion_pytorch_model.safetensors\n"
                "  tessera inspect lion.png\n",
    .options = inspect_options,
    .option_count = INSPECT_OPTION_COUNT,
    .run = run_inspect,
    .takes_path = true,
};
