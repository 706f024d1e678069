/* The cache on disk; see hub_cache.h for what each function promises, hub.h for the layout.
 *
 * Whatever others may read meanwhile (refs, links) is made under another name and renamed into
 * place. Lock files stay when the lock is given back: removing them would let two processes lock
 * two files of one name. Left out: file systems without symbolic links. */
#include "hub/hub_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/file.h"
#include "base/text.h"
#include "hub/hub_settings.h"

#define LOCK_POLL_NANOSECONDS 50000000 /* between two looks at a lock that another process holds */

static tessera_status no_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a path in the cache");
}

tessera_status hub_cache_open(const char *root, const char *repository, struct hub_cache *cache, tessera_error *error) {
    *cache = (struct hub_cache){.root = strdup(root)};
    int owner = (int)strcspn(repository, "/");
    const char *name = repository + owner + 1;
    if (asprintf(&cache->repository, "%s/models--%.*s--%s", root, owner, repository, name) < 0) cache->repository = NULL;
    if (asprintf(&cache->locks, "%s/.locks/models--%.*s--%s", root, owner, repository, name) < 0) cache->locks = NULL;
    return cache->root != NULL && cache->repository != NULL && cache->locks != NULL ? TESSERA_OK : no_memory(error);
}

void hub_cache_close(struct hub_cache *cache) {
    free(cache->root);
    free(cache->repository);
    free(cache->locks);
    *cache = (struct hub_cache){0};
}

/* ---- folders ---- */

/* Makes `path` up to its first `length` bytes, with every folder above it. */
static tessera_status make_folders(const char *path, size_t length, tessera_error *error) {
    char *piece = strndup(path, length);
    if (piece == NULL) return no_memory(error);
    tessera_status status = TESSERA_OK;
    for (char *slash = piece + 1; status == TESSERA_OK; slash++) {
        slash += strcspn(slash, "/");
        bool last = *slash == 0;
        *slash = 0;
        if (mkdir(piece, 0777) != 0 && errno != EEXIST && !file_is_folder(piece))
            status = error_set_errno(error, "%s: cannot make this folder (HF_HOME or HF_HUB_CACHE names another place)", piece);
        if (last) break;
        *slash = '/';
    }
    free(piece);
    return status;
}

static tessera_status make_parent(const char *path, tessera_error *error) {
    size_t length = strlen(path);
    while (length > 0 && path[length - 1] != '/') length--;
    return length <= 1 ? TESSERA_OK : make_folders(path, length - 1, error);
}

/* The tag of https://bford.info/cachedir, with the words of huggingface_hub. A cache without it
 * works too. */
static void write_tag(const struct hub_cache *cache) {
    char *path = file_join(cache->root, "CACHEDIR.TAG");
    struct file_output output;
    if (path != NULL && !file_exists(path) && file_output_open(path, &output, NULL) == TESSERA_OK) {
        fputs("Signature: 8a477f597d28d172789f06886806bc55\n"
              "# This file is a cache directory tag created by huggingface_hub.\n"
              "# For information about cache directory tags, see:\n"
              "#\thttps://bford.info/cachedir/\n",
              output.stream);
        file_output_commit(&output, NULL);
    }
    free(path);
}

tessera_status hub_cache_prepare(const struct hub_cache *cache, tessera_error *error) {
    char *blobs = file_join(cache->repository, "blobs");
    tessera_status status = blobs != NULL ? make_folders(blobs, strlen(blobs), error) : no_memory(error);
    free(blobs);
    if (status == TESSERA_OK) status = make_folders(cache->locks, strlen(cache->locks), error);
    if (status == TESSERA_OK) write_tag(cache);
    return status;
}

/* ---- names from outside ---- */

bool hub_cache_safe_path(const char *path) {
    char cleaned[1025];
    if (strlen(path) >= sizeof cleaned) return false;
    strcpy(cleaned, path);
    text_clean(cleaned); /* it is printed, too */
    if (strcmp(cleaned, path) != 0) return false;
    for (const char *piece = path;; piece++) {
        size_t length = strcspn(piece, "/");
        if (length == 0 || length > 255) return false;
        if (strncmp(piece, ".", length) == 0 || strncmp(piece, "..", length) == 0) return false;
        piece += length;
        if (*piece == 0) return true;
    }
}

bool hub_cache_safe_etag(const char *etag) {
    size_t length = strlen(etag);
    size_t safe = strspn(etag, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.");
    return length > 0 && length < HUB_ETAG_BYTES && safe == length && etag[0] != '.';
}

/* ---- refs ---- */

static char *ref_path(const struct hub_cache *cache, const char *revision) {
    char *path = NULL;
    return asprintf(&path, "%s/refs/%s", cache->repository, revision) < 0 ? NULL : path;
}

bool hub_cache_commit(const struct hub_cache *cache, const char *revision, char commit[HUB_COMMIT_BYTES]) {
    char *path = ref_path(cache, revision), *text = NULL;
    size_t length;
    bool known = hub_is_commit(revision);
    if (known) {
        memcpy(commit, revision, HUB_COMMIT_BYTES);
    } else if (path != NULL && file_exists(path) && file_read_regular(path, 4096, &text, &length, NULL) == TESSERA_OK) {
        text[strcspn(text, "\r\n ")] = 0;
        known = hub_is_commit(text);
        if (known) memcpy(commit, text, HUB_COMMIT_BYTES);
    }
    free(text);
    free(path);
    return known;
}

bool hub_cache_is_forbidden(const struct hub_cache *cache, const char *revision) {
    char *path = ref_path(cache, revision), *snapshots = file_join(cache->repository, "snapshots");
    bool forbidden =
        (path != NULL && !hub_is_commit(revision) && file_is_forbidden(path)) || (snapshots != NULL && file_is_forbidden(snapshots));
    free(snapshots);
    free(path);
    return forbidden;
}

tessera_status hub_cache_write_ref(const struct hub_cache *cache, const char *revision, const char *commit, tessera_error *error) {
    char old[HUB_COMMIT_BYTES];
    if (hub_cache_commit(cache, revision, old) && strcmp(old, commit) == 0) return TESSERA_OK;
    char *path = ref_path(cache, revision);
    if (path == NULL) return no_memory(error);
    struct file_output output;
    tessera_status status = make_parent(path, error);
    if (status == TESSERA_OK) status = file_output_open(path, &output, error);
    if (status == TESSERA_OK) {
        fputs(commit, output.stream); /* a failure shows in the commit */
        status = file_output_commit(&output, error);
    }
    free(path);
    return status;
}

/* ---- files ---- */

char *hub_cache_snapshot(const struct hub_cache *cache, const char *commit, const char *file) {
    char *path = NULL;
    return asprintf(&path, "%s/snapshots/%s%s%s", cache->repository, commit, file[0] != 0 ? "/" : "", file) < 0 ? NULL : path;
}

char *hub_cache_blob(const struct hub_cache *cache, const char *etag, const char *suffix) {
    char *path = NULL;
    return asprintf(&path, "%s/blobs/%s%s", cache->repository, etag, suffix) < 0 ? NULL : path;
}

/* "../../blobs/ETAG", with one more "../" for each folder in `file`; the caller frees. */
static char *link_target(const char *file, const char *etag) {
    size_t depth = 2;
    for (const char *c = file; *c != 0; c++) depth += *c == '/';
    char *target = malloc(depth * 3 + sizeof "blobs/" + strlen(etag));
    if (target == NULL) return NULL;
    for (size_t i = 0; i < depth; i++) memcpy(target + i * 3, "../", 3);
    strcpy(target + depth * 3, "blobs/");
    strcat(target, etag);
    return target;
}

tessera_status hub_cache_link(const struct hub_cache *cache, const char *commit, const char *file, const char *etag, tessera_error *error) {
    char *path = hub_cache_snapshot(cache, commit, file), *target = link_target(file, etag), *temporary = NULL;
    if (path != NULL && asprintf(&temporary, "%s.%ld.tmp", path, (long)getpid()) < 0) temporary = NULL;
    tessera_status status = path != NULL && target != NULL && temporary != NULL ? make_parent(path, error) : no_memory(error);
    if (status == TESSERA_OK) {
        unlink(temporary); /* of a killed process with our number */
        if (symlink(target, temporary) != 0 || rename(temporary, path) != 0) {
            status = error_set_errno(error, "%s: cannot make this link (the cache needs a file system with symbolic links)", path);
            unlink(temporary);
        }
    }
    free(temporary);
    free(target);
    free(path);
    return status;
}

/* ---- locks ---- */

/* A lock on a file that has lost its name meanwhile guards nothing. */
static bool has_name(int descriptor) {
    struct stat about;
    return fstat(descriptor, &about) == 0 && about.st_nlink > 0;
}

tessera_status hub_cache_lock(const struct hub_cache *cache, const char *etag, bool (*wait)(void *user), void *user, int *lock,
                              tessera_error *error) {
    char *path = NULL;
    tessera_status status = TESSERA_OK;
    *lock = -1;
    if (asprintf(&path, "%s/%s.lock", cache->locks, etag) < 0) return no_memory(error);
    for (;;) {
        int descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0664);
        if (descriptor < 0) {
            status = error_set_errno(error, "%s: cannot open this lock file", path);
            break;
        }
        (void)!fchmod(descriptor, 0664); /* whatever the umask: others of the group may lock it too */
        if (flock(descriptor, LOCK_EX | LOCK_NB) == 0) {
            *lock = descriptor;
            if (has_name(descriptor)) break;
            *lock = -1;
        } else if (errno != EWOULDBLOCK && errno != EINTR) {
            status = error_set_errno(error, "%s: cannot lock", path);
            close(descriptor);
            break;
        }
        close(descriptor);
        if (!wait(user)) {
            status = error_set(error, TESSERA_ERROR_CANCELLED, "stopped while another process was downloading the same file");
            break;
        }
        nanosleep(&(struct timespec){.tv_nsec = LOCK_POLL_NANOSECONDS}, NULL);
    }
    free(path);
    return status;
}

void hub_cache_unlock(int lock) {
    if (lock >= 0) close(lock);
}
