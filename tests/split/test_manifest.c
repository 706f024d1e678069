/* Manifests and part files: what is written is read again; every field that is wrong is named, and
 * nothing that was changed passes. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "in_folder.h"
#include "split/factory.h"
#include "tensor/safetensors.h"

static char *read_all(const char *path, size_t *length) {
    FILE *stream = fopen(path, "rb");
    char *text = calloc(1, 1 << 20);
    *length = fread(text, 1, (1 << 20) - 1, stream);
    fclose(stream);
    return text;
}

/* ---- manifests ---- */

static struct identity *owner;
static char *whole; /* a manifest's text */
static size_t whole_length;

static void test_round_trip(void) {
    const struct factory_options options = {.model = "an owner's \"model\"",
                                            .folder = "tests/cases/sd3/model",
                                            .first = -1,
                                            .last = -1,
                                            .has_last_block = true,
                                            .parts = 2,
                                            .output = in_folder("sd3.safetensors"),
                                            .owner = owner};
    tessera_error error = {0};
    struct manifest m;
    char pin[IDENTITY_PIN_CHARS];
    CHECK(factory_split(&options, &error) == TESSERA_OK, "%s", error.message);
    identity_pin(identity_public(owner), pin);
    CHECK(manifest_open(in_folder("sd3.manifest.json"), pin, &m, &error) == TESSERA_OK, "%s", error.message);
    CHECK(m.count == 2 && m.blocks == 4 && strcmp(m.model, options.model) == 0 && strcmp(m.class_name, "SD3Transformer2DModel") == 0,
          "fields");
    for (int i = 0; i < m.count; i++) {
        struct part_file part;
        CHECK(part_file_open(in_folder(m.parts[i].file), DTYPE_F32, &part, &error) == TESSERA_OK, "%s", error.message);
        CHECK(manifest_find(&m, part.header.digest) == &m.parts[i] && part.bytes == m.parts[i].bytes, "part %d is not the manifest's", i);
        CHECK(part.header.range.first == m.parts[i].range.first && part.header.range.end == m.parts[i].range.end, "the range of part %d",
              i);
        CHECK(part.header.range.finish == (i == 1) && m.parts[i].range.finish == (i == 1), "has_last_block of part %d", i);
        part_file_close(&part);
    }
    CHECK(m.count == 2 && m.parts[0].range.first == 1 && m.parts[0].range.end == m.parts[1].range.first && m.parts[1].range.end == 4,
          "ranges");
    manifest_free(&m);
    whole = read_all(in_folder("sd3.manifest.json"), &whole_length);
    pin[0] ^= 1;
    CHECK(manifest_open(in_folder("sd3.manifest.json"), pin, &m, &error) == TESSERA_ERROR_FORMAT && strstr(error.message, "pin") != NULL,
          "%s", error.message);
    manifest_free(&m);
}

/* `from` of the manifest becomes `to`: an error that has the word. */
static void expect_refusal(const char *from, const char *to, const char *word) {
    char *at = strstr(whole, from), *text = NULL;
    tessera_error error = {0};
    struct manifest m;
    CHECK(at != NULL, "the manifest has no %s", from);
    if (at == NULL || asprintf(&text, "%.*s%s%s", (int)(at - whole), whole, to, at + strlen(from)) < 0) return;
    CHECK(manifest_parse("m.json", text, strlen(text), NULL, &m, &error) == TESSERA_ERROR_FORMAT, "%s for %s passes", to, from);
    CHECK(strstr(error.message, word) != NULL && strstr(error.message, "m.json") != NULL, "\"%s\" lacks %s", error.message, word);
    manifest_free(&m);
    free(text);
}

static void test_fields(void) {
    expect_refusal("\"specification\":\t\"tessera-split-1\"", "\"specification\":\t\"tessera-split-2\"", "specification");
    expect_refusal("\"model\"", "\"modal\"", "model");
    expect_refusal("\"class\"", "\"klass\"", "class");
    expect_refusal("\"blocks\":\t4", "\"blocks\":\t4.5", "blocks");
    expect_refusal("\"blocks\":\t4", "\"blocks\":\t-4", "blocks");
    expect_refusal("\"blocks\":\t4", "\"blocks\":\t3", "parts[1].last");
    expect_refusal("\"blocks\":\t4", "\"blocks\":\t5", "parts[1].last"); /* has_last_block without the last one */
    expect_refusal("\"blocks\":\t4", "\"blocks\":\t1e300", "blocks");
    expect_refusal("\"parts\":\t[", "\"parts\":\t[],\"x\":[", "parts");
    expect_refusal("\"file\":\t\"sd3", "\"file\":\t\"../sd3", "parts[0].file");
    expect_refusal("\"first\":\t1", "\"first\":\t\"1\"", "parts[0].first");
    expect_refusal("\"first\":\t1", "\"first\":\t3", "parts[0].last");
    expect_refusal("\"has_last_block\":\tfalse", "\"has_last_block\":\t0", "parts[0].has_last_block");
    expect_refusal("\"bytes\":\t", "\"bytes\":\t-", "parts[0].bytes");
    expect_refusal("\"digest\":\t\"", "\"digest\":\t\"0", "parts[0].digest");
    expect_refusal("\"public_key\":\t\"MCow", "\"public_key\":\t\"MC", "public_key");
    expect_refusal("\"public_key\":\t\"MCow", "\"public_key\":\t\"NCow", "signature");
    expect_refusal("\"signature\":\t\"", "\"signature\":\t\"AAAA", "signature");
    /* Well-formed, but not what was signed. */
    expect_refusal("an owner", "an0ther", "signature");
    expect_refusal("\"has_last_block\":\ttrue", "\"has_last_block\":\tfalse", "signature");
    expect_refusal("\"bytes\":\t", "\"bytes\":\t1", "signature");
    expect_refusal("sample_size", "sample_sise", "signature");
    expect_refusal("-1-of-2", "-1-of-3", "signature");
    expect_refusal("\"blocks\"", "\"blocks", "not JSON");
}

/* ---- part files ---- */

/* The first part's file with some bytes of its header replaced by as many. */
static void expect_bad_part(const char *from, const char *to, const char *word) {
    size_t length;
    char *text = read_all(in_folder("sd3-1-of-2.safetensors"), &length);
    char *at = memmem(text, length, from, strlen(from));
    struct part_file part;
    tessera_error error = {0};
    CHECK(at != NULL && strlen(from) == strlen(to), "the part has no %s", from);
    if (at != NULL) memcpy(at, to, strlen(to));
    FILE *stream = fopen(in_folder("bad.safetensors"), "wb");
    fwrite(text, 1, length, stream);
    fclose(stream);
    CHECK(part_file_open(in_folder("bad.safetensors"), DTYPE_F32, &part, &error) == TESSERA_ERROR_FORMAT, "%s for %s passes", to, from);
    CHECK(strstr(error.message, word) != NULL && strstr(error.message, "bad.safetensors") != NULL, "\"%s\" lacks %s", error.message, word);
    part_file_close(&part);
    free(text);
}

static void test_part_files(void) {
    struct part_file part;
    tessera_error error = {0};
    expect_bad_part("tessera.specification", "tessera_specification", "specification");
    expect_bad_part("tessera-split-1", "tessera-split-9", "specification");
    expect_bad_part("tessera.class", "tessera_class", "tessera.class");
    expect_bad_part("\"SD3Transformer2DModel\"", "\"SD9Transformer2DModel\"", "class");
    expect_bad_part("tessera.configuration", "tessera_configuration", "tessera.configuration");
    expect_bad_part("\"tessera.first\":\"1\"", "\"tessera.first\":\"x\"", "tessera.first");
    expect_bad_part("\"tessera.first\":\"1\"", "\"tessera.first\":\"0\"", "transformer_blocks.0");
    expect_bad_part("\"tessera.first\":\"1\"", "\"tessera.first\":\"9\"", "blocks 9 to 1");
    expect_bad_part("\"tessera.has_last_block\":\"false\"", "\"tessera.has_last_block\":\"fa1se\"", "has_last_block");
    expect_bad_part("transformer_blocks.1", "transformer_blocks.7", "transformer_blocks.7");
    CHECK(part_file_open("tests/cases/sd3/model/diffusion_pytorch_model.safetensors", DTYPE_F32, &part, &error) == TESSERA_ERROR_FORMAT &&
              strstr(error.message, "tessera split") != NULL,
          "a model's weights pass for a part: %s", error.message);
    part_file_close(&part);
}

/* Of everything that a part is, one thing is changed: another digest. */
static void test_digest(void) {
    size_t length;
    tessera_error error = {0};
    struct part_file part;
    uint8_t digest[CANONICAL_HASH_BYTES];
    CHECK(part_file_open(in_folder("sd3-1-of-2.safetensors"), DTYPE_F32, &part, &error) == TESSERA_OK, "%s", error.message);
    memcpy(digest, part.header.digest, sizeof digest);
    part_file_close(&part);
    char *text = read_all(in_folder("sd3-1-of-2.safetensors"), &length);
    uint64_t header = *(uint64_t *)(void *)text; /* on a little-endian machine */
    const struct {
        const char *what;
        size_t at;
    } changes[] = {{"the first byte of a tensor", 8 + header},
                   {"the last byte", length - 1},
                   {"the configuration", (size_t)((char *)memmem(text, length, "sample_size", 11) - text)}};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        text[changes[i].at] ^= 1;
        FILE *stream = fopen(in_folder("other.safetensors"), "wb");
        fwrite(text, 1, length, stream);
        fclose(stream);
        text[changes[i].at] ^= 1;
        CHECK(part_file_open(in_folder("other.safetensors"), DTYPE_F32, &part, &error) == TESSERA_OK, "%s: %s", changes[i].what,
              error.message);
        CHECK(memcmp(digest, part.header.digest, sizeof digest) != 0, "%s is not in the digest", changes[i].what);
        part_file_close(&part);
    }
    free(text);
}

/* ---- the factory ---- */

static void test_factory(void) {
    static const struct {
        int first, last, parts;
        bool last_block;
        const char *output, *word;
    } wrong[] = {{2, 1, 1, false, "a.safetensors", "blocks 2 to 1"}, {0, 4, 1, false, "a.safetensors", "0 to 3"},
                 {0, 2, 1, true, "a.safetensors", "has_last_block"}, {0, 3, 5, false, "a.safetensors", "1 to 4 parts"},
                 {0, 3, 1, false, "a.bin", ".safetensors"},          {0, 3, 1, false, ".safetensors", ".safetensors"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        tessera_error error = {0};
        const struct factory_options options = {.model = "m",
                                                .folder = "tests/cases/sd3/model",
                                                .first = wrong[i].first,
                                                .last = wrong[i].last,
                                                .parts = wrong[i].parts,
                                                .has_last_block = wrong[i].last_block,
                                                .output = in_folder(wrong[i].output)};
        CHECK(factory_split(&options, &error) == TESSERA_ERROR_ARGUMENT && strstr(error.message, wrong[i].word) != NULL, "%s",
              error.message);
    }
}

int main(void) {
    tessera_error error = {0};
    char command[64];
    if (mkdtemp(folder) == NULL) return 1;
    CHECK(identity_make(in_folder("id.pem"), NULL, 0, &error) == TESSERA_OK &&
              identity_open(in_folder("id.pem"), &owner, &error) == TESSERA_OK,
          "%s", error.message);
    test_round_trip();
    test_fields();
    test_part_files();
    test_digest();
    test_factory();
    identity_free(owner);
    free(whole);
    snprintf(command, sizeof command, "rm -r %s", folder);
    return CHECK_REPORT() | system(command);
}
