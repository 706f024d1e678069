/* What a subcommand is: one entry of main.c's table, from which help, parsing and dispatch come. */
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
    bool takes_path; /* one argument is a path, not an option's value */
    /* Returns the exit status. `path` only where takes_path. */
    int (*run)(const char *path, struct option_value *values);
};

extern const struct command generate_command, inspect_command, download_command, convert_command, make_model_command, plan_command,
    latency_command, coco_command, evaluate_command;

/* "tessera: error: ..." on stderr; returns the exit status that goes with it (EXIT_USAGE where the caller says that the command
 * line itself is wrong). */
int command_fail(const tessera_error *error, bool usage);

/* "tessera: stopped; ..." on stderr, where this rank is the one that `talks`: what is left of the work. Returns 128 + the signal, which may
 * have been another rank's (then SIGINT). */
int command_stopped(bool talks, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
