/* Telling apart what people give for weights; see file_kind.h. Most of it is not their doing: a
 * download that brought a web page, a clone without Git LFS, a format of another program. */
#include "tensor/file_kind.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/stand_in.h"

#define MAGIC(text) text, sizeof text - 1

static const char zeros[64];

static const struct {
    const char *magic;
    size_t length;
    const char *what;
} kinds[] = {
    {MAGIC("lmgg"), "a GGML file, which is not read: give the model as safetensors"},
    {MAGIC("tjgg"), "a GGML file, which is not read: give the model as safetensors"},
    {MAGIC("PK\x03\x04"), "a zip archive and no file of PyTorch: unpack it, if weights lie in it"},
    {MAGIC("\x1f\x8b"), "a gzip archive: unpack it first"},
    {MAGIC("7z\xbc\xaf\x27\x1c"), "a 7z archive: unpack it first"},
    {MAGIC("Rar!"), "a RAR archive: unpack it first"},
    {MAGIC("\xfd"
           "7zXZ"),
     "an xz archive: unpack it first"},
    {MAGIC("\x28\xb5\x2f\xfd"), "a zstd archive: unpack it first"},
    {MAGIC("\x89HDF"), "an HDF5 file (Keras), which is not read: give the weights as safetensors"},
    {MAGIC("\x89PNG"), "a picture (PNG), not weights"},
    {MAGIC("\xff\xd8\xff"), "a picture (JPEG), not weights"},
    {MAGIC("%PDF"), "a PDF document, not weights"},
    {MAGIC("<?xml"), "an XML document, most likely a server's error: download the file again"},
    {MAGIC("{"), "JSON text, not weights: an index (.index.json) stands beside its files and is found by itself"},
    {zeros, sizeof zeros, "a file that begins with zero bytes, as an unfinished download does: download it again"},
};

/* The first characters of a text file, for a message; false if it is no text. */
static bool quote_text(const uint8_t *data, size_t length, char *out, size_t capacity) {
    size_t n = 0, most = length < 60 ? length : 60;
    for (size_t i = 0; i < most && data[i] != '\n'; i++) {
        if (data[i] != '\t' && (data[i] < ' ' || data[i] > '~')) return false;
        if (n + 1 < capacity) out[n++] = (char)data[i];
    }
    out[n] = 0;
    return n >= 8; /* fewer prove nothing */
}

/* PROTO of protocols 2 to 5, instructions, STOP at the end. A header's length of less than 16 MiB has
 * a zero among its first four bytes. */
static bool is_pickle(const uint8_t *data, size_t length) {
    return length > 4 && data[0] == 0x80 && data[1] >= 2 && data[1] <= 5 && data[2] != 0 && data[3] != 0 && data[length - 1] == '.';
}

static bool is_tar(const uint8_t *data, size_t length) {
    static const char magic[] = "ustar";
    enum { OFFSET = 257 };
    return length >= OFFSET + sizeof magic - 1 && memcmp(data + OFFSET, magic, sizeof magic - 1) == 0;
}

const char *file_kind(const uint8_t *data, size_t length, char *buffer, size_t capacity) {
    const char *stand_in = stand_in_of(data, length);
    if (stand_in != NULL) return stand_in;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (length >= kinds[i].length && memcmp(data, kinds[i].magic, kinds[i].length) == 0) return kinds[i].what;
    if (is_pickle(data, length))
        return "a Python pickle that torch.save did not write, which is not read: give the weights as safetensors";
    if (is_tar(data, length))
        return "a tar archive: unpack it, if weights lie in it (or, of PyTorch 0.1, save it again with a newer one)";
    char text[64];
    if (!quote_text(data, length, text, sizeof text)) return NULL;
    snprintf(buffer, capacity, "text that begins \"%s\", not weights: download the file again", text);
    return buffer;
}
