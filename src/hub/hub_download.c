/* From the hub into the cache; see hub_download.h.
 *
 *     HEAD resolve/COMMIT/PATH     etag (the blob's name) and size
 *     lock ETAG                    another process at the same blob is waited for, and its result used
 *     GET  resolve/COMMIT/PATH     appended to blobs/ETAG.incomplete, from where an earlier try ended
 *     checksum, fsync, rename to blobs/ETAG, link, unlock
 *
 * Resuming: what lies in the file is a beginning of bytes whose checksum is the blob's name, so the
 * server's validator is not needed to be safe; it goes along as If-Range where it is known (from
 * this host's own answers), since it saves a useless transfer. A resumed file that fails its
 * checksum is fetched once more from the start. */
#include "hub/hub_download.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>
#include "base/file.h"

#define MAX_TRIES 6             /* without a byte more between them */
#define FIRST_PAUSE_SECONDS 0.2 /* doubled from try to try */
#define PAUSE_SLICE_SECONDS 0.1 /* how often a pause asks whether to go on */

/* One transfer of a blob. */
struct transfer {
    struct hub_session *session;
    const char *path; /* in the repository, for messages */
    char *url, *incomplete, *blob;
    char etag[HUB_ETAG_BYTES];
    char digest[HUB_DIGEST_BYTES];
    char validator[256]; /* the data host's ETag with its quotes, "" while not known */
    int64_t size;
    int file;               /* open on `incomplete` */
    int64_t done;           /* bytes in it */
    bool answered;          /* the current answer's first piece is here */
    tessera_status failure; /* of the sink */
    tessera_error *error;
};

static bool keep_going(void *user) {
    struct transfer *t = user;
    const struct hub_options *options = t->session->options;
    return options->progress == NULL || options->progress(options->user, t->path, (uint64_t)t->done, (uint64_t)t->size);
}

tessera_status hub_refused(const struct hub_session *session, const struct hub_reply *reply, const char *what, tessera_error *error) {
    const char *repository = session->name.repository, *endpoint = session->settings.endpoint, *code = reply->error_code;
    const char *token = session->settings.token != NULL ? "the token that was sent does not open it" : "no token was sent";
    if (!reply->same_origin)
        return error_set(error, TESSERA_ERROR_IO, "the host that stores %s/%s answered %ld: try again later", repository, what,
                         reply->status);
    if (strcmp(code, "GatedRepo") == 0 || reply->status == 403)
        return error_set(error, TESSERA_ERROR_IO, "%s is gated (%s): accept its licence at %s/%s and set HF_TOKEN", repository, token,
                         endpoint, repository);
    if (strcmp(code, "RevisionNotFound") == 0)
        return error_set(error, TESSERA_ERROR_IO, "%s has no revision '%s'", repository, session->name.revision);
    if (reply->status == 401)
        return error_set(error, TESSERA_ERROR_IO,
                         "there is no repository %s at %s, or it is private or gated (%s): check the name, accept its "
                         "licence there if it asks for it, and set HF_TOKEN",
                         repository, endpoint, token);
    if (reply->status == 404 && what[0] != 0)
        return error_set(error, TESSERA_ERROR_IO, "%s has no file %s at revision '%s'", repository, what, session->name.revision);
    if (reply->status == 404)
        return error_set(error, TESSERA_ERROR_IO, "there is no repository %s at %s, nor a folder of that name here: check the name",
                         repository, endpoint);
    return error_set(error, TESSERA_ERROR_IO, "%s answered %ld for %s%s%s: try again later", endpoint, reply->status, repository,
                     what[0] != 0 ? "/" : "", what);
}

/* ---- what the hub says of the file ---- */

/* An entity tag without W/ and quotes, as huggingface_hub names blobs. False if it cannot be a name. */
static bool plain_etag(const char *sent, char out[HUB_ETAG_BYTES]) {
    if (strncmp(sent, "W/", 2) == 0) sent += 2;
    if (*sent == '"') sent++;
    size_t length = strcspn(sent, "\"");
    if (length >= HUB_ETAG_BYTES) return false;
    memcpy(out, sent, length);
    out[length] = 0;
    return hub_cache_safe_etag(out);
}

/* Whether a try that ended so is worth another one. */
static bool try_again(const struct hub_reply *reply, tessera_status status) {
    return status == TESSERA_OK ? reply->status == 429 || reply->status >= 500 : reply->cut;
}

/* Waits before try number `attempt`; false if told to stop. */
static bool pause_before(struct transfer *t, int attempt) {
    double seconds = FIRST_PAUSE_SECONDS * (double)(1 << attempt);
    for (; seconds > 0; seconds -= PAUSE_SLICE_SECONDS) {
        if (!keep_going(t)) return false;
        nanosleep(&(struct timespec){.tv_nsec = (long)(PAUSE_SLICE_SECONDS * 1e9)}, NULL);
    }
    return true;
}

/* A weak tag cannot promise that bytes are the same. */
static void note_validator(struct transfer *t, const struct hub_reply *reply) {
    if (strncmp(reply->etag, "W/", 2) != 0) strcpy(t->validator, reply->etag);
}

/* Fills in etag, digest and size. */
static tessera_status ask_about(struct transfer *t, const char *commit, const struct hub_file *file) {
    struct hub_request request = {.url = t->url, .head = true, .wait = keep_going, .user = t};
    struct hub_reply reply;
    tessera_status status;
    for (int attempt = 0;; attempt++) {
        status = hub_http_send(t->session->http, &request, &reply, t->error);
        if (!try_again(&reply, status) || attempt + 1 >= MAX_TRIES) break;
        if (!pause_before(t, attempt)) return error_set(t->error, TESSERA_ERROR_CANCELLED, "stopped while waiting for the hub");
    }
    TRY(status);
    if (reply.status >= 400 || reply.status == 0) return hub_refused(t->session, &reply, t->path, t->error);
    if (reply.commit[0] != 0 && strcmp(reply.commit, commit) != 0)
        return error_set(t->error, TESSERA_ERROR_FORMAT, "%s: the hub answers for commit %.40s where %s was asked for", t->url,
                         reply.commit, commit);
    if (!plain_etag(reply.linked_etag[0] != 0 ? reply.linked_etag : reply.etag, t->etag))
        return error_set(t->error, TESSERA_ERROR_FORMAT, "%s: the answer has no usable ETag: is HF_ENDPOINT a Hugging Face hub?", t->url);
    if (reply.status == 200) note_validator(t, &reply); /* no other host stores the file */
    t->size = file->size >= 0 ? file->size : reply.linked_size >= 0 ? reply.linked_size : reply.length;
    strcpy(t->digest, file->digest[0] != 0 ? file->digest : hub_checksum_is(t->etag) ? t->etag : "");
    if (t->size < 0) return error_set(t->error, TESSERA_ERROR_FORMAT, "%s: the hub does not say how long the file is", t->url);
    if (t->digest[0] == 0) return error_set(t->error, TESSERA_ERROR_FORMAT, "%s: the hub names no checksum for the file", t->url);
    return TESSERA_OK;
}

/* ---- the bytes ---- */

/* Reports the failure of writing the incomplete file, errno. */
static tessera_status write_failed(struct transfer *t) {
    if (errno == ENOSPC || errno == EDQUOT)
        return error_set_errno(t->error, "%s: %lld of %lld bytes are written (what is there is kept; free some space and try again)",
                               t->incomplete, (long long)t->done, (long long)t->size);
    return error_set_errno(t->error, "%s: cannot write", t->incomplete);
}

/* Compares an answer's beginning with what was asked for. A whole file in answer to a request for
 * its rest begins anew. */
static tessera_status begin_answer(struct transfer *t, const struct hub_reply *reply) {
    int64_t first = reply->status == 206 ? reply->range_first : 0;
    bool other_total = reply->status == 206 && reply->range_total >= 0 && reply->range_total != t->size;
    if (first > t->done || first < 0 || other_total)
        return error_set(t->error, TESSERA_ERROR_FORMAT, "%s: the server sent other bytes than those asked for", t->url);
    if (ftruncate(t->file, (off_t)first) != 0) return write_failed(t);
    t->done = first;
    t->answered = true;
    note_validator(t, reply);
    return TESSERA_OK;
}

static tessera_status write_piece(struct transfer *t, const char *data, size_t length) {
    if ((int64_t)length > t->size - t->done)
        return error_set(t->error, TESSERA_ERROR_FORMAT, "%s: the server sent more than the %lld bytes of the file", t->url,
                         (long long)t->size);
    while (length > 0) {
        ssize_t n = pwrite(t->file, data, length, (off_t)t->done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return write_failed(t);
        t->done += n;
        data += n;
        length -= (size_t)n;
    }
    return TESSERA_OK;
}

static bool take_piece(void *user, const struct hub_reply *reply, const char *data, size_t length) {
    struct transfer *t = user;
    if (!t->answered) t->failure = begin_answer(t, reply);
    if (t->failure == TESSERA_OK) t->failure = write_piece(t, data, length);
    return t->failure == TESSERA_OK;
}

/* Appends until the file is whole. Only tries without any gain count against MAX_TRIES. */
static tessera_status fetch_rest(struct transfer *t) {
    int64_t best = t->done;
    for (int attempt = 0; t->done < t->size;) {
        struct hub_request request = {.url = t->url, .range_first = (uint64_t)t->done, .sink = take_piece, .wait = keep_going, .user = t};
        struct hub_reply reply;
        if (t->validator[0] != 0) request.if_range = t->validator;
        t->answered = false;
        t->failure = TESSERA_OK;
        tessera_status status = hub_http_send(t->session->http, &request, &reply, t->error);
        TRY(t->failure);
        if (status == TESSERA_OK && t->done == t->size) break;
        attempt = t->done > best ? 0 : attempt + 1;
        if (t->done > best) best = t->done;
        bool again = try_again(&reply, status) || (status == TESSERA_OK && t->answered); /* an answer may end too early, too */
        if (!again || attempt >= MAX_TRIES) return status != TESSERA_OK ? status : hub_refused(t->session, &reply, t->path, t->error);
        if (!pause_before(t, attempt)) return error_set(t->error, TESSERA_ERROR_CANCELLED, "stopped while waiting for the hub");
    }
    return TESSERA_OK;
}

static tessera_status check_space(const struct transfer *t) {
    struct statvfs about;
    if (fstatvfs(t->file, &about) != 0) return TESSERA_OK; /* writing will tell */
    double left = (double)about.f_bavail * (double)about.f_frsize, needed = (double)(t->size - t->done);
    if (left >= needed) return TESSERA_OK;
    return error_set(t->error, TESSERA_ERROR_IO, "%s: disk full: %.1f MB are needed for %s, %.1f MB are free (HF_HOME names another place)",
                     t->session->cache.root, needed / 1e6, t->path, left / 1e6);
}

/* Opens the incomplete file and finds out what it has. */
static tessera_status open_incomplete(struct transfer *t) {
    struct stat about;
    t->file = open(t->incomplete, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (t->file < 0 || fstat(t->file, &about) != 0) return error_set_errno(t->error, "%s: cannot open", t->incomplete);
    t->done = (int64_t)about.st_size;
    if (t->done > t->size && ftruncate(t->file, 0) != 0) return write_failed(t);
    if (t->done > t->size) t->done = 0;
    return check_space(t);
}

/* Fetches and checks; a file with other bytes than its checksum says is removed. */
static tessera_status fetch_blob(struct transfer *t) {
    for (bool resumed = true; resumed;) {
        bool match;
        TRY(open_incomplete(t));
        resumed = t->done > 0;
        TRY(fetch_rest(t));
        if (fsync(t->file) != 0) return write_failed(t);
        TRY(hub_checksum_file(t->incomplete, t->digest, keep_going, t, &match, t->error));
        if (match) return TESSERA_OK;
        unlink(t->incomplete);
        close(t->file);
        t->file = -1;
    }
    return error_set(t->error, TESSERA_ERROR_IO,
                     "%s/%s: checksum mismatch: the bytes that arrived are not those that the hub names (%s); the file "
                     "is removed: try again",
                     t->session->name.repository, t->path, t->digest);
}

/* ---- blob and link ---- */

/* A blob of another length cannot be right; renaming the new one over it mends the cache. */
static bool blob_is_there(const char *path, int64_t size) {
    struct stat about;
    return stat(path, &about) == 0 && (size < 0 || (int64_t)about.st_size == size);
}

static tessera_status store_blob(struct transfer *t) {
    int lock;
    TRY(hub_cache_lock(&t->session->cache, t->etag, keep_going, t, &lock, t->error));
    tessera_status status = TESSERA_OK;
    if (!blob_is_there(t->blob, t->size)) { /* else another process was first */
        status = fetch_blob(t);
        if (status == TESSERA_OK && rename(t->incomplete, t->blob) != 0)
            status = error_set_errno(t->error, "%s: cannot rename", t->incomplete);
    }
    if (t->file >= 0) close(t->file);
    t->file = -1;
    hub_cache_unlock(lock);
    return status;
}

static char *file_url(const struct hub_session *session, const char *commit, const char *path) {
    char *escaped = hub_http_escape(path, true), *url = NULL;
    if (escaped != NULL && asprintf(&url, "%s/%s/resolve/%s/%s", session->settings.endpoint, session->name.repository, commit, escaped) < 0)
        url = NULL;
    free(escaped);
    return url;
}

static tessera_status download(struct transfer *t, const char *commit, const struct hub_file *file) {
    struct hub_cache *cache = &t->session->cache;
    TRY(ask_about(t, commit, file));
    t->blob = hub_cache_blob(cache, t->etag, "");
    t->incomplete = hub_cache_blob(cache, t->etag, ".incomplete");
    if (t->blob == NULL || t->incomplete == NULL) return error_set(t->error, TESSERA_ERROR_MEMORY, "no memory for a path in the cache");
    TRY(store_blob(t));
    return hub_cache_link(cache, commit, file->path, t->etag, t->error);
}

tessera_status hub_download_file(struct hub_session *session, const char *commit, const struct hub_file *file, tessera_error *error) {
    struct transfer t = {.session = session, .path = file->path, .url = file_url(session, commit, file->path), .file = -1, .error = error};
    char *link = hub_cache_snapshot(&session->cache, commit, file->path);
    tessera_status status = TESSERA_OK;
    if (t.url == NULL || link == NULL)
        status = error_set(error, TESSERA_ERROR_MEMORY, "no memory to download %s", file->path);
    else if (!blob_is_there(link, file->size))
        status = download(&t, commit, file);
    free(link);
    free(t.url);
    free(t.blob);
    free(t.incomplete);
    return status;
}
