/* One HTTP request over libcurl (https://curl.se/libcurl); see hub_http.h.
 *
 * Redirects are followed here and not by libcurl, so that every step decides for itself whether the
 * token goes along, and so that the headers of a step are not lost in the next. Left out: cookies,
 * compression (checksums are of the bytes as stored), .netrc. */
#include "hub/hub_http.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "base/clock.h"

#define MAX_REDIRECTS 10
#define CONNECT_SECONDS 15L

struct hub_http {
    CURL *curl;
    const struct hub_settings *settings;
    char curl_error[CURL_ERROR_SIZE];
};

/* One step of a request, as the callbacks see it. */
struct step {
    CURL *curl;
    const struct hub_request *request;
    struct hub_reply *reply;
    int timeout_seconds;
    curl_off_t received;
    double moved; /* when `received` last grew */
    bool refused, cancelled, stalled;
};

tessera_status hub_http_open(const struct hub_settings *settings, struct hub_http **out, tessera_error *error) {
    *out = NULL;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) return error_set(error, TESSERA_ERROR_MEMORY, "libcurl cannot start");
    struct hub_http *http = calloc(1, sizeof *http);
    if (http != NULL) http->curl = curl_easy_init();
    if (http == NULL || http->curl == NULL) {
        free(http);
        curl_global_cleanup();
        return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a connection");
    }
    http->settings = settings;
    *out = http;
    return TESSERA_OK;
}

void hub_http_close(struct hub_http *http) {
    if (http == NULL) return;
    curl_easy_cleanup(http->curl);
    free(http);
    curl_global_cleanup();
}

char *hub_http_escape(const char *text, bool slashes) {
    static const char plain[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._~";
    char *out = malloc(strlen(text) * 3 + 1), *end = out;
    if (out == NULL) return NULL;
    for (; *text != 0; text++) {
        if (strchr(plain, *text) != NULL || (*text == '/' && slashes))
            *end++ = *text;
        else
            end += sprintf(end, "%%%02X", (unsigned char)*text);
    }
    *end = 0;
    return out;
}

/* ---- where a URL leads ---- */

struct origin {
    char *scheme, *host, *port;
};

static bool origin_read(const char *url, struct origin *origin) {
    *origin = (struct origin){0};
    CURLU *address = curl_url();
    bool read = address != NULL && curl_url_set(address, CURLUPART_URL, url, 0) == CURLUE_OK &&
                curl_url_get(address, CURLUPART_SCHEME, &origin->scheme, 0) == CURLUE_OK &&
                curl_url_get(address, CURLUPART_HOST, &origin->host, 0) == CURLUE_OK &&
                curl_url_get(address, CURLUPART_PORT, &origin->port, CURLU_DEFAULT_PORT) == CURLUE_OK;
    curl_url_cleanup(address);
    return read;
}

static void origin_free(struct origin *origin) {
    curl_free(origin->scheme);
    curl_free(origin->host);
    curl_free(origin->port);
}

/* Whether two URLs have scheme, host and port in common. */
static bool same_origin(const char *a, const char *b) {
    struct origin x, y;
    bool both = origin_read(a, &x);
    both = origin_read(b, &y) && both;
    bool same = both && strcasecmp(x.scheme, y.scheme) == 0 && strcasecmp(x.host, y.host) == 0 && strcmp(x.port, y.port) == 0;
    origin_free(&x);
    origin_free(&y);
    return same;
}

/* ---- headers ---- */

/* If `line` is the header `name`, copies its value without white space at the ends. A value that
 * does not fit is left out. */
static bool header_is(const char *line, size_t length, const char *name, char *value, size_t capacity) {
    size_t n = strlen(name);
    if (length <= n || line[n] != ':' || strncasecmp(line, name, n) != 0) return false;
    const char *start = line + n + 1, *end = line + length;
    while (start < end && (*start == ' ' || *start == '\t')) start++;
    while (end > start && (unsigned char)end[-1] <= ' ') end--;
    if ((size_t)(end - start) >= capacity) return false;
    memcpy(value, start, (size_t)(end - start));
    value[end - start] = 0;
    return true;
}

/* A size from the server: digits only, -1 for anything else. */
static int64_t read_size(const char *text) {
    size_t digits = strspn(text, "0123456789");
    return digits > 0 && digits < 18 && text[digits] == 0 ? strtoll(text, NULL, 10) : -1;
}

static void read_content_range(const char *value, struct hub_reply *reply) {
    char first[32], last[32], total[32];
    if (sscanf(value, "bytes %31[0-9]-%31[0-9]/%31[0-9]", first, last, total) != 3) return;
    reply->range_first = read_size(first);
    reply->range_total = read_size(total);
}

static void forget_step(struct hub_reply *reply) {
    reply->status = 0;
    reply->etag[0] = reply->error_code[0] = 0;
    reply->length = reply->range_first = reply->range_total = -1;
}

static size_t on_header(char *line, size_t size, size_t count, void *user) {
    struct step *step = user;
    struct hub_reply *reply = step->reply;
    size_t length = size * count;
    char value[256];
    if (length >= 5 && strncmp(line, "HTTP/", 5) == 0) forget_step(reply); /* after "100 Continue" or a proxy's answer */
    if (header_is(line, length, "ETag", value, sizeof value)) strcpy(reply->etag, value);
    if (header_is(line, length, "Content-Length", value, sizeof value)) reply->length = read_size(value);
    if (header_is(line, length, "Content-Range", value, sizeof value)) read_content_range(value, reply);
    if (header_is(line, length, "X-Error-Code", value, sizeof reply->error_code)) strcpy(reply->error_code, value);
    if (reply->commit[0] == 0 && header_is(line, length, "X-Repo-Commit", value, sizeof value)) strcpy(reply->commit, value);
    if (reply->linked_etag[0] == 0 && header_is(line, length, "X-Linked-Etag", value, sizeof value)) strcpy(reply->linked_etag, value);
    if (reply->linked_size < 0 && header_is(line, length, "X-Linked-Size", value, sizeof value)) reply->linked_size = read_size(value);
    return length;
}

static size_t on_body(char *data, size_t size, size_t count, void *user) {
    struct step *step = user;
    size_t length = size * count;
    curl_easy_getinfo(step->curl, CURLINFO_RESPONSE_CODE, &step->reply->status);
    bool wanted = (step->reply->status == 200 || step->reply->status == 206) && step->request->sink != NULL;
    if (!wanted) return length; /* the words of an error or a redirect: headers said enough */
    step->refused = !step->request->sink(step->request->user, step->reply, data, length);
    return step->refused ? 0 : length;
}

static int on_progress(void *user, curl_off_t expected, curl_off_t received, curl_off_t to_send, curl_off_t sent) {
    struct step *step = user;
    double now = clock_seconds();
    if (received != step->received) step->moved = now;
    step->received = received;
    step->stalled = now - step->moved > step->timeout_seconds; /* libcurl's own limit averages over seconds and answers late */
    step->cancelled = step->cancelled || !step->request->wait(step->request->user);
    return step->cancelled || step->stalled ? 1 : 0;
}

/* ---- one step ---- */

/* A list of request headers, or NULL when memory is out. */
static struct curl_slist *request_headers(const struct hub_http *http, const struct hub_request *request, bool with_token,
                                          tessera_error *error) {
    char *token = NULL, *if_range = NULL;
    struct curl_slist *list = curl_slist_append(NULL, "Accept-Encoding: identity");
    if (list != NULL && with_token && http->settings->token != NULL) {
        if (asprintf(&token, "Authorization: Bearer %s", http->settings->token) < 0) token = NULL;
        struct curl_slist *longer = token != NULL ? curl_slist_append(list, token) : NULL;
        if (longer == NULL) goto fail;
        list = longer;
    }
    if (list != NULL && request->if_range != NULL && request->range_first > 0) {
        if (asprintf(&if_range, "If-Range: %s", request->if_range) < 0) if_range = NULL;
        struct curl_slist *longer = if_range != NULL ? curl_slist_append(list, if_range) : NULL;
        if (longer == NULL) goto fail;
        list = longer;
    }
    goto done;
fail:
    curl_slist_free_all(list);
    list = NULL;
done:
    if (list == NULL) error_set(error, TESSERA_ERROR_MEMORY, "no memory for a request");
    free(token);
    free(if_range);
    return list;
}

static void set_options(struct hub_http *http, const char *url, struct step *step, struct curl_slist *headers) {
    CURL *curl = http->curl;
    char range[32];
    curl_easy_reset(curl);
    http->curl_error[0] = 0;
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "tessera/" TESSERA_VERSION);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, http->curl_error);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, step);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, step);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, step);
    if (http->settings->ca_bundle != NULL) curl_easy_setopt(curl, CURLOPT_CAINFO, http->settings->ca_bundle);
    if (step->request->head) curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    if (step->request->range_first > 0) {
        snprintf(range, sizeof range, "%llu-", (unsigned long long)step->request->range_first);
        curl_easy_setopt(curl, CURLOPT_RANGE, range);
    }
}

/* Failures after which the same request may well succeed. */
static bool is_cut(CURLcode code) {
    return code == CURLE_PARTIAL_FILE || code == CURLE_OPERATION_TIMEDOUT || code == CURLE_GOT_NOTHING || code == CURLE_SEND_ERROR ||
           code == CURLE_RECV_ERROR || code == CURLE_HTTP2 || code == CURLE_HTTP2_STREAM;
}

/* The host of a URL in messages: a storage's URL itself may hold a signature and is long. */
static tessera_status transport_error(const struct hub_http *http, const char *url, CURLcode code, tessera_error *error) {
    struct origin origin;
    bool known = origin_read(url, &origin);
    const char *reason = http->curl_error[0] != 0 ? http->curl_error : curl_easy_strerror(code);
    const char *advice = "check the network connection, and the proxy if there is one";
    if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE)
        advice = "the server's certificate is not trusted; SSL_CERT_FILE may name a file with the right authority";
    if (code == CURLE_OPERATION_TIMEDOUT)
        advice = "the server is slow or the connection is; HF_HUB_DOWNLOAD_TIMEOUT sets the seconds to wait";
    error_set(error, TESSERA_ERROR_IO, "%s%s%s: %s: %s", known ? origin.host : "the hub", known ? ":" : "", known ? origin.port : "",
              reason, advice);
    origin_free(&origin);
    return TESSERA_ERROR_IO;
}

static tessera_status send_step(struct hub_http *http, const struct hub_request *request, const char *url, struct hub_reply *reply,
                                tessera_error *error) {
    struct step step = {.curl = http->curl,
                        .request = request,
                        .reply = reply,
                        .timeout_seconds = http->settings->timeout_seconds,
                        .moved = clock_seconds()};
    forget_step(reply);
    reply->same_origin = same_origin(url, http->settings->endpoint);
    struct curl_slist *headers = request_headers(http, request, reply->same_origin, error);
    if (headers == NULL) return TESSERA_ERROR_MEMORY;
    set_options(http, url, &step, headers);
    CURLcode code = curl_easy_perform(http->curl);
    curl_slist_free_all(headers);
    curl_easy_getinfo(http->curl, CURLINFO_RESPONSE_CODE, &reply->status);
    if (code == CURLE_OK) return TESSERA_OK;
    if (step.cancelled) return error_set(error, TESSERA_ERROR_CANCELLED, "stopped while waiting for the hub");
    if (step.refused) return TESSERA_ERROR_IO; /* the sink knows why */
    reply->cut = is_cut(code) || step.stalled;
    if (step.stalled) code = CURLE_OPERATION_TIMEDOUT;
    if (step.stalled) snprintf(http->curl_error, sizeof http->curl_error, "not a byte for %d seconds", step.timeout_seconds);
    return transport_error(http, url, code, error);
}

/* The URL that an answer sends us to, or NULL if this answer is the one to report; the caller frees. */
static tessera_status next_url(struct hub_http *http, const struct hub_request *request, const char *url, const struct hub_reply *reply,
                               char **next, tessera_error *error) {
    char *target = NULL;
    *next = NULL;
    bool redirect = reply->status == 301 || reply->status == 302 || reply->status == 303 || reply->status == 307 || reply->status == 308;
    if (!redirect) return TESSERA_OK;
    curl_easy_getinfo(http->curl, CURLINFO_REDIRECT_URL, &target);
    if (target == NULL) return error_set(error, TESSERA_ERROR_FORMAT, "%s: a redirect that leads nowhere", url);
    if (request->head && !same_origin(target, url)) return TESSERA_OK;
    if (strncasecmp(url, "https:", 6) == 0 && strncasecmp(target, "https:", 6) != 0)
        return error_set(error, TESSERA_ERROR_IO, "%s: a redirect away from https, which is not followed", url);
    *next = strdup(target);
    return *next != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "no memory for a redirect");
}

tessera_status hub_http_send(struct hub_http *http, const struct hub_request *request, struct hub_reply *reply, tessera_error *error) {
    *reply = (struct hub_reply){.linked_size = -1};
    char *url = strdup(request->url);
    tessera_status status = url != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "no memory for a URL");
    for (int hop = 0; status == TESSERA_OK; hop++) {
        char *next = NULL;
        status = send_step(http, request, url, reply, error);
        if (status == TESSERA_OK) status = next_url(http, request, url, reply, &next, error);
        if (next == NULL) break;
        free(url);
        url = next;
        if (hop == MAX_REDIRECTS) status = error_set(error, TESSERA_ERROR_IO, "%s: more than %d redirects", request->url, MAX_REDIRECTS);
    }
    free(url);
    return status;
}
