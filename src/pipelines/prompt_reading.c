/* See prompt_reading.h. */
#include "pipelines/prompt_reading.h"

void prompt_reading_tensors(struct prompt_reading *reading, struct tensor *tensors[PROMPT_READING_TENSORS]) {
    tensors[0] = &reading->mask;
    tensors[1] = &reading->states.last_hidden_state;
    tensors[2] = &reading->states.penultimate;
    tensors[3] = &reading->states.pooled;
}
