/* Where prompts come from: the command line, a text file, a table. */
#ifndef TESSERA_CLI_PROMPTS_H
#define TESSERA_CLI_PROMPTS_H

#include "cli/captions.h"
#include "cli/options.h"

/* Texts that prompts are borrowed from; free with prompts_free. Zeroed before use. */
struct prompt_files {
    char *lines, *table;
    struct captions captions; /* of --caption-file: prompt i is caption i */
};

/* Reads standard input, where the command line says that prompts come from it ("--prompts-file -"),
 * into files->lines; *length: its bytes, 0 where it is not read. ARGUMENT: too much; IO. */
tessera_status prompts_read_input(const struct option_value *values, struct prompt_files *files, size_t *length, tessera_error *error);

/* Adds to --prompt's value what --prompts-file (a prompt a line, empty lines left out; "-": what
 * prompts_read_input read) and --dataset-path hold. The latter is a CSV file (RFC 4180) whose first
 * line names the columns, one of them "prompt". With --caption-file the captions that it chooses
 * are the prompts, and there are no others. IO, FORMAT: a file that is not there or has no such
 * column; ARGUMENT: --split is not two numbers. */
tessera_status prompts_read(struct option_value *values, struct prompt_files *files, tessera_error *error);

/* ARGUMENT if there is no prompt, one is not UTF-8 text or too long, or captions are to go to one
 * file. */
tessera_status prompts_check(const struct option_value *values, tessera_error *error);

/* Prompt i's file, FOLDER/0000.png or the caption's own name with .png; NULL if it is no caption's.
 * The caller frees. MEMORY is told by `error` alone. `folder` NULL: the current one. */
char *prompts_caption_path(const struct option_value *values, const struct prompt_files *files, int i, const char *folder,
                           tessera_error *error);

void prompts_free(struct prompt_files *files);

#endif
