/* The command line of `tessera generate`: everything that can be wrong with it is found here,
 * before a model is opened.
 *
 * What rank 0 alone has (standard input, a seed that the system draws) it gives to all. A rank that
 * finds a mistake says so to the others, so that all leave together. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/error.h"
#include "cli/memory_options.h"
#include "cli/habits.h"
#include "cli/like.h"
#include "cli/output.h"
#include "cli/request_options.h"
#include "cli/session.h"

/* --output-root is --output with a folder, which is made. */
static tessera_status read_output_root(struct session *s) {
    const char *root = s->values[GENERATE_OUTPUT_ROOT].text;
    struct option_value *output = &s->values[GENERATE_OUTPUT];
    if (root == NULL) return TESSERA_OK;
    if (output->given || *root == 0)
        return error_set(&s->error, TESSERA_ERROR_ARGUMENT,
                         output->given ? "--output and --output-root: give one of them" : "--output-root is empty");
    if (asprintf(&s->output_folder, "%s/", root) < 0) s->output_folder = NULL;
    if (s->output_folder == NULL) return error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for a file name");
    return options_read_value(&generate_options[GENERATE_OUTPUT], s->output_folder, output, &s->error);
}

/* What the command line says in other programs' words; before anything is read. */
static tessera_status translate_command_line(struct session *s) {
    s->usage = true;
    if (s->rank == 0 && !s->quiet) options_print_ignored(generate_options, GENERATE_OPTION_COUNT, s->values);
    if (s->rank == 0 && !s->quiet) options_print_ignored(foreign_options, FOREIGN_OPTION_COUNT, s->values + GENERATE_OPTION_COUNT);
    TRY(read_output_root(s));
    TRY(habits_apply(s->values, &s->error));
    TRY(like_apply(s->values, &s->error));
    if (s->values[GENERATE_FBCACHE].flag && s->values[GENERATE_TEACACHE].flag)
        return error_set(&s->error, TESSERA_ERROR_ARGUMENT, "--use-fbcache and --use-teacache: a run has one step cache at most");
    s->usage = false;
    return TESSERA_OK;
}

bool session_makes_one(const struct session *s) {
    return s->source.json != NULL && s->values[GENERATE_PROMPT].count == 1;
}

int session_pictures(const struct session *s) {
    const struct option_value *seeds = &s->values[GENERATE_BATCH_COUNT], *images = &s->values[GENERATE_NUM_IMAGES];
    if (session_makes_one(s)) return 1;
    return s->values[GENERATE_PROMPT].count * (seeds->given ? seeds->integer : 1) * (images->given ? images->integer : 1);
}

/* One PNG file fits a stream, and nothing beside it. */
static tessera_status check_stream(struct session *s) {
    const struct option_value *v = s->values;
    tessera_error *error = &s->error;
    if (!output_is_stream(v[GENERATE_OUTPUT].text)) return TESSERA_OK;
    if (v[GENERATE_JSON].flag) return error_set(error, TESSERA_ERROR_ARGUMENT, "--output - and --json both write to standard output");
    if (v[GENERATE_OUTPUT_TYPE].text != NULL && strcmp(v[GENERATE_OUTPUT_TYPE].text, "latent") == 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--output - is for a PNG: give latents a file");
    if (session_pictures(s) > 1)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--output - takes one picture, not %d: give a folder", session_pictures(s));
    return TESSERA_OK;
}

/* --prompt-embeds gives the prompts' texts too: they name the file and stand in the picture's record. */
static tessera_status read_embeds(struct session *s) {
    struct option_value *v = s->values;
    const char *path = v[GENERATE_PROMPT_EMBEDS].text;
    const int others[] = {GENERATE_PROMPT, GENERATE_PROMPTS_FILE, GENERATE_DATASET_PATH, GENERATE_CAPTION_FILE, GENERATE_NEGATIVE_PROMPT};
    if (path == NULL) return TESSERA_OK;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (v[others[i]].given)
            return error_set(&s->error, TESSERA_ERROR_ARGUMENT, "--prompt-embeds and --%s: give one of them",
                             generate_options[others[i]].name);
    TRY(embeds_open(path, &s->embeds, &s->error));
    const char *prompt = s->embeds.prompt != NULL ? s->embeds.prompt : "";
    TRY(options_read_value(&generate_options[GENERATE_PROMPT], prompt, &v[GENERATE_PROMPT], &s->error));
    if (s->embeds.negative_prompt == NULL) return TESSERA_OK;
    return options_read_value(&generate_options[GENERATE_NEGATIVE_PROMPT], s->embeds.negative_prompt, &v[GENERATE_NEGATIVE_PROMPT],
                              &s->error);
}

static tessera_status check_command_line(struct session *s) {
    struct option_value *values = s->values;
    tessera_request unused = {0};
    if (values[GENERATE_STRENGTH].given && !values[GENERATE_INIT_IMAGE].given) {
        s->usage = !values[GENERATE_FROM].given;
        if (s->usage) return error_set(&s->error, TESSERA_ERROR_ARGUMENT, "--strength needs --init-image FILE.png");
    }
    tessera_status status = read_embeds(s);
    if (status == TESSERA_OK) status = prompts_read(values, &s->prompts, &s->error);
    if (status == TESSERA_OK) status = prompt_tags_take(values, &s->tags, &s->error);
    s->usage = status == TESSERA_ERROR_ARGUMENT;
    TRY(status);
    s->usage = true;
    TRY(prompts_check(values, &s->error));
    if (s->rank == 0 && !s->quiet) prompt_tags_announce(&values[GENERATE_PROMPT], values[GENERATE_NEGATIVE_PROMPT].text);
    TRY(mesh_options_read(values, s->world, &s->mesh, &s->error));
    s->limits = calloc((size_t)tessera_world_size(s->world), sizeof *s->limits);
    if (s->limits == NULL) return error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory");
    TRY(memory_options_read(values[GENERATE_MAX_MEMORY].text, tessera_world_size(s->world), s->limits, &s->error));
    TRY(request_options_read_sizes(values, &unused, &s->error));
    TRY(check_stream(s));
    status = output_check(values[GENERATE_OUTPUT].text, &s->error);
    s->usage = status == TESSERA_ERROR_ARGUMENT;
    TRY(status);
    TRY(given_pictures_read(values, &s->given, &s->facts, &s->error));
    return benchmark_open(values, &s->benchmark, &s->error);
}

/* How many ranks will make each picture, as far as that can be said before the mesh is. */
static int ranks_of_picture(const struct session *s) {
    return tessera_world_size(s->world) / mesh_options_degree(s->values[GENERATE_DATA_DEGREE].integer);
}

/* What rank 0 alone has. */
struct drawn {
    uint32_t seed; /* 32 bits: people copy it */
    size_t length; /* of standard input */
};

static tessera_status read_and_draw(struct session *s, struct drawn *drawn) {
    struct option_value *values = s->values;
    if (values[GENERATE_FROM].given)
        TRY(record_source_open(values[GENERATE_FROM].text, values, ranks_of_picture(s), s->rank == 0, &s->source, &s->error));
    TRY(translate_command_line(s));
    if (s->rank > 0) return TESSERA_OK;
    if (values[GENERATE_SEED].negative && getrandom(&drawn->seed, sizeof drawn->seed, 0) != sizeof drawn->seed)
        return error_set_errno(&s->error, "--seed -1: the system gives no random number");
    return prompts_read_input(values, &s->prompts, &drawn->length, &s->error);
}

/* Standard input, which under mpirun only rank 0 has, and the seed of --seed -1. */
static tessera_status share_drawn(struct session *s, const struct drawn *drawn) {
    struct option_value *seed = &s->values[GENERATE_SEED];
    if (seed->negative) seed->seed = drawn->seed;
    if (seed->negative && s->rank == 0 && !s->quiet) fprintf(stderr, "tessera: --seed %lu\n", (unsigned long)drawn->seed);
    if (drawn->length == 0) return TESSERA_OK;
    if (s->rank > 0) s->prompts.lines = calloc(drawn->length + 1, 1);
    tessera_status status =
        s->prompts.lines != NULL ? TESSERA_OK : error_set(&s->error, TESSERA_ERROR_MEMORY, "out of memory for the prompts");
    return tessera_world_share(s->world, status, s->prompts.lines, drawn->length, &s->error);
}

tessera_status session_read(struct session *s) {
    struct drawn drawn = {0};
    tessera_status status = read_and_draw(s, &drawn);
    TRY(tessera_world_share(s->world, status, &drawn, sizeof drawn, &s->error));
    TRY(share_drawn(s, &drawn));
    status = check_command_line(s);
    if (status == TESSERA_OK) s->usage = false;
    return tessera_world_share(s->world, status, NULL, 0, &s->error);
}
