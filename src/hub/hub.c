/* From a name to a snapshot folder; see hub.h.
 *
 *     complete snapshot of the commit asked for?  -> done, nothing is asked
 *     GET api/models/OWNER/NAME/revision/REVISION -> commit, files, checksums       (no answer: what the cache has, if complete)
 *     model_index.json, then what it names        -> hub_download.c
 *     refs/REVISION                               -> last, so that a ref of ours always leads to a complete
 * snapshot */
#include "hub/hub.h"

#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "hub/hub_download.h"

#define MAX_LISTING_BYTES ((size_t)64 << 20)

/* ---- the list of files ---- */

/* An answer's body in memory. */
struct body {
    const struct hub_options *options;
    char *text;
    size_t length, capacity;
};

static bool collect(void *user, const struct hub_reply *reply, const char *data, size_t length) {
    struct body *body = user;
    if (length > MAX_LISTING_BYTES - body->length) return false;
    if (body->length + length > body->capacity) {
        size_t capacity = 2 * (body->length + length);
        char *larger = realloc(body->text, capacity);
        if (larger == NULL) return false;
        body->text = larger;
        body->capacity = capacity;
    }
    memcpy(body->text + body->length, data, length);
    body->length += length;
    return true;
}

static bool wait_for_list(void *user) {
    const struct hub_options *options = ((struct body *)user)->options;
    return options->progress == NULL || options->progress(options->user, "", 0, 0);
}

static tessera_status ask_for_list(struct hub_session *session, struct hub_listing *listing, tessera_error *error) {
    struct body body = {.options = session->options};
    struct hub_reply reply = {0};
    char *revision = hub_http_escape(session->name.revision, false), *url = NULL;
    tessera_status status = TESSERA_OK;
    if (revision == NULL ||
        asprintf(&url, "%s/api/models/%s/revision/%s?blobs=true", session->settings.endpoint, session->name.repository, revision) < 0) {
        url = NULL;
        status = error_set(error, TESSERA_ERROR_MEMORY, "no memory for a URL");
    }
    if (status == TESSERA_OK) {
        struct hub_request request = {.url = url, .sink = collect, .wait = wait_for_list, .user = &body};
        error_set(error, TESSERA_ERROR_IO, "%s: the list of files is too long", url); /* stands if the sink gives up */
        status = hub_http_send(session->http, &request, &reply, error);
        if (status == TESSERA_ERROR_IO)
            error_set(error, status, "%s is not (whole) in the cache %s, and the hub does not answer: %s", session->name.repository,
                      session->cache.root, error != NULL ? error->message : "");
    }
    if (status == TESSERA_OK && reply.status != 200) status = hub_refused(session, &reply, "", error);
    if (status == TESSERA_OK) status = hub_listing_parse(url, body.text != NULL ? body.text : "", body.length, listing, error);
    free(revision);
    free(url);
    free(body.text);
    return status;
}

/* ---- the download ---- */

static tessera_status read_index(struct hub_session *session, struct hub_listing *listing, struct json **index, tessera_error *error) {
    struct hub_file *file = hub_listing_find(listing, "model_index.json");
    if (file == NULL)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                         "%s has no model_index.json: it is no pipeline in diffusers' layout (a single-file "
                         "checkpoint can be downloaded by hand and named as --model FILE.safetensors)",
                         session->name.repository);
    TRY(hub_download_file(session, listing->commit, file, error));
    char *path = hub_cache_snapshot(&session->cache, listing->commit, file->path);
    if (path == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a path in the cache");
    tessera_status status = json_open(path, 0, index, error);
    free(path);
    return status;
}

static tessera_status download_all(struct hub_session *session, struct hub_listing *listing, tessera_error *error) {
    struct json *index = NULL;
    TRY(hub_cache_prepare(&session->cache, error));
    tessera_status status = read_index(session, listing, &index, error);
    if (status == TESSERA_OK) status = hub_listing_select(listing, index, session->options->variant, error);
    for (int i = 0; i < listing->count && status == TESSERA_OK; i++)
        if (listing->files[i].wanted) status = hub_download_file(session, listing->commit, &listing->files[i], error);
    json_free(index);
    if (status == TESSERA_OK) status = hub_cache_write_ref(&session->cache, session->name.revision, listing->commit, error);
    return status;
}

/* ---- the cache ---- */

/* The snapshot that the cache has for the revision. IO: none, or not all of it. */
static tessera_status find_local(const struct hub_session *session, char **folder, tessera_error *error) {
    char commit[HUB_COMMIT_BYTES];
    if (hub_cache_is_forbidden(&session->cache, session->name.revision))
        return error_set(error, TESSERA_ERROR_IO,
                         "%s: no permission to read this cache: its owner can grant it; HF_HUB_CACHE names another",
                         session->cache.repository);
    if (!hub_cache_commit(&session->cache, session->name.revision, commit))
        return error_set(error, TESSERA_ERROR_IO, "revision '%s' of %s is not in the cache %s", session->name.revision,
                         session->name.repository, session->cache.root);
    *folder = hub_cache_snapshot(&session->cache, commit, "");
    if (*folder == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a path in the cache");
    tessera_status status = hub_snapshot_check(*folder, error);
    if (status == TESSERA_OK) return status;
    free(*folder);
    *folder = NULL;
    return status;
}

static tessera_status resolve_offline(const struct hub_session *session, char **folder, tessera_error *error) {
    tessera_error reason = {0};
    tessera_status status = find_local(session, folder, &reason);
    if (status == TESSERA_OK) return status;
    return error_set(error, status, "%s, and HF_HUB_OFFLINE forbids to ask the hub: unset it, or download it elsewhere", reason.message);
}

/* What the hub has, or if it does not answer (for whatever reason) what the cache has. */
static tessera_status resolve_online(struct hub_session *session, char **folder, tessera_error *error) {
    struct hub_listing listing = {0};
    TRY(hub_http_open(&session->settings, &session->http, error));
    tessera_status status = ask_for_list(session, &listing, error);
    if (status == TESSERA_OK) {
        status = download_all(session, &listing, error);
        if (status == TESSERA_OK) *folder = hub_cache_snapshot(&session->cache, listing.commit, "");
        if (status == TESSERA_OK && *folder == NULL) status = error_set(error, TESSERA_ERROR_MEMORY, "no memory for a path in the cache");
    } else if (status == TESSERA_ERROR_IO && find_local(session, folder, NULL) == TESSERA_OK) {
        status = TESSERA_OK;
    }
    hub_listing_free(&listing);
    hub_http_close(session->http);
    return status;
}

tessera_status hub_resolve(const char *name, const struct hub_options *options, char **folder, tessera_error *error) {
    static const struct hub_options from_environment;
    struct hub_session session = {.options = options != NULL ? options : &from_environment};
    *folder = NULL;
    if (!hub_name_parse(name, &session.name))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "'%s' is no OWNER/NAME or OWNER/NAME@REVISION", name);
    tessera_status status = hub_settings_read(session.options, &session.settings, error);
    if (status == TESSERA_OK) status = hub_cache_open(session.settings.cache, session.name.repository, &session.cache, error);
    if (status == TESSERA_OK) {
        bool fixed =
            hub_is_commit(session.name.revision) && session.options->variant == NULL && find_local(&session, folder, NULL) == TESSERA_OK;
        if (!fixed) status = session.settings.offline ? resolve_offline(&session, folder, error) : resolve_online(&session, folder, error);
    }
    hub_cache_close(&session.cache);
    hub_settings_free(&session.settings);
    return status;
}
