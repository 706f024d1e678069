/* A reply that is a text: see server.h. */
#include <stdarg.h>
#include <stdio.h>

#include "split/server.h"

void server_reply_text(struct server_reply *reply, int status, const char *format, ...) {
    va_list arguments;
    char *text = NULL;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    reply->status = status;
    reply->data = length < 0 ? NULL : text;
    reply->size = length < 0 ? 0 : (size_t)length;
}
