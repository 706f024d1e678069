/* Fields of tables: separators, quotes, line ends. */
#include "base/csv.h"

#include <string.h>

#include "check.h"

/* Reads the whole text; fields joined by '|', records by '/'. */
static const char *read_all(const char *text, char *out) {
    char copy[256], *at = copy;
    strcpy(copy, text);
    *out = 0;
    while (*at != 0) {
        bool last = false;
        strcat(out, csv_field(&at, &last));
        strcat(out, last ? "/" : "|");
    }
    return out;
}

static void check_text(const char *text, const char *want) {
    char got[512];
    CHECK(strcmp(read_all(text, got), want) == 0, "%s: %s instead of %s", text, got, want);
}

int main(void) {
    check_text("", "");
    check_text("a,b\nc,d", "a|b/c|d/");
    check_text("a,b\r\nc,d\r\n", "a|b/c|d/");
    check_text(",\n,", "|/|");
    check_text("\"a, b\",\"c\nd\"\n", "a, b|c\nd/");
    check_text("\"say \"\"a\"\"\",x\n", "say \"a\"|x/");
    check_text("\"\"\"\",\"\"\n", "\"|/");
    check_text("\"a\"b,c\n", "ab|c/");
    check_text("\"open, c\n", "open, c\n/");
    return CHECK_REPORT();
}
