/* `tessera worker` as a process of its own, for tests: started with what a person types, told to
 * stop by a signal. */
#ifndef TESSERA_TESTS_WORKER_PROCESS_H
#define TESSERA_TESTS_WORKER_PROCESS_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define WORKER_TOKEN "0123456789abcdef0123456789abcdef"

struct worker_process {
    pid_t pid;
    FILE *output;
    char pin[64], url[64];
};

/* The program beside the folder of the tests. */
static inline const char *worker_program(void) {
    static char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 16);
    path[n > 0 ? n : 0] = 0;
    for (int i = 0; i < 2; i++) *(strrchr(path, '/') != NULL ? strrchr(path, '/') : path) = 0;
    return strcat(path, "/tessera");
}

/* An identity and a token file in `folder`: worker.pem and tokens. */
static inline void worker_make_files(const char *folder) {
    char command[8192], path[256];
    snprintf(command, sizeof command, "%s worker --make-identity --identity %s/worker.pem >/dev/null", worker_program(), folder);
    CHECK(system(command) == 0, "%s", command);
    snprintf(path, sizeof path, "%s/tokens", folder);
    FILE *stream = fopen(path, "w");
    fprintf(stream, "# for tests\n%s\n", WORKER_TOKEN);
    fclose(stream);
    chmod(path, 0600);
}

static inline void worker_exec(const char *part, const char *folder, const char *const *more, int out) {
    char identity[256], tokens[256];
    const char *arguments[64] = {worker_program(),
                                 "worker",
                                 "--split_model_file_path",
                                 part,
                                 "--host",
                                 "127.0.0.1",
                                 "--port",
                                 "0",
                                 "--identity",
                                 identity,
                                 "--token-file",
                                 tokens,
                                 "-q"};
    int count = 13;
    snprintf(identity, sizeof identity, "%s/worker.pem", folder);
    snprintf(tokens, sizeof tokens, "%s/tokens", folder);
    while (more != NULL && *more != NULL && count < 62) arguments[count++] = *more++;
    dup2(out, 1);
    execv(arguments[0], (char *const *)(uintptr_t)arguments);
    _exit(127);
}

/* Reads what the worker prints until it serves. */
static inline bool worker_read_lines(struct worker_process *w) {
    char line[512];
    while (fgets(line, sizeof line, w->output) != NULL) {
        sscanf(line, "pin %63s", w->pin);
        if (sscanf(line, "serves %63s", w->url) == 1) return true;
    }
    return false;
}

/* Starts a worker of the part with the files of worker_make_files, and waits until it serves.
 * `more`: options, ended by NULL. */
static inline bool worker_process_start(const char *part, const char *folder, const char *const *more, struct worker_process *w) {
    int ends[2];
    *w = (struct worker_process){0};
    if (pipe(ends) != 0 || (w->pid = fork()) < 0) return false;
    if (w->pid == 0) {
        close(ends[0]);
        worker_exec(part, folder, more, ends[1]);
    }
    close(ends[1]);
    w->output = fdopen(ends[0], "r");
    bool serves = worker_read_lines(w);
    CHECK(serves, "the worker does not start");
    return serves;
}

/* Returns its exit status; 128 + the signal where one ended it. */
static inline int worker_process_stop(struct worker_process *w, int signal_number) {
    int status = 0;
    kill(w->pid, signal_number);
    waitpid(w->pid, &status, 0);
    if (w->output != NULL) fclose(w->output);
    w->output = NULL;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#endif
