/* See quantity.h. Units are told apart from one table by their spelling, case apart but for B and b. */
#include "cli/quantity.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

struct unit {
    enum quantity_kind kind;
    const char *name;
    double factor;
};

static const struct unit units[] = {
    {QUANTITY_BANDWIDTH, "bit", 1.0 / 8},
    {QUANTITY_BANDWIDTH, "kbit", 1e3 / 8},
    {QUANTITY_BANDWIDTH, "mbit", 1e6 / 8},
    {QUANTITY_BANDWIDTH, "gbit", 1e9 / 8},
    {QUANTITY_BANDWIDTH, "tbit", 1e12 / 8},
    {QUANTITY_BANDWIDTH, "b/s", 1},
    {QUANTITY_BANDWIDTH, "kb/s", 1e3},
    {QUANTITY_BANDWIDTH, "mb/s", 1e6},
    {QUANTITY_BANDWIDTH, "gb/s", 1e9},
    {QUANTITY_BANDWIDTH, "tb/s", 1e12},
    {QUANTITY_BANDWIDTH, "kib/s", 1 << 10},
    {QUANTITY_BANDWIDTH, "mib/s", 1 << 20},
    {QUANTITY_BANDWIDTH, "gib/s", 1 << 30},
    {QUANTITY_SECONDS, "s", 1},
    {QUANTITY_SECONDS, "ms", 1e-3},
    {QUANTITY_SECONDS, "us", 1e-6},
    {QUANTITY_SECONDS, "µs", 1e-6}, /* U+00B5 */
    {QUANTITY_SECONDS, "μs", 1e-6}, /* U+03BC */
    {QUANTITY_SECONDS, "ns", 1e-9},
    {QUANTITY_BYTES, "b", 1},
    {QUANTITY_BYTES, "kb", 1e3},
    {QUANTITY_BYTES, "mb", 1e6},
    {QUANTITY_BYTES, "gb", 1e9},
    {QUANTITY_BYTES, "tb", 1e12},
    {QUANTITY_BYTES, "k", 1 << 10},
    {QUANTITY_BYTES, "m", 1 << 20},
    {QUANTITY_BYTES, "g", 1 << 30},
    {QUANTITY_BYTES, "t", 1099511627776.0},
    {QUANTITY_BYTES, "kib", 1 << 10},
    {QUANTITY_BYTES, "mib", 1 << 20},
    {QUANTITY_BYTES, "gib", 1 << 30},
    {QUANTITY_BYTES, "tib", 1099511627776.0},
    {QUANTITY_OPERATIONS, "", 1},
    {QUANTITY_OPERATIONS, "k", 1e3},
    {QUANTITY_OPERATIONS, "m", 1e6},
    {QUANTITY_OPERATIONS, "g", 1e9},
    {QUANTITY_OPERATIONS, "t", 1e12},
    {QUANTITY_OPERATIONS, "p", 1e15},
};

#define MOST_BYTES 1152921504606846976.0 /* 2^60, which 64 bits can hold */

static const char *const examples[] = {"1Gbit, 100Mbit/s or 10GB/s", "1ms, 20us or 0.5s", "16GiB or 8GB", "200G or 1.5T"};

/* "Gb/s" and "Gbps" are bits, by their small b behind a capital; "gb/s" may be either. */
static bool is_bits(const char *text) {
    const char *b = strchr(text, 'b');
    if (b == NULL || (strcmp(b, "b/s") != 0 && strcmp(b, "bps") != 0)) return false;
    return b == text || isupper((unsigned char)b[-1]) || b[-1] == 'k' || b[1] == 'p';
}

/* The unit in small letters, without blanks before it; of bits as "gbit". */
static bool read_unit(const char *text, enum quantity_kind kind, char *out, size_t capacity) {
    size_t n = 0;
    while (*text == ' ') text++;
    bool rate = kind == QUANTITY_BANDWIDTH, bits = rate && is_bits(text);
    if (rate && !bits && strstr(text, "b/s") != NULL) return false;
    for (; *text != 0 && n + 1 < capacity; text++) out[n++] = (char)tolower((unsigned char)*text);
    out[n] = 0;
    if (*text != 0 || (bits && n + 1 > capacity)) return false;
    if (bits && n >= 3) memcpy(out + n - 3, "bit", 4);
    if (n > 5 && strcmp(out + n - 5, "bit/s") == 0) out[n - 2] = 0;
    return true;
}

tessera_status quantity_read(const char *name, const char *text, enum quantity_kind kind, double *out, tessera_error *error) {
    char *end = NULL, unit[16];
    double number = strtod(text, &end);
    bool good = end != text && isfinite(number) && strpbrk(text, "xX") == NULL && (kind == QUANTITY_SECONDS ? number >= 0 : number > 0);
    good = good && read_unit(end, kind, unit, sizeof unit);
    for (size_t i = 0; good && i < sizeof units / sizeof *units; i++) {
        if (units[i].kind != kind || strcmp(units[i].name, unit) != 0) continue;
        *out = number * units[i].factor;
        if (kind != QUANTITY_BYTES || (*out >= 1 && *out <= MOST_BYTES)) return TESSERA_OK;
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--%s \"%.40s\": must be from 1 byte to 1048576 TiB", name, text);
    }
    return error_set(error, TESSERA_ERROR_ARGUMENT, "--%s \"%.40s\": must be a number with a unit, such as %s", name, text, examples[kind]);
}

tessera_status quantity_read_pair(const char *name, const char *text, int *first, int *second, tessera_error *error) {
    char *end = NULL, *end_2 = NULL;
    long a = strtol(text, &end, 10), b = 0;
    bool good = end != text && (*end == 'x' || *end == 'X') && isdigit((unsigned char)end[1]);
    if (good) b = strtol(end + 1, &end_2, 10);
    if (!good || *end_2 != 0 || a < 1 || b < 1 || a > 65536 || b > 65536)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--%s \"%.40s\": must be HOSTSxRANKS, such as 2x8", name, text);
    *first = (int)a, *second = (int)b;
    return TESSERA_OK;
}

bool quantity_read_size(const char *text, int *width, int *height) {
    char between[3] = "", rest;
    if (!isdigit((unsigned char)*text) || sscanf(text, "%d%2[xX*\xC3\x97]%d%c", width, between, height, &rest) != 3) return false;
    bool good = strcmp(between, "x") == 0 || strcmp(between, "X") == 0 || strcmp(between, "*") == 0 || strcmp(between, "\xC3\x97") == 0;
    return good && *width > 0 && *height > 0;
}

const char *quantity_bytes_text(double bytes, bool decimal, char *out, size_t capacity) {
    static const char *const names[2][5] = {{"B", "KiB", "MiB", "GiB", "TiB"}, {"B", "kB", "MB", "GB", "TB"}};
    double step = decimal ? 1000.0 : 1024.0;
    int i = 0;
    for (; i < 4 && bytes >= step; i++) bytes /= step;
    snprintf(out, capacity, i == 0 || bytes >= 99.95 ? "%.0f %s" : "%.1f %s", bytes, names[decimal][i]);
    return out;
}
