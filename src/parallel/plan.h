/* Plans: which mesh suits a model, a picture, a number of ranks and a network, before anything runs.
 *
 *     model (blocks as data) + machine (speeds, links, memory)
 *         --> every mesh data x cfg x pipefusion x (patch | ring x ulysses) x tensor that is possible
 *         --> seconds, bytes and memory of each --> the fastest that fits
 *
 * Bytes are exact for every strategy: what the ranks' counters (comm/stats.h) show. Seconds are a model, written down in docs/planner.md:
 * operations over a measured rate, messages as latency + bytes / bandwidth (Hockney 1994), less what a strategy hides behind computing.
 * Memory is weights, exactly as many as a rank's layers hold, and an estimate of activations.
 *
 * Nothing here knows a model: pipelines/plan_model.c fills struct plan_model from the blocks' own descriptions.
 * Left out: step caches, unlike links between hosts, loading time. */
#ifndef TESSERA_PARALLEL_PLAN_H
#define TESSERA_PARALLEL_PLAN_H

#include <stdio.h>

#include "comm/mesh.h"
#include "parallel/meeting.h"

/* ---- what is planned for ---- */

struct plan_block {
    double picture_operations, text_operations, pair_operations; /* for each token of the picture, of the text, and each pair of tokens */
    double weight_bytes, cut_bytes;                              /* on one rank; those of them that tensor cuts */
    double work;                                                 /* by which blocks are dealt to stages */
    bool carries_text;                                           /* a stage behind it needs the text's tokens */
    struct denoiser_map out, pushed[DENOISER_MAX_PUSHES];        /* as in struct denoiser_block_info, with their channels */
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
    int predictions;  /* of a step: 2 with guidance */
    int element_bytes;
    bool divides_no_sum; /* reproducible kernels: no mesh that divides a sum over ranks */
    int steps, pictures;
    int num_blocks;
    struct plan_block *blocks;                       /* [num_blocks], owned */
    double first_bytes, last_bytes, shared_bytes;    /* weights before the first block, behind the last, and of every stage */
    double shared_cut_bytes;                         /* what tensor cuts of the last */
    double end_operations;                           /* of embedding and last projection, for each token */
    double text_operations, longest_text_operations; /* once a picture: of all text encoders, of the largest */
    double decode_operations;
    double text_memory;                                  /* activations of the text encoder that needs most, and all states */
    double encoder_bytes, decoder_bytes, decoder_memory; /* weights of the largest text encoder and the autoencoder; its activations */
    double decoder_memory_narrow;                        /* its activations where strips are narrow */
};
void plan_model_free(struct plan_model *model); /* what it owns */

struct plan_link {
    double latency, bandwidth; /* seconds of an empty message; bytes a second */
};

/* Rank r is on host r / per_host. Unequal ranks: speeds[r] is its rate in shares of `operations`. */
struct plan_machine {
    int ranks, per_host;
    struct plan_link between, inside; /* hosts (each host's own link, which its ranks share), and ranks of one host */
    double operations;                /* a second, of products on one rank */
    double attention_share;           /* the rate of attention in shares of it; 0: 1 */
    double elements;                  /* a second, of norms and sums on one rank; 0: they take no time */
    double streaming;                 /* bytes a second of weights, which each pass costs once; 0: they take no time */
    double crowding;                  /* ranks for each processor, where there are more ranks: a rank is so much faster while others idle */
    int crowd;                        /* neighbouring ranks that share processors so (emulated hosts do); 0: those of a host */
    const double *speeds;             /* [ranks], or NULL: all 1 */
    double memory;                    /* bytes for each rank; 0: no limit */
    bool proportional;                /* stages, rows and sequences are cut by the speeds (tessera_mesh.rank_weights), otherwise equally */
    const double *memories; /* [ranks], or NULL: `memory` for all */
};

/* ---- a plan ---- */

struct strategy; /* parallel/strategy.h */

struct plan_mesh {
    int degrees[MESH_AXES];
    int patches; /* of PipeFusion: 1: the whole picture goes through the stages, exactly */
    int warmup_steps;
    bool split_text;    /* of displaced patches: each rank has some of the text's tokens, not all of them */
    int patch_strategy; /* what a patch degree means: a strategy_place; 0: displaced patches. No pointer: plans go to other ranks */
};
/* The strategy of its patch degree; NULL where that is 1. */
const struct strategy *plan_mesh_patch_strategy(const struct plan_mesh *mesh);
/* Whether each step is computed from the step's own values only. */
bool plan_mesh_is_exact(const struct plan_mesh *mesh);
int plan_mesh_ranks(const struct plan_mesh *mesh);
/* "cfg 2 x ring 2 x ulysses 4", "one rank"; returns `out`. */
const char *plan_mesh_text(const struct plan_mesh *mesh, char *out, size_t capacity);
/* The options of `tessera generate` that choose it. */
const char *plan_mesh_options(const struct plan_mesh *mesh, char *out, size_t capacity);

enum plan_limit { PLAN_BY_COMPUTE, PLAN_BY_BANDWIDTH, PLAN_BY_LATENCY, PLAN_BY_MEMORY, PLAN_LIMITS };
const char *plan_limit_name(enum plan_limit limit);

struct plan_memory { /* bytes of the rank that needs most */
    double weights, activations, stores, text_phase, decode_phase, most;
    double activations_by_rows; /* in place of activations where blocks work on some rows at a time (nn/by_rows.h), beside those rows */
};

struct plan {
    struct plan_mesh mesh;
    double step_seconds, warmup_step_seconds, picture_seconds;
    double compute_seconds, bandwidth_seconds, latency_seconds; /* of a step: computing, and waits that are not hidden */
    double text_seconds, decode_seconds;
    struct plan_memory memory;
    double over; /* bytes that are missing; 0: it fits */
    enum plan_limit limit;
};

/* Can the model be cut so? An ARGUMENT error says why not. */
tessera_status plan_check(const struct plan_model *model, const struct plan_mesh *mesh, tessera_error *error);
/* Seconds and memory. The mesh must pass plan_check and have machine->ranks. */
struct plan plan_evaluate(const struct plan_model *model, const struct plan_machine *machine, const struct plan_mesh *mesh);
/* The same with given stages: the first block of each, and the end: first[stages + 1]; and the rank of each, ranks[stages], which may come
 * again (NULL: each has its own). The machine and the mesh have a rank for each stage; memory is that of such ranks. */
struct plan plan_evaluate_stages(const struct plan_model *model, const struct plan_machine *machine, const struct plan_mesh *mesh, const int *first,
                                 const int *ranks);

/* All possible meshes of machine->ranks: those that fit by seconds, then the others by what is missing. Before them comes the best: of
 * those that take at most PLAN_TIE times the fastest's seconds, which no prediction tells apart, an exact one, then one whose attention sees
 * all of the picture, then the one that sends least. `allow_displaced`: displaced patches that see all others or their neighbours, and PipeFusion
 * with several patches, too. The caller frees *out. ARGUMENT if none is
 * possible. */
#define PLAN_TIE 1.03
tessera_status plan_rank(const struct plan_model *model, const struct plan_machine *machine, bool allow_displaced, struct plan **out,
                         int *count, tessera_error *error);

/* The best that fits, and three lines of why it is, for a person ("\n" between them). ARGUMENT or MEMORY (by how much) if there is none. */
enum { PLAN_REASON_LENGTH = 768 };
tessera_status plan_choose(const struct plan_model *model, const struct plan_machine *machine, bool allow_displaced, struct plan *out,
                           char reason[PLAN_REASON_LENGTH], tessera_error *error);

/* ---- bytes (plan_bytes.c) ---- */

/* What world rank `rank` sends in a step after warm-up, by the axis of the mesh along which it goes; for a picture, all steps together. */
struct plan_bytes {
    uint64_t axis[MESH_AXES], sum;
};
struct plan_bytes plan_step_bytes(const struct plan_model *model, const struct plan_mesh *mesh, int rank);
/* In a warm-up step of PipeFusion (whole pictures) and displaced patches; otherwise as above. */
struct plan_bytes plan_warmup_bytes(const struct plan_model *model, const struct plan_mesh *mesh, int rank);

/* ---- shared by plan*.c ---- */

int plan_coordinate(const struct plan_mesh *mesh, int rank, enum mesh_axis axis);
/* Ranks that are counted fast within one of `axis`: how far two neighbours along it are apart. */
int plan_stride(const struct plan_mesh *mesh, enum mesh_axis axis);
/* Ranks among which the positions of a picture are cut. */
int plan_cut_members(const struct plan_mesh *mesh);
/* Is the text cut over the ranks of a sequence, or of displaced patches, as the picture is? Otherwise each has all of it. */
bool plan_cuts_text(const struct plan_model *model, const struct plan_mesh *mesh);
/* The first block of each stage, and the end: first[stages + 1]. By work, as evenly as neighbours allow. stages <= blocks. */
enum { PLAN_MAX_BLOCKS = 512, PLAN_MAX_SKIPS = 64 };
void plan_stages(const struct plan_model *model, int stages, int *first);
/* Skips that stage `stage` of those that begin at first[] makes for other ranks' (ranks as above): how many; *parcels: in so many messages,
 * one for each stage that uses some. */
int plan_skips(const struct plan_model *model, const int *first, const int *ranks, int stages, int stage,
               struct denoiser_map skips[PLAN_MAX_SKIPS], int *parcels);

/* ---- drawing (plan_svg.c) ---- */

/* Ranks in boxes, one a host; lines between those that talk in a step, as wide as the logarithm of their bytes. At most 64 ranks. */
void plan_draw(FILE *stream, const struct plan_model *model, const struct plan_machine *machine, const struct plan *plan);

#endif
