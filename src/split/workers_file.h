/* Which workers a client may use: a JSON file, and words of the command line.
 *
 *     {"manifest": "sd3.manifest.json", "manifest_pin": "sha256//...",
 *      "parts": [{"replicas": [{"url": "https://a.example:8443", "pin": "sha256//...", "operator": "alice", "token_file": "alice.token"}, ...]}, ...]}
 *
 *     PART=URL#PIN,URL#PIN       replicas of part 1, 2, ...
 *
 * "manifest" is a file's name or the manifest itself; without one, and without "operator" and
 * "token_file", the file is whole, too. Names of files are relative to the folder of the JSON file.
 * A replica without an operator is its own. */
#ifndef TESSERA_SPLIT_WORKERS_FILE_H
#define TESSERA_SPLIT_WORKERS_FILE_H

#include "split/manifest.h"

enum { WORKERS_MOST_PARTS = 64, WORKERS_MOST_REPLICAS = 64, WORKERS_FILE_MOST_BYTES = MANIFEST_MOST_BYTES + (1 << 20) };

struct workers_replica {
    char *url, *pin, *operator_name; /* owned */
    char *token_file;                /* owned; NULL: no token */
};
struct workers_part {
    struct workers_replica *replicas; /* [count], owned */
    int count;
};
struct workers_file {
    struct workers_part parts[WORKERS_MOST_PARTS]; /* [count], in the order in which a state goes through them */
    int count;
    char *manifest_file, *manifest_pin; /* owned; or NULL */
    char *manifest_text;                /* owned: of a manifest that is in the file itself; or NULL */
};

/* Adds what the file says to `out` (zeros at first). FORMAT naming file and field;
 * workers_file_free either way. */
tessera_status workers_file_read(const char *path, struct workers_file *out, tessera_error *error);
/* The same of bytes; `name` stands for the file in messages and its folder. No other file is opened. */
tessera_status workers_file_parse(const char *name, const char *text, size_t length, struct workers_file *out, tessera_error *error);
/* Adds replicas as they are written on the command line. ARGUMENT saying what is wrong with the
 * words. */
tessera_status workers_file_add(struct workers_file *out, const char *words, const char *token_file, tessera_error *error);
/* ARGUMENT where there is no part, or one without replicas. */
tessera_status workers_file_check(const struct workers_file *file, tessera_error *error);
/* Opens the manifest and checks that it has as many parts. *has: false where there is none.
 * manifest_free ends it either way. */
tessera_status workers_file_manifest(const struct workers_file *file, struct manifest *out, bool *has, tessera_error *error);
void workers_file_free(struct workers_file *file); /* zeros are fine */

#endif
