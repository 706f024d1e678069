/* See prompt_reading.h. */
#include "pipelines/prompt_reading.h"

void prompt_reading_parts(struct prompt_reading *reading, struct tensor *parts[PROMPT_READING_PARTS]) {
    parts[0] = &reading->mask;
    parts[1] = &reading->states.last_hidden_state;
    parts[2] = &reading->states.penultimate;
    parts[3] = &reading->states.pooled;
}
