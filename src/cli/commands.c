/* The subcommands by number, and the options that they share; see command.h. */
#include <assert.h>
#include <string.h>
#include "cli/command.h"

static const struct option common_options[COMMON_OPTION_COUNT] = {
    [COMMON_QUIET] = {.name = "quiet",
                      .letter = 'q',
                      .section = "Every command",
                      .type = OPTION_FLAG,
                      .help = "no progress, notices or summary on standard error; errors remain"},
    [COMMON_VERBOSE] = {.name = "verbose",
                        .letter = 'v',
                        .section = "Every command",
                        .type = OPTION_FLAG,
                        .help = "say more on standard error: what was chosen, and where files come from"},
};

#define COMMAND_ADDRESS(command) &command,

const struct command *command_at(int i) {
    const struct command *const commands[] = {COMMANDS(COMMAND_ADDRESS)};
    return i < (int)(sizeof commands / sizeof *commands) ? commands[i] : NULL;
}

bool command_common(const struct command *command, const struct option_value *values, enum common_option which) {
    return values[command->option_count + command->foreign_count + (int)which].flag;
}

int command_options(const struct command *command, struct option out[COMMAND_MAX_OPTIONS]) {
    int count = command->option_count, foreign = command->foreign_count;
    assert(count + foreign + COMMON_OPTION_COUNT <= COMMAND_MAX_OPTIONS);
    memcpy(out, command->options, (size_t)count * sizeof *out);
    if (foreign > 0) memcpy(out + count, command->foreign, (size_t)foreign * sizeof *out);
    memcpy(out + count + foreign, common_options, sizeof common_options);
    return count + foreign + COMMON_OPTION_COUNT;
}
