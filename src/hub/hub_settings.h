/* What the options and the environment say together; the names are huggingface_hub's. */
#ifndef TESSERA_HUB_SETTINGS_H
#define TESSERA_HUB_SETTINGS_H

#include "hub/hub.h"

#define HUB_NAME_BYTES 200
#define HUB_REVISION_BYTES 200

struct hub_settings {
    char *endpoint;                  /* without '/' at the end */
    char *cache, *token, *ca_bundle; /* the last two may be NULL */
    int timeout_seconds;
    bool offline;
};

/* Free with hub_settings_free, after a failure too. ARGUMENT: a token or an endpoint that cannot be
 * one. */
tessera_status hub_settings_read(const struct hub_options *options, struct hub_settings *settings, tessera_error *error);
void hub_settings_free(struct hub_settings *settings);

struct hub_name {
    char repository[HUB_NAME_BYTES];   /* OWNER/NAME */
    char revision[HUB_REVISION_BYTES]; /* a branch, a tag, refs/pr/N or a commit; "main" if not given */
};

/* False if `text` is no OWNER/NAME[@REVISION]. */
bool hub_name_parse(const char *text, struct hub_name *name);
/* Whether `text` is a whole commit: 40 lower-case hexadecimal digits. */
bool hub_is_commit(const char *text);

#endif
