/* What a subcommand is: one entry of commands.c's table, from which help, completion, parsing and dispatch come. */
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

extern const struct command generate_command, encode_command, decode_command, inspect_command, download_command, convert_command, make_model_command, plan_command,
    latency_command, coco_command, evaluate_command, report_command, split_command, verify_command, verify_study_command, worker_command, completion_command;

/* The table, in the order of `tessera help`; NULL behind its end. */
const struct command *command_at(int i);

/* Options that every command has, behind its own and the foreign ones. */
enum common_option { COMMON_QUIET, COMMON_VERBOSE, COMMON_OPTION_COUNT };
bool command_common(const struct command *command, const struct option_value *values, enum common_option which);

#define COMMAND_MAX_OPTIONS 288
/* All options of a command: its own, foreign ones, common ones. Returns their number. */
int command_options(const struct command *command, struct option out[COMMAND_MAX_OPTIONS]);

/* "tessera: error: ..." on stderr; returns the exit status that goes with it (EXIT_USAGE where the caller says that the command
 * line itself is wrong). */
int command_fail(const tessera_error *error, bool usage);

/* "tessera: stopped; ..." on stderr, where this rank is the one that `talks`: what is left of the work. Returns 128 + the signal, which may
 * have been another rank's (then SIGINT). */
int command_stopped(bool talks, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
