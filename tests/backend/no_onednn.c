/* The CPU backend without oneDNN, for builds that have none: its own and its reproducible kernels
 * alone. */
#include "backend/cpu/cpu.h"

void onednn_limit(enum cpu_variant variant) {
}

tessera_status onednn_open(struct cpu_backend *backend, tessera_error *error) {
    return error_set(error, TESSERA_ERROR_UNSUPPORTED, "this build has no oneDNN");
}

void onednn_close(struct onednn *onednn) {
}

const char *onednn_isa_name(void) {
    return "none";
}
