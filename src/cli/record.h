/* The record that a picture carries: all that is needed to make it again, as one JSON object in the
 * PNG text chunk RECORD_KEY.
 *
 *     {"version": "0.1.0", "model_fingerprint": "...", "kernel_path": "...", "mesh": "cfg 2 x ulysses 2", "ranks": 4,
 *      "init_image_fingerprint": "...", "lora_fingerprint": "...",
 *      "prompt": "...", "index": 0, and every option of generate.h with a `record` key, at the value that was in force}
 *
 * Options that were not given and have no value of their own are null. `mesh` and `ranks` are those
 * that made the picture; what shapes them is read back only where as many ranks run. `index` is the
 * picture's place among num_images, which are drawn one after the other from one generator. A seed
 * above 2^53 is written as a string, since JSON numbers are doubles. */
#ifndef TESSERA_CLI_RECORD_H
#define TESSERA_CLI_RECORD_H

#include "base/json.h"
#include "cli/generate.h"
#include "tessera_files.h"

#define RECORD_KEY "tessera"

/* What the command line does not say. */
struct record_facts {
    char model_fingerprint[TESSERA_FINGERPRINT_BYTES];
    char init_image_fingerprint[TESSERA_FINGERPRINT_BYTES], control_image_fingerprint[TESSERA_FINGERPRINT_BYTES]; /* "": no such picture */
    char lora_fingerprint[TESSERA_FINGERPRINT_BYTES];                                                             /* "": no LoRA files */
    const char *kernel_path;
    const char *mesh; /* of the ranks that make a picture */
    int ranks;
};

/* A new object without prompt and index; the caller deletes it with cJSON_Delete. NULL when memory
 * is out. */
struct cJSON *record_object(const struct option_value *values, const struct record_facts *facts);

/* Puts the size that the pictures really have into a record. False: memory is out. */
bool record_settle_size(struct cJSON *object, int width, int height);
/* The same with the picture's own prompt, seed and index as text; the caller frees it. NULL when
 * memory is out. */
char *record_text(const struct cJSON *object, const char *prompt, uint64_t seed, int index);

/* A seed as a JSON value. NULL when memory is out. */
struct cJSON *record_seed(uint64_t seed);

/* A picture to be made again. */
struct record_source {
    const char *path;
    tessera_picture picture;
    bool talks; /* this rank speaks */
    struct json *json;
    int index;       /* the picture's place among num_images */
    int differences; /* reported so far */
};

/* Reads the PNG at `path` and fills every option of `values` that was not given from its record, of
 * those that shape the mesh only if as many ranks made it as the `ranks` that run now; given ones
 * that differ are counted, and reported on stderr by the rank that `talks`. FORMAT if the picture
 * has no record or a broken one. Free with record_source_close; `values` borrows from it. */
tessera_status record_source_open(const char *path, struct option_value *values, int ranks, bool talks, struct record_source *source,
                                  tessera_error *error);
/* Reports on stderr what else will differ: version, model, kernel path, element type, threads,
 * mesh, starting picture, LoRA files. */
void record_source_report(struct record_source *source, const struct option_value *values, const struct record_facts *facts);
/* Whether the picture at `path` was made of this prompt and seed with the settings of `record`
 * (record_object's): what says only which machine made it is not compared; nor is its size unless
 * `compares_size`. ARGUMENT names the setting that differs. */
tessera_status record_check_same(const char *path, const struct cJSON *record, const char *prompt, uint64_t seed, bool compares_size,
                                 tessera_error *error);
/* Says on stderr whether pixels [height, width, 3] are those of the source (only if nothing differs). */
void record_source_compare(const struct record_source *source, const uint8_t *pixels, int width, int height);
void record_source_close(struct record_source *source);

#endif
