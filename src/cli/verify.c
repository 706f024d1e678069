/* `tessera verify`: does a receipt convict the worker that signed it? The one block in dispute is
 * computed again, in plain C. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"
#include "cli/find_model.h"
#include "split/receipt.h"

enum verify_option { VERIFY_MODEL, VERIFY_PART, VERIFY_MANIFEST, VERIFY_PIN, VERIFY_THREADS, VERIFY_OPTION_COUNT };
enum { EXIT_CLEARED = 3, MOST_THREADS = 1024 };

static const struct option verify_options[VERIFY_OPTION_COUNT] = {
    [VERIFY_MODEL] =
        {.name = "model",
         .aliases = {"model-id"},
         .type = OPTION_TEXT,
         .placeholder = "MODEL",
         .help = "judge with the weights of this model: a folder in diffusers' layout, a denoiser's folder, or OWNER/NAME on the hub",
         .opens = true},
    [VERIFY_PART] = {.name = "part",
                     .type = OPTION_TEXT,
                     .placeholder = "FILE.safetensors",
                     .help = "judge with the weights of this part, as `tessera split` made it",
                     .opens = true},
    [VERIFY_MANIFEST] = {.name = "manifest",
                         .type = OPTION_TEXT,
                         .placeholder = "FILE.json",
                         .help = "the part must be one of this manifest",
                         .opens = true},
    [VERIFY_PIN] = {.name = "pin",
                    .type = OPTION_TEXT,
                    .placeholder = "PIN",
                    .help = "the manifest must be signed by the owner with this pin"},
    [VERIFY_THREADS] = {.name = "threads",
                        .type = OPTION_INTEGER,
                        .placeholder = "N",
                        .help = "threads (default: all processors)",
                        .low = 1,
                        .high = MOST_THREADS},
};

/* The receipt's part, from what the options name. Receipts may be of larger pictures than a worker
 * takes. */
static tessera_status open_part(const struct option_value *values, const char *folder, const struct receipt *receipt,
                                const struct manifest *manifest, struct split_part **out, tessera_error *error) {
    const char *specification = receipt->reply.specification, *dtype = strrchr(specification, ' ');
    const struct split_part_options options = {.kernels = TESSERA_KERNELS_REPRODUCIBLE,
                                               .dtype = dtype != NULL && strcmp(dtype, " bf16") == 0 ? DTYPE_BF16 : DTYPE_F32,
                                               .threads = values[VERIFY_THREADS].given ? values[VERIFY_THREADS].integer : 0,
                                               .streamed = true,
                                               .manifest = manifest,
                                               .limits = {.batch = 1 << 10, .tokens = 1 << 24, .text_tokens = 1 << 20}};
    if (values[VERIFY_PART].given) return split_part_open(values[VERIFY_PART].text, &options, out, error);
    return split_part_open_model(folder, &receipt->range, &options, out, error);
}

static tessera_status judge(const struct option_value *values, const char *folder, const struct receipt *receipt,
                            enum receipt_verdict *verdict, tessera_error *error) {
    struct manifest manifest = {0};
    struct split_part *part = NULL;
    bool listed = values[VERIFY_MANIFEST].given;
    tessera_status status =
        listed ? manifest_open(values[VERIFY_MANIFEST].text, values[VERIFY_PIN].given ? values[VERIFY_PIN].text : NULL, &manifest, error)
               : TESSERA_OK;
    if (status == TESSERA_OK) status = open_part(values, folder, receipt, listed ? &manifest : NULL, &part, error);
    if (status == TESSERA_OK) status = receipt_judge(receipt, part, verdict, error);
    split_part_close(part);
    manifest_free(&manifest);
    return status;
}

static void print_verdict(const struct receipt *r, enum receipt_verdict verdict) {
    char pin[IDENTITY_PIN_CHARS], digest[2 * CANONICAL_HASH_BYTES + 1], job[2 * SPLIT_NONCE_BYTES + 1], block[32];
    identity_pin(&r->worker, pin);
    identity_hex(r->reply.part_digest, sizeof r->reply.part_digest, digest);
    identity_hex(r->reply.job, sizeof r->reply.job, job);
    snprintf(block, sizeof block, r->block < r->range.end ? "block %d" : "the last layers", r->block);
    if (verdict == RECEIPT_CONVICTED) printf("convicted: %s gives another result than the worker signed\n", block);
    if (verdict == RECEIPT_CONTRADICTED)
        printf("convicted: the worker signed one result, and hashes after its blocks that end in another one\n");
    if (verdict == RECEIPT_CLEARED) printf("cleared: %s gives what the worker signed\n", block);
    printf("worker: %s\npart: blocks %d to %d, sha256 %s\njob: %s, step %u, row %u, %s\n", pin, r->range.first, r->range.end - 1, digest,
           job, r->reply.step, r->reply.row, r->reply.specification);
}

static tessera_status check_options(const char *path, const struct option_value *values, tessera_error *error) {
    if (path == NULL || values[VERIFY_MODEL].given == values[VERIFY_PART].given)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "verify needs a receipt, and the weights to judge it with: tessera verify RECEIPT.json --model MODEL, or --part "
                         "FILE.safetensors");
    if (values[VERIFY_PIN].given && !values[VERIFY_MANIFEST].given)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--pin: names who must have signed the --manifest, which is not given");
    return TESSERA_OK;
}

static int run_verify(const char *path, struct option_value *values) {
    tessera_error error = {0};
    struct receipt receipt = {0};
    enum receipt_verdict verdict = RECEIPT_CLEARED;
    char *folder = NULL;
    if (check_options(path, values, &error) != TESSERA_OK) return command_fail(&error, true);
    setenv("TESSERA_ISA", "plain", 0); /* what every judge has; the bits are the same with any other */
    tessera_status status = receipt_open(path, &receipt, &error);
    if (status == TESSERA_OK && values[VERIFY_MODEL].given)
        status = find_model(values[VERIFY_MODEL].text, NULL, command_common(&verify_command, values, COMMON_QUIET), &folder, &error);
    if (status == TESSERA_OK) status = judge(values, folder, &receipt, &verdict, &error);
    if (status == TESSERA_OK) print_verdict(&receipt, verdict);
    receipt_free(&receipt);
    free(folder);
    if (status != TESSERA_OK) return command_fail(&error, false);
    return verdict == RECEIPT_CLEARED ? EXIT_CLEARED : EXIT_DONE;
}

const struct command verify_command = {
    .name = "verify",
    .usage = "verify RECEIPT.json --model MODEL | --part FILE.safetensors [OPTIONS]",
    .summary = "judge a worker by a receipt: does it convict the one who signed it?",
    .details =
        "A receipt holds what a worker signed of one request, and the state before the block where its results begin to differ from the "
        "right ones. The\n"
        "block is computed again with reproducible kernels in plain C. Whoever made the receipt need not be trusted: what the worker did "
        "not sign\n"
        "convicts nobody (docs/strangers.md).\n"
        "Exit status: 0 the worker is convicted, 3 it is cleared, 1 the receipt proves nothing or cannot be judged, 2 wrong options.\n",
    .examples = "  tessera verify receipt.json --model stabilityai/stable-diffusion-3-medium-diffusers\n"
                "  tessera verify receipt.json --part sd3-1-of-2.safetensors --manifest sd3.manifest.json --pin "
                "n6rqj4/AYyjGYhDIx+cZfbx0iqfqvs1waeHKGXlA1DI=\n",
    .options = verify_options,
    .option_count = VERIFY_OPTION_COUNT,
    .run = run_verify,
    .takes_path = true,
};
