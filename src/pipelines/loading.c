/* Loads and drops the weights of a pipeline's components. See pipeline.h. */
#include "base/clock.h"
#include "pipelines/pipeline.h"

/* Loads its weights: all of them, or a stream that brings them as they are needed. */
static tessera_status load_slot(struct pipeline *p, struct pipeline_slot *slot, tessera_error *error) {
    if (p->offload == OFFLOAD_NONE) return component_load(&slot->component, error);
    return component_stream_open(&slot->component, offload_budget(p, slot), &slot->stream, error);
}

static tessera_status open_loaded(struct pipeline *p, struct pipeline_slot *slot, tessera_error *error) {
    TRY(slot->is_open ? weights_check(slot->component.weights, error) : pipeline_open_slot(p, slot, error));
    double start = clock_seconds();
    tessera_status status = load_slot(p, slot, error);
    if (status != TESSERA_OK) {
        pipeline_close_slot(p, slot);
        return status;
    }
    slot->is_loaded = true;
    p->seconds_load += clock_seconds() - start;
    return TESSERA_OK;
}

tessera_status pipeline_meet(struct pipeline *p, tessera_error *error) {
    double start = clock_seconds();
    TRY(team_meet(&p->team, error));
    p->seconds_load += clock_seconds() - start;
    return TESSERA_OK;
}

tessera_status pipeline_component(struct pipeline *p, const char *name, struct component **out, tessera_error *error) {
    const struct pipeline_slot *found;
    TRY(pipeline_need_slot(p, name, &found, error));
    struct pipeline_slot *slot = &p->slots[found - p->slots];
    TRY(slot->is_loaded ? weights_check(slot->component.weights, error) : open_loaded(p, slot, error));
    *out = &slot->component;
    return TESSERA_OK;
}

void pipeline_done_with(struct pipeline *p, const char *name) {
    int index = pipeline_slot_index(p, name);
    if (index >= 0 && p->offload != OFFLOAD_NONE) pipeline_close_slot(p, &p->slots[index]);
}
