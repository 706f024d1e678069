/* What a subcommand is: one entry of the table COMMANDS, from which help, completion, parsing and
 * dispatch come. */
#ifndef TESSERA_CLI_COMMAND_H
#define TESSERA_CLI_COMMAND_H

#include "cli/options.h"

enum exit_code { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct command {
    const char *name, *usage, *summary;
    const char *details; /* paragraphs for the command's own help, may be "" */
    const char *examples;
    const struct option *options;
    int option_count;
    const struct option *foreign; /* options of other programs, whose values follow the command's own; or NULL */
    int foreign_count;
    bool takes_path; /* one argument is a path, not an option's value */
    /* Returns the exit status. `path` only where takes_path. */
    int (*run)(const char *path, struct option_value *values);
};

/* COMMAND(variable), in the order of `tessera help`. A new subcommand is one file and one line here. */
#define COMMANDS(COMMAND)         \
    COMMAND(generate_command)     \
    COMMAND(encode_command)       \
    COMMAND(decode_command)       \
    COMMAND(inspect_command)      \
    COMMAND(download_command)     \
    COMMAND(convert_command)      \
    COMMAND(make_model_command)   \
    COMMAND(plan_command)         \
    COMMAND(latency_command)      \
    COMMAND(coco_command)         \
    COMMAND(evaluate_command)     \
    COMMAND(report_command)       \
    COMMAND(split_command)        \
    COMMAND(verify_command)       \
    COMMAND(verify_study_command) \
    COMMAND(worker_command)       \
    COMMAND(completion_command)

#define DECLARE_COMMAND(variable) extern const struct command variable;
COMMANDS(DECLARE_COMMAND)
#undef DECLARE_COMMAND

/* The table, in the order of `tessera help`; NULL behind its end. */
const struct command *command_at(int i);

/* Options that every command has, behind its own and the foreign ones. */
enum common_option { COMMON_QUIET, COMMON_VERBOSE, COMMON_OPTION_COUNT };
bool command_common(const struct command *command, const struct option_value *values, enum common_option which);

#define COMMAND_MAX_OPTIONS 384
/* All options of a command: its own, foreign ones, common ones. Returns their number. */
int command_options(const struct command *command, struct option out[COMMAND_MAX_OPTIONS]);

/* "tessera: error: ..." on stderr; returns the exit status that goes with it (EXIT_USAGE where the
 * caller says that the command line itself is wrong). */
int command_fail(const tessera_error *error, bool usage);

/* "tessera: stopped; ..." on stderr, where this rank is the one that `talks`: what is left of the
 * work. Returns 128 + the signal, which may have been another rank's (then SIGINT). */
int command_stopped(bool talks, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
