/* How plans and device maps read a program's structs. Private to this room. */
#ifndef TESSERA_PIPELINES_PLANS_H
#define TESSERA_PIPELINES_PLANS_H

#include "parallel/plan.h"
#include "pipelines/plan_model.h"
#include "tessera_plan.h"

/* NULL: the defaults. */
tessera_status plans_read_machine(const tessera_plan_machine *given, struct plan_machine *out, int *threads, tessera_error *error);
tessera_status plans_read_request(const tessera_plan_request *given, struct plan_request *out, tessera_error *error);
/* The folder of a published model's configs, if `model` is the name of one and no file; else NULL.
 * The caller frees it. */
tessera_status plans_find_model(const char *model, char **folder, tessera_error *error);
/* Fills the rates of this machine if the program gave none. */
tessera_status plans_measure(const struct plan_model *model, int threads, struct plan_machine *machine, tessera_error *error);

#endif
