/* Output names and the check before the work; see output.h. */
#include "cli/output.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>
#include "base/error.h"
#include "base/file.h"

#define SLUG_BYTES 48

/* "A lion, on blue" -> "a-lion-on-blue". Bytes above 127 (UTF-8) are kept, whole characters only. */
static void make_slug(const char *prompt, char slug[SLUG_BYTES + 1]) {
    size_t n = 0;
    for (const unsigned char *c = (const unsigned char *)prompt; *c != 0 && n < SLUG_BYTES; c++) {
        if (isalnum(*c) || *c >= 0x80)
            slug[n++] = (char)(*c < 0x80 ? tolower(*c) : *c);
        else if (n > 0 && slug[n - 1] != '-')
            slug[n++] = '-';
    }
    if (n == SLUG_BYTES) {
        size_t start = n; /* of the last character: drop it if it may have been cut */
        while (start > 0 && ((unsigned char)slug[start - 1] & 0xC0) == 0x80) start--;
        if (start > 0 && (unsigned char)slug[start - 1] >= 0xC0) n = start - 1;
    }
    while (n > 0 && slug[n - 1] == '-') n--;
    slug[n] = 0;
    if (n == 0) strcpy(slug, "picture");
}

static const char *extension_of(const char *path) {
    const char *base = strrchr(path, '/') != NULL ? strrchr(path, '/') + 1 : path;
    const char *dot = strrchr(base, '.');
    return dot != NULL && dot != base ? dot : base + strlen(base);
}

bool output_is_stream(const char *output) {
    return output != NULL && strcmp(output, "-") == 0;
}

char *output_copy_name(const char *path, int copy, tessera_error *error) {
    char *name = NULL;
    const char *extension = extension_of(path);
    int n = copy == 0 ? asprintf(&name, "%s", path) : asprintf(&name, "%.*s-%d%s", (int)(extension - path), path, copy, extension);
    if (n >= 0) return name;
    error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a file name");
    return NULL;
}

tessera_status output_free_copy(const char *path, int *copy, tessera_error *error) {
    struct stat facts;
    for (*copy = 0;; ++*copy) {
        char *name = output_copy_name(path, *copy, error);
        if (name == NULL) return error->status;
        bool taken = lstat(name, &facts) == 0 && (S_ISREG(facts.st_mode) || *copy > 0);
        free(name);
        if (!taken) return TESSERA_OK;
    }
}

/* Under mpirun standard output may be a terminal of the launcher's own, which must not turn the
 * picture's '\n' into "\r\n". */
static tessera_status check_stream(tessera_error *error) {
    struct termios terminal;
    if (isatty(STDOUT_FILENO) != 1) return TESSERA_OK;
    if (!tessera_world_is_launched())
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--output -: standard output is a terminal: send it to a file or another program");
    if (tcgetattr(STDOUT_FILENO, &terminal) != 0) return error_set_errno(error, "--output -: standard output");
    terminal.c_oflag &= ~(tcflag_t)OPOST;
    if (tcsetattr(STDOUT_FILENO, TCSANOW, &terminal) != 0) return error_set_errno(error, "--output -: standard output");
    return TESSERA_OK;
}

bool output_is_folder(const char *output) {
    size_t n = strlen(output);
    return n > 0 && (output[n - 1] == '/' || file_is_folder(output));
}

char *output_name(const char *output, const char *prompt, uint64_t seed, int number, int total, tessera_error *error) {
    char slug[SLUG_BYTES + 1], *name = NULL;
    int n;
    make_slug(prompt, slug);
    if (output == NULL) {
        n = total > 1 ? asprintf(&name, "tessera-%s-%" PRIu64 "-%d.png", slug, seed, number)
                      : asprintf(&name, "tessera-%s-%" PRIu64 ".png", slug, seed);
    } else if (output_is_folder(output)) {
        n = asprintf(&name, "%s%s%s_%" PRIu64 "_%d.png", output, output[strlen(output) - 1] == '/' ? "" : "/", slug, seed, number);
    } else if (total == 1) {
        n = asprintf(&name, "%s", output);
    } else {
        const char *extension = extension_of(output);
        n = asprintf(&name, "%.*s-%d%s", (int)(extension - output), output, number, *extension != 0 ? extension : ".png");
    }
    if (n >= 0) return name;
    error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a file name");
    return NULL;
}

/* Makes `folder`, which ends in '/', and those above it, as far as they are missing. */
static tessera_status make_folders(const char *folder, tessera_error *error) {
    char *path = strdup(folder);
    if (path == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a file name");
    tessera_status status = TESSERA_OK;
    for (char *c = path + 1; status == TESSERA_OK && *c != 0; c++) {
        if (*c != '/') continue;
        *c = 0;
        if (!file_is_folder(path) && mkdir(path, 0777) != 0 && errno != EEXIST) /* another rank may have been first */
            status = error_set_errno(error, "--output %s: the folder %s cannot be made", folder, path);
        *c = '/';
    }
    free(path);
    return status;
}

static tessera_status check_format(const char *output, tessera_error *error) {
    const char *others[] = {".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif", NULL};
    for (int i = 0; others[i] != NULL; i++)
        if (strcasecmp(extension_of(output), others[i]) == 0)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "--output %s: pictures are written as PNG only; name it .png", output);
    return TESSERA_OK;
}

enum { NAME_BYTES = 255, LONGER_BYTES = 32 }; /* of a file's name on common file systems; what a temporary file's has more */

static tessera_status check_length(const char *output, tessera_error *error) {
    const char *slash = strrchr(output, '/'), *name = slash != NULL ? slash + 1 : output;
    if (strlen(name) + LONGER_BYTES <= NAME_BYTES) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT, "--output %.40s...: the file's name has %zu bytes; at most %d are possible", output, strlen(name),
                     NAME_BYTES - LONGER_BYTES);
}

static tessera_status check_folder(const char *folder, const char *output, tessera_error *error) {
    if (!file_is_folder(folder))
        return error_set(error, TESSERA_ERROR_IO, "--output %s: there is no folder %s; create it first", output, folder);
    if (access(folder, W_OK | X_OK) != 0) return error_set_errno(error, "--output %s: the folder %s cannot be written", output, folder);
    return TESSERA_OK;
}

tessera_status output_check(const char *output, tessera_error *error) {
    if (output == NULL) return check_folder(".", "(none given)", error);
    if (output_is_stream(output)) return check_stream(error);
    if (*output == 0) return error_set(error, TESSERA_ERROR_ARGUMENT, "--output is empty: give a file or a folder");
    if (output_is_folder(output)) {
        if (!file_is_folder(output)) TRY(make_folders(output, error));
        return check_folder(output, output, error);
    }
    TRY(check_format(output, error));
    TRY(check_length(output, error));
    struct stat facts;
    bool there = stat(output, &facts) == 0;
    if (there && access(output, W_OK) != 0) return error_set_errno(error, "--output %s: the file there cannot be written", output);
    if (there && !S_ISREG(facts.st_mode)) return TESSERA_OK; /* a device or pipe */
    char *folder = strdup(output);
    if (folder == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a file name");
    char *slash = strrchr(folder, '/');
    if (slash != NULL) slash[slash == folder ? 1 : 0] = 0;
    tessera_status status = check_folder(slash != NULL ? folder : ".", output, error);
    free(folder);
    return status;
}
