/* The subcommands by number; see command.h. */
#include "cli/command.h"

#define COMMAND_ADDRESS(command) &command,

const struct command *command_at(int i) {
    const struct command *const commands[] = {COMMANDS(COMMAND_ADDRESS)};
    return i < (int)(sizeof commands / sizeof *commands) ? commands[i] : NULL;
}
