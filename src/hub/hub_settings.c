/* Names and environment: OWNER/NAME@REVISION, HF_HOME and its relatives; see hub_settings.h.
 *
 * The rules are those of huggingface_hub's constants.py: which variable comes before which, and
 * that "1", "ON", "YES" and "TRUE" mean yes. Left out: variables inside a path ("$HOME/x"); "~/" at
 * its beginning is understood. */
#include "hub/hub_settings.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "base/file.h"

#define DEFAULT_ENDPOINT "https://huggingface.co"
#define DEFAULT_TIMEOUT_SECONDS 30
#define MAX_TOKEN_BYTES 4096

/* The first that is set and not empty, or NULL. */
static const char *environment(const char *const *names, int count) {
    for (int i = 0; i < count; i++) {
        const char *value = getenv(names[i]);
        if (value != NULL && value[0] != 0) return value;
    }
    return NULL;
}

static bool is_yes(const char *value) {
    static const char *const words[] = {"1", "ON", "YES", "TRUE"};
    for (size_t i = 0; value != NULL && i < sizeof words / sizeof *words; i++)
        if (strcasecmp(value, words[i]) == 0) return true;
    return false;
}

/* A copy with "~" at the beginning replaced by HOME; NULL when memory is out. */
static char *expand_home(const char *path) {
    const char *home = getenv("HOME");
    if (path[0] != '~' || (path[1] != '/' && path[1] != 0) || home == NULL) return strdup(path);
    return file_join(home, path[1] == '/' ? path + 2 : "");
}

/* HF_HOME, else XDG_CACHE_HOME/huggingface, else ~/.cache/huggingface; the caller frees. */
static char *home_folder(void) {
    const char *home = environment((const char *const[]){"HF_HOME"}, 1);
    if (home != NULL) return expand_home(home);
    const char *caches = environment((const char *const[]){"XDG_CACHE_HOME"}, 1);
    char *base = expand_home(caches != NULL ? caches : "~/.cache");
    char *folder = base != NULL ? file_join(base, "huggingface") : NULL;
    free(base);
    return folder;
}

static char *cache_folder(const struct hub_options *options) {
    if (options->cache != NULL) return strdup(options->cache);
    const char *cache = environment((const char *const[]){"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}, 2);
    if (cache != NULL) return expand_home(cache);
    char *home = home_folder();
    char *folder = home != NULL ? file_join(home, "hub") : NULL;
    free(home);
    return folder;
}

/* The token file's content, or NULL if there is none. */
static char *read_token_file(void) {
    const char *named = environment((const char *const[]){"HF_TOKEN_PATH"}, 1);
    char *home = home_folder();
    char *path = named != NULL ? expand_home(named) : home != NULL ? file_join(home, "token") : NULL;
    char *token = NULL;
    size_t length;
    if (path != NULL && file_exists(path) && file_read_regular(path, MAX_TOKEN_BYTES, &token, &length, NULL) != TESSERA_OK) token = NULL;
    free(path);
    free(home);
    return token;
}

static char *find_token(const struct hub_options *options) {
    if (options->token != NULL) return strdup(options->token);
    if (is_yes(getenv("HF_HUB_DISABLE_IMPLICIT_TOKEN"))) return NULL;
    const char *token = environment((const char *const[]){"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}, 2);
    return token != NULL ? strdup(token) : read_token_file();
}

/* Takes white space off both ends; frees an empty token. */
static char *trim(char *text) {
    if (text == NULL) return NULL;
    size_t length = strlen(text), start = 0;
    while (length > 0 && isspace((unsigned char)text[length - 1])) length--;
    while (start < length && isspace((unsigned char)text[start])) start++;
    memmove(text, text + start, length - start);
    text[length - start] = 0;
    if (text[0] != 0) return text;
    free(text);
    return NULL;
}

/* A token goes into a header line, so it must not hold what ends one. */
static bool is_printable(const char *text) {
    for (; *text != 0; text++)
        if ((unsigned char)*text <= ' ' || (unsigned char)*text >= 127) return false;
    return true;
}

tessera_status hub_settings_read(const struct hub_options *options, struct hub_settings *settings, tessera_error *error) {
    const char *endpoint = options->endpoint != NULL ? options->endpoint : environment((const char *const[]){"HF_ENDPOINT"}, 1);
    const char *bundle = environment((const char *const[]){"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}, 3);
    const char *timeout = environment((const char *const[]){"HF_HUB_DOWNLOAD_TIMEOUT"}, 1);
    if (options->ca_bundle != NULL) bundle = options->ca_bundle;
    *settings =
        (struct hub_settings){.endpoint = strdup(endpoint != NULL ? endpoint : DEFAULT_ENDPOINT),
                              .cache = cache_folder(options),
                              .token = trim(find_token(options)),
                              .ca_bundle = bundle != NULL ? strdup(bundle) : NULL,
                              .timeout_seconds = options->timeout_seconds,
                              .offline = options->offline || is_yes(getenv("HF_HUB_OFFLINE")) || is_yes(getenv("TRANSFORMERS_OFFLINE"))};
    if (settings->endpoint == NULL || settings->cache == NULL || (bundle != NULL && settings->ca_bundle == NULL))
        return error_set(error, TESSERA_ERROR_MEMORY, "no memory for the hub's settings");
    if (settings->timeout_seconds <= 0 && timeout != NULL) settings->timeout_seconds = (int)strtol(timeout, NULL, 10);
    if (settings->timeout_seconds <= 0) settings->timeout_seconds = DEFAULT_TIMEOUT_SECONDS;
    for (size_t n = strlen(settings->endpoint); n > 0 && settings->endpoint[n - 1] == '/'; n--) settings->endpoint[n - 1] = 0;
    if (strncmp(settings->endpoint, "https://", 8) != 0 && strncmp(settings->endpoint, "http://", 7) != 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "HF_ENDPOINT is '%s': it must begin with https:// or http://", settings->endpoint);
    if (settings->token != NULL && !is_printable(settings->token))
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "the Hugging Face token (HF_TOKEN, or the file token in HF_HOME) holds spaces or "
                         "characters that no token has: log in again");
    return TESSERA_OK;
}

void hub_settings_free(struct hub_settings *settings) {
    free(settings->endpoint);
    free(settings->cache);
    free(settings->token);
    free(settings->ca_bundle);
    *settings = (struct hub_settings){0};
}

/* ---- names ---- */

static bool is_name_character(char c) {
    return isalnum((unsigned char)c) || c == '-' || c == '_' || c == '.';
}

/* An owner's or a repository's name: neither '.' nor '-' at an end, neither ".." nor "--" inside. */
static bool is_name(const char *text, size_t length) {
    if (length == 0 || length > 96) return false;
    for (size_t i = 0; i < length; i++) {
        bool mark = text[i] == '.' || text[i] == '-';
        if (!is_name_character(text[i])) return false;
        if (mark && (i == 0 || i + 1 == length || text[i + 1] == text[i])) return false;
    }
    return true;
}

/* A branch, a tag, "refs/pr/1" or a commit. It becomes a path below refs/, so no part of it may
 * begin with a dot. */
static bool is_revision(const char *text) {
    if (text[0] == 0 || strlen(text) >= HUB_REVISION_BYTES) return false;
    for (const char *piece = text;; piece++) {
        if (*piece == '.' || *piece == '-') return false;
        size_t length = strcspn(piece, "/");
        if (length == 0) return false;
        for (size_t i = 0; i < length; i++)
            if (!is_name_character(piece[i]) && piece[i] != '+') return false;
        piece += length;
        if (*piece == 0) return true;
    }
}

bool hub_name_parse(const char *text, struct hub_name *name) {
    size_t length = strcspn(text, "@"), owner = strcspn(text, "/");
    const char *revision = text[length] == '@' ? text + length + 1 : "main";
    if (owner >= length || length >= HUB_NAME_BYTES) return false;
    if (!is_name(text, owner) || !is_name(text + owner + 1, length - owner - 1) || !is_revision(revision)) return false;
    memcpy(name->repository, text, length);
    name->repository[length] = 0;
    snprintf(name->revision, sizeof name->revision, "%s", revision);
    return true;
}

bool hub_is_commit(const char *text) {
    return strspn(text, "0123456789abcdef") == 40 && text[40] == 0;
}

bool hub_is_name(const char *model) {
    struct hub_name name;
    size_t length = strlen(model);
    bool weights = length > 12 && strcmp(model + length - 12, ".safetensors") == 0; /* more likely a file with a typing error */
    return !weights && !file_exists(model) && hub_name_parse(model, &name);
}
