/* How much of a model is in memory at a time.
 *
 *     none     what a request opens stays open for the next one
 *     stages   text encoders, denoiser and autoencoder: each is open during its phase, and no two at the same time
 *     blocks   the same, and of each component only a window of blocks is loaded, or more if there is memory
 *     auto     the first of these that fits into the memory, for each request
 *
 * If a way fits only when attention and feed-forward networks work on some rows at a time
 * (nn/by_rows.h) and autoencoders in narrower strips, they work so.
 *
 * With all ways but "none", weights are streamed from the disk (models/stream.h). Every way gives
 * the same picture to the bit. All ranks of a model take the same way, but each keeps as many
 * blocks as fit into its own memory. Private to this room. */
#ifndef TESSERA_PIPELINES_OFFLOAD_H
#define TESSERA_PIPELINES_OFFLOAD_H

#include "comm/mesh.h"
#include "models/registry.h"
#include "parallel/placement.h"
#include "pipelines/plan_model.h"

struct pipeline;
struct pipeline_slot;

enum offload { OFFLOAD_NONE, OFFLOAD_STAGES, OFFLOAD_BLOCKS, OFFLOAD_AUTO };

/* What a request's phases need beside weights, in bytes. */
struct offload_needs {
    size_t text, denoise, decode;
    size_t denoise_by_rows, decode_by_rows; /* if blocks work on some rows at a time, and autoencoders in narrow strips */
    size_t pictures;                        /* held from the first phase to the last: the pictures that are delivered */
    unsigned roles;                         /* bits of the pipeline_roles that take part */
};

/* What of a request the choice depends on. */
struct offload_question {
    struct plan_request request;
    unsigned roles;
    size_t pictures; /* that are held at a time */
};

/* Reads a name of TESSERA_OFFLOADS; NULL is "auto". ARGUMENT if it is none of them. */
tessera_status offload_read(const char *name, enum offload *out, tessera_error *error);
/* What the phases of such a request need on each rank of a mesh. */
tessera_status offload_needs_of(struct pipeline *p, const struct plan_request *request, const int degrees[MESH_AXES],
                                struct offload_needs *out, tessera_error *error);
/* The memory of this rank's weights of a component, or of one segment of it: as stored before they
 * are loaded, then what layers hold. `largest`: what the largest segment takes while it is loaded.
 */
struct placement_weight offload_weigh(const struct component *component);
struct placement_weight offload_weigh_segment(const struct component *component, int segment);
/* What a process holds with every way: what was resident when the model was opened, what libraries
 * take while they compute, and pictures. */
double offload_base(size_t resident, double pictures);
double offload_picture_bytes(double pictures, double width, double height);

/* Finds what is known before any request: limits, and whether the model is large. Without a limit,
 * `auto` keeps no model whole that takes half of the machine's memory, because other programs need
 * the rest. The host's memory does not count for models on other devices. Call it after the
 * backends are open, on all of the model's ranks. */
tessera_status offload_open(struct pipeline *p, const tessera_model_options *options, tessera_error *error);
/* Sets p->offload, p->by_rows and p->needs for the phases of these `roles` and pictures of this
 * working size. It depends on the options, the weights and the memory: the limit of the options, or
 * else the machine's or the control group's. MEMORY if no permitted way fits, with the bytes that
 * are missing. A request of the same size as the one before it gets the same choice. Call it on all
 * of the picture's ranks. */
tessera_status offload_choose(struct pipeline *p, const tessera_request *request, unsigned roles, int width, int height, tessera_error *error);
/* How many bytes may be kept for later requests, at most `most`, including held_memory, so that
 * this request still fits. */
size_t offload_room(const struct pipeline *p, size_t most);
/* Sets how much a run of this pipeline works on at a time. */
void offload_set_run(const struct pipeline *p, struct run *run);
/* How much memory the weights of a component may take that is about to be opened. It is never less
 * than its largest segment takes if offload_choose found that the request fits: what the process
 * holds by then is an estimate too, and must not refuse a picture whose denoising is done. */
size_t offload_budget(const struct pipeline *p, const struct pipeline_slot *slot);

#endif
