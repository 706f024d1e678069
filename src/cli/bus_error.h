/* What the command says where a mapped file cannot be read any more: the system tells by SIGBUS
 * alone. */
#ifndef TESSERA_CLI_BUS_ERROR_H
#define TESSERA_CLI_BUS_ERROR_H

/* From now on SIGBUS ends the process with an error that names the file, status EXIT_FAILED. */
void bus_error_catch(void);

#endif
