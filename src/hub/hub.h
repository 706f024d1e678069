/* Models by name: OWNER/NAME[@REVISION] on the Hugging Face hub, from the local cache or downloaded
 * into it.
 *
 *     hub (CACHE)
 *       models--OWNER--NAME/
 *         refs/main                       the commit that the branch stood at
 *         blobs/ETAG                      a file's bytes, named by its checksum; ETAG.incomplete while it is on its way
 *         snapshots/COMMIT/vae/config.json -> ../../../blobs/ETAG
 *       .locks/models--OWNER--NAME/ETAG.lock
 *
 * The cache is that of the huggingface_hub library, byte for byte, so both share what either has
 * downloaded. Of a repository only the files of its pipeline are taken, as diffusers chooses them:
 * model_index.json, and of each component named there the configuration, tokenizer and scheduler
 * files and one kind of weights (hub_files.c). A download that was cut is resumed, a finished one
 * is compared with the checksum that the hub names before it gets its place, and several processes
 * share one download.
 *
 * Leaves out: repositories without model_index.json, datasets, and the hub's "xet" transfer
 * (files kept there come over plain HTTPS). */
#ifndef TESSERA_HUB_HUB_H
#define TESSERA_HUB_HUB_H

#include "base/error.h"

/* Called at least once a second while `file` (its path in the repository, "" for the list of files)
 * is on its way; `done` of `total` bytes are there. Return false to stop: what has arrived is kept
 * and the next call goes on from there. */
typedef bool (*hub_progress)(void *user, const char *file, uint64_t done, uint64_t total);

/* Zeros mean: what the environment says. */
struct hub_options {
    const char *endpoint;  /* HF_ENDPOINT, else https://huggingface.co */
    const char *cache;     /* HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub */
    const char *token;     /* HF_TOKEN, else the file HF_HOME/token; sent to the endpoint and to no other host */
    const char *ca_bundle; /* SSL_CERT_FILE, REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE, else the system's certificates */
    int timeout_seconds;   /* without a byte; HF_HUB_DOWNLOAD_TIMEOUT, else 30 */
    const char *variant;   /* "fp16": weight files with this in their name where there are such; NULL: without, if there are any */
    bool offline;          /* ask the cache only; so does HF_HUB_OFFLINE=1 */
    hub_progress progress; /* may be NULL */
    void *user;
};

/* Whether `model` has the shape OWNER/NAME or OWNER/NAME@REVISION and no file or folder of that
 * name is here. */
bool hub_is_name(const char *model);

/* The snapshot folder that `name` stands for, with every file of its pipeline in it; the caller
 * frees *folder. Without an answer from the hub a complete snapshot in the cache is good enough.
 * `options` may be NULL. ARGUMENT: no such shape. IO: no such repository or revision, access
 * refused, network or server down, disk full, checksum mismatch (the file is removed). FORMAT: an
 * answer that breaks the hub's protocol. UNSUPPORTED: nothing there that can be read. CANCELLED: by
 * `progress`. */
tessera_status hub_resolve(const char *name, const struct hub_options *options, char **folder, tessera_error *error);

#endif
