/* Plans: which mesh suits a model, a picture, a number of ranks and a network. Nothing runs for it.
 *
 *     model (blocks as data) + machine (speeds, links, memory)
 *         --> every possible mesh data x cfg x pipefusion x (patch | ring x ulysses) x tensor
 *         --> seconds, bytes and memory of each --> the fastest that fits
 *
 * Bytes are exact for every strategy: they equal the ranks' counters (comm/stats.h). Seconds are
 * predicted, as docs/planner.md says: operations divided by a measured rate, and for each message
 * latency + bytes / bandwidth (Hockney 1994), minus what a strategy hides behind computing. Memory
 * is the weights that a rank's layers hold, exactly, and an estimate of activations.
 *
 * Nothing here knows a model: pipelines/plan_model.c fills struct plan_model from the blocks' own
 * descriptions. Left out: step caches, unlike links between hosts, loading time. */
#ifndef TESSERA_PARALLEL_PLAN_H
#define TESSERA_PARALLEL_PLAN_H

#include <stdio.h>

#include "comm/mesh.h"
#include "parallel/meeting.h"

/* ---- what is planned for ---- */

struct plan_block {
    double picture_operations, text_operations,
        pair_operations;                                  /* for each token of the picture, each token of the text, each pair of tokens */
    double weight_bytes, cut_bytes;                       /* on one rank; those of them that tensor parallelism slices */
    double work;                                          /* by which stages get their blocks */
    bool carries_text;                                    /* a later stage needs the text's tokens */
    struct denoiser_map out, pushed[DENOISER_MAX_PUSHES]; /* as in struct denoiser_block_info, with their channels */
    int pushes, pops;
    int num_meetings;
    struct meeting *meetings; /* owned */
};

struct plan_model {
    char name[64];
    int64_t rows, columns, channels, out_channels; /* of the latents, and of a prediction */
    int64_t patch_size, row_unit;                  /* as in struct denoiser; row_unit 0: cut by tokens */
    int64_t heads, max_tensor;                     /* limits, as there */
    int64_t width, cond_width;                     /* channels of a token of the picture between blocks, and of the conditioning */
    int64_t text_tokens;
    bool text_stream; /* the text meets the picture in attention */
    int constants;    /* tensors that a stage names by their digests: text that blocks only read, and its mask */
    int predictions;  /* in a step: 2 with guidance */
    int element_bytes;
    bool divides_no_sum; /* reproducible kernels: a mesh may divide no sum over ranks */
    int steps, pictures;
    int num_blocks;
    struct plan_block *blocks;                       /* [num_blocks], owned */
    double first_bytes, last_bytes, shared_bytes;    /* weights before the first block, after the last, and of every stage */
    double shared_cut_bytes;                         /* of shared_bytes, what tensor parallelism slices */
    double end_operations;                           /* of embedding and last projection, for each token */
    double text_operations, longest_text_operations; /* once for each picture: of all text encoders, of the largest */
    double decode_operations;
    double text_memory;                                  /* activations of the text encoder that needs most, and all prompts' states */
    double encoder_bytes, decoder_bytes, decoder_memory; /* weights of the largest text encoder and the autoencoder; its activations */
    double decoder_memory_narrow;                        /* the autoencoder's activations with narrow strips */
};
void plan_model_free(struct plan_model *model); /* what it owns */

struct plan_link {
    double latency, bandwidth; /* seconds that an empty message takes; bytes per second */
};

/* Rank r is on host r / per_host. If ranks are unequal, speeds[r] is rank r's rate, as a share of
 * `operations`. */
struct plan_machine {
    int ranks, per_host;
    struct plan_link between, inside; /* hosts (each host's link, which its ranks use together), and two ranks of one host */
    double operations;                /* per second, of products on one rank */
    double attention_share;           /* the rate of attention, as a share of that; 0 means 1 */
    double elements;                  /* per second, of norms and sums on one rank; 0: they take no time */
    double streaming;                 /* bytes of weights per second, which each pass reads once; 0: that takes no time */
    double crowding;        /* ranks for each processor, if there are more: how much faster a rank is while the others on it idle */
    int crowd;              /* how many neighbouring ranks run on the same processors (with emulated hosts); 0: those of a host */
    const double *speeds;   /* [ranks], or NULL: all 1 */
    double memory;          /* bytes for each rank; 0: no limit */
    bool proportional;      /* stages, rows and sequences are cut by the speeds (tessera_mesh.rank_weights); otherwise equally */
    const double *memories; /* [ranks], or NULL: `memory` for all */
};

/* ---- a plan ---- */

struct strategy; /* parallel/strategy.h */

struct plan_mesh {
    int degrees[MESH_AXES];
    int patches; /* of PipeFusion; 1: the whole picture goes through the stages, and the result is exact */
    int warmup_steps;
    bool split_text; /* of displaced patches: each rank has some of the text's tokens, not all of them */
    int patch_strategy; /* what a patch degree means: a strategy_place; 0: displaced patches. A number, because plans are sent to other ranks */
};
/* The strategy of the patch degree; NULL if that is 1. */
const struct strategy *plan_mesh_patch_strategy(const struct plan_mesh *mesh);
/* Whether each step is computed from its own values only. */
bool plan_mesh_is_exact(const struct plan_mesh *mesh);
int plan_mesh_ranks(const struct plan_mesh *mesh);
/* Writes "cfg 2 x ring 2 x ulysses 4" or "one rank"; returns `out`. */
const char *plan_mesh_text(const struct plan_mesh *mesh, char *out, size_t capacity);
/* Writes the options of `tessera generate` that choose the mesh; returns `out`. */
const char *plan_mesh_options(const struct plan_mesh *mesh, char *out, size_t capacity);

enum plan_limit { PLAN_BY_COMPUTE, PLAN_BY_BANDWIDTH, PLAN_BY_LATENCY, PLAN_BY_MEMORY, PLAN_LIMITS };
const char *plan_limit_name(enum plan_limit limit);

struct plan_memory { /* bytes of the rank that needs most */
    double weights, activations, stores, text_phase, decode_phase, most;
    double activations_by_rows; /* in place of `activations` if blocks work on some rows at a time (nn/by_rows.h), without those rows */
};

struct plan {
    struct plan_mesh mesh;
    double step_seconds, warmup_step_seconds, picture_seconds;
    double compute_seconds, bandwidth_seconds, latency_seconds; /* of a step: computing, and waits that computing does not hide */
    double text_seconds, decode_seconds;
    struct plan_memory memory;
    double over; /* bytes of memory that are missing; 0: it fits */
    enum plan_limit limit;
};

/* Checks that the model can run on the mesh. An ARGUMENT error says why not. */
tessera_status plan_check(const struct plan_model *model, const struct plan_mesh *mesh, tessera_error *error);
/* Predicts seconds and memory. The mesh must pass plan_check and have machine->ranks ranks. */
struct plan plan_evaluate(const struct plan_model *model, const struct plan_machine *machine, const struct plan_mesh *mesh);
/* The same with given stages: first[stages + 1] has the first block of each, and the end;
 * ranks[stages] has the rank of each (NULL: each its own). A rank may have several stages. The
 * machine and the mesh have a rank for each stage; memory is that of such ranks. */
struct plan plan_evaluate_stages(const struct plan_model *model, const struct plan_machine *machine, const struct plan_mesh *mesh,
                                 const int *first, const int *ranks);

/* All possible meshes of machine->ranks ranks: first those that fit, by seconds, then the others by
 * the bytes that are missing. The best comes before all: among those that take at most PLAN_TIE
 * times the fastest's seconds (no prediction tells these apart) an exact one, then one whose
 * attention sees the whole picture, then the one that sends least. `allow_displaced`: also
 * displaced patches, which see all others or their neighbours, and PipeFusion with several patches.
 * The caller frees *out. ARGUMENT if no mesh is possible. */
#define PLAN_TIE 1.03
tessera_status plan_rank(const struct plan_model *model, const struct plan_machine *machine, bool allow_displaced, struct plan **out,
                         int *count, tessera_error *error);

/* The best plan that fits, and three lines for a person that say why ("\n" between them). ARGUMENT
 * if no mesh is possible; MEMORY if none fits, with the bytes that are missing. */
enum { PLAN_REASON_LENGTH = 768 };
tessera_status plan_choose(const struct plan_model *model, const struct plan_machine *machine, bool allow_displaced, struct plan *out,
                           char reason[PLAN_REASON_LENGTH], tessera_error *error);

/* ---- bytes (plan_bytes.c) ---- */

/* What world rank `rank` sends in a step after warm-up, for each axis of the mesh. */
struct plan_bytes {
    uint64_t axis[MESH_AXES], sum;
};
struct plan_bytes plan_step_bytes(const struct plan_model *model, const struct plan_mesh *mesh, int rank);
/* The same for a warm-up step of PipeFusion (whole pictures) and of displaced patches; otherwise as
 * above. */
struct plan_bytes plan_warmup_bytes(const struct plan_model *model, const struct plan_mesh *mesh, int rank);

/* ---- for plan*.c ---- */

int plan_coordinate(const struct plan_mesh *mesh, int rank, enum mesh_axis axis);
/* How many ranks two neighbours along `axis` are apart. */
int plan_stride(const struct plan_mesh *mesh, enum mesh_axis axis);
/* The size of the cut group. */
int plan_cut_members(const struct plan_mesh *mesh);
/* Is the text cut over the cut group, as the picture is? Otherwise each rank has all of it. */
bool plan_cuts_text(const struct plan_model *model, const struct plan_mesh *mesh);
/* Writes the first block of each stage, and the end: first[stages + 1]. Stages get equal work, as
 * far as whole blocks allow. stages <= blocks. */
enum { PLAN_MAX_BLOCKS = 512, PLAN_MAX_SKIPS = 64 };
void plan_stages(const struct plan_model *model, int stages, int *first);
/* The skips that stage `stage` makes for stages of other ranks (first and ranks as above). Returns
 * how many; *parcels: in how many messages, one for each stage that uses some. */
int plan_skips(const struct plan_model *model, const int *first, const int *ranks, int stages, int stage,
               struct denoiser_map skips[PLAN_MAX_SKIPS], int *parcels);

/* ---- drawing (plan_svg.c) ---- */

/* Draws ranks in boxes, one box for each host, and lines between ranks that send to each other in a
 * step. A line's width is the logarithm of the bytes. At most 64 ranks. */
void plan_draw(FILE *stream, const struct plan_model *model, const struct plan_machine *machine, const struct plan *plan);

#endif
