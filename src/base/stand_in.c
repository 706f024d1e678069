/* See stand_in.h. */
#include "base/stand_in.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

static const char pointer[] = "version https://git-lfs";

const char *stand_in_of(const void *data, size_t length) {
    const char *text = data;
    size_t start = 0;
    if (length >= strlen(pointer) && memcmp(text, pointer, strlen(pointer)) == 0)
        return "a Git LFS pointer, not the file itself: run 'git lfs pull' in its folder, or download the file again";
    while (start < length && start < 64 && isspace((unsigned char)text[start])) start++;
    if (length - start >= 5 && (strncasecmp(text + start, "<html", 5) == 0 || strncasecmp(text + start, "<!doc", 5) == 0))
        return "a web page (HTML), not the file itself: the download was answered with a page; download again, with a token if the model "
               "needs one";
    return NULL;
}
