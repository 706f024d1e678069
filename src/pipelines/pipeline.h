/* A pipeline: a model folder opened, and what its family adds to the shared way from prompt to
 * picture.
 *
 *     prompts --encode_prompts (family)--> text states --denoise (generate.c)--> latents --decode--> picture
 *
 * Components (text encoders, denoiser, autoencoder) are opened when they are first needed.
 * offload.h says whether they stay open between requests or are closed after their phase.
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
/* Convolutional models work on feature maps larger than this in strips of rows. */
#define PIPELINE_STRIP_BYTES ((size_t)64 << 20)
#define PIPELINE_NARROW_STRIP_BYTES ((size_t)8 << 20) /* where memory is short */

/* The prompts of a picture: [negative, prompt] if guided, else [prompt]. */
struct prompts {
    const char *texts[2];           /* NULL: no negative prompt was given */
    int count;                      /* 1 or 2; texts[0] is the negative one only if 2 */
    const tessera_request *request; /* whose prompts they are */
    struct text_ahead *ahead;       /* the texts of later requests, or NULL */
    /* Called with how many prompts an encoder has read; a failure ends the reading. */
    tessera_status (*tell)(void *user, int done, int total, tessera_error *error);
    void *user;
};

/* The encoded prompts, F32, one row for each; empty if the family does not have the tensor. See
 * denoiser_inputs. */
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
    int img2img_steps; /* picture to picture, if diffusers' defaults differ from those above; 0: they do not */
    float img2img_guidance_scale;
    int64_t sample_size;    /* default latent side if the denoiser's config.json names none */
    const char *t5_encoder; /* the component that is a T5 encoder, "text_encoder_3"; NULL: the family has none */
    bool is_unet;           /* its denoiser is a U-Net: pictures go through stages as a whole */
    bool flow_matching;     /* what the denoiser was trained to predict: as struct scheduler has it */
    bool sigmas_from_steps; /* see struct scheduler */
    bool distilled;         /* the guidance scale is an input of the denoiser; guidance proper is true_cfg_scale's */
    bool has_control;       /* the pipeline draws after a control picture, whose latents are among the extra ones */
    /* What the denoiser reads after the latents' channels: so many more latents, and so many single
     * channels. A control picture is {1, 0}; a masked picture and its mask would be {1, 1}. */
    struct {
        int latents, channels;
    } extra;
    const char *scheduler_fields; /* JSON: what diffusers' pipeline sets in its scheduler's configuration, whatever the file says; or NULL */
    bool whole_steps; /* picture to picture: steps * strength is cut to a whole number before it is subtracted from steps */
    /* Sizes that the family was trained at: makes *width and *height the nearest of them. False
     * where a denoiser of this sample_size has none. NULL: the family has none. */
    bool (*nearest_size)(int64_t sample_size, int *width, int *height);
    bool scales_back;  /* pictures are resized to the requested size; otherwise they stay as they are drawn */
    bool rounds_sizes; /* sizes are first rounded down to multiples of 16, as in diffusers */
    /* How many tokens the denoiser reads: those of the TEXT_ bits, and text_tokens more. */
    unsigned text;
    int text_tokens;
    /* Encodes the prompts, in run->arena. */
    tessera_status (*encode_prompts)(struct pipeline *, struct run *, const tessera_request *, const struct prompts *,
                                     struct prompt_states *, tessera_error *);
    /* Writes the denoiser's size conditions for a picture of this working size to out[6], and
     * returns how many there are; NULL: none. */
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
    size_t whole, window; /* memory for what this rank loads, and for its largest segment during loading; 0: not known yet */
    bool is_open, is_described;
    bool is_loaded; /* its weights are in memory, or are streamed as they are needed */
    struct component component;
    struct component described; /* without weights */
    struct component_stream *stream; /* if the model is offloaded: what loads its segments; else NULL */
};

/* A tokenizer that has been opened. */
struct pipeline_tokenizer {
    const char *name; /* the subfolder, a constant */
    struct tokenizer *tokenizer;
};

/* Components of one role are on one device. */
enum pipeline_role { ROLE_TEXT, ROLE_DENOISER, ROLE_AUTOENCODER, PIPELINE_ROLES };

struct pipeline {
    const struct pipeline_class *class;
    char *name;               /* as messages call the model */
    char *variant;            /* of the weight files that are preferred; NULL: none */
    char *folder;             /* of model_index.json and, unless it is a single file, of all components */
    struct single_file *file; /* or NULL */
    struct lora_set *loras; /* that components are opened with */
    struct adapters adapters;
    char lora_fingerprint[TESSERA_FINGERPRINT_BYTES]; /* of files that change text encoders; "": none does */
    struct notices notices; /* about the model: what was left out or concluded */
    struct json *index;     /* model_index.json */
    struct json *scheduler; /* its configuration, read when it is first needed; until pipeline_forget */
    struct team team;
    struct stages *stages; /* [num_stages] this rank's stages of the denoiser; none: it has all blocks */
    int num_stages;
    struct span *between; /* [num_stages - 1] runs of blocks that other ranks compute; NULL without stages */
    const struct tessera_map *map;            /* that places its components and blocks; borrowed; or NULL */
    struct backend *backends[PIPELINE_ROLES]; /* roles of one device share one */
    enum dtype dtype;
    bool vae_tiling;
    bool divides_no_sum;                 /* it is described for reproducible kernels */
    enum offload offload_asked, offload; /* what the options say; what the present request has */
    bool stays_whole;                    /* nothing is offloaded, whatever the request */
    bool is_large;                       /* it takes half of the machine's memory */
    bool is_judged;                      /* `judged` is the last request, and `choice` what came of it */
    struct offload_question judged;
    int choice;
    struct offload_needs needs;          /* of the present request, if it may be offloaded */
    bool by_rows;                        /* the present request works on fewer rows at a time than without a limit */
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
    struct tessera_workers *workers;        /* of the options: they compute some of the denoiser's blocks; borrowed; or NULL */
    int64_t sample_size;                    /* the denoiser's default latent side */
    int64_t text_channels, pooled_channels; /* what the denoiser reads; known once a request's sizes are */
    tessera_request defaults;
    bool has_own_defaults; /* the folder's generation_defaults.json, for picture to picture too */
};

tessera_status pipeline_open(const char *model, const tessera_model_options *options, struct pipeline **out, tessera_error *error);
/* The same for pipeline_describe alone: files of configs are enough, and ranks and device do not
 * count. */
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
/* The component as its config.json describes it, without weights; the pipeline owns it, until
 * pipeline_forget. */
tessera_status pipeline_describe(struct pipeline *pipeline, const char *name, const struct component **out, tessera_error *error);
/* The scheduler's configuration as the model has it, or as the marks in its single file change it;
 * the pipeline owns it, until pipeline_forget. */
tessera_status pipeline_scheduler_config(struct pipeline *pipeline, const struct json **out, tessera_error *error);
/* Forgets descriptions and the scheduler's configuration. So each call of a program reads the files
 * once and sees whether they have changed. */
void pipeline_forget(struct pipeline *pipeline);
/* The component; opens it if it is not open. */
tessera_status pipeline_component(struct pipeline *pipeline, const char *name, struct component **out, tessera_error *error);
/* All ranks of a picture call this before its first step, so that waiting for the slowest rank
 * counts as opening. They call it in each job, even if a rank's denoiser is already open: after a
 * job that failed, another rank's may not be. */
tessera_status pipeline_meet(struct pipeline *pipeline, tessera_error *error);
void pipeline_close_slot(struct pipeline *pipeline, struct pipeline_slot *slot);
/* Opens the component if it is not open, without weights; pipeline_component loads them. */
tessera_status pipeline_open_slot(struct pipeline *pipeline, struct pipeline_slot *slot, tessera_error *error);
/* The rank of the picture that has a text encoder, or the autoencoder if it is not divided. A map
 * says which; without one, text encoders are on the ranks in turn, and the autoencoder on the first
 * rank. */
int pipeline_rank_of(const struct pipeline *pipeline, const char *name);
/* Has this rank any blocks of the denoiser? */
bool pipeline_has_blocks(const struct pipeline *pipeline);
/* Called when a phase no longer needs a component, which is then closed if the model is offloaded.
 */
void pipeline_done_with(struct pipeline *pipeline, const char *name);
/* The folder of what has no weights ("tokenizer_2", "scheduler"); the caller frees. (source.c) */
tessera_status pipeline_folder_of(const struct pipeline *pipeline, const char *name, char **out, tessera_error *error);
/* A tokenizer by its subfolder, a constant; it is opened once, and the pipeline owns it. */
tessera_status pipeline_tokenizer(struct pipeline *pipeline, const char *name, const struct tokenizer **out, tessera_error *error);

/* Every family's name, as model_index.json has it; ends with NULL. */
const char *const *pipeline_class_names(void);
/* The family of this name, or of this name without the "Img2Img" of diffusers' pipelines from
 * picture to picture; NULL: there is none. */
const struct pipeline_class *pipeline_class_find(const char *name);

/* Turns the requested size in pixels into the working size: the nearest trained size if the family
 * has such bins and `use_bins`, else the requested size, rounded if the family rounds. ARGUMENT if
 * the denoiser's sample_size has no bins. */
tessera_status pipeline_working_size(const struct pipeline *pipeline, bool use_bins, int *width, int *height, tessera_error *error);

/* The channels of the latents: those that the denoiser reads, minus the extra ones. */
int64_t pipeline_latent_channels(const struct pipeline *pipeline, const struct denoiser *denoiser);

/* How many pictures of a request to make together. */
int pipeline_at_once(const struct pipeline *pipeline, const tessera_request *request);
/* Gives the request's caller a notice of one line. */
void pipeline_notice(const struct pipeline *pipeline, const tessera_request *request, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* FORMAT unless all `count` values (NULL: there are none) are finite: the message names the
 * component and `when` (", step 3 of 20", or ""). (finite.c) */
tessera_status pipeline_check_finite(const struct pipeline *pipeline, const char *component, const char *when, const float *values,
                                     size_t count, tessera_error *error);
/* What sizes must be multiples of. */
tessera_status pipeline_size_unit(struct pipeline *pipeline, int *out, tessera_error *error);
/* The work of tessera_generate. */
struct generation_control {
    atomic_bool stop;         /* any thread or a signal handler may set it: the work then ends with CANCELLED */
    size_t memory_limit;      /* of the tensors with which this rank computes; 0: no limit */
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
