/* Which format a file of tensors has, by its first bytes, and its reader. What has none of the
 * formats goes to safetensors' reader, whose error names what the file is instead. */
#include "tensor/gguf.h"
#include "tensor/safetensors.h"
#include "tensor/torch_file.h"

static bool is_any(const uint8_t *data, size_t length) {
    (void)data, (void)length;
    return true;
}

/* Formats by their first bytes; what is none of the others says what is wrong with it as safetensors. */
static const struct {
    bool (*is)(const uint8_t *data, size_t length);
    tessera_status (*parse)(const char *path, const uint8_t *data, size_t length, struct safetensors **out, tessera_error *error);
} formats[] = {{torch_file_is, safetensors_parse_torch}, {gguf_is, gguf_parse}, {is_any, safetensors_parse}};

tessera_status safetensors_open(const char *path, struct safetensors **out, tessera_error *error) {
    *out = NULL;
    struct file_map map;
    TRY(file_map_open(path, &map, error));
    int format = 0;
    while (!formats[format].is(map.data, map.length)) format++;
    tessera_status status = formats[format].parse(path, map.data, map.length, out, error);
    if (status == TESSERA_OK)
        safetensors_keep_map(*out, map);
    else
        file_map_close(&map);
    return status;
}
