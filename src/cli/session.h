/* One run of `tessera generate`: what its files share.
 *
 *     generate.c             the command: its order, its end
 *     generate_command.c     the command line: other programs' words, prompts, pictures that are given
 *     generate_model.c       the model, the mesh, the request
 *     generate_pictures.c    which pictures, one job for all of this rank's, and their files
 *     generate_files.c       names, PNG and latents files, records
 *     generate_workers.c     other people's machines
 *     generate_report.c      the summary and --json */
#ifndef TESSERA_CLI_SESSION_H
#define TESSERA_CLI_SESSION_H

#include "cli/benchmark.h"
#include "cli/generate.h"
#include "cli/given_pictures.h"
#include "cli/latent_preview.h"
#include "cli/mesh_options.h"
#include "cli/notice.h"
#include "cli/phase_files.h"
#include "cli/progress.h"
#include "cli/prompt_tags.h"
#include "cli/prompts.h"
#include "cli/record.h"
#include "tessera_plan.h"
#include "tessera_workers.h"

struct session {
    struct option_value *values;
    bool usage; /* the error so far is one of the command line */
    bool quiet, verbose;
    struct record_source source; /* of --from */
    struct prompt_files prompts;
    struct embeds_file embeds; /* of --prompt-embeds */
    struct prompt_tags tags;
    char *output_folder; /* of --output-root */
    struct given_pictures given;
    char *model_folder;
    bool model_is_given;     /* on the command line, and not by a record alone */
    const char *moved_model; /* the record's, which is no longer there; or NULL */
    tessera_lora *loras;     /* of --lora; the paths are owned */
    tessera_world *world;
    int rank;
    struct mesh_options mesh;
    int *copies;     /* [pictures of the run] the copy that each one's file name has (output.h); NULL: none has */
    uint64_t *peaks; /* [ranks] of resident memory, at the end */
    tessera_map *map; /* of --device-map, or NULL */
    tessera_model *model;
    tessera_family family; /* of the model, once it is open; before that where ranks share it */
    bool guided; /* each step has two predictions; known where ranks share the work */
    tessera_workers *workers; /* of --workers and --worker; NULL: none */
    tessera_request request; /* what all pictures have in common */
    struct record_facts facts;
    struct cJSON *record, *pictures;
    struct progress progress;
    struct latent_preview latent_preview;
    struct notices notices;
    char *scheduler_config; /* of the request */
    struct benchmark benchmark;
    bool writes; /* false in runs whose pictures are not kept */
    double seconds_open, seconds[5], operations[3];
    int64_t blocks, blocks_skipped;
    uint64_t bytes_copied, bytes_moved; /* by this rank */
    uint64_t *limits;                   /* [ranks] of --max-memory; 0: none */
    uint64_t disk_bytes;                /* of weights that this rank read */
    double seconds_disk;                /* that it waited for them */
    int written;
    tessera_error error;
};

/* Pictures of one request: `count` of prompt `place`, from its number `index` on, the run's from
 * number `number` of `total` on. */
struct task {
    int place;
    const char *prompt;
    uint64_t seed;
    int index, number, total, count;
};

/* ---- the command line (generate_command.c) ---- */

/* Reads and checks all that can be before there is a model. A failure on one rank is one on all of
 * them. */
tessera_status session_read(struct session *s);
/* --from makes one picture of the num_images that its generator draws. */
bool session_makes_one(const struct session *s);
/* How many pictures a run makes. */
int session_pictures(const struct session *s);

/* ---- the model (generate_model.c) ---- */

/* Finds and opens the model, chooses the mesh, and sets up s->request and s->record. A failure on
 * one rank is one on all of them. */
tessera_status session_open_model(struct session *s);

/* ---- other people's machines (generate_workers.c) ---- */

/* Opens those that the options name, if there are any. A failure on one rank is one on all of them. */
tessera_status session_open_workers(struct session *s);
/* What each of them did, and what a cheat's chances were. */
void session_print_workers(const struct session *s);
/* The same into the object of --json. */
void session_add_workers(const struct session *s, struct cJSON *report);

/* ---- pictures (generate_pictures.c) ---- */

/* Makes this rank's pictures and writes them; when all ranks are done, rank 0 tells of the others'
 * pictures. */
tessera_status session_make_pictures(struct session *s);

/* ---- files (generate_files.c) ---- */

/* Picture i of a task. */
struct task task_of(const struct task *task, int i);
/* The file of a task's first picture before existing ones are spared. The caller frees; NULL and
 * s->error on failure. */
char *session_name(struct session *s, const struct task *task);
/* The same with the number that keeps it from an existing one. */
char *session_file(struct session *s, const struct task *task);
/* Writes, reports and shows the one picture of a task. */
tessera_status session_write_picture(struct session *s, const tessera_image *image, const struct task *task);
/* Rank 0 speaks of a picture that another group of ranks has written. */
tessera_status session_tell_picture(struct session *s, const struct task *task);

/* ---- reports (generate_report.c) ---- */

/* Adds what a request took, which other requests' costs are added to. */
void session_add_costs(struct session *s, const tessera_image *image);
/* --json, or the lines on standard error. */
tessera_status session_report(struct session *s);

#endif
