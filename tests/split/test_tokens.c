/* Token files, whose token a header shows, and files that are read again. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "split/tokens.h"

#define TOKEN "0123456789abcdef0123456789abcdef"
#define FRIEND "another-token-of-a-friend"

static char folder[] = "/tmp/tessera-tokens-XXXXXX";

static const char *write_tokens(const char *text, mode_t mode) {
    static char path[128];
    snprintf(path, sizeof path, "%s/tokens", folder);
    FILE *stream = fopen(path, "w");
    fputs(text, stream);
    fclose(stream);
    chmod(path, mode);
    return path;
}

static void test_files(void) {
    struct tokens read;
    tessera_error error = {0};
    char *first = NULL;
    CHECK(tokens_read(write_tokens("# ours\n\n  " TOKEN " \r\n" FRIEND "\n", 0600), &read, &error) == TESSERA_OK && read.count == 2, "%s",
          error.message);
    CHECK(tokens_find(&read, "Bearer " TOKEN) == 0 && tokens_find(&read, "bearer " FRIEND) == 1, "both are found");
    CHECK(tokens_find(&read, NULL) == -1 && tokens_find(&read, TOKEN) == -1 && tokens_find(&read, "Bearer ") == -1, "no token");
    CHECK(tokens_find(&read, "Bearer " TOKEN "0") == -1, "a longer one");
    CHECK(tokens_read_first(write_tokens(TOKEN "\n", 0600), &first, &error) == TESSERA_OK && strcmp(first, TOKEN) == 0, "%s",
          error.message);
    free(first);
    CHECK(tokens_read(write_tokens(TOKEN "\n", 0644), &read, &error) == TESSERA_ERROR_IO && strstr(error.message, "chmod") != NULL, "%s",
          error.message);
    CHECK(tokens_read(write_tokens("short\n", 0600), &read, &error) == TESSERA_ERROR_FORMAT && strstr(error.message, "line 1") != NULL,
          "%s", error.message);
    CHECK(tokens_read(write_tokens("two words that are long\n", 0600), &read, &error) == TESSERA_ERROR_FORMAT, "%s", error.message);
    CHECK(tokens_read(write_tokens("# nothing\n", 0600), &read, &error) == TESSERA_ERROR_FORMAT, "%s", error.message);
}

static struct tokens read_tokens(const char *text) {
    struct tokens read;
    tessera_error error = {0};
    CHECK(tokens_read(write_tokens(text, 0600), &read, &error) == TESSERA_OK, "%s", error.message);
    return read;
}

static void replace(struct tokens *tokens, const char *text, int revoked, int added) {
    struct tokens read = read_tokens(text);
    int went = -1, came = -1;
    tokens_replace(tokens, &read, &went, &came);
    CHECK(went == revoked && came == added, "%d went, %d came", went, came);
}

/* Tokens that stay keep their numbers; the place of one that went is another's later. */
static void test_replace(void) {
    struct tokens tokens = read_tokens(TOKEN "\n" FRIEND "\n");
    replace(&tokens, FRIEND "\n", 1, 0);
    CHECK(tokens_find(&tokens, "Bearer " TOKEN) == -1 && tokens_find(&tokens, "Bearer " FRIEND) == 1, "the first is revoked");
    replace(&tokens, "a-third-token-of-ours\n" FRIEND "\n", 0, 1);
    CHECK(tokens_find(&tokens, "Bearer a-third-token-of-ours") == 0 && tokens_find(&tokens, "Bearer " FRIEND) == 1,
          "a new one in its place");
    replace(&tokens, TOKEN "\na-third-token-of-ours\n" FRIEND "\n", 0, 1);
    CHECK(tokens_find(&tokens, "Bearer " TOKEN) == 2 && tokens.count == 3, "the first is back");
}

/* Files that are full, of other tokens each time. */
static void test_full_files(void) {
    static char text[TOKENS_MOST * 32 + 1];
    struct tokens tokens = {0};
    for (int turn = 0; turn < 3; turn++) {
        char *end = text;
        for (int i = 0; i < TOKENS_MOST; i++) end += sprintf(end, "token-number-%08d\n", turn * TOKENS_MOST / 2 + i);
        replace(&tokens, text, turn > 0 ? TOKENS_MOST / 2 : 0, turn > 0 ? TOKENS_MOST / 2 : TOKENS_MOST);
        CHECK(tokens.count == TOKENS_MOST, "%d places", tokens.count);
    }
    CHECK(tokens_find(&tokens, "Bearer token-number-00000000") == -1, "the first file's");
    CHECK(tokens_find(&tokens, "Bearer token-number-00000511") >= 0, "the last file's");
}

int main(void) {
    if (mkdtemp(folder) == NULL) return 1;
    test_files();
    test_replace();
    test_full_files();
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return CHECK_REPORT() | system(command);
}
