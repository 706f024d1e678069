/* What every subcommand has: the common options, errors, and the end by a signal. See command.h. */
#include "cli/command.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/error.h"
#include "cli/progress.h"

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

bool command_common(const struct command *command, const struct option_value *values, enum common_option which) {
    return values[command->option_count + command->foreign_count + (int)which].flag;
}

int command_options(const struct command *command, struct option out[COMMAND_MAX_OPTIONS]) {
    int count = command->option_count, foreign = command->foreign_count;
    assert(count + foreign + COMMON_OPTION_COUNT <= COMMAND_MAX_OPTIONS);
    if (count > 0) memcpy(out, command->options, (size_t)count * sizeof *out);
    if (foreign > 0) memcpy(out + count, command->foreign, (size_t)foreign * sizeof *out);
    memcpy(out + count + foreign, common_options, sizeof common_options);
    return count + foreign + COMMON_OPTION_COUNT;
}

/* What `ulimit -v` and similar limits leave to a process that ran out of memory; "" where there is
 * no limit. */
static const char *memory_limit(const tessera_error *error, char *out, size_t capacity) {
    struct rlimit limit;
    out[0] = 0;
    bool memory = error->status == TESSERA_ERROR_MEMORY || strstr(error->message, strerror(ENOMEM)) != NULL;
    if (memory && getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        snprintf(out, capacity, " (this process may have %llu MiB of address space: ulimit -v)", (unsigned long long)limit.rlim_cur >> 20);
    return out;
}

int command_fail(const tessera_error *error, bool usage) {
    char limit[96];
    fprintf(stderr, "tessera: error: %s%s\n", error->message, memory_limit(error, limit, sizeof limit));
    return usage ? EXIT_USAGE : EXIT_FAILED;
}

int command_stopped(bool talks, const char *format, ...) {
    if (talks) {
        va_list arguments;
        va_start(arguments, format);
        fputs("tessera: stopped; ", stderr);
        vfprintf(stderr, format, arguments);
        fputc('\n', stderr);
        va_end(arguments);
    }
    return 128 + (progress_signal() != 0 ? progress_signal() : SIGINT);
}
