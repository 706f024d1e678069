/* A pipeline: a model folder opened, and what its family adds to the shared way from prompt to picture.
 *
 *     prompts --encode_prompts (family)--> text states --denoise (generate.c)--> latents --decode--> picture
 *
 * Components (text encoders, denoiser, autoencoder) are opened when they are first needed. Whether they stay open between requests or are
 * closed when their stage is over says offload.h.
 *
 * A model is a folder in diffusers' layout, a single-file checkpoint, or a name on the hub.
 *
 *     pipeline.c   opens and frees a pipeline, and finds its family's class
 *     loading.c    weights come and go
 *     slots.c      components by name, described or opened without weights
 *     source.c     where a component lies
 *
 * A file calls only those below it in this list. */
#ifndef TESSERA_PIPELINES_PIPELINE_H
#define TESSERA_PIPELINES_PIPELINE_H

#include <stdatomic.h>

#include "base/notices.h"
#include "checkpoint/lora.h"
#include "checkpoint/single_file.h"
#include "models/registry.h"
#include "models/stream.h"
#include "pipelines/adapters.h"
#include "pipelines/offload.h"
#include "pipelines/stages.h"
#include "pipelines/team.h"
#include "schedulers/scheduler.h"
#include "tessera_stages.h"
#include "tokenizers/tokenizer.h"

enum { PIPELINE_MAX_COMPONENTS = 8, PIPELINE_MAX_TOKENIZERS = 4 };
/* Feature maps of convolutional models larger than this are worked on in strips of rows. */
#define PIPELINE_STRIP_BYTES ((size_t)64 << 20)
#define PIPELINE_NARROW_STRIP_BYTES ((size_t)8 << 20) /* where memory is short */

/* What a picture is made from: the negative prompt first where the picture is guided, then the prompt. */
struct prompts {
    const char *texts[2];           /* NULL: no negative prompt was given */
    int count;                      /* 1 or 2; texts[0] is the negative one only if 2 */
    const tessera_request *request; /* whose prompts they are */
    struct text_ahead *ahead;       /* those of later requests, or NULL */
    /* Tells how many prompts an encoder has read; a failure ends the reading. */
    tessera_status (*tell)(void *user, int done, int total, tessera_error *error);
    void *user;
};

/* What the text becomes, F32, a row per prompt; what a family does not have is empty. See denoiser_inputs. */
struct prompt_states {
    struct tensor text, text_mask, pooled, text_2, text_2_mask;
};

struct pipeline;

/* Tokens of text: the first tokenizer's length; max_sequence_length. */
enum { TEXT_CLIP = 1, TEXT_T5 = 2 };

/* A family: what it adds to the shared way, and diffusers' defaults for it. */
struct pipeline_class {
    const char *name; /* model_index.json's _class_name */
    int num_inference_steps, max_sequence_length;
    float guidance_scale, strength;
    int img2img_steps; /* picture to picture, where diffusers' defaults differ from those above; 0: they do not */
    float img2img_guidance_scale;
    int64_t sample_size;    /* default latent side where the denoiser's config.json names none */
    const char *t5_encoder; /* the component that is a T5 encoder, "text_encoder_3"; NULL: the family has none */
    bool is_unet;           /* its denoiser is a U-Net: a picture goes through a pipeline as a whole */
    bool flow_matching;     /* what the denoiser was trained to predict: as struct scheduler has it */
    bool sigmas_from_steps; /* see struct scheduler */
    bool distilled;         /* the guidance scale is an input of the denoiser; guidance proper is true_cfg_scale's */
    bool has_control;       /* the pipeline draws after a control picture, whose latents are among the extra ones */
    /* What the denoiser reads of each place behind its own latents: so many times the latents' channels, and so many single ones. A control
     * picture is {1, 0}; a masked picture and its mask would be {1, 1}. */
    struct {
        int latents, channels;
    } extra;
    bool whole_steps; /* picture to picture: steps * strength is cut to a whole number before it is subtracted from steps */
    /* Sizes that the family was trained at: makes *width and *height the nearest of them. False where a
     * denoiser of this sample_size has none. NULL: the family has none. */
    bool (*nearest_size)(int64_t sample_size, int *width, int *height);
    bool scales_back;  /* from there to the requested size; otherwise pictures stay as they are drawn */
    bool rounds_sizes; /* down to multiples of 16, as diffusers does, before all else */
    /* How many tokens the denoiser reads: those of TEXT_ bits, and so many more. */
    unsigned text;
    int text_tokens;
    /* The states of the prompts, in run->arena. */
    tessera_status (*encode_prompts)(struct pipeline *, struct run *, const tessera_request *, const struct prompts *,
                                     struct prompt_states *, tessera_error *);
    /* The denoiser's size conditions for a picture worked on at width x height: how many were written to out[6]; NULL: none. */
    int (*size_conditions)(const tessera_request *, int width, int height, float *out);
};

extern const struct pipeline_class stable_diffusion_class, stable_diffusion_xl_class, stable_diffusion_3_class, flux_class,
    flux_control_class;
extern const struct pipeline_class pixart_alpha_class, pixart_sigma_class, hunyuandit_class;

struct pipeline_slot {
    char name[32]; /* the subfolder, e.g. "text_encoder_2" */
    char *folder;  /* holds its config.json */
    char *file;    /* a safetensors file of its own, or NULL */
    bool replaced; /* not the model's own */
    size_t bytes;  /* of the weights once they are loaded, on all ranks together; 0 where the pipeline is only described */
    size_t whole, window; /* memory for this rank's share, and for its largest segment on its way; 0: not looked at yet */
    bool is_open, is_described;
    bool is_loaded; /* its weights are there, or come as they are needed */
    struct component component;
    struct component described; /* without weights */
    struct component_stream *stream; /* where the model is offloaded: what loads its segments; else NULL */
};

/* One that prompts were read with. */
struct pipeline_tokenizer {
    const char *name; /* the subfolder, a constant */
    struct tokenizer *tokenizer;
};

/* Components of one role live on one device. */
enum pipeline_role { ROLE_TEXT, ROLE_DENOISER, ROLE_AUTOENCODER, PIPELINE_ROLES };

struct pipeline {
    const struct pipeline_class *class;
    char *name;               /* as messages call the model */
    char *variant;            /* of the weight files that are preferred; NULL: none */
    char *folder;             /* of model_index.json and, unless it is a single file, of all components */
    struct single_file *file; /* or NULL */
    struct lora_set *loras; /* that components are opened with */
    struct adapters adapters;
    char lora_fingerprint[TESSERA_FINGERPRINT_BYTES]; /* "" without LoRA */
    struct notices notices; /* about the model: what was left out or concluded */
    struct json *index;     /* model_index.json */
    struct json *scheduler; /* its configuration, once it was asked for; until pipeline_forget */
    struct team team;
    struct stages *stages; /* [num_stages] of the denoiser that this rank has; none: it has all blocks */
    int num_stages;
    struct span *between; /* [num_stages - 1] runs of blocks that other ranks compute; NULL without stages */
    const struct tessera_map *map;            /* that places its components and blocks; borrowed; or NULL */
    struct backend *backends[PIPELINE_ROLES]; /* roles of one device share one */
    enum dtype dtype;
    bool vae_tiling;
    bool divides_no_sum;                 /* it is described for reproducible kernels */
    enum offload offload_asked, offload; /* what the options say; what the request at work has */
    bool stays_whole;                    /* whatever the request: nothing is offloaded, and nothing judged */
    bool is_large;                       /* it takes half of the machine's memory */
    bool is_judged;                      /* `judged` is the last request, and `choice` what came of it */
    struct offload_question judged;
    int choice;
    struct offload_needs needs;          /* of the request at work, where it may be */
    bool by_rows;                        /* the request at work has less at a time than it would without a limit */
    size_t memory_limit, base_memory;    /* bytes: of the options (0: none); resident when the model was opened */
    size_t held_memory;                  /* bytes that a job keeps for later requests (text_ahead.h) */
    size_t machine_memory;               /* this rank's share of the machine's memory, or of its control group's */
    struct stream_counts disk;           /* of streams that are closed */
    double seconds_load; /* that components took to open, so far */
    struct pipeline_slot slots[PIPELINE_MAX_COMPONENTS];
    int num_slots;
    struct pipeline_tokenizer tokenizers[PIPELINE_MAX_TOKENIZERS]; /* those at the end are empty */
    const char *denoiser, *autoencoder;            /* names of their slots: "unet" or "transformer", "vae" */
    const struct denoiser_class *const *denoisers; /* of the options; borrowed */
    int num_denoisers;
    struct tessera_workers *workers; /* of the options, that compute some of the denoiser's blocks; borrowed; or NULL */
    int64_t sample_size;                    /* the denoiser's default latent side */
    int64_t text_channels, pooled_channels; /* what the denoiser wants; known once a request's sizes are */
    tessera_request defaults;
    bool has_own_defaults; /* the folder's generation_defaults.json, for picture to picture too */
};

tessera_status pipeline_open(const char *model, const tessera_model_options *options, struct pipeline **out, tessera_error *error);
/* The same for pipeline_describe alone: files of configs are enough, and ranks and device do not count. */
tessera_status pipeline_open_described(const char *model, const tessera_model_options *options, struct pipeline **out,
                                       tessera_error *error);
void pipeline_free(struct pipeline *pipeline);

/* Is the component listed in model_index.json, and not as [null, null]? */
bool pipeline_has(const struct pipeline *pipeline, const char *name);
/* The place of a component among the slots; -1 if it has none. */
int pipeline_slot_index(const struct pipeline *pipeline, const char *name);
enum pipeline_role pipeline_role_of(const struct pipeline *pipeline, const struct pipeline_slot *slot);
/* The component's slot; FORMAT if it has none. */
tessera_status pipeline_need_slot(const struct pipeline *pipeline, const char *name, const struct pipeline_slot **out, tessera_error *error);
/* The component as its config.json describes it, without weights; it stays the pipeline's, until pipeline_forget. */
tessera_status pipeline_describe(struct pipeline *pipeline, const char *name, const struct component **out, tessera_error *error);
/* The scheduler's configuration as the model has it, or as the marks in its single file change it; it stays the pipeline's, until
 * pipeline_forget. */
tessera_status pipeline_scheduler_config(struct pipeline *pipeline, const struct json **out, tessera_error *error);
/* Descriptions and the scheduler's configuration are read again: each call of a program notices files that have changed, and reads them once. */
void pipeline_forget(struct pipeline *pipeline);
/* The component, opened if it is not. */
tessera_status pipeline_component(struct pipeline *pipeline, const char *name, struct component **out, tessera_error *error);
/* All ranks of a picture come here before its first step: waiting for the slowest to open its denoiser is part of opening. Each job meets,
 * also where a rank has its denoiser open already: the others may not, if a job before ended in between. */
tessera_status pipeline_meet(struct pipeline *pipeline, tessera_error *error);
void pipeline_close_slot(struct pipeline *pipeline, struct pipeline_slot *slot);
/* Opens the component, if it is not; its weights come when pipeline_component asks for it. */
tessera_status pipeline_open_slot(struct pipeline *pipeline, struct pipeline_slot *slot, tessera_error *error);
/* The rank of the picture's that has a text encoder, or the autoencoder where it is not divided: the map's, or else text encoders lie on the
 * ranks in turn, and the autoencoder on the first. */
int pipeline_rank_of(const struct pipeline *pipeline, const char *name);
/* Has this rank any blocks of the denoiser? */
bool pipeline_has_blocks(const struct pipeline *pipeline);
/* Says that a stage is done with a component: it is closed unless nothing is offloaded. */
void pipeline_done_with(struct pipeline *pipeline, const char *name);
/* The folder of what has no weights ("tokenizer_2", "scheduler"); the caller frees. (source.c) */
tessera_status pipeline_folder_of(const struct pipeline *pipeline, const char *name, char **out, tessera_error *error);
/* A tokenizer by its subfolder, a constant; it is opened once and stays the pipeline's. */
tessera_status pipeline_tokenizer(struct pipeline *pipeline, const char *name, const struct tokenizer **out, tessera_error *error);

/* Every family's name, as model_index.json has it; ends with NULL. */
const char *const *pipeline_class_names(void);
/* The family of this name, or of this name without the "Img2Img" of diffusers' pipelines from picture to picture; NULL: not here. */
const struct pipeline_class *pipeline_class_find(const char *name);

/* From the requested size in pixels to that of the work: the nearest trained size where the family has such bins and `use_bins`, else
 * the size itself, as far as the family does not round it. ARGUMENT if the denoiser's sample_size has no bins. */
tessera_status pipeline_working_size(const struct pipeline *pipeline, bool use_bins, int *width, int *height, tessera_error *error);

/* The channels of the latents that are denoised: what the denoiser reads, less the extra ones. */
int64_t pipeline_latent_channels(const struct pipeline *pipeline, const struct denoiser *denoiser);

/* How many pictures of a request to make together. */
int pipeline_at_once(const struct pipeline *pipeline, const tessera_request *request);
/* Tells the request's caller something in one line. */
void pipeline_notice(const struct pipeline *pipeline, const tessera_request *request, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* FORMAT unless all `count` values (NULL: there are none) are finite: the message names the component and `when` (", step 3 of 20", or
 * ""). (finite.c) */
tessera_status pipeline_check_finite(const struct pipeline *pipeline, const char *component, const char *when, const float *values,
                                     size_t count, tessera_error *error);
/* What sizes must be multiples of. */
tessera_status pipeline_size_unit(struct pipeline *pipeline, int *out, tessera_error *error);
/* Prompt to picture by a pipeline: tessera_generate's work. */
struct generation_control {
    atomic_bool stop;    /* set from any thread, or a signal handler: the generation ends, CANCELLED */
    size_t memory_limit; /* of the tensors that this rank computes with; 0: as much as there is */
    struct text_ahead *ahead; /* the texts of later requests, or NULL */
};
tessera_status pipeline_generate(struct pipeline *pipeline, const tessera_request *request, const struct generation_control *control,
                                 tessera_image *image, tessera_error *error);
/* The work of tessera_encode, tessera_decode and tessera_fingerprint. */
tessera_status pipeline_encode(struct pipeline *pipeline, const tessera_request *request, const struct generation_control *control,
                               tessera_states *states, tessera_image *costs, tessera_error *error);
tessera_status pipeline_decode(struct pipeline *pipeline, const tessera_request *request, const float *latents, size_t values,
                               tessera_image *image, tessera_error *error);
tessera_status pipeline_fingerprint(const struct pipeline *pipeline, tessera_fingerprint_kind kind, char out[TESSERA_FINGERPRINT_BYTES],
                                    tessera_error *error);

#endif
