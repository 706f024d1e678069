/* Which kernels compute, as --kernels names them. */
#ifndef TESSERA_CLI_KERNEL_OPTIONS_H
#define TESSERA_CLI_KERNEL_OPTIONS_H

#include "cli/options.h"
#include "tessera.h"

#define KERNEL_NAMES "best|own|reproducible"

/* Of an option with these choices; the best ones if it is not given. */
tessera_kernels kernel_options_read(const struct option_value *value);

#endif
