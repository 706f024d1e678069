/* HTTP of a client's calls over libcurl (https://curl.se/libcurl): see remote.h. Left out:
 * redirects, cookies, compression, HTTP/2. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "split/remote_parts.h"

enum { ALIGNMENT = 64, DESCRIPTION_MOST_BYTES = 1 << 16 };

/* ---- addresses ---- */

static bool is_loopback(const char *host) {
    struct in_addr address; /* a name may begin with "127.", too */
    if (inet_pton(AF_INET, host, &address) == 1) return ntohl(address.s_addr) >> 24 == 127;
    return strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0;
}

static tessera_status check_url(struct remote *remote, const struct remote_options *options, CURLU *parts, tessera_error *error) {
    char *scheme = NULL, *host = NULL, *port = NULL, *path = NULL;
    tessera_status status = TESSERA_OK;
    bool read = curl_url_set(parts, CURLUPART_URL, options->url, 0) == CURLUE_OK &&
                curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
                curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
                curl_url_get(parts, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
                curl_url_get(parts, CURLUPART_PATH, &path, 0) == CURLUE_OK && strcmp(path, "/") == 0;
    if (!read) {
        status = error_set(error, TESSERA_ERROR_ARGUMENT, "%s: a worker's address is https://HOST:PORT", options->url);
    } else {
        remote->plain = strcmp(scheme, "http") == 0;
        remote->loopback = is_loopback(host);
        if (strcmp(scheme, "https") != 0 && !(remote->plain && options->insecure && remote->loopback))
            status =
                error_set(error, TESSERA_ERROR_ARGUMENT,
                          "%s: workers are reached over https://; plain http:// is for this machine, and has to be allowed", options->url);
        else if (asprintf(&remote->url, "%s://%s:%s", scheme, host, port) < 0 || asprintf(&remote->name, "%s:%s", host, port) < 0)
            status = error_set(error, TESSERA_ERROR_MEMORY, "no memory for an address");
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_free(path);
    return status;
}

static tessera_status copy_pin(struct remote *remote, const struct remote_options *options, tessera_error *error) {
    static const char scheme[] = "sha256//";
    const char *pin = options->pin != NULL ? options->pin : "";
    uint8_t *bytes = NULL;
    size_t count = 0;
    if (strncmp(pin, scheme, sizeof scheme - 1) == 0) pin += sizeof scheme - 1;
    bool fits = identity_unbase64(pin, CANONICAL_HASH_BYTES, &bytes, &count) && count == CANONICAL_HASH_BYTES;
    free(bytes);
    if (!fits)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: \"%.80s\" is no pin: `tessera worker` prints it when it starts: sha256//...",
                         options->url, pin);
    if (asprintf(&remote->pin, "%s%s", scheme, pin) < 0) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a pin");
    return TESSERA_OK;
}

tessera_status transport_address(struct remote *remote, const struct remote_options *options, tessera_error *error) {
    CURLU *parts = curl_url();
    if (parts == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for an address");
    tessera_status status = check_url(remote, options, parts, error);
    curl_url_cleanup(parts);
    TRY(status);
    TRY(copy_pin(remote, options, error));
    if (options->token != NULL && asprintf(&remote->authorization, "Authorization: Bearer %s", options->token) < 0)
        return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a token");
    return TESSERA_OK;
}

/* ---- callbacks ---- */

/* The first bytes of an answer that is no success are words for people. */
static void take_text(struct remote_call *call, const char *data, size_t size) {
    size_t room = sizeof call->text - 1 - call->text_size, n = size < room ? size : room;
    memcpy(call->text + call->text_size, data, n);
    call->text_size += n;
    call->text[call->text_size] = 0;
}

/* Memory for the reply, as long as it says it is. */
static bool make_room(struct remote_call *call) {
    curl_off_t length = -1;
    curl_easy_getinfo(call->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    if (length < 0 || (uint64_t)length > call->most) return false;
    call->room = (size_t)length;
    call->data = aligned_alloc(ALIGNMENT, (call->room + ALIGNMENT) / ALIGNMENT * ALIGNMENT);
    return call->data != NULL;
}

static size_t on_body(char *data, size_t size, size_t count, void *user) {
    struct remote_call *call = user;
    size_t length = size * count;
    curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &call->status);
    if (call->status != 200) return take_text(call, data, length), length;
    if ((call->data == NULL && !make_room(call)) || length > call->room - call->size) {
        call->too_long = true;
        return 0;
    }
    memcpy(call->data + call->size, data, length);
    call->size += length;
    return length;
}

/* Bytes that stand still while a request leaves or a reply comes; in between the worker computes. */
static int on_progress(void *user, curl_off_t down_total, curl_off_t down, curl_off_t up_total, curl_off_t up) {
    struct remote_call *call = user;
    double now = clock_seconds();
    bool moves = (up_total > 0 && up < up_total) || (down > 0 && down < down_total);
    if (down + up != call->seen || !moves) call->moved = now;
    call->seen = down + up;
    call->stalled = now - call->moved > call->remote->stall_seconds;
    return call->stalled ? 1 : 0;
}

/* ---- a transfer ---- */

static bool add_header(struct remote_call *call, const char *text) {
    struct curl_slist *longer = curl_slist_append(call->headers, text);
    if (longer != NULL) call->headers = longer;
    return longer != NULL;
}

static void set_security(CURL *easy, const struct remote *remote) {
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, remote->plain ? "http" : "https");
    curl_easy_setopt(easy, CURLOPT_PINNEDPUBLICKEY, remote->pin);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L); /* the pin decides, not an authority or a name */
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_3);
    if (remote->loopback) curl_easy_setopt(easy, CURLOPT_PROXY, "");
}

static void set_options(struct remote_call *call, const char *url) {
    const struct remote *remote = call->remote;
    CURL *easy = call->easy;
    set_security(easy, remote);
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "tessera/" TESSERA_VERSION);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->curl_error);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(remote->connect_seconds * 1000));
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(remote->whole_seconds * 1000));
    curl_easy_setopt(easy, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)call->most);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, call->headers);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(easy, CURLOPT_XFERINFODATA, call);
    if (call->body == NULL) return;
    /* A worker that refuses says so before the body leaves: amid it the connection would break, and
     * the words be lost. */
    curl_easy_setopt(easy, CURLOPT_EXPECT_100_TIMEOUT_MS, (long)(remote->connect_seconds * 1000));
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body_size);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, (const char *)call->body);
}

tessera_status transport_start(struct remote_call *call, const char *path, tessera_error *error) {
    const struct remote *remote = call->remote;
    char *url = NULL;
    transport_stop(call);
    free(call->data);
    call->data = NULL;
    call->size = call->room = call->text_size = 0;
    call->status = 0;
    call->seen = 0;
    call->stalled = call->too_long = false;
    call->curl_error[0] = call->text[0] = 0;
    if (call->most == 0) call->most = DESCRIPTION_MOST_BYTES;
    call->moved = clock_seconds();
    call->easy = curl_easy_init();
    bool made =
        call->easy != NULL && asprintf(&url, "%s%s", remote->url, path) > 0 && add_header(call, "Accept-Encoding: identity") &&
        (call->body == NULL || (add_header(call, "Content-Type: application/octet-stream") && add_header(call, "Expect: 100-continue"))) &&
        (remote->authorization == NULL || add_header(call, remote->authorization));
    if (made) set_options(call, url);
    free(url);
    if (made && curl_multi_add_handle(remote->remotes->multi, call->easy) == CURLM_OK) return TESSERA_OK;
    curl_easy_cleanup(call->easy);
    call->easy = NULL;
    transport_stop(call);
    return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for a request", remote->name);
}

void transport_stop(struct remote_call *call) {
    if (call->easy != NULL) {
        curl_multi_remove_handle(call->remote->remotes->multi, call->easy);
        curl_easy_cleanup(call->easy);
    }
    curl_slist_free_all(call->headers);
    call->easy = NULL;
    call->headers = NULL;
}

static void note_bytes(struct remote_call *call) {
    curl_off_t up = 0, down = 0;
    long request = 0, header = 0;
    curl_easy_getinfo(call->easy, CURLINFO_SIZE_UPLOAD_T, &up);
    curl_easy_getinfo(call->easy, CURLINFO_SIZE_DOWNLOAD_T, &down);
    curl_easy_getinfo(call->easy, CURLINFO_REQUEST_SIZE, &request);
    curl_easy_getinfo(call->easy, CURLINFO_HEADER_SIZE, &header);
    call->result.bytes_sent += (uint64_t)up + (uint64_t)request;
    call->result.bytes_received += (uint64_t)down + (uint64_t)header;
}

enum remote_outcome transport_outcome(struct remote_call *call, CURLcode code, tessera_error *error) {
    const struct remote *remote = call->remote;
    curl_off_t wait = 0, length = -1;
    note_bytes(call);
    curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &call->status);
    curl_easy_getinfo(call->easy, CURLINFO_RETRY_AFTER, &wait);
    call->result.retry_seconds = (double)wait;
    curl_easy_getinfo(call->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    if (code == CURLE_OK && call->status == 200 && call->data == NULL) { /* no body: as the worker says, or cut off amid the head */
        call->too_long = length == 0;
        code = CURLE_GOT_NOTHING;
    }
    if (call->too_long || code == CURLE_FILESIZE_EXCEEDED) {
        error_set(error, TESSERA_ERROR_FORMAT, "%s: its reply is not as long as it must be (at most %zu bytes)", remote->name, call->most);
        return REMOTE_WRONG;
    }
    if (code == CURLE_OK) return REMOTE_DONE;
    if (call->stalled)
        error_set(error, TESSERA_ERROR_IO, "%s: not a byte for %g seconds", remote->name, remote->stall_seconds);
    else if (code == CURLE_SSL_PINNEDPUBKEYNOTMATCH)
        error_set(error, TESSERA_ERROR_IO, "%s: shows a certificate with another key than %s: it is not the worker it was", remote->name,
                  remote->pin);
    else
        error_set(error, TESSERA_ERROR_IO, "%s: %s", remote->name, call->curl_error[0] != 0 ? call->curl_error : curl_easy_strerror(code));
    return REMOTE_LOST;
}
