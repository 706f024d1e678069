/* Fuzz target: scheduler_config.json. Whatever opens and gives a schedule of ten steps can be
 * stepped through. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "schedulers/scheduler.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STEPS = 10, COUNT = 4 };

static void run_steps(struct scheduler *scheduler) {
    struct scheduler_state state = {0};
    float sample[COUNT] = {1, -1, 0.5f, 0}, input[COUNT], output[COUNT] = {0.25f, 1, -2, 0}, noise[COUNT] = {1, 0, -1, 2};
    if (scheduler_set_timesteps(scheduler, STEPS, scheduler_mu(scheduler, 1024), NULL) != TESSERA_OK) return;
    if (scheduler_state_init(scheduler, COUNT, &state, NULL) != TESSERA_OK) return;
    if (scheduler->class->add_noise != NULL) scheduler->class->add_noise(scheduler, scheduler->num_steps / 2, sample, sample, noise, COUNT);
    for (int i = 0; i < scheduler->num_steps; i++) {
        if (scheduler->class->scale_model_input != NULL) scheduler->class->scale_model_input(scheduler, i, input, sample, COUNT);
        scheduler_step(scheduler, &state, i, sample, output, noise, COUNT);
    }
    scheduler_state_free(&state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct scheduler *scheduler = NULL;
    tessera_error error = {0};
    char path[32];
    int file = memfd_create("scheduler_config.json", 0);
    if (file < 0 || write(file, data, size) != (ssize_t)size) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    tessera_status status = scheduler_open(path, NULL, &scheduler, &error);
    close(file);
    if (status != TESSERA_OK && (scheduler != NULL || error.message[0] == 0)) abort();
    if (status == TESSERA_OK) run_steps(scheduler);
    scheduler_free(scheduler);
    return 0;
}
