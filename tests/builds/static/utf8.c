/* The functions of utf8proc that tokenizers need, for static programs of processors for which the
 * machine has no utf8proc: UTF-8 of all codepoints, categories and cases of ASCII alone. Any other
 * letter's category ends the program. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static utf8proc_int32_t ascii(utf8proc_int32_t c) {
    if (c >= 0 && c < 128) return c;
    fprintf(stderr, "static/utf8.c: codepoint %d is not ASCII\n", (int)c);
    exit(1);
}

utf8proc_ssize_t utf8proc_iterate(const utf8proc_uint8_t *text, utf8proc_ssize_t length, utf8proc_int32_t *codepoint) {
    int more = text[0] < 0x80 ? 0 : text[0] < 0xe0 ? 1 : text[0] < 0xf0 ? 2 : 3;
    *codepoint = -1;
    if (length <= more) return UTF8PROC_ERROR_INVALIDUTF8;
    *codepoint = more == 0 ? text[0] : text[0] & (0x3f >> more);
    for (int i = 1; i <= more; i++) *codepoint = *codepoint << 6 | (text[i] & 0x3f);
    return more + 1;
}

utf8proc_ssize_t utf8proc_encode_char(utf8proc_int32_t c, utf8proc_uint8_t *to) {
    static const utf8proc_uint8_t marks[] = {0, 0xc0, 0xe0, 0xf0};
    int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    *to++ = (utf8proc_uint8_t)(marks[more] | c >> 6 * more);
    for (int i = more - 1; i >= 0; i--) *to++ = (utf8proc_uint8_t)(0x80 | (c >> 6 * i & 0x3f));
    return more + 1;
}

utf8proc_category_t utf8proc_category(utf8proc_int32_t codepoint) {
    char c = (char)ascii(codepoint);
    if (c < ' ' || c == 127) return UTF8PROC_CATEGORY_CC;
    if (c >= 'a' && c <= 'z') return UTF8PROC_CATEGORY_LL;
    if (c >= 'A' && c <= 'Z') return UTF8PROC_CATEGORY_LU;
    if (c >= '0' && c <= '9') return UTF8PROC_CATEGORY_ND;
    if (c == ' ') return UTF8PROC_CATEGORY_ZS;
    return strchr("$+<=>^`|~", c) != NULL ? UTF8PROC_CATEGORY_SM : UTF8PROC_CATEGORY_PO; /* tokenizers ask for letters, numbers and marks */
}

utf8proc_int32_t utf8proc_tolower(utf8proc_int32_t c) {
    return c >= 'A' && c <= 'Z' ? c + 32 : ascii(c);
}

/* ASCII is its own canonical form. */
utf8proc_ssize_t utf8proc_decompose_char(utf8proc_int32_t c, utf8proc_int32_t *to, utf8proc_ssize_t room, utf8proc_option_t options,
                                         int *boundclass) {
    *to = ascii(c);
    return 1;
}

utf8proc_ssize_t utf8proc_map(const utf8proc_uint8_t *text, utf8proc_ssize_t length, utf8proc_uint8_t **out, utf8proc_option_t options) {
    for (utf8proc_ssize_t i = 0; i < length; i++) ascii(text[i]);
    *out = (utf8proc_uint8_t *)strndup((const char *)text, (size_t)length);
    return *out != NULL ? length : UTF8PROC_ERROR_NOMEM;
}

/* Between two letters of ASCII but CR and LF. */
utf8proc_bool utf8proc_grapheme_break_stateful(utf8proc_int32_t a, utf8proc_int32_t b, utf8proc_int32_t *state) {
    return !(ascii(a) == '\r' && ascii(b) == '\n');
}
