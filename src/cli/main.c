/* The `tessera` command: help from the table of subcommands, and dispatch.
 *
 * Exit status: 0 done, 1 failed, 2 wrong command line, 128 + signal when stopped by one. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "cli/bus_error.h"
#include "cli/command.h"
#include "comm/comm.h"

/* The words that are answered here, after the table's own. */
static const char *const words[] = {"help", "help-all", "version"};

static const char *name_at(const void *user, int i) {
    int commands = *(const int *)user;
    return i < commands ? command_at(i)->name : words[i - commands];
}

static void print_help(FILE *stream) {
    fprintf(stream,
            "Tessera %s: pictures from diffusion models.\n\nusage: tessera \"PROMPT\" [OPTIONS]\n       tessera COMMAND [OPTIONS]; options "
            "alone are those of generate\n\ncommands:\n",
            TESSERA_VERSION);
    for (int i = 0; command_at(i) != NULL; i++) fprintf(stream, "  %-12s %s\n", command_at(i)->name, command_at(i)->summary);
    fprintf(stream, "  %-12s %s\n  %-12s %s\n  %-12s %s\n", "help", "this text, or that of a command: tessera help COMMAND", "help-all",
            "the same with every option and other names of options", "version", "the version");
    fprintf(stream, "\nexamples:\n  tessera \"a lion on a blue background\"\n"
                    "  tessera generate --prompt \"a lion on a blue background\" -o lion.png\n"
                    "  tessera help generate\n");
}

static void print_command_help(FILE *stream, const struct command *command, bool all) {
    struct option options[COMMAND_MAX_OPTIONS];
    int count = command_options(command, options), rare = 0;
    fprintf(stream, "usage: tessera %s\n\n%s.\n", command->usage, command->summary);
    options_print(stream, options, count, all);
    fprintf(stream, "  %-32s %s\n  %-32s %s\n", "-V, --version", "the version", "-h, --help", "this text");
    for (int i = 0; i < count; i++) rare += options[i].rare;
    if (rare > 0) fprintf(stream, "  %-32s %s\n", "--help-all", "this text with rare options and other names of options");
    if (command->details[0] != 0) fprintf(stream, "\n%s", command->details);
    fprintf(stream, "\nexamples:\n%s", command->examples);
}

static int print_version(void) {
    return printf("tessera %s\n", TESSERA_VERSION) < 0 ? EXIT_FAILED : EXIT_DONE;
}

/* Words that name no command and begin a command line: a prompt without quotes? */
static void print_prompt_hint(int argc, char **argv) {
    fprintf(stderr, "tessera: error: unknown command '%s' ('tessera help' lists them); to draw it: tessera --prompt \"", argv[0]);
    for (int i = 0; i < argc && (i == 0 || argv[i][0] != '-'); i++) fprintf(stderr, "%s%s", i > 0 ? " " : "", argv[i]);
    fputs("\"\n", stderr);
}

/* The command that argv[0] names; otherwise NULL, and what to type instead. */
static const struct command *find_command(int argc, char **argv) {
    const char *name = argv[0];
    int count = 0;
    for (; command_at(count) != NULL; count++)
        if (strcmp(command_at(count)->name, name) == 0) return command_at(count);
    const char *nearest = options_nearest(name, name_at, &count, count + (int)(sizeof words / sizeof *words));
    if (nearest != NULL)
        fprintf(stderr, "tessera: error: unknown command '%s'; did you mean '%s'? ('tessera help' lists them)\n", name, nearest);
    else if (strcmp(name, "txt2img") == 0 || strcmp(name, "img2img") == 0)
        fprintf(stderr, "tessera: error: unknown command '%s': tessera generate makes pictures, from pictures with --init-image\n", name);
    else
        print_prompt_hint(argc, argv);
    return NULL;
}

/* argv is what follows the command's name. */
static int run_command(const struct command *command, int argc, char **argv) {
    struct option options[COMMAND_MAX_OPTIONS];
    struct option_value values[COMMAND_MAX_OPTIONS];
    int count = command_options(command, options);
    tessera_error error = {0};
    enum options_wish wish;
    const char *path = NULL;
    int code = EXIT_DONE;
    if (options_parse(options, count, argc, argv, values, command->takes_path ? &path : NULL, &wish, &error) != TESSERA_OK) {
        code = comm_launched_rank() > 0 ? EXIT_USAGE : command_fail(&error, true); /* of many ranks one talks */
        if (comm_launched_rank() == 0) fprintf(stderr, "'tessera help %s' lists the options.\n", command->name);
    } else if (wish == OPTIONS_VERSION) {
        code = print_version();
    } else if (wish != OPTIONS_RUN) {
        print_command_help(stdout, command, wish == OPTIONS_HELP_ALL);
    } else {
        code = command->run(path, values);
    }
    options_free(values, count);
    return code;
}

static int run_help(int argc, char **argv, bool all) {
    if (argc == 0 || argv[0][0] == '-') return print_help(stdout), EXIT_DONE;
    const struct command *command = find_command(1, argv);
    if (command == NULL) return EXIT_USAGE;
    print_command_help(stdout, command, all);
    return EXIT_DONE;
}

static bool is_one_of(const char *word, const char *a, const char *b, const char *c) {
    return strcmp(word, a) == 0 || strcmp(word, b) == 0 || strcmp(word, c) == 0;
}

static int dispatch(int argc, char **argv) {
    const char *word = argv[1];
    if (is_one_of(word, "--help", "-h", "help")) return run_help(argc - 2, argv + 2, false);
    if (is_one_of(word, "--help-all", "help-all", "help-all")) return run_help(argc - 2, argv + 2, true);
    if (is_one_of(word, "--version", "-V", "version")) return print_version();
    /* Options alone, as scripts of other programs are called, or a prompt: words with blanks between. */
    if (word[0] == '-' || strchr(word, ' ') != NULL) return run_command(&generate_command, argc - 1, argv + 1);
    const struct command *command = find_command(argc - 1, argv + 1);
    return command != NULL ? run_command(command, argc - 2, argv + 2) : EXIT_USAGE;
}

int main(int argc, char **argv) {
    if (argc < 2) return print_help(stderr), EXIT_USAGE;
    comm_begin_launch();
    bus_error_catch();
    signal(SIGXFSZ, SIG_IGN); /* a file that may grow no further is an error of writing, which takes the temporary file away */
    for (const tessera_setting *s = tessera_world_settings(); s->name != NULL; s++) setenv(s->name, s->value, 0);
    int code = dispatch(argc, argv);
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == EXIT_DONE) {
        fprintf(stderr, "tessera: error: writing to standard output failed\n");
        code = EXIT_FAILED;
    }
    if (code != EXIT_DONE) comm_end_launch();
    return code;
}
