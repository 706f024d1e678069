/* Who signs: an Ed25519 key (RFC 8032) with a self-signed certificate, in one PEM file that only
 * its owner may read.
 *
 *     -----BEGIN PRIVATE KEY-----       PKCS#8
 *     -----BEGIN CERTIFICATE-----       X.509, self-signed: what TLS shows; a file of a key alone signs, but serves no TLS
 *
 * A peer is known by its pin: base64 of the SHA-256 of the public key as SubjectPublicKeyInfo in
 * DER (RFC 7469; curl's CURLOPT_PINNEDPUBLICKEY wants "sha256//" before it). The same key signs
 * replies and shows itself in TLS, so one pin names a worker in both. All of it is GnuTLS's. */
#ifndef TESSERA_SPLIT_IDENTITY_H
#define TESSERA_SPLIT_IDENTITY_H

#include "base/error.h"

enum {
    IDENTITY_SIGNATURE_BYTES = 64, /* Ed25519 */
    IDENTITY_PUBLIC_BYTES = 44,    /* SubjectPublicKeyInfo of an Ed25519 key: 12 bytes that are always the same, and the key (RFC 8410) */
    IDENTITY_PIN_CHARS = 45        /* 44 and a 0 */
};

/* A public key. Its bytes may come from anywhere: identity_public_check says whether they are one. */
struct identity_public {
    uint8_t bytes[IDENTITY_PUBLIC_BYTES];
};

struct identity;

/* Makes a key and a certificate that is valid for 20 years for `names` (DNS names or addresses;
 * "localhost", "127.0.0.1" and "::1" are always there), and writes both to a new file at `path`,
 * mode 0600, which appears whole or not at all. ARGUMENT if something is there already. */
tessera_status identity_make(const char *path, const char *const *names, int count, tessera_error *error);
/* Reads such a file. ARGUMENT where others than the owner may read it, FORMAT where it holds no
 * Ed25519 key, or a certificate of another key. NULL in *out on failure. */
tessera_status identity_open(const char *path, struct identity **out, tessera_error *error);
void identity_free(struct identity *identity); /* NULL is fine; the key is wiped */

/* PEM texts, the identity's; identity_certificate is NULL where the file has none. */
const char *identity_key(const struct identity *identity);
const char *identity_certificate(const struct identity *identity);
const struct identity_public *identity_public(const struct identity *identity);

tessera_status identity_sign(const struct identity *identity, const void *data, size_t bytes, uint8_t signature[IDENTITY_SIGNATURE_BYTES],
                             tessera_error *error);
/* Is this the key's signature of these bytes? */
bool identity_verify(const struct identity_public *key, const void *data, size_t bytes, const uint8_t signature[IDENTITY_SIGNATURE_BYTES]);

/* FORMAT where the bytes are no Ed25519 key. */
tessera_status identity_public_check(const struct identity_public *key, tessera_error *error);
/* The key of a certificate in DER, as TLS shows it; FORMAT where it has another kind of key. */
tessera_status identity_public_of_certificate(const void *der, size_t bytes, struct identity_public *out, tessera_error *error);
void identity_pin(const struct identity_public *key, char out[IDENTITY_PIN_CHARS]);
/* Is it the pin of a key? ("sha256//" may stand before it.) A pin that is no pin matches nothing. */
bool identity_pin_matches(const struct identity_public *key, const char *pin);

/* ---- texts of bytes ---- */

/* `count` random bytes of the system's generator. */
tessera_status identity_random(void *out, size_t count, tessera_error *error);
/* Lower-case hexadecimal digits and a 0: 2 * bytes + 1 characters. */
void identity_hex(const uint8_t *data, size_t bytes, char *out);
/* Exactly `bytes` bytes of them; false of any other text. */
bool identity_unhex(const char *text, uint8_t *out, size_t bytes);
/* Base64 (RFC 4648) with padding; NULL only when memory is out; the caller frees. */
char *identity_base64(const void *data, size_t bytes);
/* The bytes of such a text, at most `most`, into memory that the caller frees; false where it is
 * none, or longer, or memory is out. */
bool identity_unbase64(const char *text, size_t most, uint8_t **out, size_t *bytes);

#endif
