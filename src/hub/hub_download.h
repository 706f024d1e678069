/* One file of a repository from the hub into the cache: blob, checksum, link. */
#ifndef TESSERA_HUB_DOWNLOAD_H
#define TESSERA_HUB_DOWNLOAD_H

#include "hub/hub_files.h"
#include "hub/hub_http.h"

/* What a resolve works with. */
struct hub_session {
    const struct hub_options *options;
    struct hub_settings settings;
    struct hub_name name;
    struct hub_cache cache;
    struct hub_http *http;
};

/* Says in one line why the hub answered `reply->status` for `what` (a file, or "" for the
 * repository). Returns IO. */
tessera_status hub_refused(const struct hub_session *session, const struct hub_reply *reply, const char *what, tessera_error *error);

/* Makes snapshots/COMMIT/PATH if it is not there. Errors as of hub_resolve. */
tessera_status hub_download_file(struct hub_session *session, const char *commit, const struct hub_file *file, tessera_error *error);

#endif
