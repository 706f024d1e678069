/* The table of sampler classes, for scheduler.c only. */
#ifndef TESSERA_SCHEDULERS_CLASSES_H
#define TESSERA_SCHEDULERS_CLASSES_H

#include "schedulers/scheduler.h"

/* CLASS(variable, its name in scheduler_config.json). A new sampler is one file and one line here. */
#define SCHEDULER_CLASSES(CLASS)                                     \
    CLASS(flow_match_euler_class, "FlowMatchEulerDiscreteScheduler") \
    CLASS(ddim_class, "DDIMScheduler")                               \
    CLASS(ddpm_class, "DDPMScheduler")                               \
    CLASS(pndm_class, "PNDMScheduler")                               \
    CLASS(euler_class, "EulerDiscreteScheduler")                     \
    CLASS(euler_ancestral_class, "EulerAncestralDiscreteScheduler")  \
    CLASS(dpm_solver_multistep_class, "DPMSolverMultistepScheduler") \
    CLASS(unipc_multistep_class, "UniPCMultistepScheduler")          \
    CLASS(lcm_class, "LCMScheduler")

#define DECLARE_CLASS(class, name) extern const struct scheduler_class class;
SCHEDULER_CLASSES(DECLARE_CLASS)
#undef DECLARE_CLASS

#endif
