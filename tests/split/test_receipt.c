/* Receipts: a worker that changes one bit in one block is convicted by whoever has the weights; an
 * honest one never is, whatever the accuser writes into the receipt. */
#include <sys/stat.h>
#include <unistd.h>

#include "split/receipt.h"
#include "in_folder.h"
#include "split_case.h"

static struct identity *worker;
static const struct split_part_options options = {
    .kernels = TESSERA_KERNELS_REPRODUCIBLE, .dtype = DTYPE_F32, .threads = 2, .streamed = true};

/* A part at work, and the accuser who computes rightly. */
struct trial {
    struct split_case s;
    struct split_part *part;
    struct split_range range;
    uint8_t *request;
    size_t request_bytes;
    struct split_answer right; /* of the request */
};

static bool open_trial(struct trial *t, const char *name, struct split_range range) {
    tessera_error error = {0};
    *t = (struct trial){.range = range};
    if (!split_case_open(&t->s, name, DTYPE_F32, CPU_KERNELS_REPRODUCIBLE)) return false;
    const struct denoiser *d = t->s.t.component.denoiser;
    CHECK(split_part_open_model(t->s.model, &range, &options, &t->part, &error) == TESSERA_OK, "%s", error.message);
    struct denoiser_state state = denoiser_embed(d, &t->s.t.run, &t->s.inputs.in, BOTH);
    state = own_blocks(&t->s, 0, range.first, state);
    struct denoiser_state sent = split_request_state(d, &range, &state);
    t->request = pack_state(&t->s, &sent, JOB, 0, &t->request_bytes);
    return t->part != NULL && through_part(&t->s, t->part, &state, &t->right);
}

static void close_trial(struct trial *t) {
    free(t->request);
    split_answer_free(&t->right);
    split_part_close(t->part);
    split_case_close(&t->s);
}

/* The accusation of what the worker signed; the block that it names. */
static int accuse(struct trial *t, struct receipt *r) {
    struct state_store store = split_part_store(t->part);
    const struct split_request request = {.bytes = t->request, .size = t->request_bytes, .job = JOB, .store = &store};
    tessera_error error = {0};
    CHECK(receipt_accuse(r, t->part, &request, (const uint8_t(*)[CANONICAL_HASH_BYTES])t->right.hashes, &error) == TESSERA_OK, "%s",
          error.message);
    state_store_close(&store);
    return r->block;
}

/* The state before `block` of an honest worker: that of an accusation which claims to differ there. */
static void set_state_of(struct trial *t, struct receipt *r, int block) {
    r->hashes[block - t->range.first][0] ^= 1;
    CHECK(accuse(t, r) == block, "another block is accused");
    r->hashes[block - t->range.first][0] ^= 1;
}

/* What the worker signs. */
static struct receipt signed_receipt(const struct trial *t, const uint8_t (*hashes)[CANONICAL_HASH_BYTES], const uint8_t *output) {
    struct receipt r = {.range = t->range, .worker = *identity_public(worker), .count = t->right.num_hashes};
    tessera_error error = {0};
    strcpy(r.reply.specification, split_part_specification(t->part));
    memcpy(r.reply.part_digest, split_part_header(t->part)->digest, CANONICAL_HASH_BYTES);
    memset(r.reply.job, 0x5a, sizeof r.reply.job);
    r.reply.step = 3;
    r.reply.row = 1;
    memcpy(r.reply.input_hash, t->right.input_hash, CANONICAL_HASH_BYTES);
    memcpy(r.reply.output_hash, output, CANONICAL_HASH_BYTES);
    r.hashes = memcpy(malloc((size_t)r.count * sizeof *r.hashes), hashes, (size_t)r.count * sizeof *r.hashes);
    CHECK(receipt_sign(&r.reply, worker, r.signature, &error) == TESSERA_OK, "%s", error.message);
    CHECK(receipt_sign_blocks(&r.reply, hashes, r.count, worker, r.blocks_signature, &error) == TESSERA_OK, "%s", error.message);
    return r;
}

/* Written, read again, and judged. */
static tessera_status judge(struct trial *t, struct receipt *r, int block, enum receipt_verdict *verdict, tessera_error *error) {
    struct receipt read = {0};
    CHECK(r->block == block && r->state != NULL, "block %d is accused, not %d", r->block, block);
    CHECK(receipt_write(r, in_folder("receipt.json"), error) == TESSERA_OK, "%s", error->message);
    tessera_status status = receipt_open(in_folder("receipt.json"), &read, error);
    if (status == TESSERA_OK) {
        CHECK(memcmp(&read.reply, &r->reply, sizeof read.reply) == 0 && read.state_bytes == r->state_bytes, "another receipt was read");
        status = receipt_judge(&read, t->part, verdict, error);
    }
    receipt_free(&read);
    return status;
}

static void expect(struct trial *t, struct receipt *r, int block, enum receipt_verdict wanted) {
    tessera_error error = {0};
    enum receipt_verdict verdict = RECEIPT_CLEARED;
    CHECK(judge(t, r, block, &verdict, &error) == TESSERA_OK, "block %d: %s", block, error.message);
    CHECK(verdict == wanted, "block %d: verdict %d, not %d", block, verdict, wanted);
}

/* Every block of an honest worker clears it; a changed bit in any of them convicts. */
static void test_verdicts(struct trial *t) {
    int count = t->right.num_hashes;
    const uint8_t(*right)[CANONICAL_HASH_BYTES] = (const uint8_t(*)[CANONICAL_HASH_BYTES])t->right.hashes;
    uint8_t(*hashes)[CANONICAL_HASH_BYTES] = malloc((size_t)count * sizeof *hashes);
    for (int place = 0; place < count; place++) {
        int block = t->range.first + place;
        struct receipt honest = signed_receipt(t, right, t->right.output_hash);
        set_state_of(t, &honest, block);
        expect(t, &honest, block, RECEIPT_CLEARED);
        receipt_free(&honest);
        /* It lied in this block, and all later results follow from that. */
        memcpy(hashes, right, (size_t)count * sizeof *hashes);
        for (int i = place; i < count; i++) hashes[i][7] ^= 1;
        struct receipt liar = signed_receipt(t, (const uint8_t(*)[CANONICAL_HASH_BYTES])hashes, hashes[count - 1]);
        accuse(t, &liar);
        expect(t, &liar, block, RECEIPT_CONVICTED);
        receipt_free(&liar);
    }
    /* It lied in the reply, and tells the right hashes when challenged. */
    memcpy(hashes[0], t->right.output_hash, CANONICAL_HASH_BYTES);
    hashes[0][0] ^= 1;
    struct receipt two_faced = signed_receipt(t, right, hashes[0]);
    accuse(t, &two_faced);
    expect(t, &two_faced, t->range.first, RECEIPT_CONTRADICTED);
    receipt_free(&two_faced);
    free(hashes);
}

static void expect_refusal(struct trial *t, struct receipt *r, int block, const char *word) {
    tessera_error error = {0};
    enum receipt_verdict verdict = RECEIPT_CLEARED;
    CHECK(judge(t, r, block, &verdict, &error) != TESSERA_OK, "a receipt that should be refused (%s) gives verdict %d", word, verdict);
    CHECK(strstr(error.message, word) != NULL, "\"%s\" lacks %s", error.message, word);
}

/* What an accuser may try against an honest worker. */
static void test_false_accusations(struct trial *t) {
    const uint8_t(*right)[CANONICAL_HASH_BYTES] = (const uint8_t(*)[CANONICAL_HASH_BYTES])t->right.hashes;
    int first = t->range.first;
    for (int attempt = 0; attempt < 9; attempt++) {
        struct receipt r = signed_receipt(t, right, t->right.output_hash);
        const char *words[] = {"signature", "signature",    "signature",    "signature",     "blocks_signature",
                               "signature", "another part", "another part", "proves nothing"};
        struct split_part *part = t->part;
        tessera_error error = {0};
        set_state_of(t, &r, first);
        if (attempt == 0) r.reply.step++;
        if (attempt == 1) r.reply.input_hash[3] ^= 1;
        if (attempt == 2) r.reply.job[31] ^= 1;
        if (attempt == 3) r.signature[0] ^= 1;
        if (attempt == 4) r.hashes[0][0] ^= 1;
        if (attempt == 5) r.reply.specification[20] ^= 1;
        const struct split_range other = {first + 1, t->range.end, t->range.finish};
        if (attempt == 6) CHECK(split_part_open_model(t->s.model, &other, &options, &t->part, &error) == TESSERA_OK, "%s", error.message);
        if (attempt == 7) r.block++, r.range.first++, r.range.end++, r.range.finish = false;
        if (attempt == 7 && t->range.finish) r.range.end++;
        if (attempt == 8) r.state[r.state_bytes - 64] ^= 1; /* another state than was sent */
        expect_refusal(t, &r, attempt == 7 ? first + 1 : first, words[attempt]);
        if (t->part != part) split_part_close(t->part);
        t->part = part;
        receipt_free(&r);
    }
}

static void test_family(const char *name, struct split_range range) {
    struct trial t;
    if (open_trial(&t, name, range)) {
        test_verdicts(&t);
        test_false_accusations(&t);
    }
    close_trial(&t);
}

/* The judge must be reproducible, and of the receipt's type. */
static void test_other_arithmetic(void) {
    struct trial t;
    tessera_error error = {0};
    struct split_part *right;
    if (open_trial(&t, "sd3", (struct split_range){1, 3, false})) {
        struct receipt r = signed_receipt(&t, (const uint8_t(*)[CANONICAL_HASH_BYTES])t.right.hashes, t.right.output_hash);
        set_state_of(&t, &r, 1);
        right = t.part;
        struct split_part_options others[] = {options, options};
        others[0].kernels = TESSERA_KERNELS_BEST;
        others[1].dtype = DTYPE_BF16;
        for (int i = 0; i < 2; i++) {
            CHECK(split_part_open_model(t.s.model, &t.range, &others[i], &t.part, &error) == TESSERA_OK, "%s", error.message);
            expect_refusal(&t, &r, 1, "only reproducible");
            split_part_close(t.part);
        }
        t.part = right;
        receipt_free(&r);
    }
    close_trial(&t);
}

/* What Python's hashlib and `openssl pkeyutl -sign -rawin` make of the bytes that
 * docs/split-formats.md describes. */
static void test_published_bytes(void) {
    static const char key[] =
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIG35Bi1b7e6WLUMIKpTsj/PI3onQtgEl2U2F0ZaVV6kQ\n-----END PRIVATE KEY-----\n";
    static float picture[] = {1, 2}, cond[] = {-4}, skip[] = {0.5f};
    static uint8_t text[] = {0x80, 0x3f, 0, 0x40};
    const struct denoiser_state state = {.picture = tensor_of(picture, DTYPE_F32, SHAPE(1, 2, 1)),
                                         .text = tensor_of(text, DTYPE_BF16, SHAPE(1, 1, 2)),
                                         .cond = tensor_of(cond, DTYPE_F32, SHAPE(1, 1)),
                                         .rows = 2,
                                         .columns = 3,
                                         .text_tokens = 5,
                                         .skips = {tensor_of(skip, DTYPE_F32, SHAPE(1, 1, 1))},
                                         .num_skips = 1};
    struct receipt_reply reply = {.specification = "tessera-split-1 reproducible f32", .step = 7, .row = 1};
    struct identity *signer = NULL;
    tessera_error error = {0};
    uint8_t hash[CANONICAL_HASH_BYTES], hashes[2][CANONICAL_HASH_BYTES], signature[IDENTITY_SIGNATURE_BYTES];
    char hex[2 * IDENTITY_SIGNATURE_BYTES + 1];
    split_state_hash(&state, hash);
    identity_hex(hash, sizeof hash, hex);
    CHECK(strcmp(hex, "2a90665a4f6087d289fada0b8b3d0f79a425d94d32fa1f461a2223a2028671e7") == 0, "a state's hash: %s", hex);
    write_text(folder, "openssl.pem", key);
    chmod(in_folder("openssl.pem"), 0600);
    CHECK(identity_open(in_folder("openssl.pem"), &signer, &error) == TESSERA_OK, "%s", error.message);
    memset(reply.part_digest, 1, sizeof reply.part_digest);
    memset(reply.job, 2, sizeof reply.job);
    memset(reply.input_hash, 3, sizeof reply.input_hash);
    memset(reply.output_hash, 4, sizeof reply.output_hash);
    memset(hashes[0], 5, sizeof hashes[0]);
    memset(hashes[1], 4, sizeof hashes[1]);
    CHECK(receipt_sign(&reply, signer, signature, &error) == TESSERA_OK, "%s", error.message);
    identity_hex(signature, sizeof signature, hex);
    CHECK(strcmp(hex, "6f8c1658909bef6d86da6f5c9beb8b4fa7de5aab655f30ca4744e7735ed06ba8"
                      "50f7c71e01cfa402251f65e3bb93d4b10d5c898f12d15ad69cd6cec7f65d3e07") == 0,
          "a reply's signature: %s", hex);
    CHECK(receipt_sign_blocks(&reply, (const uint8_t(*)[CANONICAL_HASH_BYTES])hashes, 2, signer, signature, &error) == TESSERA_OK, "%s",
          error.message);
    identity_hex(signature, sizeof signature, hex);
    CHECK(strcmp(hex, "a06ce09d22b13ce8fff94607ff2bb75c16f030ea5695bd64b2cce6413a46a38e"
                      "c8481a1da45aef13a08b8dd4f299df232cd5b73ab23592e2c131b8b06a64be08") == 0,
          "the signature of the hashes: %s", hex);
    identity_free(signer);
}

/* argv[1]: a folder, where an honest worker's receipt, and a liar's, are left for the command's
 * test, and the fuzzer's corpus. */
static void leave_receipts(const char *to) {
    struct trial t;
    tessera_error error = {0};
    char path[512];
    if (open_trial(&t, "sd3", (struct split_range){1, 3, false})) {
        for (int lies = 0; lies < 2; lies++) {
            uint8_t hashes[2][CANONICAL_HASH_BYTES];
            memcpy(hashes, t.right.hashes, sizeof hashes);
            if (lies) hashes[1][0] ^= 1;
            struct receipt r = signed_receipt(&t, (const uint8_t(*)[CANONICAL_HASH_BYTES])hashes, hashes[1]);
            if (lies)
                accuse(&t, &r);
            else
                set_state_of(&t, &r, 2);
            snprintf(path, sizeof path, "%s/%s.json", to, lies ? "liar" : "honest");
            CHECK(receipt_write(&r, path, &error) == TESSERA_OK, "%s", error.message);
            receipt_free(&r);
        }
    }
    close_trial(&t);
}

int main(int argc, char **argv) {
    tessera_error error = {0};
    char command[64];
    if (mkdtemp(folder) == NULL) return 1;
    CHECK(identity_make(in_folder("id.pem"), NULL, 0, &error) == TESSERA_OK &&
              identity_open(in_folder("id.pem"), &worker, &error) == TESSERA_OK,
          "%s", error.message);
    if (argc > 1) {
        leave_receipts(argv[1]);
    } else {
        test_family("sd3", (struct split_range){1, 3, false});
        test_family("flux_dev", (struct split_range){1, 6, true});
        test_family("pixart_sigma", (struct split_range){0, 4, true});
        test_family("hunyuandit", (struct split_range){1, 4, true});
        test_family("unet_sd15", (struct split_range){3, 11, false});
        test_other_arithmetic();
        test_published_bytes();
    }
    identity_free(worker);
    snprintf(command, sizeof command, "rm -r %s", folder);
    return CHECK_REPORT() | system(command);
}
