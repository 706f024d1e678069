/* See tokens.h. */
#include "split/tokens.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/file.h"

enum { FILE_MOST_BYTES = 1 << 18 };

/* A secret that everybody on the machine may read is none. */
static tessera_status check_mode(const char *path, tessera_error *error) {
    struct stat status;
    if (stat(path, &status) != 0) return error_set_errno(error, "%s", path);
    if ((status.st_mode & S_IRWXO) == 0) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_IO, "%s: everybody on this machine may read the tokens: chmod 600 %s", path, path);
}

/* The line without blanks at its ends; "" if it does not count. */
static char *trimmed(char *line) {
    line += strspn(line, " \t");
    size_t length = strlen(line);
    while (length > 0 && strchr(" \t\r", line[length - 1]) != NULL) line[--length] = 0;
    if (line[0] == '#') line[0] = 0;
    return line;
}

static tessera_status check_token(const char *path, int number, const char *token, tessera_error *error) {
    size_t length = strlen(token);
    if (length < TOKEN_LEAST_BYTES || length > TOKEN_MOST_BYTES)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: line %d: a token has %d to %d characters: make one with `openssl rand -hex 32`",
                         path, number, TOKEN_LEAST_BYTES, TOKEN_MOST_BYTES);
    for (const char *c = token; *c != 0; c++)
        if (*c <= ' ' || *c > '~')
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: line %d: a token is printable ASCII without blanks", path, number);
    return TESSERA_OK;
}

/* Hands every token of a file to `take`. */
static tessera_status each_token(const char *path, tessera_status (*take)(void *user, const char *token, tessera_error *error), void *user,
                                 tessera_error *error) {
    char *data = NULL, *rest;
    size_t length;
    int number = 0;
    TRY(check_mode(path, error));
    TRY(file_read(path, FILE_MOST_BYTES, &data, &length, error));
    tessera_status status = TESSERA_OK;
    rest = data;
    while (rest != NULL && status == TESSERA_OK) {
        char *token = trimmed(strsep(&rest, "\n"));
        number++;
        if (token[0] == 0) continue;
        status = check_token(path, number, token, error);
        if (status == TESSERA_OK) status = take(user, token, error);
    }
    OPENSSL_cleanse(data, length);
    free(data);
    return status;
}

static tessera_status keep_digest(void *user, const char *token, tessera_error *error) {
    struct tokens *tokens = user;
    if (tokens->count == TOKENS_MOST) return error_set(error, TESSERA_ERROR_FORMAT, "more than %d tokens in a file", TOKENS_MOST);
    SHA256((const uint8_t *)token, strlen(token), tokens->digests[tokens->count++]);
    return TESSERA_OK;
}

static tessera_status none(const char *path, tessera_error *error) {
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: no token in it: `openssl rand -hex 32` makes one", path);
}

tessera_status tokens_read(const char *path, struct tokens *out, tessera_error *error) {
    *out = (struct tokens){0};
    TRY(each_token(path, keep_digest, out, error));
    return out->count > 0 ? TESSERA_OK : none(path, error);
}

static tessera_status keep_first(void *user, const char *token, tessera_error *error) {
    char **out = user;
    if (*out == NULL && (*out = strdup(token)) == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a token");
    return TESSERA_OK;
}

tessera_status tokens_read_first(const char *path, char **out, tessera_error *error) {
    *out = NULL;
    TRY(each_token(path, keep_first, out, error));
    return *out != NULL ? TESSERA_OK : none(path, error);
}

static int place_of(const struct tokens *tokens, const uint8_t digest[TOKEN_DIGEST_BYTES]) {
    int found = -1;
    for (int i = 0; i < tokens->count; i++)
        if (CRYPTO_memcmp(digest, tokens->digests[i], TOKEN_DIGEST_BYTES) == 0 && !tokens->revoked[i])
            found = i; /* no end before the last */
    return found;
}

static int free_place(const struct tokens *tokens) {
    int place = 0;
    while (place < tokens->count && !tokens->revoked[place]) place++;
    return place;
}

void tokens_replace(struct tokens *tokens, const struct tokens *read, int *revoked, int *added) {
    *revoked = *added = 0;
    for (int i = 0; i < tokens->count; i++) {
        bool goes = !tokens->revoked[i] && place_of(read, tokens->digests[i]) < 0;
        *revoked += goes;
        tokens->revoked[i] = tokens->revoked[i] || goes;
    }
    for (int i = 0; i < read->count; i++) {
        if (place_of(tokens, read->digests[i]) >= 0) continue;
        int place = free_place(tokens); /* both have at most TOKENS_MOST that are not revoked */
        memcpy(tokens->digests[place], read->digests[i], TOKEN_DIGEST_BYTES);
        tokens->revoked[place] = false;
        if (place == tokens->count) tokens->count++;
        ++*added;
    }
}

int tokens_find(const struct tokens *tokens, const char *header) {
    static const char scheme[] = "Bearer ";
    uint8_t digest[TOKEN_DIGEST_BYTES];
    if (header == NULL || strncasecmp(header, scheme, sizeof scheme - 1) != 0) return -1;
    const char *token = header + sizeof scheme - 1;
    SHA256((const uint8_t *)token, strlen(token), digest);
    return place_of(tokens, digest);
}
