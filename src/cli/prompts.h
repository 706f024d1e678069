/* Where prompts come from: the command line, a text file, a table. */
#ifndef TESSERA_CLI_PROMPTS_H
#define TESSERA_CLI_PROMPTS_H

#include "cli/options.h"

/* Texts that prompts are borrowed from; free with prompts_free. Zeroed before use. */
struct prompt_files {
    char *lines, *table;
};

/* Adds to --prompt's value what --prompts-file (a prompt a line, empty lines left out) and --dataset-path hold. The latter is a CSV file
 * (RFC 4180) whose first line names the columns, one of them "prompt". IO, FORMAT: a file that is not there or has no such column. */
tessera_status prompts_read(struct option_value *values, struct prompt_files *files, tessera_error *error);

/* ARGUMENT if there is no prompt or one is not UTF-8 text. */
tessera_status prompts_check(const struct option_value *values, tessera_error *error);

void prompts_free(struct prompt_files *files);

#endif
