/* The sampler classes, for the table in scheduler.c only. */
#ifndef TESSERA_SCHEDULERS_CLASSES_H
#define TESSERA_SCHEDULERS_CLASSES_H

#include "schedulers/scheduler.h"

extern const struct scheduler_class flow_match_euler_class;
extern const struct scheduler_class ddim_class;
extern const struct scheduler_class ddpm_class;
extern const struct scheduler_class pndm_class;
extern const struct scheduler_class euler_class;
extern const struct scheduler_class euler_ancestral_class;
extern const struct scheduler_class dpm_solver_multistep_class;
extern const struct scheduler_class unipc_multistep_class;
extern const struct scheduler_class lcm_class;

#endif
