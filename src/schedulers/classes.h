/* The sampler classes, for the table in scheduler.c only. */
#ifndef TESSERA_SCHEDULERS_CLASSES_H
#define TESSERA_SCHEDULERS_CLASSES_H

#include "schedulers/scheduler.h"

extern const struct scheduler_class flow_match_euler_class;

#endif
