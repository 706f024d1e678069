/* See identity.h. */
#include "split/identity.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "split/canonical.h"

enum { MOST_BYTES = 1 << 20, YEARS = 20, SERIAL_BYTES = 16 };

struct identity {
    gnutls_privkey_t key;
    char *key_pem, *certificate_pem; /* owned; the second may be NULL */
    struct identity_public public;
};

/* What a GnuTLS call said. */
static tessera_status gnutls_failed(const char *path, const char *what, int code, tessera_error *error) {
    return error_set(error, code == GNUTLS_E_MEMORY_ERROR ? TESSERA_ERROR_MEMORY : TESSERA_ERROR_FORMAT, "%s: %s: %s", path, what,
                     gnutls_strerror(code));
}

/* ---- public keys ---- */

static const uint8_t ed25519_prefix[] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};

/* SubjectPublicKeyInfo of a key; false unless it is an Ed25519 key. */
static bool export_public(gnutls_pubkey_t key, struct identity_public *out) {
    size_t bytes = sizeof out->bytes;
    return gnutls_pubkey_get_pk_algorithm(key, NULL) == GNUTLS_PK_EDDSA_ED25519 &&
           gnutls_pubkey_export(key, GNUTLS_X509_FMT_DER, out->bytes, &bytes) == GNUTLS_E_SUCCESS && bytes == sizeof out->bytes;
}

/* NULL where the bytes are no Ed25519 key; to be given to gnutls_pubkey_deinit. */
static gnutls_pubkey_t import_public(const struct identity_public *key) {
    gnutls_pubkey_t imported;
    const gnutls_datum_t der = {(unsigned char *)(uintptr_t)key->bytes, sizeof key->bytes};
    if (memcmp(key->bytes, ed25519_prefix, sizeof ed25519_prefix) != 0 || gnutls_pubkey_init(&imported) != GNUTLS_E_SUCCESS) return NULL;
    if (gnutls_pubkey_import(imported, &der, GNUTLS_X509_FMT_DER) == GNUTLS_E_SUCCESS) return imported;
    gnutls_pubkey_deinit(imported);
    return NULL;
}

tessera_status identity_public_check(const struct identity_public *key, tessera_error *error) {
    gnutls_pubkey_t imported = import_public(key);
    if (imported == NULL) return error_set(error, TESSERA_ERROR_FORMAT, "public key: not an Ed25519 key (SubjectPublicKeyInfo in DER)");
    gnutls_pubkey_deinit(imported);
    return TESSERA_OK;
}

tessera_status identity_public_of_certificate(const void *der, size_t bytes, struct identity_public *out, tessera_error *error) {
    gnutls_x509_crt_t certificate;
    gnutls_pubkey_t key = NULL;
    const gnutls_datum_t datum = {(unsigned char *)(uintptr_t)der, (unsigned)bytes};
    bool found = false;
    if (bytes > MOST_BYTES || gnutls_x509_crt_init(&certificate) != GNUTLS_E_SUCCESS)
        return error_set(error, TESSERA_ERROR_FORMAT, "certificate: %zu bytes are too many, or memory is out", bytes);
    if (gnutls_x509_crt_import(certificate, &datum, GNUTLS_X509_FMT_DER) == GNUTLS_E_SUCCESS &&
        gnutls_pubkey_init(&key) == GNUTLS_E_SUCCESS) {
        found = gnutls_pubkey_import_x509(key, certificate, 0) == GNUTLS_E_SUCCESS && export_public(key, out);
        gnutls_pubkey_deinit(key);
    }
    gnutls_x509_crt_deinit(certificate);
    return found ? TESSERA_OK : error_set(error, TESSERA_ERROR_FORMAT, "certificate: not an X.509 certificate of an Ed25519 key");
}

void identity_pin(const struct identity_public *key, char out[IDENTITY_PIN_CHARS]) {
    uint8_t hash[CANONICAL_HASH_BYTES];
    canonical_hash(key->bytes, sizeof key->bytes, hash);
    char *text = identity_base64(hash, sizeof hash);
    snprintf(out, IDENTITY_PIN_CHARS, "%s", text != NULL ? text : ""); /* without memory: the pin of no key */
    free(text);
}

bool identity_pin_matches(const struct identity_public *key, const char *pin) {
    static const char scheme[] = "sha256//";
    char own[IDENTITY_PIN_CHARS];
    identity_pin(key, own);
    if (strncmp(pin, scheme, sizeof scheme - 1) == 0) pin += sizeof scheme - 1;
    return own[0] != 0 && strcmp(own, pin) == 0;
}

/* ---- making one ---- */

static int add_name(gnutls_x509_crt_t certificate, const char *name, bool first) {
    unsigned char address[16];
    unsigned flags = first ? GNUTLS_FSAN_SET : GNUTLS_FSAN_APPEND;
    if (inet_pton(AF_INET, name, address) == 1)
        return gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_IPADDRESS, address, 4, flags);
    if (inet_pton(AF_INET6, name, address) == 1)
        return gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_IPADDRESS, address, 16, flags);
    return gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_DNSNAME, name, (unsigned)strlen(name), flags);
}

static int add_names(gnutls_x509_crt_t certificate, const char *const *names, int count) {
    static const char *const always[] = {"localhost", "127.0.0.1", "::1"};
    int code = GNUTLS_E_SUCCESS;
    for (size_t i = 0; i < sizeof always / sizeof *always && code == GNUTLS_E_SUCCESS; i++) code = add_name(certificate, always[i], i == 0);
    for (int i = 0; i < count && code == GNUTLS_E_SUCCESS; i++) code = add_name(certificate, names[i], false);
    return code;
}

/* The fields of a self-signed certificate of a server; the first failure. */
static int fill_certificate(gnutls_x509_crt_t certificate, gnutls_x509_privkey_t key, const char *const *names, int count) {
    unsigned char serial[SERIAL_BYTES];
    const char *common = count > 0 ? names[0] : "localhost";
    time_t now = time(NULL), day = 24 * 3600;
    int code = gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof serial);
    serial[0] = (unsigned char)((serial[0] & 0x7f) | 1); /* a positive number */
    if (code == GNUTLS_E_SUCCESS) code = gnutls_x509_crt_set_version(certificate, 3);
    if (code == GNUTLS_E_SUCCESS) code = gnutls_x509_crt_set_serial(certificate, serial, sizeof serial);
    if (code == GNUTLS_E_SUCCESS) code = gnutls_x509_crt_set_activation_time(certificate, now - day);
    if (code == GNUTLS_E_SUCCESS) code = gnutls_x509_crt_set_expiration_time(certificate, now + (time_t)YEARS * 365 * day);
    if (code == GNUTLS_E_SUCCESS)
        code = gnutls_x509_crt_set_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, common, (unsigned)strnlen(common, 64));
    if (code == GNUTLS_E_SUCCESS) code = add_names(certificate, names, count);
    if (code == GNUTLS_E_SUCCESS) code = gnutls_x509_crt_set_basic_constraints(certificate, 0, -1);
    if (code == GNUTLS_E_SUCCESS) code = gnutls_x509_crt_set_key_usage(certificate, GNUTLS_KEY_DIGITAL_SIGNATURE);
    if (code == GNUTLS_E_SUCCESS) code = gnutls_x509_crt_set_key_purpose_oid(certificate, GNUTLS_KP_TLS_WWW_SERVER, 0);
    if (code == GNUTLS_E_SUCCESS) code = gnutls_x509_crt_set_key(certificate, key);
    return code == GNUTLS_E_SUCCESS ? gnutls_x509_crt_sign2(certificate, certificate, key, GNUTLS_DIG_SHA512, 0) : code;
}

/* A fresh key and its certificate as PEM, to be given to gnutls_free. */
static int make_pem(const char *const *names, int count, gnutls_datum_t *key_pem, gnutls_datum_t *certificate_pem) {
    gnutls_x509_privkey_t key = NULL;
    gnutls_x509_crt_t certificate = NULL;
    int code = gnutls_x509_privkey_init(&key);
    if (code == GNUTLS_E_SUCCESS) code = gnutls_x509_privkey_generate(key, GNUTLS_PK_EDDSA_ED25519, 0, 0);
    if (code == GNUTLS_E_SUCCESS) code = gnutls_x509_crt_init(&certificate);
    if (code == GNUTLS_E_SUCCESS) code = fill_certificate(certificate, key, names, count);
    if (code == GNUTLS_E_SUCCESS) code = gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, key_pem);
    if (code == GNUTLS_E_SUCCESS) code = gnutls_x509_crt_export2(certificate, GNUTLS_X509_FMT_PEM, certificate_pem);
    if (certificate != NULL) gnutls_x509_crt_deinit(certificate);
    if (key != NULL) gnutls_x509_privkey_deinit(key);
    return code;
}

/* Writes both texts to a file that nobody else can read, at any moment. */
static tessera_status write_secret(int descriptor, const char *path, const gnutls_datum_t *first, const gnutls_datum_t *second,
                                   tessera_error *error) {
    FILE *stream = fdopen(descriptor, "wb");
    if (stream == NULL) {
        close(descriptor);
        return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory to write it", path);
    }
    bool written = fwrite(first->data, 1, first->size, stream) == first->size &&
                   fwrite(second->data, 1, second->size, stream) == second->size && fflush(stream) == 0 && fsync(fileno(stream)) == 0;
    if (!written) error_set_errno(error, "%s: cannot write", path);
    if (fclose(stream) != 0 && written) {
        written = false;
        error_set_errno(error, "%s: cannot write", path);
    }
    return written ? TESSERA_OK : TESSERA_ERROR_IO;
}

static tessera_status exists(const char *path, tessera_error *error) {
    return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: exists, and keys are never overwritten: name a new file, or move this one away",
                     path);
}

static tessera_status write_new(const char *path, const gnutls_datum_t *first, const gnutls_datum_t *second, tessera_error *error) {
    char *temporary = NULL;
    bool taken = false;
    if (asprintf(&temporary, "%s.%ld.tmp", path, (long)getpid()) < 0) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    int descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    tessera_status status =
        descriptor >= 0 ? write_secret(descriptor, path, first, second, error) : error_set_errno(error, "%s: cannot create", path);
    if (status == TESSERA_OK) status = file_rename_new(temporary, path, &taken, error);
    if (descriptor >= 0 && (status != TESSERA_OK || taken)) unlink(temporary);
    free(temporary);
    return taken ? exists(path, error) : status;
}

tessera_status identity_make(const char *path, const char *const *names, int count, tessera_error *error) {
    gnutls_datum_t key = {0}, certificate = {0};
    if (file_exists(path)) return exists(path, error);
    int code = make_pem(names, count, &key, &certificate);
    tessera_status status =
        code == GNUTLS_E_SUCCESS ? write_new(path, &key, &certificate, error) : gnutls_failed(path, "cannot make a key", code, error);
    if (key.data != NULL) gnutls_memset(key.data, 0, key.size);
    gnutls_free(key.data);
    gnutls_free(certificate.data);
    return status;
}

/* ---- reading one ---- */

/* From "-----BEGIN what-----" to the end of its last line, copied; NULL where there is none. */
static char *find_pem(const char *text, const char *what) {
    char begin[64], end[64];
    snprintf(begin, sizeof begin, "-----BEGIN %s-----", what);
    snprintf(end, sizeof end, "-----END %s-----", what);
    const char *from = strstr(text, begin), *to = from != NULL ? strstr(from, end) : NULL;
    if (to == NULL) return NULL;
    char *pem = NULL;
    return asprintf(&pem, "%.*s\n", (int)(to + strlen(end) - from), from) > 0 ? pem : NULL;
}

static gnutls_datum_t datum_of(char *text) {
    return (gnutls_datum_t){(unsigned char *)text, (unsigned)strlen(text)};
}

static tessera_status read_key(struct identity *identity, const char *path, tessera_error *error) {
    gnutls_pubkey_t public = NULL;
    if (identity->key_pem == NULL)
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "%s: no \"PRIVATE KEY\" in it: not an identity; tessera worker --make-identity FILE makes one", path);
    const gnutls_datum_t pem = datum_of(identity->key_pem);
    int code = gnutls_privkey_init(&identity->key);
    if (code == GNUTLS_E_SUCCESS) code = gnutls_privkey_import_x509_raw(identity->key, &pem, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (code == GNUTLS_E_SUCCESS) code = gnutls_pubkey_init(&public);
    if (code == GNUTLS_E_SUCCESS) code = gnutls_pubkey_import_privkey(public, identity->key, 0, 0);
    bool right = code == GNUTLS_E_SUCCESS && export_public(public, &identity->public);
    if (public != NULL) gnutls_pubkey_deinit(public);
    if (code != GNUTLS_E_SUCCESS) return gnutls_failed(path, "private key", code, error);
    return right ? TESSERA_OK : error_set(error, TESSERA_ERROR_FORMAT, "%s: private key: not an Ed25519 key", path);
}

static tessera_status check_certificate(const struct identity *identity, const char *path, tessera_error *error) {
    struct identity_public shown = {{0}};
    gnutls_datum_t der = {0};
    if (identity->certificate_pem == NULL) return TESSERA_OK;
    const gnutls_datum_t pem = datum_of(identity->certificate_pem);
    int code = gnutls_pem_base64_decode2("CERTIFICATE", &pem, &der);
    if (code != GNUTLS_E_SUCCESS) return gnutls_failed(path, "certificate", code, error);
    tessera_status status = identity_public_of_certificate(der.data, der.size, &shown, error);
    gnutls_free(der.data);
    TRY(status);
    if (memcmp(&shown, &identity->public, sizeof shown) == 0) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: certificate: of another key than the private key beside it", path);
}

static tessera_status check_mode(const char *path, tessera_error *error) {
    struct stat about;
    if (stat(path, &about) != 0) return error_set_errno(error, "%s: cannot open", path);
    if ((about.st_mode & (S_IRWXG | S_IRWXO)) == 0) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: others than its owner may use this private key (mode %04o): chmod 600 it", path,
                     (unsigned)about.st_mode & 07777);
}

tessera_status identity_open(const char *path, struct identity **out, tessera_error *error) {
    char *text = NULL;
    size_t length;
    *out = NULL;
    TRY(check_mode(path, error));
    TRY(file_read_regular(path, MOST_BYTES, &text, &length, error));
    struct identity *identity = calloc(1, sizeof *identity);
    tessera_status status = identity != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    if (identity != NULL) {
        identity->key_pem = find_pem(text, "PRIVATE KEY");
        identity->certificate_pem = find_pem(text, "CERTIFICATE");
        status = read_key(identity, path, error);
        if (status == TESSERA_OK) status = check_certificate(identity, path, error);
    }
    gnutls_memset(text, 0, length);
    free(text);
    if (status == TESSERA_OK)
        *out = identity;
    else
        identity_free(identity);
    return status;
}

void identity_free(struct identity *identity) {
    if (identity == NULL) return;
    if (identity->key != NULL) gnutls_privkey_deinit(identity->key);
    if (identity->key_pem != NULL) gnutls_memset(identity->key_pem, 0, strlen(identity->key_pem));
    free(identity->key_pem);
    free(identity->certificate_pem);
    free(identity);
}

const char *identity_key(const struct identity *identity) {
    return identity->key_pem;
}

const char *identity_certificate(const struct identity *identity) {
    return identity->certificate_pem;
}

const struct identity_public *identity_public(const struct identity *identity) {
    return &identity->public;
}

/* ---- signatures ---- */

tessera_status identity_sign(const struct identity *identity, const void *data, size_t bytes, uint8_t signature[IDENTITY_SIGNATURE_BYTES],
                             tessera_error *error) {
    gnutls_datum_t made = {0};
    const gnutls_datum_t datum = {(unsigned char *)(uintptr_t)data, (unsigned)bytes};
    int code = bytes <= MOST_BYTES ? gnutls_privkey_sign_data2(identity->key, GNUTLS_SIGN_EDDSA_ED25519, 0, &datum, &made)
                                   : GNUTLS_E_INVALID_REQUEST;
    bool good = code == GNUTLS_E_SUCCESS && made.size == IDENTITY_SIGNATURE_BYTES;
    if (good) memcpy(signature, made.data, IDENTITY_SIGNATURE_BYTES);
    gnutls_free(made.data);
    return good ? TESSERA_OK : gnutls_failed("signature", "cannot sign", code, error);
}

bool identity_verify(const struct identity_public *key, const void *data, size_t bytes, const uint8_t signature[IDENTITY_SIGNATURE_BYTES]) {
    const gnutls_datum_t datum = {(unsigned char *)(uintptr_t)data, (unsigned)bytes};
    const gnutls_datum_t signed_by = {(unsigned char *)(uintptr_t)signature, IDENTITY_SIGNATURE_BYTES};
    gnutls_pubkey_t imported = bytes <= MOST_BYTES ? import_public(key) : NULL;
    if (imported == NULL) return false;
    int code = gnutls_pubkey_verify_data2(imported, GNUTLS_SIGN_EDDSA_ED25519, 0, &datum, &signed_by);
    gnutls_pubkey_deinit(imported);
    return code >= 0;
}

/* ---- texts of bytes ---- */

tessera_status identity_random(void *out, size_t count, tessera_error *error) {
    int code = gnutls_rnd(GNUTLS_RND_KEY, out, count);
    return code == GNUTLS_E_SUCCESS ? TESSERA_OK : gnutls_failed("random numbers", "cannot draw", code, error);
}

void identity_hex(const uint8_t *data, size_t bytes, char *out) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < bytes; i++) {
        *out++ = digits[data[i] >> 4];
        *out++ = digits[data[i] & 15];
    }
    *out = 0;
}

/* -1 of what is no lower-case digit. */
static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool identity_unhex(const char *text, uint8_t *out, size_t bytes) {
    if (strlen(text) != 2 * bytes) return false;
    for (size_t i = 0; i < bytes; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

char *identity_base64(const void *data, size_t bytes) {
    const gnutls_datum_t from = {(unsigned char *)(uintptr_t)data, (unsigned)bytes};
    gnutls_datum_t to = {0};
    if (bytes > UINT32_MAX / 2 || gnutls_base64_encode2(&from, &to) != GNUTLS_E_SUCCESS) return NULL;
    char *text = strndup((const char *)to.data, to.size);
    gnutls_free(to.data);
    return text;
}

/* GnuTLS passes over line ends and more; one text for each sequence of bytes is what can be compared. */
static bool is_base64(const char *text, size_t length) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t used = strspn(text, letters);
    return length % 4 == 0 && length - used <= 2 && strspn(text + used, "=") == length - used;
}

bool identity_unbase64(const char *text, size_t most, uint8_t **out, size_t *bytes) {
    gnutls_datum_t to = {0};
    size_t length = strlen(text);
    *out = NULL;
    *bytes = 0;
    if (length / 4 > most / 3 + 1 || !is_base64(text, length)) return false;
    const gnutls_datum_t from = {(unsigned char *)(uintptr_t)text, (unsigned)length};
    if (length > 0 && gnutls_base64_decode2(&from, &to) != GNUTLS_E_SUCCESS) return false;
    if (to.size <= most) *out = malloc((size_t)to.size + 1);
    if (*out != NULL && to.size > 0) memcpy(*out, to.data, to.size);
    if (*out != NULL) *bytes = to.size;
    gnutls_free(to.data);
    return *out != NULL;
}
