/* See prompt_tags.h. */
#include "cli/prompt_tags.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "cli/generate.h"

#define TAG "<lora:" /* "<lyco:" is the same, of an extension of A1111: as long, and taken for it */

static bool begins_tag(const char *text) {
    return strncmp(text, TAG, strlen(TAG)) == 0 || strncmp(text, "<lyco:", strlen(TAG)) == 0;
}

static bool has_tag(const char *text) {
    while (*text != 0 && !begins_tag(text)) text++;
    return *text != 0;
}

static tessera_status keep(struct prompt_tags *tags, char *text, tessera_error *error) {
    char **texts = text != NULL ? realloc(tags->texts, (size_t)(tags->count + 1) * sizeof *texts) : NULL;
    if (texts == NULL) {
        free(text);
        return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the prompts");
    }
    tags->texts = texts;
    texts[tags->count++] = text;
    return TESSERA_OK;
}

/* "NAME:SCALE" between `at` and `end` as --lora takes it, "FOLDER/NAME.safetensors:SCALE". */
static tessera_status lora_of_tag(const char *at, const char *end, const char *folder, char **out, tessera_error *error) {
    const char *colon = memchr(at, ':', (size_t)(end - at));
    int length = (int)((colon != NULL ? colon : end) - at);
    char *rest = NULL;
    double scale = colon != NULL ? strtod(colon + 1, &rest) : 1;
    if (length == 0 || (colon != NULL && (rest == colon + 1 || rest != end)))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "%.*s in a prompt: must be <lora:NAME:SCALE>, such as <lora:style:0.8>",
                         (int)(end + 1 - (at - strlen(TAG))), at - strlen(TAG));
    bool named = length > 12 && strncmp(at + length - 12, ".safetensors", 12) == 0;
    const char *slash = folder[0] != 0 && folder[strlen(folder) - 1] != '/' ? "/" : "";
    if (asprintf(out, "%s%s%.*s%s:%.9g", folder, slash, length, at, named ? "" : ".safetensors", scale) < 0) *out = NULL;
    return *out != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a file name");
}

/* The prompt without its tags, whose files are appended to `list`, each followed by '\n'. The
 * caller frees both. */
static tessera_status take_tags(const char *prompt, const char *folder, char **plain, char **list, tessera_error *error) {
    size_t n = 0;
    *list = strdup("");
    *plain = malloc(strlen(prompt) + 1);
    while (*plain != NULL && *list != NULL && *prompt != 0) {
        const char *end = begins_tag(prompt) ? strchr(prompt, '>') : NULL;
        if (end == NULL) {
            (*plain)[n++] = *prompt++;
            continue;
        }
        char *lora = NULL, *longer = NULL;
        TRY(lora_of_tag(prompt + strlen(TAG), end, folder, &lora, error));
        if (asprintf(&longer, "%s%s\n", *list, lora) < 0) longer = NULL;
        free(lora);
        free(*list);
        *list = longer;
        prompt = end + 1;
        if (*prompt == ' ' && (n == 0 || (*plain)[n - 1] == ' ')) prompt++; /* the blanks of both sides are one */
    }
    if (*plain == NULL || *list == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the prompts");
    while (n > 0 && (*plain)[n - 1] == ' ') n--;
    (*plain)[n] = 0;
    return TESSERA_OK;
}

/* Gives the files of `list`, which is cut at its line ends, to --lora. */
static tessera_status give_loras(char *list, struct option_value *values, tessera_error *error) {
    for (char *line; (line = strsep(&list, "\n")) != NULL;)
        if (*line != 0) TRY(options_read_value(&generate_options[GENERATE_LORA], line, &values[GENERATE_LORA], error));
    return TESSERA_OK;
}

tessera_status prompt_tags_take(struct option_value *values, struct prompt_tags *out, tessera_error *error) {
    struct option_value *prompts = &values[GENERATE_PROMPT];
    const char *folder = values[GENERATE_LORA_FOLDER].text != NULL ? values[GENERATE_LORA_FOLDER].text : "";
    char *first = NULL;
    bool any = false;
    for (int i = 0; i < prompts->count; i++) any = any || has_tag(prompts->texts[i]);
    for (int i = 0; any && i < prompts->count; i++) {
        char *plain = NULL, *list = NULL;
        tessera_status status = take_tags(prompts->texts[i], folder, &plain, &list, error);
        bool differs = status == TESSERA_OK && first != NULL && strcmp(first, list) != 0;
        if (status == TESSERA_OK) status = keep(out, plain, error), plain = NULL;
        if (status == TESSERA_OK) prompts->texts[i] = out->texts[out->count - 1];
        if (status == TESSERA_OK) status = keep(out, list, error), list = NULL;
        free(plain);
        free(list);
        TRY(status);
        if (differs)
            return error_set(error, TESSERA_ERROR_ARGUMENT,
                             "prompt %d has other <lora:...> than the first: one run has one set of them; make a run of each", i + 1);
        if (first == NULL) first = out->texts[out->count - 1];
    }
    return first != NULL ? give_loras(first, values, error) : TESSERA_OK;
}

/* ---- what is read as text ---- */

/* "...:1.3)", or "((" */
static bool has_weight(const char *text) {
    for (const char *colon = strchr(text, ':'); colon != NULL; colon = strchr(colon + 1, ':')) {
        char *end;
        if (!isdigit((unsigned char)colon[1]) && colon[1] != '.') continue;
        strtod(colon + 1, &end);
        if (*end == ')') return true;
    }
    return strstr(text, "((") != NULL;
}

/* "[cat:dog:0.5]", "[cat:0.5]", "[cat|dog]" and "{cat|dog}". */
static bool changes(const char *text) {
    for (const char *open = strpbrk(text, "[{"); open != NULL; open = strpbrk(open + 1, "[{")) {
        const char *close = strchr(open, *open == '[' ? ']' : '}'), *colon = close;
        if (close == NULL) continue;
        if (memchr(open, '|', (size_t)(close - open)) != NULL) return true;
        while (colon > open && *colon != ':') colon--;
        if (*open == '[' && colon > open && (isdigit((unsigned char)colon[1]) || colon[1] == '.')) return true;
    }
    return false;
}

/* " AND " or "BREAK" as a word, in a prompt that is not written in capital letters throughout. */
static bool joins(const char *text) {
    bool small = false;
    for (const char *c = text; *c != 0; c++) small = small || islower((unsigned char)*c);
    const char *word = strstr(text, "BREAK");
    bool breaks = word != NULL && (word == text || !isalnum((unsigned char)word[-1])) && !isalnum((unsigned char)word[5]);
    return small && (breaks || strstr(text, " AND ") != NULL);
}

static bool names_hypernetwork(const char *text) {
    return strstr(text, "<hypernet:") != NULL;
}

static bool names_embedding(const char *text) {
    return strstr(text, "embedding:") != NULL;
}

void prompt_tags_announce(const struct option_value *prompts, const char *negative_prompt) {
    static const struct {
        bool (*is_in)(const char *text);
        const char *notice;
    } kinds[] = {{has_weight, "a weight in a prompt, as in (red:1.3), is read as text: words have no weights here"},
                 {changes, "words that change while a picture is drawn, as in [cat:dog:0.5] or {cat|dog}, are read as text"},
                 {joins, "AND and BREAK in a prompt are read as text: it is one prompt"},
                 {names_hypernetwork, "<hypernet:NAME> in a prompt is read as text: hypernetworks are not there"},
                 {names_embedding, "embedding:NAME in a prompt is read as text: textual inversion is not there"}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        bool any = negative_prompt != NULL && kinds[i].is_in(negative_prompt);
        for (int k = 0; k < prompts->count && !any; k++) any = kinds[i].is_in(prompts->texts[k]);
        if (any) fprintf(stderr, "tessera: %s\n", kinds[i].notice);
    }
}

void prompt_tags_free(struct prompt_tags *tags) {
    for (int i = 0; i < tags->count; i++) free(tags->texts[i]);
    free(tags->texts);
    *tags = (struct prompt_tags){0};
}
