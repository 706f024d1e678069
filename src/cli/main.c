/* The `tessera` command: a table of subcommands, help from that table, and dispatch.
 *
 * Exit status: 0 done, 1 failed, 2 wrong command line, 128 + signal when stopped by one. */
#include <assert.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "comm/comm.h"

#define COMMAND_COUNT 9
#define MAX_OPTIONS 192

static const struct command *command_at(int i) {
    const struct command *const commands[COMMAND_COUNT] = {&generate_command, &inspect_command,    &download_command,
                                                           &convert_command,  &make_model_command, &plan_command,
                                                           &latency_command,  &coco_command,       &evaluate_command};
    return commands[i];
}

/* The words that are answered here, after the table's own. */
static const char *const words[] = {"help", "version"};

static const char *name_at(const void *user, int i) {
    return i < COMMAND_COUNT ? command_at(i)->name : words[i - COMMAND_COUNT];
}

int command_fail(const tessera_error *error, bool usage) {
    fprintf(stderr, "tessera: error: %s\n", error->message);
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

static void print_help(FILE *stream) {
    fprintf(stream,
            "Tessera %s: pictures from diffusion models.\n\nusage: tessera COMMAND [OPTIONS]; options alone are those of "
            "generate\n\ncommands:\n",
            TESSERA_VERSION);
    for (int i = 0; i < COMMAND_COUNT; i++) fprintf(stream, "  %-11s %s\n", command_at(i)->name, command_at(i)->summary);
    fprintf(stream, "  %-11s %s\n  %-11s %s\n", "help", "this text, or that of a command: tessera help COMMAND", "version", "the version");
    fprintf(stream, "\nexamples:\n  tessera generate --prompt \"a lion on a blue background\" -o lion.png\n"
                    "  tessera help generate\n");
}

static void print_command_help(FILE *stream, const struct command *command) {
    fprintf(stream, "usage: tessera %s\n\n%s.\n\noptions:\n", command->usage, command->summary);
    options_print(stream, command->options, command->option_count);
    fprintf(stream, "  %-32s %s\n", "-h, --help", "this text");
    if (command->details[0] != 0) fprintf(stream, "\n%s", command->details);
    fprintf(stream, "\nexamples:\n%s", command->examples);
}

static const struct command *find_command(const char *name) {
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(command_at(i)->name, name) == 0) return command_at(i);
    fprintf(stderr, "tessera: error: unknown command '%s'; did you mean '%s'? ('tessera help' lists them)\n", name,
            options_nearest(name, name_at, NULL, COMMAND_COUNT + (int)(sizeof words / sizeof *words)));
    return NULL;
}

/* argv is what follows the command's name. */
static int run_command(const struct command *command, int argc, char **argv) {
    struct option_value values[MAX_OPTIONS];
    assert(command->option_count <= MAX_OPTIONS);
    tessera_error error = {0};
    bool help;
    const char *path = NULL;
    int code = EXIT_DONE;
    if (options_parse(command->options, command->option_count, argc, argv, values, command->takes_path ? &path : NULL, &help, &error) !=
        TESSERA_OK) {
        code = comm_launched_rank() > 0 ? EXIT_USAGE : command_fail(&error, true); /* of many ranks one talks */
        if (comm_launched_rank() == 0) fprintf(stderr, "'tessera help %s' lists the options.\n", command->name);
    } else if (help) {
        print_command_help(stdout, command);
    } else {
        code = command->run(path, values);
    }
    options_free(values, command->option_count);
    return code;
}

static int run_help(int argc, char **argv) {
    if (argc == 0) return print_help(stdout), EXIT_DONE;
    const struct command *command = find_command(argv[0]);
    if (command == NULL) return EXIT_USAGE;
    print_command_help(stdout, command);
    return EXIT_DONE;
}

int main(int argc, char **argv) {
    if (argc < 2) return print_help(stderr), EXIT_USAGE;
    const char *word = argv[1];
    int code;
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
        code = run_help(argc - 2, argv + 2);
    } else if (strcmp(word, "--version") == 0 || strcmp(word, "version") == 0) {
        code = printf("tessera %s\n", TESSERA_VERSION) < 0 ? EXIT_FAILED : EXIT_DONE;
    } else if (word[0] == '-') { /* as scripts of other programs are called: options alone */
        code = run_command(&generate_command, argc - 1, argv + 1);
    } else {
        const struct command *command = find_command(word);
        code = command != NULL ? run_command(command, argc - 2, argv + 2) : EXIT_USAGE;
    }
    if (fflush(stdout) != 0 && code == EXIT_DONE) {
        fprintf(stderr, "tessera: error: writing to standard output failed\n");
        code = EXIT_FAILED;
    }
    return code;
}
