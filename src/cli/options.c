/* The option parser; see options.h. It keeps no state and prints nothing but --help and notices. */
#include "cli/options.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "base/error.h"
#include "base/text.h"

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

static char hyphen(char c) {
    return c == '_' ? '-' : c;
}

/* Edits (insert, delete, replace, swap neighbours) from a to b, with the last three rows of the
 * table; words are cut at 63 bytes. */
static int edit_distance(const char *a, const char *b) {
    int rows[3][64];
    int n = (int)strnlen(b, 63), i = 0;
    for (int j = 0; j <= n; j++) rows[0][j] = j;
    for (; a[i] != 0 && i < 63; i++) {
        int *row = rows[(i + 1) % 3], *above = rows[i % 3], *before = rows[(i + 2) % 3];
        row[0] = i + 1;
        for (int j = 0; j < n; j++) {
            int best = above[j] + (hyphen(a[i]) != b[j]);
            if (above[j + 1] + 1 < best) best = above[j + 1] + 1;
            if (row[j] + 1 < best) best = row[j] + 1;
            bool swapped = i > 0 && j > 0 && hyphen(a[i]) == b[j - 1] && hyphen(a[i - 1]) == b[j];
            if (swapped && before[j - 1] + 1 < best) best = before[j - 1] + 1;
            row[j + 1] = best;
        }
    }
    return rows[i % 3][n];
}

/* As many edits as a slip of the finger makes in a name of this length; three make another word. */
static int near_distance(size_t length) {
    return length < 6 ? 1 : 2;
}

const char *options_nearest(const char *word, const char *(*get)(const void *user, int i), const void *user, int count) {
    const char *nearest = NULL;
    size_t length = strlen(word);
    int least = near_distance(length) + 1;
    for (int i = 0; i < count; i++) {
        const char *name = get(user, i);
        int distance = name != NULL ? edit_distance(word, name) : least;
        if (distance < least) {
            least = distance;
            nearest = name;
        }
    }
    for (int i = 0; nearest == NULL && length >= 3 && i < count; i++)
        if (get(user, i) != NULL && strncmp(get(user, i), word, length) == 0) nearest = get(user, i);
    return nearest;
}

/* All names and aliases, one option's after the other's; NULL where it has fewer, and for options
 * of other programs that do nothing here. */
static const char *name_of_option(const void *user, int i) {
    const struct option *option = &((const struct option *)user)[i / (OPTION_MAX_ALIASES + 1)];
    if (option->ignored != NULL || option->refused != NULL) return NULL;
    int alias = i % (OPTION_MAX_ALIASES + 1);
    return alias == 0 ? option->name : option->aliases[alias - 1];
}

static const char *nearest_option(const struct option *options, int count, const char *word) {
    return options_nearest(word, name_of_option, options, count * (OPTION_MAX_ALIASES + 1));
}

const char *options_spelling(const struct option *option, const struct option_value *value, char out[OPTION_SPELLING_BYTES]) {
    const char *spelling = value->spelling;
    if (spelling == NULL)
        snprintf(out, OPTION_SPELLING_BYTES, "--%s", option->name);
    else if (spelling[1] != '-')
        snprintf(out, OPTION_SPELLING_BYTES, "%.2s", spelling);
    else
        snprintf(out, OPTION_SPELLING_BYTES, "%.*s", (int)strcspn(spelling, "="), spelling);
    return out;
}

/* What `text` stands for in a list; NULL: nothing. */
static const char *synonym_value(const struct option_synonym *list, const char *text) {
    for (const struct option_synonym *s = list; s != NULL && s->spelling != NULL; s++)
        if (strcasecmp(s->spelling, text) == 0) return s->value;
    return NULL;
}

static tessera_status read_number(const struct option *option, const char *text, struct option_value *value, tessera_error *error) {
    char *end, name[OPTION_SPELLING_BYTES];
    double number = strtod(text, &end);
    bool whole = option->type == OPTION_INTEGER;
    options_spelling(option, value, name);
    if (end == text || *end != 0 || isspace((unsigned char)*text) || !isfinite(number) || (whole && number != floor(number)))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "%s takes a%s number, not '%s'", name, whole ? " whole" : "", text);
    if (number < option->low || number > option->high)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "%s %s is out of range: from %.10g to %.10g", name, text, option->low,
                         option->high);
    value->number = number;
    return TESSERA_OK;
}

static tessera_status read_seed(const struct option *option, const char *text, struct option_value *value, tessera_error *error) {
    char *end = NULL, name[OPTION_SPELLING_BYTES];
    errno = 0;
    value->negative = text[0] == '-' && isdigit((unsigned char)text[1]);
    if (value->negative || isdigit((unsigned char)*text)) value->seed = strtoull(text + value->negative, &end, 10);
    if (end == NULL || *end != 0 || errno != 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "%s takes a whole number from 0 to 18446744073709551615, or -1 for a random one, not '%s'",
                         options_spelling(option, value, name), text);
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
    char name[OPTION_SPELLING_BYTES];
    options_spelling(option, value, name);
    switch (option->type) {
    case OPTION_FLAG:
        if (strcasecmp(text, "true") != 0 && strcasecmp(text, "false") != 0)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "%s takes no value, or true or false, not '%s'", name, text);
        value->flag = strcasecmp(text, "true") == 0;
        break;
    case OPTION_INTEGER:
        TRY(read_number(option, text, value, error));
        value->integer = (int)value->number;
        break;
    case OPTION_NUMBER:
        TRY(read_number(option, text, value, error));
        break;
    case OPTION_SEED:
        TRY(read_seed(option, text, value, error));
        break;
    case OPTION_CHOICE:
        value->text = synonym_value(option->synonyms, text);
        if (value->text == NULL) value->text = text;
        value->notice = synonym_value(option->notices, text);
        if (!text_is_choice(option->placeholder, value->text))
            return error_set(error, TESSERA_ERROR_ARGUMENT, "%s takes one of %s, not '%s'", name, option->placeholder, text);
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

static tessera_status unknown_option(const struct option *options, int count, const char *word, tessera_error *error) {
    char name[OPTION_SPELLING_BYTES];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(word, "="), word);
    const char *nearest = nearest_option(options, count, name + (name[1] == '-' ? 2 : 1));
    if (nearest == NULL) return error_set(error, TESSERA_ERROR_ARGUMENT, "unknown option '%s'", name);
    return error_set(error, TESSERA_ERROR_ARGUMENT, "unknown option '%s'; did you mean '--%s'?", name, nearest);
}

/* "-o", or "-oFILE": the option with that letter; "-steps" is a slip for "--steps". */
static tessera_status match_letter(const struct option *options, int count, const char *word, int *index, const char **inline_value,
                                   tessera_error *error) {
    bool slip = word[2] != 0 && find_option(options, count, word + 1, strcspn(word + 1, "=")) >= 0;
    for (int i = 0; i < count && !slip; i++) {
        if (options[i].letter == 0 || options[i].letter != word[1] || (word[2] != 0 && options[i].type == OPTION_FLAG)) continue;
        if (word[2] != 0) *inline_value = word + 2;
        return *index = i, TESSERA_OK;
    }
    return unknown_option(options, count, word, error);
}

/* The option that argv[i] names; *inline_value is what follows '=' or a letter (or NULL). */
static tessera_status match_option(const struct option *options, int count, const char *word, int *index, const char **inline_value,
                                   tessera_error *error) {
    *inline_value = NULL;
    if (word[0] != '-' || word[1] == 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "unexpected argument '%s': every value follows an option's name, and a text of several words stands in quotes",
                         word);
    if (word[1] != '-') return match_letter(options, count, word, index, inline_value, error);
    size_t n = strcspn(word + 2, "=");
    if (word[2 + n] == '=') *inline_value = word + 3 + n;
    *index = find_option(options, count, word + 2, n);
    return *index >= 0 ? TESSERA_OK : unknown_option(options, count, word, error);
}

/* Takes the values of `option` from argv[*i]... and moves *i past them. */
static tessera_status take_values(const struct option *option, int argc, char **argv, int *i, struct option_value *value,
                                  tessera_error *error) {
    char name[OPTION_SPELLING_BYTES];
    if (option->type == OPTION_FLAG) {
        bool spelled = *i < argc && (strcasecmp(argv[*i], "true") == 0 || strcasecmp(argv[*i], "false") == 0);
        return options_read_value(option, spelled ? argv[(*i)++] : "true", value, error);
    }
    if (*i >= argc || strncmp(argv[*i], "--", 2) == 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "%s needs a value (one that begins with '--' is written --%s=VALUE)",
                         options_spelling(option, value, name), option->name);
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

/* A word that asks for a text about the command. */
static enum options_wish wish_of(const char *word) {
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) return OPTIONS_HELP;
    if (strcmp(word, "--help-all") == 0) return OPTIONS_HELP_ALL;
    return strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0 ? OPTIONS_VERSION : OPTIONS_RUN;
}

/* The option that argv[*i] names, with its values; moves *i past them. */
static tessera_status parse_option(const struct option *options, int count, int argc, char **argv, int *i, struct option_value *values,
                                   tessera_error *error) {
    int index = 0;
    const char *inline_value;
    char name[OPTION_SPELLING_BYTES];
    TRY(match_option(options, count, argv[*i], &index, &inline_value, error));
    values[index].spelling = argv[(*i)++];
    if (options[index].refused != NULL)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: %s", options_spelling(&options[index], &values[index], name),
                         options[index].refused);
    if (inline_value != NULL) return options_read_value(&options[index], inline_value, &values[index], error);
    return take_values(&options[index], argc, argv, i, &values[index], error);
}

tessera_status options_parse(const struct option *options, int count, int argc, char **argv, struct option_value *values, const char **path,
                             enum options_wish *wish, tessera_error *error) {
    bool names_end = false;
    memset(values, 0, (size_t)count * sizeof *values);
    if (path != NULL) *path = NULL;
    *wish = OPTIONS_RUN;
    for (int i = 0; i < argc;) {
        if (!names_end && (*wish = wish_of(argv[i])) != OPTIONS_RUN) return TESSERA_OK;
        if (!names_end && strcmp(argv[i], "--") == 0) {
            names_end = true;
            i++;
            continue;
        }
        bool plain = names_end || argv[i][0] != '-';
        if (plain && path != NULL && *path == NULL) {
            *path = argv[i++];
            continue;
        }
        int next = plain ? find_positional(options, count, values) : count;
        if (next < count)
            TRY(options_read_value(&options[next], argv[i++], &values[next], error));
        else
            TRY(parse_option(options, count, argc, argv, &i, values, error));
    }
    return TESSERA_OK;
}

void options_free(struct option_value *values, int count) {
    for (int i = 0; i < count; i++) free(values[i].texts);
    memset(values, 0, (size_t)count * sizeof *values);
}

/* The names of the options of other programs, in lines of at most 130 characters: those without
 * effect, or those that are not there. */
static void print_foreign(FILE *stream, const struct option *options, int count, bool refused) {
    size_t column = 0;
    for (int i = 0; i < count; i++) {
        if ((refused ? options[i].refused : options[i].ignored) == NULL) continue;
        size_t width = strlen(options[i].name) + 3;
        if (column == 0)
            fprintf(stream, refused ? "\nknown from other programs and not there (an error says what to do instead):"
                                    : "\naccepted for commands of other programs, without effect (a notice says why):");
        if (column == 0 || column + width > 130) column = (size_t)fprintf(stream, "\n ") - 1;
        fprintf(stream, " --%s", options[i].name);
        column += width;
    }
    if (column > 0) fputc('\n', stream);
}

static void print_option(FILE *stream, const struct option *o, bool all) {
    char left[256];
    int n = o->letter ? snprintf(left, sizeof left, "-%c, ", o->letter) : 0;
    snprintf(left + n, sizeof left - (size_t)n, "--%s %s%s", o->name, o->placeholder != NULL ? o->placeholder : "",
             o->type == OPTION_TEXTS ? "..." : "");
    fprintf(stream, "  %-32s%s%s", left, strlen(left) > 32 ? "\n                                   " : " ", o->help);
    if (o->type == OPTION_INTEGER || o->type == OPTION_NUMBER) fprintf(stream, " (%.10g to %.10g)", o->low, o->high);
    for (size_t a = 0; all && a < OPTION_MAX_ALIASES && o->aliases[a] != NULL; a++)
        fprintf(stream, "%s--%s", a == 0 ? "; also " : ", ", o->aliases[a]);
    fputc('\n', stream);
}

static const char *section_of(const struct option *option) {
    return option->section != NULL ? option->section : "Options";
}

/* Whether no option before i has its section. */
static bool begins_section(const struct option *options, int i) {
    for (int k = 0; k < i; k++)
        if (strcmp(section_of(&options[k]), section_of(&options[i])) == 0) return false;
    return true;
}

void options_print(FILE *stream, const struct option *options, int count, bool all) {
    for (int first = 0; first < count; first++) {
        const char *section = section_of(&options[first]);
        bool headed = false;
        if (!begins_section(options, first)) continue;
        for (int i = first; i < count; i++) {
            bool foreign = options[i].ignored != NULL || options[i].refused != NULL;
            if (foreign || (options[i].rare && !all) || strcmp(section_of(&options[i]), section) != 0) continue;
            if (!headed) fprintf(stream, "\n%s:\n", section);
            headed = true;
            print_option(stream, &options[i], all);
        }
    }
    if (!all) return;
    print_foreign(stream, options, count, false);
    print_foreign(stream, options, count, true);
}

void options_print_ignored(const struct option *options, int count, const struct option_value *values) {
    for (int i = 0; i < count; i++) {
        const struct option *option = &options[i];
        char name[OPTION_SPELLING_BYTES];
        if (values[i].given && values[i].notice != NULL)
            fprintf(stderr, "tessera: %s: %s\n", options_spelling(option, &values[i], name), values[i].notice);
        if (option->ignored == NULL || !values[i].given || (option->type == OPTION_FLAG && !values[i].flag)) continue;
        fprintf(stderr, "tessera: %s has no effect: %s\n", options_spelling(option, &values[i], name), option->ignored);
    }
}
