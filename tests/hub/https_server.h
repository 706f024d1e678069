/* A hub for one test: HTTPS on two addresses of this machine, with faults to order.
 *
 * It plays the endpoint at https://localhost:PORT and, as another host, the storage at
 * https://127.0.0.1:PORT that large files are redirected to. Its certificate is made anew at each
 * start. One thread serves one connection after the other and closes each after its answer. */
#ifndef TESSERA_TESTS_HTTPS_SERVER_H
#define TESSERA_TESTS_HTTPS_SERVER_H

#include <stdbool.h>
#include <stddef.h>

#define SERVER_COMMIT "0123456789abcdef0123456789abcdef01234567"

/* A file that the server has. `large` ones are LFS: named by SHA-256 and redirected; others by
 * git's SHA-1. */
struct server_file {
    const char *path;
    const char *data;
    size_t length;
    bool large;
};

/* What to do wrong; all false: nothing. Set it only while no request is on its way. */
struct server_faults {
    int refuse;             /* answer every request with this status; 0: none */
    const char *error_code; /* X-Error-Code of that answer */
    int cut_count;          /* close this many answers of large files in their middle */
    int stall_count;        /* stop in the middle of so many answers of large files until the client leaves */
    bool corrupt;           /* change one byte of large files */
    bool ignore_range;      /* answer 200 with everything */
    bool wrong_range;       /* answer 206 with other bytes */
    bool longer;            /* send more bytes than the file has */
    bool huge;              /* the list of files gives large files four petabytes */
    bool unsafe_path;       /* the list of files has "../escape" */
    bool no_etag;           /* HEAD says nothing that names the file */
    bool weird_etag;        /* HEAD says "../../x" */
    bool other_commit;      /* HEAD says that the file is of another commit */
    bool not_json;          /* the list of files is a login page */
};

/* What the server saw since the last server_reset. */
struct server_seen {
    int requests, storage_requests, ranges, if_ranges;
    int tokens;        /* requests to the endpoint with the right token */
    int tokens_leaked; /* requests to the storage with any */
};

struct server;

/* `files` [count] must outlive the server. NULL on failure (said on stderr). `certificate` is where
 * the certificate is written. */
struct server *server_start(const struct server_file *files, int count, const char *certificate);
void server_stop(struct server *server);
const char *server_endpoint(const struct server *server); /* https://localhost:PORT */
void server_reset(struct server *server, const struct server_faults *faults);
struct server_seen server_seen(struct server *server);
/* The checksum that names a file; `out` has 65 bytes. */
void server_digest(const struct server_file *file, char *out);

#endif
