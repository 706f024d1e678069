/* See bus_error.h. A signal handler may do little: it finds the file in /proc/self/maps with open,
 * read and write alone. */
#include "cli/bus_error.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"

enum { LINE_BYTES = 4608 }; /* a path's most, and what stands before it */

static void say(const char *text, size_t length) {
    while (length > 0) {
        ssize_t n = write(STDERR_FILENO, text, length);
        if (n <= 0) return;
        text += n;
        length -= (size_t)n;
    }
}

static uintptr_t read_hexadecimal(const char **at) {
    uintptr_t value = 0;
    for (;; ++*at) {
        char c = **at;
        if (c >= '0' && c <= '9')
            value = value * 16 + (uintptr_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value * 16 + (uintptr_t)(c - 'a' + 10);
        else
            return value;
    }
}

/* "7f00-7f10 r--p 00000000 08:01 123    /a/path": the path, if the line is of the mapping that holds
 * `address`. */
static const char *path_of(const char *line, uintptr_t address) {
    uintptr_t begin = read_hexadecimal(&line);
    if (*line++ != '-') return NULL;
    uintptr_t end = read_hexadecimal(&line);
    return address >= begin && address < end ? strchr(line, '/') : NULL;
}

/* Goes through the lines of /proc/self/maps; false: no file is mapped there. */
static bool find_path(uintptr_t address, char out[LINE_BYTES]) {
    int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    size_t length = 0;
    char c;
    if (maps < 0) return false;
    while (read(maps, &c, 1) == 1) {
        if (c != '\n') {
            if (length + 1 < LINE_BYTES) out[length++] = c;
            continue;
        }
        out[length] = 0;
        length = 0;
        const char *path = path_of(out, address);
        if (path == NULL) continue;
        memmove(out, path, strlen(path) + 1);
        close(maps);
        return true;
    }
    close(maps);
    return false;
}

static void end(int signal, siginfo_t *about, void *context) {
    static char path[LINE_BYTES];
    static const char begin[] = "tessera: error: ", rest[] = ": was cut or cannot be read while it was in use: restore it and start again\n";
    static const char unknown[] = "a mapped file";
    (void)signal, (void)context;
    bool found = find_path((uintptr_t)about->si_addr, path);
    say(begin, sizeof begin - 1);
    say(found ? path : unknown, found ? strlen(path) : sizeof unknown - 1);
    say(rest, sizeof rest - 1);
    _exit(EXIT_FAILED);
}

void bus_error_catch(void) {
    struct sigaction action = {.sa_sigaction = end, .sa_flags = SA_SIGINFO | SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}
