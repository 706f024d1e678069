/* Identities: files that only their owner reads, pins as other programs compute them, signatures,
 * and what is refused. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "check.h"
#include "split/canonical.h"
#include "split/identity.h"

static char folder[] = "/tmp/tessera-identity-XXXXXX";

static const char *in_folder(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_text(const char *path, const char *text, mode_t mode) {
    FILE *stream = fopen(path, "wb");
    fputs(text, stream);
    fclose(stream);
    chmod(path, mode);
}

static void expect_refusal(const char *path, const char *word) {
    struct identity *identity = NULL;
    tessera_error error = {0};
    CHECK(identity_open(path, &identity, &error) != TESSERA_OK && identity == NULL, "%s was opened", path);
    CHECK(strstr(error.message, word) != NULL && strstr(error.message, path) != NULL, "\"%s\" lacks %s", error.message, word);
}

/* Made, opened, and used. */
static void test_round_trip(void) {
    const char *names[] = {"worker.example", "192.0.2.7", "2001:db8::7"};
    struct identity *identity = NULL;
    tessera_error error = {0};
    struct stat about;
    uint8_t signature[IDENTITY_SIGNATURE_BYTES];
    const char *path = in_folder("id.pem");
    CHECK(identity_make(path, names, 3, &error) == TESSERA_OK, "%s", error.message);
    CHECK(stat(path, &about) == 0 && (about.st_mode & 0777) == 0600, "mode %o", (unsigned)about.st_mode & 0777);
    CHECK(identity_make(path, NULL, 0, &error) == TESSERA_ERROR_ARGUMENT, "an identity was overwritten");
    CHECK(identity_open(path, &identity, &error) == TESSERA_OK, "%s", error.message);
    if (identity == NULL) return;
    CHECK(identity_certificate(identity) != NULL && identity_public_check(identity_public(identity), &error) == TESSERA_OK, "%s",
          error.message);
    CHECK(identity_sign(identity, "abc", 3, signature, &error) == TESSERA_OK, "%s", error.message);
    CHECK(identity_verify(identity_public(identity), "abc", 3, signature), "its own signature");
    CHECK(!identity_verify(identity_public(identity), "abd", 3, signature), "of another message");
    for (int i = 0; i < IDENTITY_SIGNATURE_BYTES; i += 9) {
        signature[i] ^= 1;
        CHECK(!identity_verify(identity_public(identity), "abc", 3, signature), "a changed signature, byte %d", i);
        signature[i] ^= 1;
    }
    struct identity_public other = *identity_public(identity);
    other.bytes[43] ^= 1;
    CHECK(!identity_verify(&other, "abc", 3, signature), "by another key");
    other = *identity_public(identity);
    other.bytes[2] ^= 1;
    CHECK(identity_public_check(&other, &error) == TESSERA_ERROR_FORMAT, "no Ed25519 key");
    chmod(path, 0640);
    expect_refusal(path, "chmod 600");
    identity_free(identity);
}

/* `openssl genpkey -algorithm ed25519`; pin: `openssl pkey -pubout -outform der | openssl dgst -sha256 -binary |
 * base64`. */
static const char other_programs_key[] =
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIG35Bi1b7e6WLUMIKpTsj/PI3onQtgEl2U2F0ZaVV6kQ\n-----END PRIVATE KEY-----\n";
static const char other_programs_pin[] = "/pLgq/g6yIMk7mA0K+4OR56KQP94AZKPBsS5/cqnbKg=";
static const char elliptic_key[] = "-----BEGIN PRIVATE "
                                   "KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgs7NRZ65uuw//"
                                   "NAdF\nlE+L8R1dUSlsX3q3X1iDyNeuozChRANCAAROmniVifajDQEc9NQud93Q+3gH6n2o\nTBMv1ggVEEXQy73B+"
                                   "Spd2Ki0p7RyYCFv+b8tXvwOI11e531mjx6SdMKX\n-----END PRIVATE KEY-----\n"; /* prime256v1 */

static void test_other_programs(void) {
    const char *path = in_folder("openssl.pem");
    struct identity *identity = NULL;
    tessera_error error = {0};
    char pin[IDENTITY_PIN_CHARS], with_scheme[64];
    write_text(path, other_programs_key, 0600);
    CHECK(identity_open(path, &identity, &error) == TESSERA_OK, "%s", error.message);
    if (identity == NULL) return;
    identity_pin(identity_public(identity), pin);
    CHECK(strcmp(pin, other_programs_pin) == 0, "%s", pin);
    CHECK(identity_certificate(identity) == NULL, "a certificate came from nowhere");
    snprintf(with_scheme, sizeof with_scheme, "sha256//%s", pin);
    CHECK(identity_pin_matches(identity_public(identity), pin) && identity_pin_matches(identity_public(identity), with_scheme),
          "its own pin");
    pin[5] ^= 1;
    CHECK(!identity_pin_matches(identity_public(identity), pin) && !identity_pin_matches(identity_public(identity), ""), "another pin");
    identity_free(identity);
    write_text(path, elliptic_key, 0600);
    expect_refusal(path, "Ed25519");
    write_text(path, "no key\n", 0600);
    expect_refusal(path, "PRIVATE KEY");
    write_text(path, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 0600);
    expect_refusal(path, "private key");
    expect_refusal(in_folder("none.pem"), "none.pem");
}

/* A certificate beside a key that is not its own. */
static void test_mixed(void) {
    struct identity *a = NULL, *b = NULL;
    tessera_error error = {0};
    char text[8192];
    CHECK(identity_make(in_folder("a.pem"), NULL, 0, &error) == TESSERA_OK, "%s", error.message);
    CHECK(identity_make(in_folder("b.pem"), NULL, 0, &error) == TESSERA_OK, "%s", error.message);
    identity_open(in_folder("a.pem"), &a, &error);
    identity_open(in_folder("b.pem"), &b, &error);
    if (a == NULL || b == NULL) return;
    CHECK(memcmp(identity_public(a), identity_public(b), sizeof(struct identity_public)) != 0, "two identities with one key");
    snprintf(text, sizeof text, "%s%s", identity_key(a), identity_certificate(b));
    write_text(in_folder("mixed.pem"), text, 0600);
    expect_refusal(in_folder("mixed.pem"), "another key");
    identity_free(a);
    identity_free(b);
}

/* RFC 8032, section 7.1, test 2. */
static void test_published_signature(void) {
    struct identity_public key = {{0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00}};
    uint8_t signature[IDENTITY_SIGNATURE_BYTES];
    CHECK(identity_unhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", key.bytes + 12, 32), "hex");
    CHECK(identity_unhex("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
                         "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
                         signature, sizeof signature),
          "hex");
    CHECK(identity_verify(&key, "\x72", 1, signature), "RFC 8032's signature");
}

static void test_texts(void) {
    uint8_t bytes[4], *data;
    char text[9];
    size_t count;
    CHECK(identity_unhex("00ff1aA0", bytes, 4) == false && identity_unhex("00ff1a", bytes, 4) == false,
          "not hexadecimal digits of 4 bytes");
    CHECK(identity_unhex("00ff1aa0", bytes, 4), "hexadecimal digits");
    identity_hex(bytes, 4, text);
    CHECK(strcmp(text, "00ff1aa0") == 0, "%s", text);
    const char *good[] = {"", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        CHECK(identity_unbase64(good[i], 100, &data, &count), "%s", good[i]);
        char *again = identity_base64(data, count);
        CHECK(again != NULL && strcmp(again, good[i]) == 0, "%s became %s", good[i], again);
        free(again);
        free(data);
    }
    const char *bad[] = {"Z", "Zg=", "Zg", "Zm9v\n", "====", "Zm9=v", "Zm9!"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK(!identity_unbase64(bad[i], 100, &data, &count), "\"%s\" passes", bad[i]);
    CHECK(!identity_unbase64("Zm9vYg==", 3, &data, &count), "4 bytes where 3 may come");
}

/* `printf 'name\0\001\0\0\0\002\0\0\0\0\0\0\0\003\0\0\0abc' | sha256sum` */
static void test_canonical(void) {
    struct canonical c;
    uint8_t hash[CANONICAL_HASH_BYTES];
    char text[2 * CANONICAL_HASH_BYTES + 1];
    canonical_begin(&c, "name");
    canonical_u32(&c, 1);
    canonical_u64(&c, 2);
    canonical_text(&c, "abc");
    canonical_end(&c, hash);
    identity_hex(hash, sizeof hash, text);
    CHECK(strcmp(text, "645dea1fd043ececb8f8f80636ddd5d8bc92d5da0d4d9829c962868afc88c96f") == 0, "%s", text);
}

int main(void) {
    if (mkdtemp(folder) == NULL) return 1;
    test_round_trip();
    test_other_programs();
    test_mixed();
    test_published_signature();
    test_texts();
    test_canonical();
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return CHECK_REPORT() | system(command);
}
