/* Which meshes a picture is large enough for. */
#ifndef TESSERA_TESTS_CHECK_CUT_H
#define TESSERA_TESTS_CHECK_CUT_H

#include "base/error.h"
#include "models/denoiser.h"

/* ARGUMENT if there would be ranks (ring x ulysses) without any of the latents' rows and columns. */
static inline tessera_status check_cut(const struct denoiser *denoiser, int64_t rows, int64_t columns, int ranks, tessera_error *error) {
    int64_t unit = denoiser->row_unit, p = denoiser->patch_size;
    int64_t most = unit > 0 ? (rows + unit - 1) / unit : (rows / p) * (columns / p);
    if (ranks <= most) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT,
                     "%s: latents of %lld rows and %lld columns cannot be cut over %d ranks: a part has at least %lld %s, so at most %lld "
                     "are possible",
                     denoiser->class->name, (long long)rows, (long long)columns, ranks, (long long)(unit > 0 ? unit : 1),
                     unit > 0 ? "rows" : "patch", (long long)most);
}

#endif
