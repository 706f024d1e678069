/* Lists of workers: refused with the file's name, or every replica has an address, a pin and an
 * operator. */
#include <stdlib.h>
#include <string.h>

#include "split/workers_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct workers_file *file = calloc(1, sizeof *file);
    tessera_error error = {0};
    char *text = malloc(size + 1); /* of its own, so that a read beyond the end is seen */
    if (text == NULL || file == NULL) return 0;
    memcpy(text, data, size);
    text[size] = 0;
    tessera_status status = workers_file_parse("fuzzed", text, size, file, &error);
    if (status != TESSERA_OK && strstr(error.message, "fuzzed") == NULL) abort();
    if (status == TESSERA_OK && workers_file_check(file, &error) != TESSERA_OK) abort(); /* a file has no part without workers */
    for (int p = 0; p < file->count; p++)
        for (int i = 0; i < file->parts[p].count; i++)
            if (file->parts[p].replicas[i].url == NULL || file->parts[p].replicas[i].pin == NULL ||
                file->parts[p].replicas[i].operator_name == NULL)
                abort();
    workers_file_add(file, text, NULL, &error); /* the same bytes as words */
    workers_file_free(file);
    free(file);
    free(text);
    return 0;
}
