/* Command-line options from one table: the parser, --help, shell completion, the man page and a
 * picture's record all read the same entries.
 *
 * A subcommand has an array of `struct option`, indexed by its own enum; parsing fills an array of
 * `struct option_value` with the same indices. Accepted: "--name value", "--name=value", "-o
 * value", "-ovalue", underscores for hyphens, aliases, and for OPTION_TEXTS several values after
 * one name ("--prompt A B") as well as repetition. Behind "--" no word is an option's name. */
#ifndef TESSERA_CLI_OPTIONS_H
#define TESSERA_CLI_OPTIONS_H

#include <stdio.h>
#include "tessera.h"

enum option_type { OPTION_FLAG, OPTION_INTEGER, OPTION_SEED, OPTION_NUMBER, OPTION_TEXT, OPTION_TEXTS, OPTION_CHOICE };

#define OPTION_MAX_ALIASES 8

/* Another spelling of a choice's value. */
struct option_synonym {
    const char *spelling, *value;
};

struct option {
    const char *name;                        /* with hyphens, without "--" */
    const char *aliases[OPTION_MAX_ALIASES]; /* other names, with hyphens */
    char letter;                             /* 'o' for "-o"; 0: none */
    enum option_type type;
    const char *section;                   /* its heading in --help; NULL: "Options" */
    bool rare;                             /* in --help-all only */
    const char *placeholder;               /* for --help; of an OPTION_CHOICE the values, "f32|bf16" */
    const char *help;                      /* one line; the range is printed after it */
    double low, high;                      /* of INTEGER and NUMBER, both allowed */
    const struct option_synonym *synonyms; /* of a CHOICE, ended by an empty one; or NULL */
    const struct option_synonym *notices;  /* what to say where a synonym is not quite what was asked for; ended by an empty one, or NULL */
    const char *record;                    /* its key in a picture's record, or NULL */
    bool opens;                            /* its value names what is opened: a file, a folder, or a model on the hub */
    bool positional;                       /* a word that is no option's value may give it, after the path */
    const char *ignored;                   /* why this option of another program has no effect here; NULL: it has one */
    const char *refused;                   /* what to do instead of this option of another program; NULL: it is there */
};

struct option_value {
    bool given;
    bool flag;
    bool negative; /* of a SEED: a number below 0, which asks for a random one */
    int integer;
    uint64_t seed;
    double number;
    const char *text;     /* TEXT, CHOICE: borrowed */
    const char *notice;   /* of option.notices, or NULL */
    const char **texts;   /* TEXTS: [count], the array owned, the strings borrowed */
    const char *spelling; /* the word that named the option, "--cfg_scale" or "--cfg_scale=7"; NULL: none did */
    int count;
};

/* What a command line wants: the command itself, or a text about it. */
enum options_wish { OPTIONS_RUN, OPTIONS_HELP, OPTIONS_HELP_ALL, OPTIONS_VERSION };

/* Reads argv[0..argc) (without the command's name). --help (-h), --help-all and --version (-V) set
 * *wish and stop. Fails with TESSERA_ERROR_ARGUMENT, in the caller's spelling, and names the
 * nearest option if an unknown one is near any. One word that is no option's value becomes *path
 * (NULL: none may). `values` is cleared first; free it with options_free either way. */
tessera_status options_parse(const struct option *options, int count, int argc, char **argv, struct option_value *values, const char **path,
                             enum options_wish *wish, tessera_error *error);
/* Reads one value into `value` as if it stood on the command line. */
tessera_status options_read_value(const struct option *option, const char *text, struct option_value *value, tessera_error *error);
void options_free(struct option_value *values, int count);

#define OPTION_SPELLING_BYTES 64
/* How the caller wrote the option's name: "--cfg_scale", or the table's name. Returns `out`. */
const char *options_spelling(const struct option *option, const struct option_value *value, char out[OPTION_SPELLING_BYTES]);

/* The table for --help, in its sections; `all`: with rare options, aliases, and the names of those
 * of other programs. */
void options_print(FILE *stream, const struct option *options, int count, bool all);

/* A line on stderr for each option that was given and has no effect, with the reason. */
void options_print_ignored(const struct option *options, int count, const struct option_value *values);

/* The name nearest to `word` by edit distance (Levenshtein 1966), or NULL if none is near: more
 * than a third of its letters differ, and it is not the beginning of one. `get` returns the i-th of
 * `count` candidates. */
const char *options_nearest(const char *word, const char *(*get)(const void *user, int i), const void *user, int count);

#endif
