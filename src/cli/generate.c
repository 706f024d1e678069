/* `tessera generate`: prompts to PNG files.
 *
 * The order is: everything that can be wrong with the command line, the outputs and the pictures
 * that are given; then the model; then one job that makes all pictures, each of which is written as
 * soon as it is finished. session.h says which file does what. */
#include "cli/generate.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "cli/command.h"
#include "cli/lora_options.h"
#include "cli/session.h"

/* Rank 0 alone talks; where it is the one that went silent, rank 1 does. */
static bool talks(const struct session *s) {
    const char *message = s->error.message;
    return s->rank == 0 || (s->rank == 1 && strncmp(message, "rank 0 ", 7) == 0 && strstr(message, "no sign of life") != NULL);
}

static int say(struct session *s, tessera_status status) {
    if (status == TESSERA_OK) return EXIT_DONE;
    if (status == TESSERA_ERROR_CANCELLED)
        return command_stopped(talks(s), "%d picture%s written before that", s->written, s->written == 1 ? "" : "s");
    if (talks(s)) return command_fail(&s->error, s->usage);
    return s->usage ? EXIT_USAGE : EXIT_FAILED;
}

/* A failure is said before the world ends: mpirun kills all ranks, and loses what they say, as soon
 * as one has exited with it. Ranks that wait for this one learn from the world's end that it is
 * gone. */
static int finish(struct session *s, tessera_status status) {
    progress_clear(&s->progress);
    int code = say(s, status);
    if (status != TESSERA_OK) tessera_world_finish(s->world, NULL);
    return code;
}

static tessera_status open_world(struct session *s) {
    s->world = tessera_world_open(&s->error);
    if (s->world == NULL) return s->error.status;
    s->rank = tessera_world_rank(s->world);
    s->quiet = s->values[GENERATE_JSON].flag || command_common(&generate_command, s->values, COMMON_QUIET);
    s->verbose = command_common(&generate_command, s->values, COMMON_VERBOSE) && s->rank == 0;
    progress_init(&s->progress, s->quiet || s->rank > 0);
    progress_catch_signals();
    return TESSERA_OK;
}

static tessera_status generate(struct session *s) {
    TRY(open_world(s));
    s->model_is_given = s->values[GENERATE_MODEL].given;
    TRY(session_read(s));
    TRY(session_open_model(s));
    TRY(session_make_pictures(s));
    return s->rank == 0 ? session_report(s) : TESSERA_OK;
}

static int run_generate(const char *path, struct option_value *values) {
    (void)path;
    struct session s = {.values = values};
    int code = finish(&s, generate(&s));
    cJSON_Delete(s.record);
    cJSON_Delete(s.pictures);
    latent_preview_close(&s.latent_preview);
    tessera_model_free(s.model);
    tessera_map_free(s.map);
    tessera_workers_free(s.workers);
    tessera_world_free(s.world);
    given_pictures_free(&s.given);
    record_source_close(&s.source);
    lora_options_free(s.loras, values[GENERATE_LORA].count);
    free(s.model_folder);
    free(s.scheduler_config);
    free(s.output_folder);
    prompts_free(&s.prompts);
    embeds_close(&s.embeds);
    prompt_tags_free(&s.tags);
    mesh_options_free(&s.mesh);
    free(s.copies);
    free(s.peaks);
    free(s.limits);
    benchmark_free(&s.benchmark);
    return code;
}

_Static_assert(GENERATE_OPTION_COUNT + FOREIGN_OPTION_COUNT + COMMON_OPTION_COUNT <= COMMAND_MAX_OPTIONS, "a command line of all options fits");

const struct command generate_command = {
    .name = "generate",
    .usage = "generate --prompt TEXT [OPTIONS]",
    .summary = "make pictures from prompts",
    .details =
        "Output: FILE for one picture; several become FILE-0.png, FILE-1.png, ...; in a FOLDER (existing, or ending in '/') they are\n"
        "PROMPT_SEED_NUMBER.png. Paths of written pictures go to standard output, times and memory to standard error.\n"
        "Each prompt starts from the seed by itself. A picture carries a record of how it was made, which --from reads;\n"
        "other options override the record.\n",
    .examples = "  tessera generate --prompt \"a lion on a blue background\" --seed 2 -o lion.png\n"
                "  tessera generate --model sd3-medium --prompt \"a cat\" \"a dog\" --num-images 4 -o pictures/\n"
                "  tessera generate --prompt \"a red apple\" --init-image sketch.png --strength 0.6 -o apple.png\n"
                "  tessera generate --from lion.png -o again.png\n"
                "  mpirun -n 2 tessera generate --prompt \"a lion\" --device-map auto --max-memory 0:16GB,1:16GB -o lion.png\n"
                "  mpirun -n 4 tessera generate --prompt \"a lion\" --use-cfg-parallel --pipefusion-parallel-degree 2 -o lion.png\n",
    .options = generate_options,
    .option_count = GENERATE_OPTION_COUNT,
    .foreign = foreign_options,
    .foreign_count = FOREIGN_OPTION_COUNT,
    .run = run_generate,
};
