/* What static programs lack: MPI, HTTP, hashes, and making JSON from nothing. A program that is alone, with a
 * model on its disk, calls none of it; one that does ends with the function's name. */
#include <stdio.h>
#include <stdlib.h>

#define ABSENT(name)                                                                                                                       \
    void name(void) {                                                                                                                      \
        fprintf(stderr, "static/absent.c: this program has no %s\n", #name);                                                               \
        exit(1);                                                                                                                           \
    }

ABSENT(EVP_DigestFinal_ex)
ABSENT(EVP_DigestInit_ex)
ABSENT(EVP_DigestUpdate)
ABSENT(EVP_MD_CTX_free)
ABSENT(EVP_MD_CTX_new)
ABSENT(EVP_sha1)
ABSENT(EVP_sha256)
ABSENT(SHA256)
ABSENT(curl_easy_cleanup)
ABSENT(curl_easy_getinfo)
ABSENT(curl_easy_init)
ABSENT(curl_easy_perform)
ABSENT(curl_easy_reset)
ABSENT(curl_easy_setopt)
ABSENT(curl_easy_strerror)
ABSENT(curl_free)
ABSENT(curl_global_cleanup)
ABSENT(curl_global_init)
ABSENT(curl_slist_append)
ABSENT(curl_slist_free_all)
ABSENT(curl_url)
ABSENT(curl_url_cleanup)
ABSENT(curl_url_get)
ABSENT(curl_url_set)
ABSENT(cJSON_AddBoolToObject)
ABSENT(cJSON_AddNumberToObject)
ABSENT(cJSON_AddStringToObject)

/* Open MPI's name for "no request", which tables of requests begin with. */
char ompi_request_null[512];
