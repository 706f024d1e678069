/* The option parser; see options.h. It keeps no state and prints nothing but --help. */
#include "cli/options.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "base/error.h"

/* Whether `word` (length n) is `name`, an underscore counting as a hyphen. */
static bool same_name(const char *name, const char *word, size_t n) {
    if (name == NULL || strlen(name) != n) return false;
    for (size_t i = 0; i < n; i++)
        if ((word[i] == '_' ? '-' : word[i]) != name[i]) return false;
    return true;
}

static int find_option(const struct option *options, int count, const char *word, size_t n) {
    for (int i = 0; i < count; i++) {
        if (same_name(options[i].name, word, n)) return i;
        for (size_t a = 0; a < sizeof options[i].aliases / sizeof *options[i].aliases; a++)
            if (same_name(options[i].aliases[a], word, n)) return i;
    }
    return -1;
}

/* Edits (insert, delete, replace) from a to b, with one row of the table; words are cut at 63 bytes. */
static int edit_distance(const char *a, const char *b) {
    int row[64];
    int n = (int)strnlen(b, 63);
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 0; a[i] != 0 && i < 63; i++) {
        int diagonal = row[0];
        row[0] = i + 1;
        for (int j = 0; j < n; j++) {
            int best = diagonal + ((a[i] == '_' ? '-' : a[i]) != b[j]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j + 1] + 1 < best) best = row[j + 1] + 1;
            diagonal = row[j + 1];
            row[j + 1] = best;
        }
    }
    return row[n];
}

const char *options_nearest(const char *word, const char *(*get)(const void *user, int i), const void *user, int count) {
    const char *nearest = "";
    int least = 1000;
    for (int i = 0; i < count; i++) {
        const char *name = get(user, i);
        int distance = edit_distance(word, name);
        if (distance < least) {
            least = distance;
            nearest = name;
        }
    }
    return nearest;
}

static const char *name_of_option(const void *user, int i) {
    return ((const struct option *)user)[i].name;
}

static bool is_choice(const char *choices, const char *text) {
    size_t n = strlen(text);
    for (const char *c = choices; n > 0 && c != NULL; c = strchr(c, '|') != NULL ? strchr(c, '|') + 1 : NULL)
        if (strncmp(c, text, n) == 0 && (c[n] == '|' || c[n] == 0)) return true;
    return false;
}

static tessera_status read_number(const struct option *option, const char *text, double *out, tessera_error *error) {
    char *end;
    errno = 0;
    double number = strtod(text, &end);
    bool whole = option->type == OPTION_INTEGER;
    if (end == text || *end != 0 || isspace((unsigned char)*text) || !isfinite(number) || (whole && number != floor(number)))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--%s takes a%s number, not '%s'", option->name, whole ? " whole" : "", text);
    if (number < option->low || number > option->high)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--%s %s is out of range: from %.10g to %.10g", option->name, text, option->low,
                         option->high);
    *out = number;
    return TESSERA_OK;
}

static tessera_status read_seed(const struct option *option, const char *text, uint64_t *out, tessera_error *error) {
    char *end = NULL;
    errno = 0;
    if (isdigit((unsigned char)*text)) *out = strtoull(text, &end, 10);
    if (end == NULL || *end != 0 || errno != 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--%s takes a whole number from 0 to 18446744073709551615, not '%s'", option->name,
                         text);
    return TESSERA_OK;
}

static tessera_status append_text(struct option_value *value, const char *text, tessera_error *error) {
    const char **texts = realloc(value->texts, (size_t)(value->count + 1) * sizeof *texts);
    if (texts == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the command line");
    value->texts = texts;
    texts[value->count++] = text;
    return TESSERA_OK;
}

tessera_status options_read_value(const struct option *option, const char *text, struct option_value *value, tessera_error *error) {
    switch (option->type) {
    case OPTION_FLAG:
        if (strcasecmp(text, "true") != 0 && strcasecmp(text, "false") != 0)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "--%s takes no value, or true or false, not '%s'", option->name, text);
        value->flag = strcasecmp(text, "true") == 0;
        break;
    case OPTION_INTEGER:
        TRY(read_number(option, text, &value->number, error));
        value->integer = (int)value->number;
        break;
    case OPTION_NUMBER:
        TRY(read_number(option, text, &value->number, error));
        break;
    case OPTION_SEED:
        TRY(read_seed(option, text, &value->seed, error));
        break;
    case OPTION_CHOICE:
        if (!is_choice(option->placeholder, text))
            return error_set(error, TESSERA_ERROR_ARGUMENT, "--%s takes one of %s, not '%s'", option->name, option->placeholder, text);
        value->text = text;
        break;
    case OPTION_TEXT:
        value->text = text;
        break;
    case OPTION_TEXTS:
        TRY(append_text(value, text, error));
        break;
    }
    value->given = true;
    return TESSERA_OK;
}

/* The option that argv[i] names; *inline_value is what follows '=' (or NULL). */
static tessera_status match_option(const struct option *options, int count, const char *word, int *index, const char **inline_value,
                                   tessera_error *error) {
    *inline_value = NULL;
    if (word[0] != '-' || word[1] == 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "unexpected argument '%s': every value follows an option's name", word);
    if (word[1] != '-') {
        for (int i = 0; i < count; i++)
            if (options[i].letter != 0 && options[i].letter == word[1] && word[2] == 0) return *index = i, TESSERA_OK;
        return error_set(error, TESSERA_ERROR_ARGUMENT, "unknown option '%s'; did you mean '--%s'?", word,
                         options_nearest(word + 1, name_of_option, options, count));
    }
    size_t n = strcspn(word + 2, "=");
    if (word[2 + n] == '=') *inline_value = word + 3 + n;
    *index = find_option(options, count, word + 2, n);
    if (*index >= 0) return TESSERA_OK;
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(n < 63 ? n : 63), word + 2);
    return error_set(error, TESSERA_ERROR_ARGUMENT, "unknown option '--%s'; did you mean '--%s'?", name,
                     options_nearest(name, name_of_option, options, count));
}

/* Takes the values of `option` from argv[*i]... and moves *i past them. */
static tessera_status take_values(const struct option *option, int argc, char **argv, int *i, struct option_value *value,
                                  tessera_error *error) {
    if (option->type == OPTION_FLAG) {
        bool spelled = *i < argc && (strcasecmp(argv[*i], "true") == 0 || strcasecmp(argv[*i], "false") == 0);
        return options_read_value(option, spelled ? argv[(*i)++] : "true", value, error);
    }
    if (*i >= argc || strncmp(argv[*i], "--", 2) == 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--%s needs a value (one that begins with '--' is written --%s=VALUE)",
                         option->name, option->name);
    TRY(options_read_value(option, argv[(*i)++], value, error));
    while (option->type == OPTION_TEXTS && *i < argc && argv[*i][0] != '-') TRY(options_read_value(option, argv[(*i)++], value, error));
    return TESSERA_OK;
}

/* The first positional option that has no value yet; `count` if there is none. */
static int find_positional(const struct option *options, int count, const struct option_value *values) {
    int i = 0;
    while (i < count && (!options[i].positional || values[i].given)) i++;
    return i;
}

tessera_status options_parse(const struct option *options, int count, int argc, char **argv, struct option_value *values, const char **path,
                             bool *help, tessera_error *error) {
    memset(values, 0, (size_t)count * sizeof *values);
    if (path != NULL) *path = NULL;
    *help = false;
    for (int i = 0; i < argc;) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            *help = true;
            return TESSERA_OK;
        }
        if (path != NULL && *path == NULL && argv[i][0] != '-') {
            *path = argv[i++];
            continue;
        }
        int next = argv[i][0] != '-' ? find_positional(options, count, values) : count;
        if (next < count) {
            TRY(options_read_value(&options[next], argv[i++], &values[next], error));
            continue;
        }
        int index = 0;
        const char *inline_value;
        TRY(match_option(options, count, argv[i], &index, &inline_value, error));
        i++;
        if (inline_value != NULL)
            TRY(options_read_value(&options[index], inline_value, &values[index], error));
        else
            TRY(take_values(&options[index], argc, argv, &i, &values[index], error));
    }
    return TESSERA_OK;
}

void options_free(struct option_value *values, int count) {
    for (int i = 0; i < count; i++) free(values[i].texts);
    memset(values, 0, (size_t)count * sizeof *values);
}

/* The names of the options without effect, in lines of at most 130 characters. */
static void print_ignored(FILE *stream, const struct option *options, int count) {
    size_t column = 0;
    for (int i = 0; i < count; i++) {
        if (options[i].ignored == NULL) continue;
        size_t width = strlen(options[i].name) + 3;
        if (column == 0) fprintf(stream, "\naccepted for commands of other programs, without effect (a notice says why):");
        if (column == 0 || column + width > 130) column = (size_t)fprintf(stream, "\n ") - 1;
        fprintf(stream, " --%s", options[i].name);
        column += width;
    }
    if (column > 0) fputc('\n', stream);
}

void options_print(FILE *stream, const struct option *options, int count) {
    for (int i = 0; i < count; i++) {
        const struct option *o = &options[i];
        if (o->ignored != NULL) continue;
        char left[256];
        int n = o->letter ? snprintf(left, sizeof left, "-%c, ", o->letter) : 0;
        snprintf(left + n, sizeof left - (size_t)n, "--%s %s%s", o->name, o->placeholder != NULL ? o->placeholder : "",
                 o->type == OPTION_TEXTS ? "..." : "");
        fprintf(stream, "  %-32s%s%s", left, strlen(left) > 32 ? "\n                                   " : " ", o->help);
        if (o->type == OPTION_INTEGER || o->type == OPTION_NUMBER) fprintf(stream, " (%.10g to %.10g)", o->low, o->high);
        for (size_t a = 0; a < sizeof o->aliases / sizeof *o->aliases && o->aliases[a] != NULL; a++)
            fprintf(stream, "%s--%s", a == 0 ? "; also " : ", ", o->aliases[a]);
        fputc('\n', stream);
    }
    print_ignored(stream, options, count);
}

void options_print_ignored(const struct option *options, int count, const struct option_value *values) {
    for (int i = 0; i < count; i++) {
        const struct option *option = &options[i];
        if (option->ignored == NULL || !values[i].given || (option->type == OPTION_FLAG && !values[i].flag)) continue;
        fprintf(stderr, "tessera: --%s has no effect: %s\n", option->name, option->ignored);
    }
}
