/* Cleaning text of what terminals obey; see text.h. */
#include "base/text.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The length of the UTF-8 character at `text`, and its number; 1 and 0 for a byte that begins none. */
static size_t decode(const unsigned char *text, uint32_t *code) {
    static const struct {
        unsigned char mask, lead;
        uint32_t least;
    } forms[] = {{0x80, 0x00, 0}, {0xE0, 0xC0, 0x80}, {0xF0, 0xE0, 0x800}, {0xF8, 0xF0, 0x10000}};
    for (size_t n = 0; n < sizeof forms / sizeof *forms; n++) {
        if ((text[0] & forms[n].mask) != forms[n].lead) continue;
        *code = text[0] & (unsigned char)~forms[n].mask;
        for (size_t i = 1; i <= n; i++) {
            if ((text[i] & 0xC0) != 0x80) goto bad; /* the 0 at the end is none either */
            *code = *code << 6 | (text[i] & 0x3F);
        }
        if (*code >= forms[n].least && *code <= 0x10FFFF && (*code < 0xD800 || *code > 0xDFFF)) return n + 1;
    }
bad:
    *code = 0;
    return 1;
}

/* Controls, and what turns the direction of writing (Unicode's Bidi_Control but for the two
 * harmless marks), or ends a line. */
static bool is_obeyed(uint32_t code) {
    return code < 0x20 || (code >= 0x7F && code < 0xA0) || (code >= 0x202A && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069) ||
           code == 0x2028 || code == 0x2029;
}

void text_clean(char *text) {
    char *to = text;
    while (*text != 0) {
        uint32_t code;
        size_t length = decode((const unsigned char *)text, &code);
        if (is_obeyed(code))
            *to++ = '?';
        else
            to = (char *)memmove(to, text, length) + length;
        text += length;
    }
    *to = 0;
}

void text_print(FILE *stream, const char *text) {
    while (text != NULL && *text != 0) {
        uint32_t code;
        size_t length = decode((const unsigned char *)text, &code);
        if (is_obeyed(code))
            fputc('?', stream);
        else
            fwrite(text, 1, length, stream);
        text += length;
    }
}

bool text_is_choice(const char *choices, const char *text) {
    size_t n = strlen(text);
    for (const char *c = choices; n > 0 && c != NULL; c = strchr(c, '|') != NULL ? strchr(c, '|') + 1 : NULL)
        if (strncmp(c, text, n) == 0 && (c[n] == '|' || c[n] == 0)) return true;
    return false;
}
