/* The hub of test_hub: see https_server.h. The protocol is as huggingface.co speaks it: GET
 * /api/models/OWNER/NAME/revision/REVISION lists the files; HEAD and GET
 * /OWNER/NAME/resolve/COMMIT/PATH answer with X-Repo-Commit, and for large files with a redirect to
 * the storage, X-Linked-Etag and X-Linked-Size. */
#include "hub/https_server.h"

#include <errno.h>
#include <arpa/inet.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct server {
    const struct server_file *files;
    int count;
    int listener, stop_pipe[2];
    char endpoint[64];
    unsigned port;
    SSL_CTX *tls;
    pthread_t thread;
    pthread_mutex_t guard; /* of the two below */
    struct server_faults faults;
    struct server_seen seen;
};

/* One request as it was read. */
struct request {
    char method[8], path[1024], host[128];
    bool has_token, right_token, has_if_range;
    long long range; /* -1: none */
};

/* ---- checksums and certificate ---- */

void server_digest(const struct server_file *file, char *out) {
    unsigned char bytes[EVP_MAX_MD_SIZE];
    char header[32];
    unsigned n;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    EVP_DigestInit_ex(context, file->large ? EVP_sha256() : EVP_sha1(), NULL);
    if (!file->large) EVP_DigestUpdate(context, header, (size_t)sprintf(header, "blob %zu", file->length) + 1);
    EVP_DigestUpdate(context, file->data, file->length);
    EVP_DigestFinal_ex(context, bytes, &n);
    EVP_MD_CTX_free(context);
    for (unsigned i = 0; i < n; i++) sprintf(out + 2 * i, "%02x", bytes[i]);
}

static void add_extension(X509 *certificate, int kind, const char *value) {
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, certificate, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, kind, value);
    if (extension != NULL) X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
}

/* A certificate for localhost and 127.0.0.1, signed by itself, into `tls` and the file `path`. */
static bool make_certificate(SSL_CTX *tls, const char *path) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), (long)getpid());
    X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 86400);
    X509_set_pubkey(certificate, key);
    X509_NAME *name = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"localhost", -1, -1, 0);
    X509_set_issuer_name(certificate, name);
    add_extension(certificate, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
    add_extension(certificate, NID_basic_constraints, "critical,CA:TRUE");
    bool made = X509_sign(certificate, key, EVP_sha256()) > 0 && SSL_CTX_use_certificate(tls, certificate) == 1 &&
                SSL_CTX_use_PrivateKey(tls, key) == 1;
    FILE *stream = fopen(path, "w");
    made = stream != NULL && PEM_write_X509(stream, certificate) == 1 && made;
    if (stream != NULL) made = fclose(stream) == 0 && made;
    X509_free(certificate);
    EVP_PKEY_free(key);
    return made;
}

/* ---- requests ---- */

/* The value of header `name` in `text`, or NULL. */
static const char *header(const char *text, const char *name) {
    const char *found = strcasestr(text, name);
    return found != NULL ? found + strlen(name) : NULL;
}

static bool read_request(SSL *ssl, struct request *request) {
    char text[8192];
    size_t length = 0;
    *request = (struct request){.range = -1};
    do {
        int n = SSL_read(ssl, text + length, (int)(sizeof text - 1 - length));
        if (n <= 0) return false;
        length += (size_t)n;
        text[length] = 0;
    } while (strstr(text, "\r\n\r\n") == NULL && length < sizeof text - 1);
    if (sscanf(text, "%7s %1023s", request->method, request->path) != 2) return false;
    const char *host = header(text, "\r\nHost: "), *token = header(text, "\r\nAuthorization: "), *range = header(text, "\r\nRange: bytes=");
    if (host != NULL) sscanf(host, "%127[^\r\n]", request->host);
    request->has_token = token != NULL;
    request->right_token = token != NULL && strncmp(token, "Bearer hf_secret\r\n", 18) == 0;
    request->has_if_range = header(text, "\r\nIf-Range: ") != NULL;
    if (range != NULL) sscanf(range, "%lld-", &request->range);
    return true;
}

/* Takes a copy of the faults and counts the request. */
static struct server_faults note(struct server *server, const struct request *request) {
    bool storage = strncmp(request->host, "127.0.0.1", 9) == 0;
    pthread_mutex_lock(&server->guard);
    server->seen.requests++;
    server->seen.storage_requests += storage;
    server->seen.ranges += storage && request->range >= 0;
    server->seen.if_ranges += storage && request->has_if_range;
    server->seen.tokens += !storage && request->right_token;
    server->seen.tokens_leaked += storage && request->has_token;
    struct server_faults faults = server->faults;
    if (storage && server->faults.cut_count > 0) server->faults.cut_count--;
    if (storage && server->faults.stall_count > 0) server->faults.stall_count--;
    pthread_mutex_unlock(&server->guard);
    return faults;
}

/* ---- answers ---- */

static void send_all(SSL *ssl, const char *data, size_t length) {
    while (length > 0) {
        int n = SSL_write(ssl, data, length > 16384 ? 16384 : (int)length);
        if (n <= 0) return;
        data += n;
        length -= (size_t)n;
    }
}

/* A status, headers (each with its line end) and a body, which HEAD leaves away. */
static void answer(SSL *ssl, const struct request *request, const char *status, const char *headers, const char *body, size_t length) {
    char head[2048];
    int n = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nConnection: close\r\n%sContent-Length: %zu\r\n\r\n", status, headers, length);
    send_all(ssl, head, (size_t)n);
    if (strcmp(request->method, "HEAD") != 0) send_all(ssl, body, length);
}

static void answer_list(struct server *server, SSL *ssl, const struct request *request, const struct server_faults *faults) {
    char *text = NULL, digest[65];
    size_t length;
    if (faults->not_json) return answer(ssl, request, "200 OK", "", "<html>Log in</html>", 19);
    FILE *stream = open_memstream(&text, &length);
    fprintf(stream, "{\"id\": \"acme/tiny\", \"sha\": \"%s\", \"siblings\": [", SERVER_COMMIT);
    for (int i = 0; i < server->count; i++) {
        const struct server_file *file = &server->files[i];
        server_digest(file, digest);
        fprintf(stream, "%s{\"rfilename\": \"%s\", \"size\": %zu, ", i > 0 ? ", " : "", file->path, file->length);
        if (file->large)
            fprintf(stream, "\"blobId\": \"%040d\", \"lfs\": {\"sha256\": \"%s\", \"size\": %zu, \"pointerSize\": 130}}", i, digest,
                    faults->huge ? (size_t)4000000000000000 : file->length);
        else
            fprintf(stream, "\"blobId\": \"%s\"}", digest);
    }
    fprintf(stream, "%s]}", faults->unsafe_path ? ", {\"rfilename\": \"../escape\", \"size\": 1}" : "");
    fclose(stream);
    answer(ssl, request, "200 OK", "Content-Type: application/json\r\n", text, length);
    free(text);
}

/* The storage: bytes, from where the range says. */
static void answer_data(struct server *server, SSL *ssl, const struct request *request, const struct server_file *file,
                        const struct server_faults *faults) {
    char head[512], digest[65];
    bool part = request->range > 0 && (size_t)request->range < file->length && !faults->ignore_range;
    size_t first = part ? (size_t)request->range : 0, said = part && faults->wrong_range ? first + 1 : first;
    size_t extra = faults->longer ? 7 : 0, length = file->length - first + extra;
    char *bytes = calloc(1, length + 1);
    memcpy(bytes, file->data + first, file->length - first);
    if (faults->corrupt) bytes[(file->length - first) / 2] ^= 1;
    server_digest(file, digest);
    int n = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nConnection: close\r\nETag: \"%.12s\"\r\nContent-Length: %zu\r\n",
                     part ? "206 Partial Content" : "200 OK", digest, length);
    if (part)
        n += snprintf(head + n, sizeof head - (size_t)n, "Content-Range: bytes %zu-%zu/%zu\r\n", said, file->length - 1, file->length);
    send_all(ssl, head, (size_t)n);
    send_all(ssl, "\r\n", 2);
    bool whole = faults->cut_count == 0 && faults->stall_count == 0;
    send_all(ssl, bytes, whole ? length : length / 2);
    free(bytes);
    if (faults->stall_count > 0) SSL_read(ssl, head, 1); /* until the client closes */
}

static void answer_file(struct server *server, SSL *ssl, const struct request *request, const struct server_file *file,
                        const struct server_faults *faults) {
    char headers[1024], digest[65];
    server_digest(file, digest);
    if (faults->weird_etag) strcpy(digest, "../../x");
    int n = snprintf(headers, sizeof headers, "X-Repo-Commit: %s\r\n",
                     faults->other_commit ? "ffffffffffffffffffffffffffffffffffffffff" : SERVER_COMMIT);
    if (file->large) {
        if (!faults->no_etag)
            n += snprintf(headers + n, sizeof headers - (size_t)n, "X-Linked-Etag: \"%s\"\r\nX-Linked-Size: %zu\r\n", digest, file->length);
        snprintf(headers + n, sizeof headers - (size_t)n, "Location: https://127.0.0.1:%u/storage/%s?signature=abc\r\n", server->port,
                 file->path);
        return answer(ssl, request, "302 Found", headers, "", 0);
    }
    if (!faults->no_etag) snprintf(headers + n, sizeof headers - (size_t)n, "ETag: W/\"%s\"\r\n", digest);
    answer(ssl, request, "200 OK", headers, file->data, file->length);
}

static const struct server_file *find_file(const struct server *server, const char *path, const char *prefix) {
    size_t n = strlen(prefix), length = strcspn(path, "?");
    if (strncmp(path, prefix, n) != 0) return NULL;
    for (int i = 0; i < server->count; i++)
        if (strlen(server->files[i].path) == length - n && strncmp(server->files[i].path, path + n, length - n) == 0)
            return &server->files[i];
    return NULL;
}

static void serve(struct server *server, SSL *ssl) {
    struct request request;
    if (!read_request(ssl, &request)) return;
    struct server_faults faults = note(server, &request);
    bool storage = strncmp(request.host, "127.0.0.1", 9) == 0;
    const char *prefix = "/acme/tiny/resolve/" SERVER_COMMIT "/";
    if (strncmp(request.path, "/acme/tiny/resolve/main/", 24) == 0) prefix = "/acme/tiny/resolve/main/";
    const struct server_file *file = find_file(server, request.path, storage ? "/storage/" : prefix);
    char text[256];
    if (faults.refuse != 0) {
        snprintf(text, sizeof text, "X-Error-Code: %s\r\n", faults.error_code);
        char status[32];
        snprintf(status, sizeof status, "%d Refused", faults.refuse);
        answer(ssl, &request, status, text, "no", 2);
    } else if (!storage && (strcmp(request.path, "/api/models/acme/tiny/revision/main?blobs=true") == 0 ||
                            strcmp(request.path, "/api/models/acme/tiny/revision/" SERVER_COMMIT "?blobs=true") == 0 ||
                            strcmp(request.path, "/api/models/acme/tiny/revision/refs%2Fpr%2F1?blobs=true") == 0)) {
        answer_list(server, ssl, &request, &faults);
    } else if (!storage && strncmp(request.path, "/api/models/acme/tiny/", 22) == 0) {
        answer(ssl, &request, "404 Not Found", "X-Error-Code: RevisionNotFound\r\n", "no", 2);
    } else if (file != NULL && storage) {
        answer_data(server, ssl, &request, file, &faults);
    } else if (file != NULL) {
        answer_file(server, ssl, &request, file, &faults);
    } else {
        answer(ssl, &request, "404 Not Found", "X-Error-Code: RepoNotFound\r\n", "no", 2);
    }
}

/* ---- the thread ---- */

static void *run(void *argument) {
    struct server *server = argument;
    struct pollfd watched[2] = {{.fd = server->listener, .events = POLLIN}, {.fd = server->stop_pipe[0], .events = POLLIN}};
    for (;;) { /* a test that becomes another user interrupts all threads */
        int events = poll(watched, 2, -1);
        if (events < 0 && errno == EINTR) continue;
        if (events < 0 || watched[1].revents != 0) break;
        int connection = accept(server->listener, NULL, NULL);
        if (connection < 0) continue;
        SSL *ssl = SSL_new(server->tls);
        SSL_set_fd(ssl, connection);
        if (SSL_accept(ssl) == 1) {
            serve(server, ssl);
            SSL_shutdown(ssl);
        }
        SSL_free(ssl);
        close(connection);
    }
    return NULL;
}

/* Listens on a free port of 127.0.0.1. */
static bool open_listener(struct server *server) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    server->listener = socket(AF_INET, SOCK_STREAM, 0);
    if (server->listener < 0 || bind(server->listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(server->listener, 16) != 0 || getsockname(server->listener, (struct sockaddr *)&address, &length) != 0)
        return false;
    server->port = ntohs(address.sin_port);
    snprintf(server->endpoint, sizeof server->endpoint, "https://localhost:%u", server->port);
    return true;
}

struct server *server_start(const struct server_file *files, int count, const char *certificate) {
    struct server *server = calloc(1, sizeof *server);
    server->files = files;
    server->count = count;
    signal(SIGPIPE, SIG_IGN); /* clients may leave */
    server->tls = SSL_CTX_new(TLS_server_method());
    pthread_mutex_init(&server->guard, NULL);
    if (!make_certificate(server->tls, certificate) || !open_listener(server) || pipe(server->stop_pipe) != 0 ||
        pthread_create(&server->thread, NULL, run, server) != 0) {
        perror("the test's server cannot start");
        return NULL;
    }
    return server;
}

void server_stop(struct server *server) {
    if (write(server->stop_pipe[1], "x", 1) == 1) pthread_join(server->thread, NULL);
    close(server->stop_pipe[0]);
    close(server->stop_pipe[1]);
    close(server->listener);
    SSL_CTX_free(server->tls);
    pthread_mutex_destroy(&server->guard);
    free(server);
}

const char *server_endpoint(const struct server *server) {
    return server->endpoint;
}

void server_reset(struct server *server, const struct server_faults *faults) {
    pthread_mutex_lock(&server->guard);
    server->faults = *faults;
    server->seen = (struct server_seen){0};
    pthread_mutex_unlock(&server->guard);
}

struct server_seen server_seen(struct server *server) {
    pthread_mutex_lock(&server->guard);
    struct server_seen seen = server->seen;
    pthread_mutex_unlock(&server->guard);
    return seen;
}
