/* HTTP as the hub speaks it, over libcurl: one request with its redirects, and the headers that matter.
 *
 * The token goes to the endpoint's own scheme, host and port and nowhere else, however the request
 * got there. A redirect from https to http is refused. */
#ifndef TESSERA_HUB_HTTP_H
#define TESSERA_HUB_HTTP_H

#include "hub/hub_settings.h"

struct hub_http;

/* What the last answer said, and of the redirects before it the fields with "kept". -1: not said;
 * "": not said. */
struct hub_reply {
    long status;
    char etag[256];      /* as sent, with quotes */
    int64_t length;      /* Content-Length */
    int64_t range_first; /* Content-Range: bytes FIRST-LAST/TOTAL */
    int64_t range_total;
    char commit[256];      /* X-Repo-Commit, kept */
    char linked_etag[256]; /* X-Linked-Etag, kept */
    int64_t linked_size;   /* X-Linked-Size, kept */
    char error_code[64];   /* X-Error-Code, e.g. "GatedRepo" */
    bool same_origin;      /* the answer came from the endpoint itself */
    bool cut;              /* the connection failed where another try may help: not answered in full */
};

struct hub_request {
    const char *url;
    bool head;            /* HEAD; a redirect to another host is then the answer */
    uint64_t range_first; /* ask for the bytes from here on; 0: all */
    const char *if_range; /* with its quotes; NULL: none */
    /* Takes the body of an answer 200 or 206 piece by piece; false gives up. */
    bool (*sink)(void *user, const struct hub_reply *reply, const char *data, size_t length);
    bool (*wait)(void *user); /* called at least once a second; false cancels */
    void *user;
};

/* Both borrow `settings`. Free with hub_http_close. */
tessera_status hub_http_open(const struct hub_settings *settings, struct hub_http **out, tessera_error *error);
void hub_http_close(struct hub_http *http);

/* OK whenever the server answered in full, whatever its status was. IO: no answer, or cut
 * (reply->cut), or the sink gave up. CANCELLED: `wait` said so. */
tessera_status hub_http_send(struct hub_http *http, const struct hub_request *request, struct hub_reply *reply, tessera_error *error);

/* `text` with every byte that a URL cannot hold as %XX, and '/' too unless `slashes` lets it stand;
 * the caller frees. */
char *hub_http_escape(const char *text, bool slashes);

#endif
