/* A test's own folder, and names in it. */
#ifndef TESSERA_TESTS_IN_FOLDER_H
#define TESSERA_TESTS_IN_FOLDER_H

#include <stdio.h>
#include <stdlib.h>

#include "check.h"

static char folder[] = "/tmp/tessera-split-XXXXXX";

/* The path of a file in the folder, until the fourth call after it. */
static inline const char *in_folder(const char *name) {
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

#endif
