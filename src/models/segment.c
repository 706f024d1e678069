/* The brackets around a segment's computation: see segment.h. */
#include "models/segment.h"

bool segment_begin(const struct segment_watch *watch, struct run *run, int segment) {
    if (run_failed(run)) return false;
    if (watch != NULL) run_checked(run, watch->before(watch->user, segment, &run->error), (struct tensor){0});
    return !run_failed(run);
}

void segment_end(const struct segment_watch *watch, int segment) {
    if (watch != NULL) watch->after(watch->user, segment);
}
