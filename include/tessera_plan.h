/* Plans: which mesh of ranks suits a model, a picture and a network, before anything runs and
 * without the model's weights.
 *
 *     tessera_plan_machine machine = TESSERA_PLAN_MACHINE;
 *     machine.ranks = 8;
 *     tessera_plans *plans = tessera_plans_open("emoji", NULL, NULL, &machine, false, &error);
 *     tessera_plan best = TESSERA_PLAN;
 *     if (plans != NULL && tessera_plans_get(plans, 0, &best)) printf("%s: %g s\n", best.mesh_text, best.picture_seconds);
 *     tessera_plans_free(plans);
 *
 * Bytes are exact for every strategy, seconds are predicted (docs/planner.md says how). Each struct
 * begins with its size, which its initialiser sets: a program that was compiled against an older
 * header goes on working with a newer library, whose additional fields it has at their defaults and
 * does not get back. A field that the library does not know must be 0. */
#ifndef TESSERA_PLAN_H
#define TESSERA_PLAN_H

#include "tessera.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What pictures are planned for; 0 (and a negative scale or length): the model's own default. */
typedef struct tessera_plan_request {
    size_t struct_size;
    int width, height, steps; /* pixels; steps of a picture */
    int num_images;
    int max_sequence_length; /* text tokens of the T5 encoder */
    double guidance_scale;
    bool has_negative_prompt;   /* of models whose guidance is an input: a second prediction */
    bool no_resolution_binning; /* width and height as they are, though the family has resolution bins */
} tessera_plan_request;
#define TESSERA_PLAN_REQUEST {.struct_size = sizeof(tessera_plan_request), .max_sequence_length = -1, .guidance_scale = -1}

/* Rank r is on host r / per_host. Links: seconds that an empty message takes one way, and bytes a
 * second. */
typedef struct tessera_plan_machine {
    size_t struct_size;
    int ranks, per_host;
    double latency, bandwidth;           /* of each host's link, which its ranks share */
    double host_latency, host_bandwidth; /* between two ranks of one host */
    double memory;                       /* bytes of each rank; 0: no limit */
    double operations;                   /* a second, of one rank; 0: this machine's, measured once and kept in a file */
    int threads;                         /* of a rank, for the measurement; 0: all */
} tessera_plan_machine;
#define TESSERA_PLAN_MACHINE                                                                                                               \
    {.struct_size = sizeof(tessera_plan_machine), .ranks = 1, .per_host = 1, .latency = 100e-6, .bandwidth = 125e6, .host_latency = 20e-6, \
     .host_bandwidth = 2e9}

typedef struct tessera_plan_degrees {
    int data, cfg, pipefusion, patch, ring, ulysses, tensor; /* as in tessera_mesh */
} tessera_plan_degrees;

/* One mesh and what it leads to. Texts live as long as the list. */
typedef struct tessera_plan {
    size_t struct_size;
    tessera_plan_degrees degrees;
    int num_pipeline_patch, warmup_steps;
    bool split_text;
    bool exact;              /* it gives the picture of one rank */
    const char *mesh_text;   /* "cfg 2 x ring 2 x ulysses 4" */
    const char *options;     /* of `tessera generate`, which choose it */
    const char *limited_by;  /* "compute", "bandwidth", "latency" or "memory" */
    double picture_seconds, step_seconds, warmup_step_seconds, text_seconds, decode_seconds;
    double compute_seconds, latency_seconds, bandwidth_seconds; /* of a step */
    double memory_bytes, weight_bytes, activation_bytes, store_bytes; /* of the rank that needs most */
    double missing_bytes;                                             /* of memory; 0: it fits */
} tessera_plan;
#define TESSERA_PLAN {.struct_size = sizeof(tessera_plan)}

/* What is planned for, with the model's defaults filled in. */
typedef struct tessera_plan_model {
    size_t struct_size;
    const char *name;                    /* the denoiser's class; lives as long as the list */
    int64_t latent_rows, latent_columns; /* of a picture's latents */
    int64_t text_tokens;
    int predictions_per_step, steps, num_images;
    int ranks;
    double operations; /* a second: given or measured */
} tessera_plan_model;
#define TESSERA_PLAN_MODEL {.struct_size = sizeof(tessera_plan_model)}

typedef struct tessera_plans tessera_plans;

/* All possible meshes of the machine's ranks, the best first: those that fit by seconds, then the
 * others by what is missing. `model` is as in tessera_model_open, its config files are enough; or
 * one of TESSERA_PUBLISHED_MODELS, whose configs come with the library; `options` (whose mesh does
 * not count), `request` and `machine` may be NULL. `allow_displaced`: also meshes that are not
 * exact. NULL and `error` on failure: errors as tessera_model_open's and of sizes; ARGUMENT if no
 * mesh is possible. */
tessera_plans *tessera_plans_open(const char *model, const tessera_model_options *options, const tessera_plan_request *request,
                                  const tessera_plan_machine *machine, bool allow_displaced, tessera_error *error);
void tessera_plans_free(tessera_plans *plans); /* NULL is allowed */
int tessera_plans_count(const tessera_plans *plans);
/* False if there is no such plan, or the struct's size is not set. */
bool tessera_plans_get(const tessera_plans *plans, int plan, tessera_plan *out);
bool tessera_plans_model(const tessera_plans *plans, tessera_plan_model *out);
/* The smallest number of ranks above the machine's, up to `most`, on which a plan fits into its
 * memory, and that plan's mesh as text; 0: there is none. */
int tessera_plans_least_ranks(const tessera_plans *plans, int most, char *mesh_text, size_t capacity);
/* What rank `rank` sends in a step after warm-up, and in one of warm-up, in bytes. */
uint64_t tessera_plans_step_bytes(const tessera_plans *plans, int plan, int rank);
uint64_t tessera_plans_warmup_bytes(const tessera_plans *plans, int plan, int rank);
/* Draws the mesh and who talks to whom, as SVG, to `stream` (a FILE *). At most 64 ranks. */
tessera_status tessera_plans_draw(const tessera_plans *plans, int plan, void *stream, tessera_error *error);

/* Chooses how the ranks of options->mesh->world share a model and a request: measures how fast they
 * compute and what connects them, plans, and fills the degrees of *mesh, of which all else stays.
 * On all ranks of the world, and each gets the same mesh.
 *   allow_displaced    also meshes that are not exact
 *   rank_weights       [ranks] or NULL: gets how fast each rank is; where they are unequal, mesh->rank_weights points to it, so that it must
 *                      live as long as the mesh is used. Weights that options->mesh has count instead of measured ones.
 *   reason             [capacity] or NULL: gets three lines that say why
 * Speeds are kept in a file for the next time ($XDG_CACHE_HOME/tessera/speed.json, else ~/.cache);
 * links are measured each time. Errors are those of tessera_plans_open; a failure on one rank is
 * one on all of them. */
tessera_status tessera_mesh_choose(const char *model, const tessera_model_options *options, const tessera_plan_request *request,
                                   bool allow_displaced, tessera_mesh *mesh, double *rank_weights, char *reason, size_t capacity,
                                   tessera_error *error);

/* ---- device maps ----
 *
 * Which rank holds which text encoder, which blocks of the denoiser, and the autoencoder: for
 * models that no rank can hold alone.
 *
 *     tessera_map *map = tessera_map_open("flux-dev", &options, &request, "auto", 2, memory, &error);
 *     tessera_map_entry entry = TESSERA_MAP_ENTRY;
 *     for (int i = 0; tessera_map_get(map, i, &entry); i++) printf("%s: rank %d\n", entry.component, entry.rank);
 *
 * A mesh that names a map (tessera_mesh.map) shares the model so. In float32 the picture is that of
 * one rank to the bit. */

/* accelerate's words, separated by |: as even as the ranks' memory allows ("auto" and "balanced");
 * the same, but rank 0 gets only what does not fit on the others; ranks filled one after another.
 */
#define TESSERA_DEVICE_MAPS "auto|balanced|balanced_low_0|sequential"

typedef struct tessera_map tessera_map;

/* model, options (offload and files count) and request as in tessera_plans_open.
 *   map       one of TESSERA_DEVICE_MAPS, or FILE.json in accelerate's form: {"text_encoder": 0, "transformer": 1, "vae": 0}, "" for all others
 *   memory    [ranks] bytes that each process may hold, 0: no limit; NULL: none has
 * Room for computing a picture of the request's size is set aside. Where options->offload leaves
 * the choice, the map is for the first of "none", "stages" and "blocks" with which it fits. Also a
 * map that does not fit is returned (tessera_map_check). NULL and `error` on failure: FORMAT names
 * file and field. On several ranks, each opens the same. */
tessera_map *tessera_map_open(const char *model, const tessera_model_options *options, const tessera_plan_request *request, const char *map,
                              int ranks, const uint64_t *memory, tessera_error *error);
void tessera_map_free(tessera_map *map); /* NULL is allowed */
/* MEMORY if a rank needs more than it may hold: which, by how much, and what would fit. */
tessera_status tessera_map_check(const tessera_map *map, tessera_error *error);
/* "none", "stages" or "blocks": what tessera_model_options.offload has to be for the map to fit. */
const char *tessera_map_offload(const tessera_map *map);

/* A component on a rank, or neighbouring blocks of the denoiser. Texts live as long as the map. */
typedef struct tessera_map_entry {
    size_t struct_size;
    const char *component;       /* "text_encoder_2" */
    const char *first, *last;    /* modules of the first and the last block, "transformer_blocks.3"; "" of a component that is placed whole */
    int first_block, last_block; /* counted from 0 over all blocks; -1 of a component that is placed whole */
    int rank;
    double bytes; /* that its weights take in memory: those of the file, and what is converted beside them */
} tessera_map_entry;
#define TESSERA_MAP_ENTRY {.struct_size = sizeof(tessera_map_entry)}
/* Entry `index`, from 0; false behind the last. */
bool tessera_map_get(const tessera_map *map, int index, tessera_map_entry *out);

typedef struct tessera_map_rank {
    size_t struct_size;
    double weight_bytes; /* that it holds */
    double need_bytes;   /* the most that its process will hold, as tessera_map_offload says */
    double limit_bytes;  /* that it may; 0: no limit */
} tessera_map_rank;
#define TESSERA_MAP_RANK {.struct_size = sizeof(tessera_map_rank)}
/* False if there is no such rank. */
bool tessera_map_get_rank(const tessera_map *map, int rank, tessera_map_rank *out);

/* Predicted as plans are; without the disk's time. */
typedef struct tessera_map_times {
    size_t struct_size;
    double picture_seconds, step_seconds, text_seconds, decode_seconds;
    int slowest_rank;          /* whose blocks take longest */
    double slowest_seconds;    /* of a step, for them */
    double message_seconds;    /* of a step, for what ranks send each other */
    double disk_bytes;         /* that the rank that reads most reads in a step: blocks that do not stay in its memory */
    int disk_rank;
} tessera_map_times;
#define TESSERA_MAP_TIMES {.struct_size = sizeof(tessera_map_times)}
/* machine->ranks and memory do not count. */
tessera_status tessera_map_time(const tessera_map *map, const tessera_plan_machine *machine, tessera_map_times *out, tessera_error *error);
/* The map in accelerate's form, which tessera_map_open reads as a file. The caller frees; NULL if
 * memory is out. */
char *tessera_map_json(const tessera_map *map);

#ifdef __cplusplus
}
#endif
#endif
