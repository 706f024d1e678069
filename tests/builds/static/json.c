/* The functions of cJSON that reading a model needs, for static programs of processors for which
 * the machine has no cJSON. Texts are the project's own files: what is no JSON may be read as
 * something else, but never beyond its end. */
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    const char *at; /* ends in a 0 byte */
};

static cJSON *read_value(struct reader *r);

static void skip_space(struct reader *r) {
    r->at += strspn(r->at, " \t\r\n");
}

/* ---- texts ---- */

static unsigned read_unit(struct reader *r) {
    char digits[5] = {0};
    strncpy(digits, r->at, 4);
    r->at += strlen(digits);
    return (unsigned)strtoul(digits, NULL, 16);
}

/* What follows \u, and the second half of a pair of surrogates, as UTF-8. */
static char *read_codepoint(struct reader *r, char *to) {
    static const unsigned char marks[] = {0, 0xc0, 0xe0, 0xf0};
    unsigned c = read_unit(r);
    if (c >= 0xd800 && c < 0xdc00 && r->at[0] == '\\' && r->at[1] == 'u') {
        r->at += 2;
        c = 0x10000 + ((c - 0xd800) << 10) + (read_unit(r) - 0xdc00);
    }
    int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    *to++ = (char)(marks[more] | c >> 6 * more);
    while (more-- > 0) *to++ = (char)(0x80 | (c >> 6 * more & 0x3f));
    return to;
}

/* What follows a backslash. */
static char *read_escape(struct reader *r, char *to) {
    static const char names[] = "bfnrt", values[] = "\b\f\n\r\t";
    char c = *r->at++;
    if (c == 'u') return read_codepoint(r, to);
    const char *name = strchr(names, c);
    *to++ = name != NULL ? values[name - names] : c;
    return to;
}

/* NULL where no text begins or it has no end. */
static char *read_text(struct reader *r) {
    const char *end = r->at + 1;
    if (*r->at != '"') return NULL;
    while (*end != 0 && *end != '"') end += end[0] == '\\' && end[1] != 0 ? 2 : 1;
    char *text = *end == '"' ? malloc((size_t)(end - r->at)) : NULL, *to = text;
    if (text == NULL) return NULL;
    r->at++;
    while (r->at < end) {
        if (*r->at == '\\') {
            r->at++;
            to = read_escape(r, to);
        } else {
            *to++ = *r->at++;
        }
    }
    *to = 0;
    r->at++;
    return text;
}

/* ---- values ---- */

static bool takes(struct reader *r, const char *word) {
    size_t length = strlen(word);
    if (strncmp(r->at, word, length) != 0) return false;
    r->at += length;
    return true;
}

/* The members of an object or list from behind its first bracket on; false where the text is no JSON. */
static bool read_members(struct reader *r, cJSON *parent, bool named, char close) {
    skip_space(r);
    for (cJSON *last = NULL; *r->at != close;) {
        char *name = named ? read_text(r) : NULL;
        skip_space(r);
        cJSON *item = named && (name == NULL || *r->at++ != ':') ? NULL : read_value(r);
        if (item == NULL) {
            free(name);
            return false;
        }
        item->string = name;
        item->prev = last;
        *(last == NULL ? &parent->child : &last->next) = item;
        last = item;
        skip_space(r);
        if (*r->at == ',') {
            r->at++;
            skip_space(r);
        } else if (*r->at != close) {
            return false;
        }
    }
    r->at++;
    return true;
}

static bool read_into(struct reader *r, cJSON *value) {
    if (takes(r, "{")) return value->type = cJSON_Object, read_members(r, value, true, '}');
    if (takes(r, "[")) return value->type = cJSON_Array, read_members(r, value, false, ']');
    if (*r->at == '"') return value->type = cJSON_String, (value->valuestring = read_text(r)) != NULL;
    if (takes(r, "null")) return value->type = cJSON_NULL, true;
    if (takes(r, "true")) return value->type = cJSON_True, true;
    if (takes(r, "false")) return value->type = cJSON_False, true;
    char *end;
    value->type = cJSON_Number;
    value->valuedouble = strtod(r->at, &end);
    value->valueint = (int)value->valuedouble;
    bool good = end != r->at;
    r->at = end;
    return good;
}

static cJSON *read_value(struct reader *r) {
    skip_space(r);
    cJSON *value = calloc(1, sizeof *value);
    if (value == NULL || read_into(r, value)) return value;
    cJSON_Delete(value);
    return NULL;
}

cJSON *cJSON_ParseWithLengthOpts(const char *text, size_t length, const char **end, cJSON_bool whole) {
    struct reader r = {text};
    cJSON *value = read_value(&r);
    skip_space(&r);
    *end = r.at;
    return value;
}

void cJSON_Delete(cJSON *item) {
    while (item != NULL) {
        cJSON *next = item->next;
        cJSON_Delete(item->child);
        free(item->valuestring);
        free(item->string);
        free(item);
        item = next;
    }
}

/* ---- questions ---- */

int cJSON_GetArraySize(const cJSON *list) {
    int count = 0;
    for (const cJSON *item = list != NULL ? list->child : NULL; item != NULL; item = item->next) count++;
    return count;
}

cJSON *cJSON_GetArrayItem(const cJSON *list, int index) {
    cJSON *item = list != NULL ? list->child : NULL;
    while (item != NULL && index-- > 0) item = item->next;
    return item;
}

cJSON *cJSON_GetObjectItemCaseSensitive(const cJSON *object, const char *name) {
    cJSON *item = object != NULL ? object->child : NULL;
    while (item != NULL && (item->string == NULL || strcmp(item->string, name) != 0)) item = item->next;
    return item;
}

static bool is(const cJSON *item, int type) {
    return item != NULL && item->type == type;
}

cJSON_bool cJSON_IsArray(const cJSON *item) {
    return is(item, cJSON_Array);
}
cJSON_bool cJSON_IsObject(const cJSON *item) {
    return is(item, cJSON_Object);
}
cJSON_bool cJSON_IsString(const cJSON *item) {
    return is(item, cJSON_String);
}
cJSON_bool cJSON_IsNumber(const cJSON *item) {
    return is(item, cJSON_Number);
}
cJSON_bool cJSON_IsNull(const cJSON *item) {
    return is(item, cJSON_NULL);
}
cJSON_bool cJSON_IsTrue(const cJSON *item) {
    return is(item, cJSON_True);
}
cJSON_bool cJSON_IsFalse(const cJSON *item) {
    return is(item, cJSON_False);
}
cJSON_bool cJSON_IsBool(const cJSON *item) {
    return cJSON_IsTrue(item) || cJSON_IsFalse(item);
}

char *cJSON_GetStringValue(const cJSON *item) {
    return cJSON_IsString(item) ? item->valuestring : NULL;
}

/* ---- texts of values ---- */

static void print(FILE *file, const cJSON *item) {
    bool named = cJSON_IsObject(item);
    if (cJSON_IsNumber(item)) {
        fprintf(file, "%.17g", item->valuedouble);
    } else if (cJSON_IsString(item)) {
        fprintf(file, "\"%s\"", item->valuestring);
    } else if (!named && !cJSON_IsArray(item)) {
        fputs(cJSON_IsNull(item) ? "null" : cJSON_IsTrue(item) ? "true" : "false", file);
    } else {
        fputc(named ? '{' : '[', file);
        for (const cJSON *member = item->child; member != NULL; member = member->next) {
            if (named) fprintf(file, "\"%s\":", member->string);
            print(file, member);
            if (member->next != NULL) fputc(',', file);
        }
        fputc(named ? '}' : ']', file);
    }
}

char *cJSON_PrintUnformatted(const cJSON *item) {
    char *text = NULL;
    size_t size;
    FILE *file = open_memstream(&text, &size);
    if (file == NULL) return NULL;
    print(file, item);
    fclose(file);
    return text;
}

/* ---- changes ---- */

cJSON *cJSON_Parse(const char *text) {
    const char *end;
    return cJSON_ParseWithLengthOpts(text, strlen(text), &end, false);
}

cJSON *cJSON_Duplicate(const cJSON *item, cJSON_bool with_members) {
    (void)with_members;
    char *text = cJSON_PrintUnformatted(item);
    cJSON *copy = text != NULL ? cJSON_Parse(text) : NULL;
    free(text);
    return copy;
}

cJSON *cJSON_DetachItemViaPointer(cJSON *parent, cJSON *item) {
    *(item->prev == NULL ? &parent->child : &item->prev->next) = item->next;
    if (item->next != NULL) item->next->prev = item->prev;
    item->next = item->prev = NULL;
    return item;
}

cJSON_bool cJSON_AddItemToArray(cJSON *array, cJSON *item) {
    cJSON **end = &array->child, *last = NULL;
    for (; *end != NULL; end = &(*end)->next) last = *end;
    *end = item;
    item->prev = last;
    return true;
}

void cJSON_DeleteItemFromObjectCaseSensitive(cJSON *object, const char *name) {
    cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    if (item != NULL) cJSON_Delete(cJSON_DetachItemViaPointer(object, item));
}

void cJSON_free(void *memory) {
    free(memory);
}
