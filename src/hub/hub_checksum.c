/* Checksums of files, by OpenSSL's libcrypto; see hub_checksum.h. */
#include "hub/hub_checksum.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PIECE_BYTES ((size_t)1 << 20)

bool hub_checksum_is(const char *text) {
    size_t digits = strspn(text, "0123456789abcdef");
    return text[digits] == 0 && (digits == 40 || digits == 64);
}

/* Feeds the stream to the digest. */
static tessera_status digest_stream(FILE *stream, const char *path, EVP_MD_CTX *context, bool (*wait)(void *user), void *user,
                                    tessera_error *error) {
    char *piece = malloc(PIECE_BYTES);
    tessera_status status = piece != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory to read it", path);
    size_t count = 1;
    while (status == TESSERA_OK && count > 0) {
        count = fread(piece, 1, PIECE_BYTES, stream);
        if (EVP_DigestUpdate(context, piece, count) != 1) status = error_set(error, TESSERA_ERROR_INTERNAL, "libcrypto's digest failed");
        if (!wait(user)) status = error_set(error, TESSERA_ERROR_CANCELLED, "stopped while a download was being checked");
    }
    if (status == TESSERA_OK && ferror(stream)) status = error_set_errno(error, "%s: cannot read", path);
    free(piece);
    return status;
}

/* Starts the digest that `expected` is one of. */
static bool digest_start(EVP_MD_CTX *context, const char *expected, int64_t length) {
    char header[32];
    if (strlen(expected) == 64) return EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1;
    int n = snprintf(header, sizeof header, "blob %lld", (long long)length);
    return EVP_DigestInit_ex(context, EVP_sha1(), NULL) == 1 && EVP_DigestUpdate(context, header, (size_t)n + 1) == 1;
}

static void to_hexadecimal(const unsigned char *bytes, unsigned count, char out[HUB_DIGEST_BYTES]) {
    for (unsigned i = 0; i < count && 2 * i + 2 < HUB_DIGEST_BYTES; i++) sprintf(out + 2 * i, "%02x", bytes[i]);
}

tessera_status hub_checksum_file(const char *path, const char *expected, bool (*wait)(void *user), void *user, bool *match,
                                 tessera_error *error) {
    unsigned char bytes[EVP_MAX_MD_SIZE];
    char text[HUB_DIGEST_BYTES] = "";
    unsigned count = 0;
    struct stat about;
    tessera_status status;
    *match = false;
    FILE *stream = fopen(path, "rb");
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (stream == NULL || fstat(fileno(stream), &about) != 0) {
        status = error_set_errno(error, "%s: cannot open", path);
    } else if (context == NULL || !digest_start(context, expected, (int64_t)about.st_size)) {
        status = error_set(error, TESSERA_ERROR_INTERNAL, "libcrypto's digest cannot start");
    } else {
        status = digest_stream(stream, path, context, wait, user, error);
        if (status == TESSERA_OK && EVP_DigestFinal_ex(context, bytes, &count) == 1) to_hexadecimal(bytes, count, text);
        *match = status == TESSERA_OK && strcmp(text, expected) == 0;
    }
    EVP_MD_CTX_free(context);
    if (stream != NULL) fclose(stream);
    return status;
}
