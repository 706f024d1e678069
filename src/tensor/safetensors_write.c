/* Writing safetensors and GGUF files; see safetensors.h. Both are a header, which is written at
 * once, and then the tensors' bytes in its order. In a GGUF file each tensor begins at a multiple
 * of the alignment, so the writer knows where each one ends. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "tensor/gguf.h"
#include "tensor/safetensors.h"

#define LENGTH_BYTES ((size_t)8)

static void print_name(FILE *stream, const char *name) {
    fputc('"', stream);
    for (const unsigned char *c = (const unsigned char *)name; *c != 0; c++) {
        if (*c < 0x20)
            fprintf(stream, "\\u%04x", *c);
        else if (*c == '"' || *c == '\\')
            fprintf(stream, "\\%c", *c);
        else
            fputc(*c, stream);
    }
    fputc('"', stream);
}

/* The header's JSON. */
static void print_header(FILE *stream, const struct safetensors_entry *entries, int count, const struct safetensors_note *notes) {
    size_t begin = 0;
    const char *separator = "";
    fputc('{', stream);
    for (const struct safetensors_note *note = notes; note->key != NULL; note++) {
        fputs(note == notes ? "\"__metadata__\":{" : ",", stream);
        print_name(stream, note->key);
        fputc(':', stream);
        print_name(stream, note->value);
        separator = "},";
    }
    if (count == 0 && notes->key != NULL) fputc('}', stream);
    for (int i = 0; i < count; i++) {
        const struct tensor *tensor = &entries[i].tensor;
        char shape[TENSOR_MAX_DIMS * 24];
        fputs(separator, stream);
        separator = ",";
        print_name(stream, entries[i].name);
        fprintf(stream, ":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}", dtype_name(tensor->dtype),
                tensor_shape_text(tensor->ndim, tensor->shape, shape, sizeof shape), begin, begin + tensor_bytes(tensor));
        begin += tensor_bytes(tensor);
    }
    fputc('}', stream);
}

struct safetensors_writer {
    struct file_output output;
    size_t *bytes; /* of each tensor */
    int count, at; /* the tensor that is being written */
    size_t added;  /* of its bytes */
    size_t alignment;
};

static bool is_gguf_name(const char *path) {
    size_t length = strlen(path);
    return length >= 5 && strcmp(path + length - 5, ".gguf") == 0;
}

static tessera_status check_types(const char *path, const struct safetensors_entry *entries, int count, bool gguf, tessera_error *error) {
    for (int i = 0; i < count; i++) {
        enum dtype dtype = entries[i].tensor.dtype;
        if (dtype == DTYPE_UNKNOWN)
            return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: tensor \"%s\" has an %s type: it cannot be written", path,
                             entries[i].name, dtype_name(dtype));
        if (gguf && !gguf_has_type(dtype))
            return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: tensor \"%s\": GGUF files have no type %s: write a .safetensors file", path,
                             entries[i].name, dtype_name(dtype));
        if (gguf && entries[i].tensor.ndim > GGUF_MAX_DIMS)
            return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: tensor \"%s\" has %d dimensions; GGUF files allow %d: write a .safetensors file",
                             path, entries[i].name, entries[i].tensor.ndim, GGUF_MAX_DIMS);
    }
    return TESSERA_OK;
}

/* The bytes before the data; the caller frees them. False if memory is out. */
static bool make_header(const struct safetensors_entry *entries, int count, const struct safetensors_note *notes, bool gguf, char **header, size_t *length) {
    FILE *memory = open_memstream(header, length);
    if (memory == NULL) return false;
    if (gguf) {
        gguf_print_header(memory, entries, count);
    } else {
        for (size_t i = 0; i < LENGTH_BYTES; i++) fputc(0, memory);
        print_header(memory, entries, count, notes);
        while (ftell(memory) % (long)LENGTH_BYTES != 0) fputc(' ', memory); /* so that the data begins aligned */
    }
    if (fclose(memory) != 0) return false;
    for (size_t i = 0; i < LENGTH_BYTES && !gguf; i++) (*header)[i] = (char)((uint64_t)(*length - LENGTH_BYTES) >> (8 * i) & 0xff);
    return true;
}

static void free_writer(struct safetensors_writer *writer) {
    free(writer->bytes);
    free(writer);
}

static tessera_status open_writer(const char *path, const struct safetensors_entry *entries, int count, const struct safetensors_note *notes,
                                  struct safetensors_writer **out, tessera_error *error) {
    bool gguf = is_gguf_name(path);
    char *header = NULL;
    size_t length = 0;
    *out = NULL;
    TRY(check_types(path, entries, count, gguf, error));
    struct safetensors_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL || (writer->bytes = calloc((size_t)count + 1, sizeof *writer->bytes)) == NULL) {
        free(writer);
        return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for the header of %d tensors", path, count);
    }
    writer->count = count;
    writer->alignment = gguf ? GGUF_ALIGNMENT : 1;
    for (int i = 0; i < count; i++) writer->bytes[i] = tensor_bytes(&entries[i].tensor);
    tessera_status status = make_header(entries, count, notes, gguf, &header, &length)
                                ? file_output_open(path, &writer->output, error)
                                : error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for the header of %d tensors", path, count);
    if (status == TESSERA_OK) { /* an error of any write is found when the file is committed */
        fwrite(header, 1, length, writer->output.stream);
        *out = writer;
    } else {
        free_writer(writer);
    }
    free(header);
    return status;
}

tessera_status safetensors_writer_open(const char *path, const struct safetensors_entry *entries, int count, const char *format,
                                       struct safetensors_writer **out, tessera_error *error) {
    const struct safetensors_note notes[] = {{format != NULL ? "format" : NULL, format}, {NULL, NULL}};
    return open_writer(path, entries, count, notes, out, error);
}

/* Fills the tensor's bytes up to the alignment when its last one is written, and goes on to the
 * next that has bytes. */
static void end_tensors(struct safetensors_writer *writer) {
    while (writer->at < writer->count && writer->added == writer->bytes[writer->at]) {
        for (size_t i = writer->added; i % writer->alignment != 0; i++) fputc(0, writer->output.stream);
        writer->at++;
        writer->added = 0;
    }
}

tessera_status safetensors_writer_add(struct safetensors_writer *writer, const void *data, size_t bytes, tessera_error *error) {
    const char *from = data;
    end_tensors(writer); /* that have no bytes */
    while (bytes > 0) {
        assert(writer->at < writer->count);
        size_t left = writer->bytes[writer->at] - writer->added, some = bytes < left ? bytes : left;
        if (fwrite(from, 1, some, writer->output.stream) != some) return error_set_errno(error, "%s: cannot write", writer->output.path);
        from += some;
        bytes -= some;
        writer->added += some;
        end_tensors(writer);
    }
    return TESSERA_OK;
}

tessera_status safetensors_writer_commit(struct safetensors_writer *writer, tessera_error *error) {
    end_tensors(writer);
    assert(writer->at == writer->count);
    tessera_status status = file_output_commit(&writer->output, error);
    free_writer(writer);
    return status;
}

void safetensors_writer_discard(struct safetensors_writer *writer) {
    if (writer == NULL) return;
    file_output_discard(&writer->output);
    free_writer(writer);
}

tessera_status safetensors_write_noted(const char *path, const struct safetensors_entry *entries, int count,
                                       const struct safetensors_note *notes, tessera_error *error) {
    struct safetensors_writer *writer;
    TRY(open_writer(path, entries, count, notes, &writer, error));
    tessera_status status = TESSERA_OK;
    for (int i = 0; i < count && status == TESSERA_OK; i++)
        status = safetensors_writer_add(writer, entries[i].tensor.data, tensor_bytes(&entries[i].tensor), error);
    if (status == TESSERA_OK) return safetensors_writer_commit(writer, error);
    safetensors_writer_discard(writer);
    return status;
}
