/* See csv.h. */
#include "base/csv.h"

char *csv_field(char **at, bool *last) {
    char *c = *at, *field = c, *end = c;
    if (*c == '"') {
        for (c++; *c != 0 && (*c != '"' || c[1] == '"'); c++) {
            if (*c == '"') c++;
            *end++ = *c;
        }
        if (*c == '"') c++;
    }
    for (; *c != 0 && *c != ',' && *c != '\n'; c++) *end++ = *c;
    *last = *c != ',';
    *at = *c != 0 ? c + 1 : c;
    if (*last && end > field && end[-1] == '\r') end--;
    *end = 0;
    return field;
}
