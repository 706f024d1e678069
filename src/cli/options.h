/* Command-line options from one table: the parser, --help and a picture's record all read the same entries.
 *
 * A subcommand has an array of `struct option`, indexed by its own enum; parsing fills an array of `struct option_value` with
 * the same indices. Accepted: "--name value", "--name=value", "-o value", underscores for hyphens, aliases, and for
 * OPTION_TEXTS several values after one name ("--prompt A B") as well as repetition. */
#ifndef TESSERA_CLI_OPTIONS_H
#define TESSERA_CLI_OPTIONS_H

#include <stdio.h>
#include "tessera.h"

enum option_type { OPTION_FLAG, OPTION_INTEGER, OPTION_SEED, OPTION_NUMBER, OPTION_TEXT, OPTION_TEXTS, OPTION_CHOICE };

struct option {
    const char *name;       /* with hyphens, without "--" */
    const char *aliases[3]; /* other names, with hyphens */
    char letter;            /* 'o' for "-o"; 0: none */
    enum option_type type;
    const char *placeholder; /* for --help; of an OPTION_CHOICE the values, "f32|bf16" */
    const char *help;        /* one line; the range is printed after it */
    double low, high;        /* of INTEGER and NUMBER, both allowed */
    const char *record;      /* its key in a picture's record, or NULL */
    bool positional;         /* a word that is no option's value may give it, after the path */
    const char *ignored;     /* why this option of another program has no effect here; NULL: it has one */
};

struct option_value {
    bool given;
    bool flag;
    int integer;
    uint64_t seed;
    double number;
    const char *text;   /* TEXT, CHOICE: borrowed */
    const char **texts; /* TEXTS: [count], the array owned, the strings borrowed */
    int count;
};

/* Reads argv[0..argc) (without the command's name). "--help" or "-h" sets *help and stops. Fails with TESSERA_ERROR_ARGUMENT,
 * and names the nearest option if one is unknown. One word that is no option's value becomes *path (NULL: none may). `values` is
 * cleared first; free it with options_free either way. */
tessera_status options_parse(const struct option *options, int count, int argc, char **argv, struct option_value *values, const char **path,
                             bool *help, tessera_error *error);
/* Reads one value into `value` as if it stood on the command line. */
tessera_status options_read_value(const struct option *option, const char *text, struct option_value *value, tessera_error *error);
void options_free(struct option_value *values, int count);

/* The table for --help; options without effect only by their names, under a heading. */
void options_print(FILE *stream, const struct option *options, int count);

/* A line on stderr for each option that was given and has no effect, with the reason. */
void options_print_ignored(const struct option *options, int count, const struct option_value *values);

/* The name nearest to `word` by edit distance (Levenshtein 1966); `get` returns the i-th of `count` candidates. */
const char *options_nearest(const char *word, const char *(*get)(const void *user, int i), const void *user, int count);

#endif
