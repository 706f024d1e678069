/* See receipt.h. */
#include "split/receipt.h"

#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "split/fields.h"

#define RECEIPT_VERSION "tessera-receipt-1"
enum { ALIGNMENT = 64, MOST_BLOCKS = 1 << 16 };

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a receipt");
}

void receipt_free(struct receipt *receipt) {
    free(receipt->hashes);
    free(receipt->state);
    *receipt = (struct receipt){0};
}

/* ---- what is signed ---- */

static void add_reply(struct canonical *c, const char *name, const struct receipt_reply *r) {
    canonical_begin(c, name);
    canonical_text(c, r->specification);
    canonical_bytes(c, r->part_digest, sizeof r->part_digest);
    canonical_bytes(c, r->job, sizeof r->job);
    canonical_u32(c, r->step);
    canonical_u32(c, r->row);
    canonical_bytes(c, r->input_hash, sizeof r->input_hash);
    canonical_bytes(c, r->output_hash, sizeof r->output_hash);
}

static void reply_hash(const struct receipt_reply *reply, uint8_t out[CANONICAL_HASH_BYTES]) {
    struct canonical c;
    add_reply(&c, "tessera-reply-1", reply);
    canonical_end(&c, out);
}

static void blocks_hash(const struct receipt_reply *reply, const uint8_t (*hashes)[CANONICAL_HASH_BYTES], int count,
                        uint8_t out[CANONICAL_HASH_BYTES]) {
    struct canonical c;
    add_reply(&c, "tessera-blocks-1", reply);
    canonical_u32(&c, (uint32_t)count);
    canonical_bytes(&c, hashes, (size_t)count * sizeof *hashes);
    canonical_end(&c, out);
}

tessera_status receipt_sign(const struct receipt_reply *reply, const struct identity *worker, uint8_t signature[IDENTITY_SIGNATURE_BYTES],
                            tessera_error *error) {
    uint8_t hash[CANONICAL_HASH_BYTES];
    reply_hash(reply, hash);
    return identity_sign(worker, hash, sizeof hash, signature, error);
}

bool receipt_verify(const struct receipt_reply *reply, const struct identity_public *worker,
                    const uint8_t signature[IDENTITY_SIGNATURE_BYTES]) {
    uint8_t hash[CANONICAL_HASH_BYTES];
    reply_hash(reply, hash);
    return identity_verify(worker, hash, sizeof hash, signature);
}

tessera_status receipt_sign_blocks(const struct receipt_reply *reply, const uint8_t (*hashes)[CANONICAL_HASH_BYTES], int count,
                                   const struct identity *worker, uint8_t signature[IDENTITY_SIGNATURE_BYTES], tessera_error *error) {
    uint8_t hash[CANONICAL_HASH_BYTES];
    blocks_hash(reply, hashes, count, hash);
    return identity_sign(worker, hash, sizeof hash, signature, error);
}

bool receipt_verify_blocks(const struct receipt_reply *reply, const uint8_t (*hashes)[CANONICAL_HASH_BYTES], int count,
                           const struct identity_public *worker, const uint8_t signature[IDENTITY_SIGNATURE_BYTES]) {
    uint8_t hash[CANONICAL_HASH_BYTES];
    blocks_hash(reply, hashes, count, hash);
    return identity_verify(worker, hash, sizeof hash, signature);
}

/* ---- reading ---- */

static tessera_status read_reply(const struct fields *f, struct receipt_reply *out) {
    uint64_t step, row;
    char *specification;
    tessera_status status = fields_text(f, "specification", &specification);
    if (status == TESSERA_OK && strlen(specification) < sizeof out->specification)
        strcpy(out->specification, specification);
    else if (status == TESSERA_OK)
        status = fields_wrong(f, "specification", "too long");
    free(specification);
    TRY(status);
    TRY(fields_hex(f, "part_digest", out->part_digest, sizeof out->part_digest));
    TRY(fields_hex(f, "job", out->job, sizeof out->job));
    TRY(fields_number(f, "step", UINT32_MAX, &step));
    TRY(fields_number(f, "row", UINT32_MAX, &row));
    out->step = (uint32_t)step;
    out->row = (uint32_t)row;
    TRY(fields_hex(f, "input_hash", out->input_hash, sizeof out->input_hash));
    return fields_hex(f, "output_hash", out->output_hash, sizeof out->output_hash);
}

static tessera_status read_hashes(const struct fields *f, struct receipt *r) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(f->item, "block_hashes");
    int wanted = r->range.end - r->range.first + r->range.finish;
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != wanted)
        return fields_wrong(f, "block_hashes", "not a list of one hash for each block of the part");
    r->hashes = calloc((size_t)wanted, sizeof *r->hashes);
    if (r->hashes == NULL) return out_of_memory(f->error);
    for (const cJSON *item = list->child; item != NULL; item = item->next) {
        const char *text = cJSON_GetStringValue(item);
        if (text == NULL || !identity_unhex(text, r->hashes[r->count++], sizeof *r->hashes))
            return fields_wrong(f, "block_hashes", "one of them is not 64 lower-case hexadecimal digits");
    }
    return TESSERA_OK;
}

static tessera_status read_state(const struct fields *f, struct receipt *r) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(f->item, "state"));
    uint8_t *data = NULL;
    if (text == NULL || !identity_unbase64(text, RECEIPT_MOST_BYTES, &data, &r->state_bytes)) {
        free(data);
        return fields_wrong(f, "state", "is missing, or not base64");
    }
    if (r->state_bytes > 0) r->state = aligned_alloc(ALIGNMENT, (r->state_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (r->state != NULL) memcpy(r->state, data, r->state_bytes);
    free(data);
    if (r->state_bytes == 0) return fields_wrong(f, "state", "is empty");
    return r->state != NULL ? TESSERA_OK : out_of_memory(f->error);
}

static tessera_status read_range(const struct fields *f, struct receipt *r) {
    uint64_t first, last, block;
    bool finish;
    TRY(fields_number(f, "first", MOST_BLOCKS, &first));
    TRY(fields_number(f, "last", MOST_BLOCKS, &last));
    TRY(fields_boolean(f, "has_last_block", &finish));
    if (last < first || last - first >= RECEIPT_MOST_HASHES) return fields_wrong(f, "last", "before the first block, or too far behind it");
    r->range = (struct split_range){(int)first, (int)last + 1, finish};
    TRY(fields_number(f, "block", MOST_BLOCKS, &block));
    r->block = (int)block;
    if (r->block >= r->range.first && r->block < r->range.end + finish) return TESSERA_OK;
    return fields_wrong(f, "block", "not of the part");
}

static tessera_status check_signatures(const struct fields *f, const struct receipt *r) {
    if (!receipt_verify(&r->reply, &r->worker, r->signature))
        return fields_wrong(f, "signature", "not that of public_key for this reply: it proves nothing");
    if (receipt_verify_blocks(&r->reply, (const uint8_t(*)[CANONICAL_HASH_BYTES])r->hashes, r->count, &r->worker, r->blocks_signature))
        return TESSERA_OK;
    return fields_wrong(f, "blocks_signature", "not that of public_key for these hashes: it proves nothing");
}

static tessera_status read_receipt(const struct fields *f, void *out) {
    struct receipt *r = out;
    const char *version = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(f->item, "receipt"));
    if (version == NULL || strcmp(version, RECEIPT_VERSION) != 0)
        return fields_wrong(f, "receipt", "is not \"" RECEIPT_VERSION "\": not a receipt, or one of another version");
    TRY(read_reply(f, &r->reply));
    TRY(read_range(f, r));
    TRY(fields_base64(f, "public_key", r->worker.bytes, sizeof r->worker.bytes));
    TRY(fields_base64(f, "signature", r->signature, sizeof r->signature));
    TRY(fields_base64(f, "blocks_signature", r->blocks_signature, sizeof r->blocks_signature));
    TRY(read_hashes(f, r));
    TRY(check_signatures(f, r));
    return read_state(f, r);
}

tessera_status receipt_parse(const char *name, const char *text, size_t length, struct receipt *out, tessera_error *error) {
    *out = (struct receipt){0};
    return fields_parse(name, text, length, read_receipt, out, error);
}

tessera_status receipt_open(const char *path, struct receipt *out, tessera_error *error) {
    *out = (struct receipt){0};
    return fields_open(path, RECEIPT_MOST_BYTES, read_receipt, out, error);
}

/* ---- writing ---- */

static bool add_hashes(cJSON *root, const struct receipt *r) {
    char text[2 * CANONICAL_HASH_BYTES + 1];
    cJSON *list = cJSON_AddArrayToObject(root, "block_hashes");
    for (int i = 0; i < r->count && list != NULL; i++) {
        identity_hex(r->hashes[i], sizeof *r->hashes, text);
        if (!cJSON_AddItemToArray(list, cJSON_CreateString(text))) return false;
    }
    return list != NULL;
}

static bool add_fields(cJSON *root, const struct receipt *r) {
    const struct receipt_reply *reply = &r->reply;
    return cJSON_AddStringToObject(root, "receipt", RECEIPT_VERSION) != NULL &&
           cJSON_AddStringToObject(root, "specification", reply->specification) != NULL &&
           fields_add_hex(root, "part_digest", reply->part_digest, sizeof reply->part_digest) &&
           cJSON_AddNumberToObject(root, "first", r->range.first) != NULL &&
           cJSON_AddNumberToObject(root, "last", r->range.end - 1) != NULL &&
           cJSON_AddBoolToObject(root, "has_last_block", r->range.finish) != NULL &&
           fields_add_hex(root, "job", reply->job, sizeof reply->job) && cJSON_AddNumberToObject(root, "step", reply->step) != NULL &&
           cJSON_AddNumberToObject(root, "row", reply->row) != NULL &&
           fields_add_hex(root, "input_hash", reply->input_hash, sizeof reply->input_hash) &&
           fields_add_hex(root, "output_hash", reply->output_hash, sizeof reply->output_hash) &&
           fields_add_base64(root, "public_key", r->worker.bytes, sizeof r->worker.bytes) &&
           fields_add_base64(root, "signature", r->signature, sizeof r->signature) && add_hashes(root, r) &&
           fields_add_base64(root, "blocks_signature", r->blocks_signature, sizeof r->blocks_signature) &&
           cJSON_AddNumberToObject(root, "block", r->block) != NULL && fields_add_base64(root, "state", r->state, r->state_bytes);
}

tessera_status receipt_write(const struct receipt *receipt, const char *path, tessera_error *error) {
    cJSON *root = cJSON_CreateObject();
    if (root == NULL || !add_fields(root, receipt)) {
        cJSON_Delete(root);
        return out_of_memory(error);
    }
    return fields_write(root, path, error);
}

/* ---- accusing ---- */

/* The state before receipt->block, as it stands within the part. */
tessera_status receipt_set_state(struct receipt *receipt, const struct denoiser *denoiser, const struct denoiser_state *state,
                                 tessera_error *error) {
    struct state_message message = {.constants = denoiser_state_constants(denoiser)};
    free(receipt->state);
    receipt->state_bytes = denoiser_state_bytes(state, 0);
    receipt->state = receipt->state_bytes > 0 ? aligned_alloc(ALIGNMENT, receipt->state_bytes) : NULL;
    return receipt->state != NULL ? denoiser_state_pack(state, &message, NULL, receipt->state, error) : out_of_memory(error);
}

/* Computes the blocks up to receipt->block, and keeps what they leave. */
static tessera_status set_state_behind(struct receipt *receipt, struct split_part *part, const struct split_request *request,
                                       struct denoiser_state *state, tessera_error *error) {
    const struct denoiser *d = split_part_denoiser(part);
    const struct split_shape shape = split_shape_of(state);
    const struct split_range before = {receipt->range.first, receipt->block, false};
    struct split_request some = *request;
    struct split_answer answer;
    struct denoiser_state left;
    struct state_message message = {.job = request->job};
    some.only = &before;
    TRY(split_part_compute(part, &some, &answer, error));
    struct denoiser_state form = split_answer_form(d, split_part_run_of(part), &receipt->range, before.end, false, &shape);
    tessera_status status = denoiser_state_unpack(answer.bytes, answer.size, &form, NULL, &left, &message, error);
    if (status == TESSERA_OK) {
        split_answer_merge_within(d, before.end, state, &left);
        status = receipt_set_state(receipt, d, state, error);
    }
    split_answer_free(&answer);
    return status;
}

int receipt_first_difference(const struct receipt *receipt, const uint8_t (*other)[CANONICAL_HASH_BYTES]) {
    int place = 0;
    while (place < receipt->count && memcmp(other[place], receipt->hashes[place], CANONICAL_HASH_BYTES) == 0) place++;
    return place;
}

tessera_status receipt_accuse(struct receipt *receipt, struct split_part *part, const struct split_request *request,
                              const uint8_t (*own)[CANONICAL_HASH_BYTES], tessera_error *error) {
    struct denoiser_state state;
    int place = receipt_first_difference(receipt, own);
    TRY(split_part_read(part, request, &state, error));
    if (place == receipt->count) place = 0;
    receipt->block = receipt->range.first + place;
    if (place == 0) return receipt_set_state(receipt, split_part_denoiser(part), &state, error);
    return set_state_behind(receipt, part, request, &state, error);
}

/* ---- judging ---- */

static tessera_status check_part(const struct receipt *r, const struct split_part *part, tessera_error *error) {
    const struct part_header *header = split_part_header(part);
    const struct split_range *range = &header->range;
    if (strcmp(r->reply.specification, split_part_specification(part)) != 0 || strstr(r->reply.specification, " reproducible ") == NULL)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "the receipt is of \"%s\", but the judge computes \"%s\": only reproducible results have bits to compare",
                         r->reply.specification, split_part_specification(part));
    if (memcmp(r->reply.part_digest, header->digest, sizeof header->digest) == 0 && r->range.first == range->first &&
        r->range.end == range->end && r->range.finish == range->finish)
        return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT,
                     "the receipt is of another part or model than the one that is given: their digests or blocks differ");
}

/* Computes the block alone. */
static tessera_status compute_block(const struct receipt *r, struct split_part *part, struct split_answer *answer, tessera_error *error) {
    struct state_store store = split_part_store(part);
    bool finish = r->block == r->range.end;
    const struct split_range only = {r->block, finish ? r->block : r->block + 1, finish};
    const struct split_request request = {.bytes = r->state, .size = r->state_bytes, .store = &store, .only = &only};
    tessera_status status = split_part_compute(part, &request, answer, error);
    state_store_close(&store);
    return status;
}

tessera_status receipt_judge(const struct receipt *r, struct split_part *part, enum receipt_verdict *verdict, tessera_error *error) {
    struct split_answer answer;
    int place = r->block - r->range.first;
    *verdict = RECEIPT_CLEARED;
    TRY(check_part(r, part, error));
    if (memcmp(r->hashes[r->count - 1], r->reply.output_hash, CANONICAL_HASH_BYTES) != 0) {
        *verdict = RECEIPT_CONTRADICTED;
        return TESSERA_OK;
    }
    tessera_status status = compute_block(r, part, &answer, error);
    if (status == TESSERA_OK &&
        memcmp(answer.input_hash, place == 0 ? r->reply.input_hash : r->hashes[place - 1], CANONICAL_HASH_BYTES) != 0)
        status = error_set(error, TESSERA_ERROR_FORMAT,
                           "the receipt's state is not the one that its worker signed as the state before block %d: it proves nothing",
                           r->block);
    if (status == TESSERA_OK && memcmp(answer.output_hash, r->hashes[place], CANONICAL_HASH_BYTES) != 0) *verdict = RECEIPT_CONVICTED;
    split_answer_free(&answer);
    return status;
}
