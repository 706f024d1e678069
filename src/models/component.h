/* What opening (registry.c) and loading (component.c) of a component share. Private to this room. */
#ifndef TESSERA_MODELS_COMPONENT_H
#define TESSERA_MODELS_COMPONENT_H

#include "models/registry.h"

struct loader component_loader(const struct component *component, enum load_mode mode, struct arena *arena);
/* Hooks of what is described by its configuration alone. */
extern const struct load_hooks component_asks_nothing;
/* Describes all segments of a component whose handle is open. Errors of names, shapes and types. */
tessera_status component_describe_segments(struct component *component, tessera_error *error);

#endif
