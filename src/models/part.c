/* The brackets around a part's computation: see part.h. */
#include "models/part.h"

bool part_begin(const struct part_watch *watch, struct run *run, int part) {
    if (run_failed(run)) return false;
    if (watch != NULL) run_checked(run, watch->before(watch->user, part, &run->error), (struct tensor){0});
    return !run_failed(run);
}

void part_end(const struct part_watch *watch, int part) {
    if (watch != NULL) watch->after(watch->user, part);
}
