/* Names from files on their way to a terminal. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/notices.h"
#include "base/text.h"
#include "check.h"

static void expect(const char *text, const char *cleaned) {
    char copy[64], *printed = NULL;
    size_t length;
    snprintf(copy, sizeof copy, "%s", text);
    text_clean(copy);
    CHECK(strcmp(copy, cleaned) == 0, "'%s'", copy);
    FILE *stream = open_memstream(&printed, &length);
    text_print(stream, text);
    fclose(stream);
    CHECK(strcmp(printed, cleaned) == 0, "'%s'", printed);
    free(printed);
}

int main(void) {
    expect("plain name", "plain name");
    expect("", "");
    expect("a\033]0;owned\007\033[31mb", "a?]0;owned??[31mb");
    expect("tab\tline\nreturn\rend\177", "tab?line?return?end?");
    expect("gr\xc3\xbc\xc3\x9f \xe7\x8b\xae\xe5\xad\x90 \xf0\x9f\xa6\x81", "gr\xc3\xbc\xc3\x9f \xe7\x8b\xae\xe5\xad\x90 \xf0\x9f\xa6\x81");
    expect("c1 \xc2\x9b"
           "31m",
           "c1 ?31m"); /* U+009B is an escape sequence's beginning in 8 bits */
    expect("turned \xe2\x80\xae"
           "txt",
           "turned ?txt");            /* U+202E */
    expect("line \xe2\x80\xa8"
           "and paragraph \xe2\x80\xa9"
           "ends",
           "line ?and paragraph ?ends"); /* U+2028, U+2029 */
    expect("\xff\xc3", "??");         /* no UTF-8 */
    expect("\xc0\x9b[31m", "??[31m"); /* ESC in two bytes, as it must not be written */
    expect("\xed\xa0\x80", "???");    /* half of a pair */
    tessera_error error = {0};
    error_set(&error, TESSERA_ERROR_FORMAT, "file: tensor \"%s\"", "a\033[2J");
    CHECK(strcmp(error.message, "file: tensor \"a?[2J\"") == 0, "%s", error.message);
    struct notices notices = {0};
    for (int i = 0; i < 2; i++) CHECK(notices_add(&notices, &error, "left out: %s", "x\007") == TESSERA_OK, "%s", error.message);
    CHECK(notices.count == 1 && strcmp(notices_at(&notices, 0), "left out: x?") == 0 && notices_at(&notices, 1) == NULL, "once, and clean");
    notices_free(&notices);
    return CHECK_REPORT();
}
