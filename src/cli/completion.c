/* `tessera completion SHELL`: a script for bash, zsh or fish that completes commands, options, the
 * values of choices, and files.
 *
 * All of it comes from the tables that --help prints. Names of other programs' options are
 * understood but not proposed. */
#include <string.h>

#include "base/error.h"
#include "cli/command.h"

enum completion_option { COMPLETION_SHELL, COMPLETION_OPTION_COUNT };

static const struct option completion_options[COMPLETION_OPTION_COUNT] = {
    [COMPLETION_SHELL] = {.name = "shell",
                          .type = OPTION_CHOICE,
                          .placeholder = "bash|zsh|fish",
                          .help = "whose language to write; the name alone is enough",
                          .positional = true},
};

static bool is_proposed(const struct option *option) {
    return option->ignored == NULL && option->refused == NULL;
}

static bool is_number(const struct option *option) {
    return option->type == OPTION_INTEGER || option->type == OPTION_SEED || option->type == OPTION_NUMBER;
}

/* Text in single quotes of a shell, or of a zsh specification, in which ':' and brackets mean
 * something. */
static void put_quoted(const char *text, bool zsh) {
    for (; *text != 0; text++) {
        if (*text == '\'')
            fputs("'\\''", stdout);
        else if (zsh && strchr("[]:\\", *text) != NULL)
            printf("\\%c", *text);
        else
            putchar(*text);
    }
}

/* A choice's values, "f32|bf16", with blanks between. */
static void put_choices(const char *choices) {
    for (; *choices != 0; choices++) putchar(*choices == '|' ? ' ' : *choices);
}

static void put_command_names(void) {
    for (int i = 0; command_at(i) != NULL; i++) printf("%s ", command_at(i)->name);
    fputs("help help-all version", stdout);
}

/* ---- bash ---- */

static void print_bash_command(const struct command *command) {
    struct option options[COMMAND_MAX_OPTIONS];
    int count = command_options(command, options);
    printf("    %s)\n        case $before in\n", command->name);
    for (int i = 0; i < count; i++) {
        if (!is_proposed(&options[i]) || options[i].type == OPTION_FLAG) continue;
        printf("        --%s", options[i].name);
        if (options[i].letter != 0) printf(" | -%c", options[i].letter);
        if (options[i].type == OPTION_CHOICE) {
            fputs(") COMPREPLY=($(compgen -W '", stdout);
            put_choices(options[i].placeholder);
            fputs("' -- \"$word\")); return ;;\n", stdout);
        } else {
            fputs(") return ;;\n", stdout);
        }
    }
    fputs("        esac\n", stdout);
    for (int i = 0; i < count; i++) {
        if (!options[i].positional || options[i].type != OPTION_CHOICE) continue;
        fputs("        [[ $word == -* ]] || COMPREPLY=($(compgen -W '", stdout);
        put_choices(options[i].placeholder);
        fputs("' -- \"$word\"))\n", stdout);
    }
    fputs("        options='", stdout);
    for (int i = 0; i < count; i++)
        if (is_proposed(&options[i])) printf("--%s ", options[i].name);
    fputs("--help --help-all --version'\n        ;;\n", stdout);
}

static void print_bash(void) {
    fputs("# bash completion of tessera, written by `tessera completion bash`\n_tessera() {\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} options=\n"
          "    [[ $word != = ]] || word=\n    [[ $before != = ]] || before=${COMP_WORDS[COMP_CWORD-2]}\n" /* bash splits --name=value */
          "    COMPREPLY=()\n    if [ \"$COMP_CWORD\" -eq 1 ] && [[ $word != -* ]]; then\n        COMPREPLY=($(compgen -W '",
          stdout);
    put_command_names();
    fputs("' -- \"$word\"))\n        return\n    fi\n    [[ $command != -* && $command != *' '* ]] || command=generate\n    case $command "
          "in\n",
          stdout);
    for (int i = 0; command_at(i) != NULL; i++) print_bash_command(command_at(i));
    fputs("    help | help-all)\n        COMPREPLY=($(compgen -W '", stdout);
    put_command_names();
    fputs("' -- \"$word\"))\n        return\n        ;;\n    esac\n"
          "    [[ $word != -* ]] || COMPREPLY=($(compgen -W \"$options\" -- \"$word\"))\n}\n"
          "complete -o default -F _tessera tessera\n",
          stdout);
}

/* ---- zsh ---- */

/* The values of an option, ":what:action"; of a number nothing is proposed. */
static void print_zsh_values(const struct option *option) {
    if (option->type == OPTION_CHOICE) {
        fputs(":value:(", stdout);
        put_choices(option->placeholder);
        putchar(')');
    } else if (is_number(option)) {
        fputs(":number:", stdout);
    } else if (option->type != OPTION_FLAG) {
        fputs(":value:_files", stdout);
    }
    fputs("' \\\n", stdout);
}

/* "--name=" and "-n+" take their value in the same word or the next. */
static void print_zsh_spelling(const struct option *option, bool letter) {
    bool value = option->type != OPTION_FLAG;
    fputs("            ", stdout);
    if (option->letter != 0 && option->type != OPTION_TEXTS)
        printf("'(-%c --%s)", option->letter, option->name);
    else
        printf("'%s", option->type == OPTION_TEXTS ? "*" : "");
    if (letter)
        printf("-%c%s[", option->letter, value ? "+" : "");
    else
        printf("--%s%s[", option->name, value ? "=" : "");
    put_quoted(option->help, true);
    putchar(']');
    print_zsh_values(option);
}

static void print_zsh_option(const struct option *option) {
    print_zsh_spelling(option, false);
    if (option->letter != 0) print_zsh_spelling(option, true);
    if (!option->positional || option->type != OPTION_CHOICE) return;
    fputs("            '1", stdout);
    print_zsh_values(option);
}

static void print_zsh(void) {
    fputs("#compdef tessera\n# zsh completion of tessera, written by `tessera completion zsh`\n_tessera() {\n"
          "    local -a commands\n    commands=(\n",
          stdout);
    for (int i = 0; command_at(i) != NULL; i++) {
        printf("        '%s:", command_at(i)->name);
        put_quoted(command_at(i)->summary, true);
        fputs("'\n", stdout);
    }
    fputs("        'help:the options of a command' 'help-all:the same with rare ones' 'version:the version'\n    )\n"
          "    local command=$words[2]\n"
          "    if (( CURRENT == 2 )) && [[ $command != -* ]]; then\n        _describe command commands\n        return\n    fi\n"
          "    if [[ $command != -* && $command != *' '* ]]; then\n        shift words\n        (( CURRENT-- ))\n"
          "    else\n        command=generate\n    fi\n    case $command in\n",
          stdout);
    for (int i = 0; command_at(i) != NULL; i++) {
        struct option options[COMMAND_MAX_OPTIONS];
        int count = command_options(command_at(i), options);
        printf("    %s)\n        _arguments \\\n", command_at(i)->name);
        for (int k = 0; k < count; k++)
            if (is_proposed(&options[k])) print_zsh_option(&options[k]);
        fputs("            '--help[help]' '--help-all[help with rare options]' '*:file:_files'\n        ;;\n", stdout);
    }
    fputs("    help | help-all) _describe command commands ;;\n    esac\n}\n"
          /* read by compinit as a function's body, or by a person's `.` */
          "if [[ $funcstack[1] == _tessera ]]; then _tessera \"$@\"; else compdef _tessera tessera; fi\n",
          stdout);
}

/* ---- fish ---- */

/* In single quotes, where only these two signs mean something. */
static void put_fish_quoted(const char *text) {
    putchar('\'');
    for (; *text != 0; text++) {
        if (*text == '\'' || *text == '\\') putchar('\\');
        putchar(*text);
    }
    putchar('\'');
}

static void print_fish_option(const char *command, const struct option *option) {
    printf("complete -c tessera -n '__tessera_is %s' -l %s", command, option->name);
    if (option->letter != 0) printf(" -s %c", option->letter);
    if (option->type != OPTION_FLAG) fputs(option->type == OPTION_CHOICE || is_number(option) ? " -x" : " -r", stdout);
    if (option->type == OPTION_CHOICE) {
        fputs(" -a '", stdout);
        put_choices(option->placeholder);
        putchar('\'');
    }
    fputs(" -d ", stdout);
    put_fish_quoted(option->help);
    putchar('\n');
    if (!option->positional || option->type != OPTION_CHOICE) return;
    printf("complete -c tessera -n '__tessera_is %s' -f -a '", command);
    put_choices(option->placeholder);
    fputs("'\n", stdout);
}

static void print_fish(void) {
    fputs("# fish completion of tessera, written by `tessera completion fish`\n"
          "function __tessera_is # whether the command is this one; a picture is made where none is named\n"
          "    set -l words (commandline -opc)\n    set -l command $words[2]\n"
          "    if not set -q words[2]; or string match -qr '^-| ' -- $command\n        set command generate\n    end\n"
          "    test \"$command\" = $argv[1]\nend\n"
          "function __tessera_needs_command\n    test (count (commandline -opc)) -eq 1\nend\n",
          stdout);
    for (int i = 0; command_at(i) != NULL; i++) {
        const struct command *command = command_at(i);
        struct option options[COMMAND_MAX_OPTIONS];
        int count = command_options(command, options);
        printf("complete -c tessera -n __tessera_needs_command -f -a %s -d ", command->name);
        put_fish_quoted(command->summary);
        putchar('\n');
        for (int k = 0; k < count; k++)
            if (is_proposed(&options[k])) print_fish_option(command->name, &options[k]);
        printf("complete -c tessera -n '__tessera_is %s' -l help -d help\n", command->name);
        printf("complete -c tessera -n '__tessera_is %s' -l help-all -d 'help with rare options'\n", command->name);
    }
    fputs("complete -c tessera -n __tessera_needs_command -f -a help -d 'the options of a command'\n"
          "complete -c tessera -n __tessera_needs_command -f -a help-all -d 'the same with rare ones'\n"
          "complete -c tessera -n __tessera_needs_command -f -a version -d 'the version'\n"
          "complete -c tessera -n '__tessera_is help; or __tessera_is help-all' -f -a '",
          stdout);
    put_command_names();
    fputs("'\n", stdout);
}

static int run_completion(const char *path, struct option_value *values) {
    const char *shell = values[COMPLETION_SHELL].text;
    tessera_error error = {0};
    if (shell == NULL) {
        error_set(&error, TESSERA_ERROR_ARGUMENT, "completion needs the name of a shell: %s",
                  completion_options[COMPLETION_SHELL].placeholder);
        return command_fail(&error, true);
    }
    if (strcmp(shell, "bash") == 0) print_bash();
    if (strcmp(shell, "zsh") == 0) print_zsh();
    if (strcmp(shell, "fish") == 0) print_fish();
    return EXIT_DONE;
}

const struct command completion_command = {
    .name = "completion",
    .usage = "completion bash|zsh|fish",
    .summary = "write a script with which a shell completes this command",
    .details = "`make install` installs the three scripts; elsewhere a shell reads one as in the examples.\n",
    .examples = "  . <(tessera completion bash)\n"
                "  tessera completion zsh > ~/.zfunc/_tessera\n"
                "  tessera completion fish > ~/.config/fish/completions/tessera.fish\n",
    .options = completion_options,
    .option_count = COMPLETION_OPTION_COUNT,
    .run = run_completion,
};
