/* How much of a model is in memory at a time.
 *
 *     none     what a request opens stays open for the next one
 *     stages   text encoders, denoiser and autoencoder: each is open while its stage works, and no two are open together
 *     blocks   the same, and of each component only a window of blocks is loaded, and more of them where there is memory
 *     auto     the first of these that fits the memory there is, for each request
 *
 * Where a way fits only if attention and feed-forward networks work on some rows at a time (nn/by_rows.h) and autoencoders in narrower
 * strips, they do.
 *
 * Without "none" weights are streamed from the disk (models/stream.h). Every way gives the same picture to the bit. All ranks of a model
 * take the same way, but each keeps as many blocks as its own memory holds. Private to this room. */
#ifndef TESSERA_PIPELINES_OFFLOAD_H
#define TESSERA_PIPELINES_OFFLOAD_H

#include "comm/mesh.h"
#include "models/registry.h"
#include "parallel/placement.h"
#include "pipelines/plan_model.h"

struct pipeline;
struct pipeline_slot;

enum offload { OFFLOAD_NONE, OFFLOAD_STAGES, OFFLOAD_BLOCKS, OFFLOAD_AUTO };

/* What a request's stages need beside weights, in bytes. */
struct offload_needs {
    size_t text, denoise, decode;
    size_t denoise_by_rows, decode_by_rows; /* where blocks work on some rows at a time, and autoencoders in narrow strips */
    size_t pictures;                        /* what is held from the first stage to the last: what is delivered */
    unsigned roles;                         /* bits of the pipeline_roles that take part */
};

/* What of a request the choice depends on. */
struct offload_question {
    struct plan_request request;
    unsigned roles;
    size_t pictures; /* that are held at a time */
};

/* From a name of TESSERA_OFFLOADS; NULL is "auto". ARGUMENT if it is none of them. */
tessera_status offload_read(const char *name, enum offload *out, tessera_error *error);
/* What the stages of such a request need on each rank of a mesh. */
tessera_status offload_needs_of(struct pipeline *p, const struct plan_request *request, const int degrees[MESH_AXES],
                                struct offload_needs *out, tessera_error *error);
/* What weights take that this rank has of a component, or one segment of it: as they are stored until they are loaded, then what layers hold;
 * `largest`: the largest segment on its way from one to the other. */
struct placement_weight offload_weigh(const struct component *component);
struct placement_weight offload_weigh_segment(const struct component *component, int segment);
/* What a process holds whatever the way: what was resident when the model was opened, what libraries take while they compute, and pictures. */
double offload_base(size_t resident, double pictures);
double offload_picture_bytes(double pictures, double width, double height);

/* What can be said before any request: limits, and whether the model is large. Without a limit `auto` keeps no model whole that takes half of
 * the machine's memory: other programs need the rest. Models on other devices than the host are not judged by its memory. After the backends.
 * Collective over the model's ranks. */
tessera_status offload_open(struct pipeline *p, const tessera_model_options *options, tessera_error *error);
/* Sets p->offload, p->by_rows and p->needs for the stages of these `roles` and pictures of this size (the one worked at), from what was asked
 * for, the weights and the memory: the limit that was given, or without one the machine's or the control group's. MEMORY where no way that may
 * be taken fits, with how much is missing. What was found for the request before counts for one of the same size. Collective over the picture's
 * ranks. */
tessera_status offload_choose(struct pipeline *p, const tessera_request *request, unsigned roles, int width, int height, tessera_error *error);
/* How many bytes may be held until later requests, `most` at most, held_memory among them: what this request needs has room beside. */
size_t offload_room(const struct pipeline *p, size_t most);
/* Makes a run of this pipeline's work on as much at a time as the choice allows. */
void offload_set_run(const struct pipeline *p, struct run *run);
/* How much memory a component that is about to be opened may take for its weights. */
size_t offload_budget(const struct pipeline *p, const struct pipeline_slot *slot);

#endif
