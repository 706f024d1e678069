/* Tessera: an inference engine for diffusion models, as a C program calls it.
 *
 *     tessera_error error = {0};
 *     tessera_model *model = tessera_model_open("models/emoji", NULL, &error);
 *     tessera_request request = TESSERA_REQUEST;
 *     tessera_request_defaults(model, false, &request);
 *     request.prompt = "a lion on a blue background";
 *     tessera_image image = TESSERA_IMAGE;
 *     if (model == NULL || tessera_generate(model, &request, &image, &error) != TESSERA_OK)
 *         fprintf(stderr, "%s\n", error.message);
 *     tessera_image_free(&image);
 *     tessera_model_free(model);
 *
 * Handles are opaque, nothing is global, and no call ends the process: a function that can fail
 * returns a status (or NULL) and writes what is wrong, where, and what to do into the caller's
 * tessera_error. One handle serves one call at a time (a second one is refused); several handles
 * may be used from several threads.
 *
 * A struct that a program fills begins with its size, struct_size, which its initialiser
 * (TESSERA_REQUEST for a tessera_request) sets. So a program that was compiled against an older
 * header goes on working with a newer library: the library gives the fields that the program does
 * not know their defaults. A field that the library does not know must be 0. In an array, all
 * elements have the first one's size. A struct without an initialiser is only handed out by the
 * library, or never changes.
 *
 * docs/library.md is the guide. Link with `pkg-config --libs tessera`. */
#ifndef TESSERA_H
#define TESSERA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TESSERA_VERSION "0.1.0"
/* Names of the models that come with the engine, for tessera_model_open, separated by |: a
 * transformer and a U-Net of the same drawings. */
#define TESSERA_EMBEDDED_MODELS "emoji|emoji-unet"
#define TESSERA_EMBEDDED_MODEL "emoji" /* the one that the command uses where none is named */

/* How much of a model is in memory at a time, separated by |. All give the same picture.
 *     none     all that was opened stays
 *     stages   text encoders, denoiser and autoencoder are in memory during their phase alone
 *     blocks   of each only some blocks are in memory; while one computes, the next ones are read
 *     auto     the first of these that fits into the memory
 * With "none" weights are mapped: if somebody truncates such a file while a model computes, the
 * process dies of SIGBUS. With the others weights are read, and the call returns an error. */
#define TESSERA_OFFLOADS "none|stages|blocks|auto"

/* Published models whose configs come with the library: enough for tessera_plan.h. */
#define TESSERA_PUBLISHED_MODELS                                                                                                           \
    "sd15|sd21|sdxl|sd3-medium|sd35-medium|sd35-large|flux-dev|flux-schnell|flux-depth|pixart-alpha|pixart-sigma|hunyuandit|hunyuandit-"   \
    "v1.1"

/* The library's version ("0.1.0"), and the pipeline classes and schedulers that it has, by
 * diffusers' names. Lists end with NULL. */
const char *tessera_version(void);
const char *const *tessera_families(void);
const char *const *tessera_schedulers(void);

/* How the families differ for a program that turns its users' wishes into a tessera_request. */
typedef struct tessera_family {
    size_t struct_size;
    const char *t5_encoder; /* the component that is a T5 encoder, "text_encoder_3"; NULL: the family has none */
    bool flow_matching;     /* the denoiser predicts velocities: samplers for flow matching suit it */
    bool distilled;         /* guidance_scale is an input of the denoiser; true_cfg_scale is for classifier-free guidance */
    bool has_control;       /* it draws after a control picture, which every request must have */
    bool rounds_sizes;      /* pictures may be smaller than requested; those of other families never are */
    bool is_unet;           /* the denoiser is a U-Net: a picture goes through a pipeline as a whole */
} tessera_family;
#define TESSERA_FAMILY                                                                                                                     \
    { .struct_size = sizeof(tessera_family) }

/* Fills `family` with what is true of this pipeline class ("FluxPipeline", or diffusers' class from
 * picture to picture). False, and nothing is written, if the library does not have the class, a
 * pointer is NULL, or the struct's size is not set. */
bool tessera_family_describe(const char *pipeline_class, tessera_family *family);

typedef enum tessera_status {
    TESSERA_OK = 0,
    TESSERA_ERROR_ARGUMENT,    /* what the caller passes makes no sense: a size, a count, a NULL */
    TESSERA_ERROR_IO,          /* a file is missing, unreadable or unwritable */
    TESSERA_ERROR_FORMAT,      /* a file's content breaks its format */
    TESSERA_ERROR_UNSUPPORTED, /* a class or an option that the engine does not have */
    TESSERA_ERROR_MEMORY,      /* more memory than there is, or than was allowed */
    TESSERA_ERROR_CANCELLED,   /* the progress callback returned false, or the job was stopped */
    TESSERA_ERROR_INTERNAL     /* a mistake in the library */
} tessera_status;

/* `error` may be NULL in every call that takes one. Opening a model and generating clear it first.
 */
typedef struct tessera_error {
    tessera_status status;
    char message[1024]; /* one line: what is wrong, in which file and field, what to do */
} tessera_error;

typedef enum tessera_dtype { TESSERA_BF16 = 0, TESSERA_F32 = 1 } tessera_dtype;

/* Which kernels compute: the fastest ones; those without oneDNN; or those that give the same bits
 * on every processor, with any number of threads and in every strategy that divides no sum over
 * ranks (docs/reproducible.md). */
typedef enum tessera_kernels { TESSERA_KERNELS_BEST = 0, TESSERA_KERNELS_OWN = 1, TESSERA_KERNELS_REPRODUCIBLE = 2 } tessera_kernels;

typedef struct tessera_model tessera_model;

/* The processes that mpirun or srun started together, one rank each. A process that was started
 * alone is rank 0 of 1 and needs no MPI. A process has one world at most; open it before the models
 * that use it, and free it after them. */
typedef struct tessera_world tessera_world;

/* An environment variable. */
typedef struct tessera_setting {
    const char *name, *value;
} tessera_setting;

/* Open MPI's settings with which ranks on several hosts exchange most over TCP; the list ends with
 * a name that is NULL. The library never touches the environment, which belongs to the program and
 * its threads; a program that wants them sets them before it opens its world:
 *     for (const tessera_setting *s = tessera_world_settings(); s->name != NULL; s++) setenv(s->name, s->value,
 * 0); */
const tessera_setting *tessera_world_settings(void);

/* Whether a launcher (mpirun, srun) started this process. */
bool tessera_world_is_launched(void);
tessera_world *tessera_world_open(tessera_error *error); /* NULL and `error` on failure */
int tessera_world_rank(const tessera_world *world);
int tessera_world_size(const tessera_world *world);
/* Fails on all ranks alike if `text` is not the same on all of them. The message names ranks and
 * values, and calls the text `what`. */
tessera_status tessera_world_check_same(tessera_world *world, const char *what, const char *text, tessera_error *error);
/* On all ranks. Each passes its own `status`, with the text in `error`. If any of them failed, all
 * return that failure. Otherwise all ranks get rank 0's `bytes` at `data` (0: nothing). So all
 * ranks leave together, and none waits for one that has failed. */
tessera_status tessera_world_share(tessera_world *world, tessera_status status, void *data, size_t bytes, tessera_error *error);
/* On all ranks: collects the `bytes` at `mine` of each rank, in the order of ranks, into all [size
 * * bytes]. */
tessera_status tessera_world_gather(tessera_world *world, const void *mine, size_t bytes, void *all, tessera_error *error);
/* Ends the world: tells all ranks that this one cannot go on, and why. Whatever they wait for ends
 * with that error. Not needed after a call that failed: it fails on all ranks. */
void tessera_world_abort(tessera_world *world, const tessera_error *error);
/* Whether the world has ended: an abort, or a rank that is gone. Calls that failed do not end it.
 */
bool tessera_world_failed(tessera_world *world);
/* On all ranks: rank 0 prints bytes sent and seconds waited to `stream` (a FILE *), one line for
 * each kind of layer. */
tessera_status tessera_world_print_stats(tessera_world *world, void *stream, tessera_error *error);
/* On all ranks: each one's peak of resident memory until now, in bytes, mapped files included:
 * peaks [tessera_world_size(world)]. */
tessera_status tessera_world_peak_memory(tessera_world *world, uint64_t *peaks, tessera_error *error);
/* On all ranks, when the work is done. A later call that needs other ranks returns an ARGUMENT
 * error. */
tessera_status tessera_world_finish(tessera_world *world, tessera_error *error);
void tessera_world_free(tessera_world *world);

/* The values of tessera_mesh.patch_strategy, separated by |. */
#define TESSERA_PATCH_STRATEGIES "patch|naive_patch|pcpp"

/* How work is divided over a world's ranks: one degree for each strategy, outermost first. Their
 * product is the number of ranks. 0 means 1. */
typedef struct tessera_mesh {
    size_t struct_size;
    tessera_world *world; /* NULL: this process alone */
    int data;             /* groups of ranks, each of which makes other pictures */
    int cfg;              /* 2: each of the two predictions of guidance on other ranks */
    int ring, ulysses;    /* ranks that divide one picture's tokens: keys and values go round a ring; heads are exchanged for tokens */
    int tensor;           /* ranks that divide each layer's heads and channels */
    /* Stages of blocks through which patches of the picture flow (PipeFusion). With one patch the
     * result is exact. With more, each patch sees the others as they were one step before, and the
     * result is not exact after warm-up. */
    int pipefusion;
    int num_pipeline_patch;  /* 0: as many as stages (a U-Net: 1); above 1 also without stages */
    const int *stage_blocks; /* [pipefusion] blocks of each stage; NULL: by their work */
    /* Patches of a picture, one for each rank. Each sees the others as they were one step before:
     * not exact. Not together with ring and ulysses. 0 means 1. */
    int patch;
    const char *sync_mode; /* "corrected_async_gn" (NULL), "stale_gn", "sync_gn", "full_sync" (exact), "separate_gn" or "no_sync" */
    /* Steps that are computed exactly at first. 0: the default; -1: as few as possible. With
     * `patch` these are the steps with an index up to this (default 4; at least the first step).
     * With pipefusion these are the steps with an index below this (default 1; with none, a patch
     * sees only those before it in the first step). */
    int warmup_steps;
    int comm_checkpoint;       /* of `patch`: layers whose exchanges go in one message; 0: 60, or fewer so that a step has 8 messages */
    bool published_group_norm; /* variances times N / (N - 1), as DistriFusion's code has them */
    bool split_text; /* of `patch`: ranks divide the text that goes through a transformer's blocks; otherwise each has all of it */
    const char *patch_strategy; /* what `patch` means: a name of TESSERA_PATCH_STRATEGIES, NULL for the first. "patch": as above;
                                 * "naive_patch": each patch is made as a picture of its own; "pcpp": each sees its direct neighbours
                                 * alone, one step behind (arXiv 2412.02962) */
    const char *split_scheme;   /* of naive patches: "row" (NULL), "col" or "alternate" */
    bool parallel_vae;          /* the autoencoder's rows over all ranks of a picture */
    /* [ranks] how fast each rank is, in any unit: stages, rows and sequences are cut in proportion.
     * NULL: equally. */
    const double *rank_weights;
    /* From tessera_map_open (tessera_plan.h): which rank holds which components and blocks. Then
     * pipefusion is the number of ranks, all other degrees are 1, and the map must outlive the
     * model. NULL: stages are cut by their work. */
    const struct tessera_map *map;
} tessera_mesh;
#define TESSERA_MESH                                                                                                                       \
    { .struct_size = sizeof(tessera_mesh) }

struct denoiser_class; /* tessera_model.h, for those who write their own model */

/* A low-rank change of weights (Hu et al. 2021): W + scale * alpha / rank * B A. */
typedef struct tessera_lora {
    size_t struct_size;
    const char *path; /* a safetensors file in diffusers' or kohya's key layout */
    float scale;
} tessera_lora;
#define TESSERA_LORA                                                                                                                       \
    { .struct_size = sizeof(tessera_lora), .scale = 1 }

typedef struct tessera_model_options {
    size_t struct_size;
    tessera_dtype dtype; /* of the factors of products; sums are float32 */
    int threads;         /* 0: as many as the machine grants this process */
    bool vae_tiling;     /* decode in blended tiles: less memory, not exact */
    /* Folders, hub names, or safetensors or GGUF files to take a component from instead of the
     * model's own; NULL: its own. */
    const char *vae, *text_encoder, *text_encoder_2, *text_encoder_3;
    const char *transformer; /* the same for the denoiser, transformer or U-Net */
    const char *config;  /* of a single file: a model folder whose configs are used; NULL: those of the published model with its shapes */
    const char *variant; /* "fp16": prefer weight files of this variant (NAME.fp16.safetensors), also of a hub's; NULL: none */
    const tessera_lora *loras; /* [num_loras], merged into the weights in this order */
    int num_loras;
    /* [num_denoisers] classes of your own, beside the library's; they must outlive the model. */
    const struct denoiser_class *const *denoisers;
    int num_denoisers;
    const tessera_mesh *mesh;            /* the same on all ranks; NULL: this process alone */
    const struct tessera_device *device; /* NULL: the CPU, the one device of this version */
    const char *offload;                 /* of TESSERA_OFFLOADS; NULL: "auto" */
    tessera_kernels kernels;             /* of the CPU; the environment variable TESSERA_ISA names the instruction set */
    /* The device of a kind of component, if it is not `device`. */
    const struct tessera_device *text_device, *denoiser_device, *autoencoder_device;
    uint64_t max_memory;             /* bytes that this rank's process may hold (VmHWM); 0: what the machine and the control group have */
    struct tessera_workers *workers; /* tessera_workers.h: other machines that compute some of the denoiser's blocks; NULL: none */
} tessera_model_options;
#define TESSERA_MODEL_OPTIONS                                                                                                              \
    { .struct_size = sizeof(tessera_model_options) }

/* Opens a model. `model` is one of these:
 *     a folder in diffusers' layout, with a model_index.json
 *     FILE.safetensors, a single-file checkpoint in the original layout of SD, SDXL, SD3 or Flux
 *     OWNER/NAME on the Hugging Face hub, from the local cache or downloaded into it
 *     one of TESSERA_EMBEDDED_MODELS
 * Weights are memory-mapped, not read. `options` may be NULL (bfloat16, all threads). Returns NULL
 * and fills `error` on failure. */
tessera_model *tessera_model_open(const char *model, const tessera_model_options *options, tessera_error *error);
/* NULL is allowed. If a call is using the model, it is freed when that call ends. */
void tessera_model_free(tessera_model *model);

/* The next functions return "", 0 or false if `model` is NULL. */

/* The kernels in use, e.g. "onednn avx512_core_bf16". Two runs with the same kernels, element type
 * and number of threads give the same bits. The text lives as long as the model. */
const char *tessera_model_kernel_path(const tessera_model *model);
int tessera_model_threads(const tessera_model *model);
const char *tessera_model_pipeline_class(const tessera_model *model);
/* Notices about a model that was opened: line `index`, from 0, of what was left out of its files or
 * concluded from them, e.g. "style.safetensors: \"lora_te_x.lora_down.weight\" is left out: the
 * model has no such module". NULL after the last. */
const char *tessera_model_notice(const tessera_model *model, int index);

/* The ranks that make one picture together are a group. Which group this rank is in, how many
 * groups there are, and whether this rank gets the picture. All ranks of a group make the same
 * request; other groups may make other requests. */
int tessera_model_group(const tessera_model *model);
int tessera_model_groups(const tessera_model *model);
bool tessera_model_gets_pictures(const tessera_model *model);

typedef enum tessera_phase { TESSERA_PHASE_TEXT, TESSERA_PHASE_ENCODE, TESSERA_PHASE_DENOISE, TESSERA_PHASE_DECODE } tessera_phase;

/* Called before the first and after each unit of work of a phase, of which `done` of `total` are
 * finished. Return false to cancel. */
typedef bool (*tessera_progress)(void *user, tessera_phase phase, int done, int total);

/* A picture on its way: its latents after `done` of `total` steps. */
typedef struct tessera_step {
    int image; /* its number among the request's num_images */
    int done, total;
    int latent_channels, latent_height, latent_width;
    const float *latents; /* [latent_channels, latent_height, latent_width], noisy before the last step; valid during the call */
    const float *x_0;     /* the same without noise, as the step predicts them; after the last step the latents themselves */
} tessera_step;

/* Called after each step of each picture, on the rank that gets the pictures. */
typedef void (*tessera_step_report)(void *user, const tessera_step *step);

#define TESSERA_PROMPT_BYTES 16384 /* of a prompt at most: no model reads a fraction of it */

/* Gets a line for a person to read: what was cut off a prompt, the size at which the model works,
 * what a file was taken for. The same line may come more than once. */
typedef void (*tessera_notice)(void *user, const char *text);

typedef struct tessera_image {
    size_t struct_size;
    int count, width, height; /* of the pictures that were made; if the request has `deliver`, the pointers below stay NULL */
    uint8_t *pixels;          /* [count, height, width, 3], 8-bit RGB */
    float *pixels_f32;        /* the same before rounding, in [0, 1] */
    float *latents;           /* [count, channels, rows, columns] as diffusers' output_type "latent" */
    int latent_channels, latent_height, latent_width;
    double seconds_load; /* for opening weights, in no phase's seconds */
    double seconds_text, seconds_encode, seconds_denoise, seconds_decode;
    double operations_text, operations_denoise, operations_decode; /* a multiplication and an addition count as two */
    int64_t blocks, blocks_skipped; /* of the denoiser, on this rank, in all steps; and those that a step cache left out */
    uint64_t bytes_moved;           /* of tensors, from one device to another, if components are on several */
    uint64_t bytes_copied;          /* of tensors within a device's memory, on this rank, in all steps of all pictures */
    uint64_t disk_bytes;            /* of weights that this rank read, if the model is offloaded */
    double seconds_disk;            /* for which this rank waited for them */
} tessera_image;
#define TESSERA_IMAGE                                                                                                                      \
    { .struct_size = sizeof(tessera_image) }

/* Takes one finished picture, number `image` among the request's num_images. `picture` holds it
 * alone (count 1, times 0) and is valid during the call. Called on the rank that gets the pictures.
 * Any status but TESSERA_OK ends the call on all ranks, with that status and the text in `error`.
 */
typedef tessera_status (*tessera_delivery)(void *user, int image, const tessera_image *picture, tessera_error *error);

typedef struct tessera_request {
    size_t struct_size;
    const char *prompt;
    const char *negative_prompt; /* NULL: empty */
    int width, height;           /* pixels */
    int num_inference_steps;
    float guidance_scale;        /* classifier-free guidance; of Flux.1-dev the embedded scale */
    float true_cfg_scale;        /* Flux: above 1, guidance by a negative prompt beside the embedded scale */
    float guidance_rescale;      /* SD, SDXL, HunyuanDiT: 0 to 1 (Lin et al. 2023, section 3.4) */
    int clip_skip;               /* CLIP layers to leave out at the end; 0: none */
    bool use_resolution_binning; /* PixArt, HunyuanDiT: work at the nearest trained size, then resize the picture */
    /* SDXL's micro-conditions in pixels (Podell et al. 2023, section 2.2). 0: the picture's size,
     * and no crop. */
    int original_width, original_height, crop_left, crop_top, target_width, target_height;
    uint64_t seed; /* of torch's CPU generator: a seed gives diffusers' picture */
    /* num_images pictures draw their noise from one generator, as in diffusers'
     * num_images_per_prompt (or its list of prompts). The call makes made_images of them, from
     * first_image on (0: all that remain). A picture does not depend on which others are made. */
    int num_images, first_image, made_images;
    int max_sequence_length; /* text tokens of the T5 encoder */
    bool long_prompt;        /* CLIP reads prompts of any length, in chunks of 75 tokens (docs/prompts.md); false: one chunk */
    const char *scheduler;   /* diffusers' class name, or NULL for the folder's own */
    /* A JSON object of fields that replace those of scheduler_config.json: "{\"use_karras_sigmas\":
     * true}"; or NULL. */
    const char *scheduler_config;
    const char *step_cache;     /* transformers: "fbcache" or "teacache" leave blocks out in steps that change little; NULL: none */
    float step_cache_threshold; /* the change below which they do so; 0: the cache's default */
    bool latents_only;          /* no decoding: pixels and pixels_f32 stay NULL */
    const uint8_t *init_image;  /* [height, width, 3] 8-bit RGB, of the request's size, or NULL */
    float strength;             /* picture to picture: 0 keeps the picture, 1 ignores it */
    /* [height, width, 3] 8-bit RGB, of the request's size: FluxControlPipeline's depth map or
     * edges; NULL with every other class. */
    const uint8_t *control_image;
    /* Encoded prompts (tessera_encode of tessera_stages.h) in place of prompt and negative_prompt;
     * or NULL. A job does not copy them. */
    const struct tessera_states *states;
    tessera_progress progress; /* may be NULL */
    void *progress_user;
    tessera_notice notice; /* may be NULL */
    void *notice_user;
    tessera_step_report step; /* may be NULL */
    void *step_user;
    tessera_delivery deliver; /* gets each picture as soon as it is finished; NULL: the call returns them all at the end */
    void *deliver_user;
    /* [num_images, channels, rows, columns] standard normal numbers in place of the seed's noise,
     * or NULL; num_latents: how many numbers. */
    const float *latents;
    size_t num_latents;
    /* [num_loras], merged after the model's own for this request alone. The model's weights carry
     * one set at a time: if a request has another set than the one before it, the components that
     * either set changes are loaded again. */
    const tessera_lora *loras;
    int num_loras;
} tessera_request;
#define TESSERA_REQUEST                                                                                                                    \
    { .struct_size = sizeof(tessera_request) }

/* Fills `request` with the model's own defaults (generation_defaults.json), else with those of
 * diffusers for the pipeline class. Diffusers has other defaults for a request that starts
 * `from_picture` (init_image). Returns false and writes nothing if `model` or `request` is NULL or
 * the request's size is not set. */
bool tessera_request_defaults(const tessera_model *model, bool from_picture, tessera_request *request);
/* The same before a model is open, and its family, from its config files alone: for programs that
 * choose a mesh by the request. `model` and `options` are as in tessera_model_open. Errors are those
 * of tessera_model_open, and ARGUMENT if a pointer is NULL or a struct's size is not set; a failure
 * on one rank is one on that rank alone. */
tessera_status tessera_model_describe(const char *model, const tessera_model_options *options, bool from_picture, tessera_family *family,
                                      tessera_request *defaults, tessera_error *error);
/* Width and height must be multiples of this, in pixels. 0 and `error` if the model's files do not
 * tell. */
int tessera_model_size_unit(tessera_model *model, tessera_error *error);

/* How many pictures of a request to make in one call (made_images) for the highest speed: more than
 * 1 if it takes several to keep all stages of a pipeline busy. */
int tessera_pictures_at_once(const tessera_model *model, const tessera_request *request);

/* Makes pictures from a prompt. Fills `image`, which you free with tessera_image_free; or leaves it
 * empty and fills `error`. Reads only struct_size of what was in `image` before. One rank of a
 * group gets the pictures; the others' pixels stay NULL. */
tessera_status tessera_generate(tessera_model *model, const tessera_request *request, tessera_image *image, tessera_error *error);
/* Allowed: NULL, and an image that is empty or already freed. */
void tessera_image_free(tessera_image *image);

/* ---- jobs ----
 *
 * A job holds one or more requests, copies of their texts and pictures, and all that their work
 * needs (scheduler states, caches, noise), none of which is in the model. tessera_generate runs a
 * job of one request.
 *
 *     tessera_job *job = tessera_job_new(model, &request, 1, &error);
 *     if (job != NULL && tessera_job_run(job, &error) == TESSERA_OK) use(tessera_job_image(job, 0));
 *     tessera_job_free(job);
 *
 * All ranks of a group create the same jobs and run them in the same order. A job ends with the
 * same status on all of them: if one rank runs out of memory, cannot read its weights, or is told
 * to stop, every rank returns that status. The next job then runs as usual, and you need to call
 * nothing for that. */
typedef struct tessera_job tessera_job;

/* Checks and copies `count` requests. NULL and `error` on failure, on all ranks alike. Free it
 * before the model. */
tessera_job *tessera_job_new(tessera_model *model, const tessera_request *requests, int count, tessera_error *error);
/* NULL is allowed; a job that runs is freed after its run. */
void tessera_job_free(tessera_job *job);
/* Limits the memory of this rank's tensors while the job runs, without weights, in bytes; 0, the
 * default: no limit. Call it before the run. If the job needs more, it ends with
 * TESSERA_ERROR_MEMORY. */
void tessera_job_limit_memory(tessera_job *job, uint64_t bytes);
/* Does the requests one after another. A job runs once. Errors are those of tessera_generate. */
tessera_status tessera_job_run(tessera_job *job, tessera_error *error);
/* Ends the job within a step, with TESSERA_ERROR_CANCELLED. May be called from any thread and from
 * a signal handler, on one rank or several, before the run or during it. */
void tessera_job_stop(tessera_job *job);
/* Whether the run is over, and how it ended (TESSERA_OK before that). May be called from any
 * thread. */
bool tessera_job_ended(const tessera_job *job);
tessera_status tessera_job_status(const tessera_job *job, tessera_error *error);
/* The pictures of request `request`, which stay the job's; NULL unless the job has ended well. Of a
 * group of ranks, one gets the pixels. */
const tessera_image *tessera_job_image(const tessera_job *job, int request);

#ifdef __cplusplus
}
#endif
#endif
