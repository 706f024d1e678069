/* WordPiece: words are cut greedily, the longest known piece first; a word that cannot be cut whole is unknown.
 *
 * Left out: tokenizer.json as the only file, tokenize_chinese_chars = false, and strip_accents other than as lower case. */
#include "tokenizers/wordpiece.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { MOST_WORD_CHARACTERS = 100, MOST_DECOMPOSED = 32 };

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a WordPiece tokenizer");
}

tessera_status wordpiece_read_vocab(struct wordpiece *wordpiece, const char *text, size_t length, tessera_error *error) {
    int32_t id = 0;
    for (size_t start = 0; start < length; id++) {
        const char *end = memchr(text + start, '\n', length - start);
        size_t stop = end != NULL ? (size_t)(end - text) : length, size = stop - start;
        if (size > 0 && text[stop - 1] == '\r') size--;
        if (vocab_put(&wordpiece->vocab, text + start, size, id) == VOCAB_NO_MEMORY) return out_of_memory(error);
        start = stop + 1;
    }
    return TESSERA_OK;
}

static tessera_status add_special(struct wordpiece *wordpiece, const char *name, const char *content, int32_t *id, tessera_error *error) {
    *id = vocab_find(&wordpiece->vocab, content, strlen(content));
    if (*id < 0) return error_set(error, TESSERA_ERROR_FORMAT, "%s: the special token \"%.60s\" is not in the vocabulary", name, content);
    return added_tokens_add(&wordpiece->added, content, *id, false, error);
}

tessera_status wordpiece_finish(struct wordpiece *wordpiece, const char *name, const struct special_tokens *specials,
                                tessera_error *error) {
    TRY(add_special(wordpiece, name, specials->bos.content, &wordpiece->cls, error));
    TRY(add_special(wordpiece, name, specials->eos.content, &wordpiece->sep, error));
    TRY(add_special(wordpiece, name, specials->unk.content, &wordpiece->unk, error));
    return add_special(wordpiece, name, specials->pad.content, &wordpiece->pad, error);
}

/* The CJK blocks that BERT writes one word a character in. */
static bool is_chinese(int32_t c) {
    static const int32_t ranges[][2] = {{0x4E00, 0x9FFF},   {0x3400, 0x4DBF},   {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F},
                                        {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF}, {0xF900, 0xFAFF},   {0x2F800, 0x2FA1F}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (c >= ranges[i][0] && c <= ranges[i][1]) return true;
    return false;
}

static bool is_dropped(int32_t c) {
    utf8proc_category_t category = utf8proc_category(c);
    return c == 0xFFFD || category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF || category == UTF8PROC_CATEGORY_CN ||
           category == UTF8PROC_CATEGORY_CO || category == UTF8PROC_CATEGORY_CS;
}

static bool is_punctuation(int32_t c) {
    if (c < 128) return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
    utf8proc_category_t category = utf8proc_category(c);
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

/* Appends c in lower case and without accents: each part of its decomposition that is no mark. */
static bool append_folded(struct text_bytes *out, int32_t c) {
    utf8proc_int32_t parts[MOST_DECOMPOSED];
    utf8proc_ssize_t count = utf8proc_decompose_char(c, parts, MOST_DECOMPOSED, UTF8PROC_DECOMPOSE, NULL);
    if (count < 0 || count > MOST_DECOMPOSED) return text_append_codepoint(out, c);
    for (utf8proc_ssize_t i = 0; i < count; i++) {
        if (utf8proc_category(parts[i]) == UTF8PROC_CATEGORY_MN) continue;
        if (!text_append_codepoint(out, utf8proc_tolower(parts[i]))) return false;
    }
    return true;
}

/* The text as words between single spaces: punctuation and Chinese characters are words of their own. */
static bool append_words(const struct wordpiece *wordpiece, const char *text, size_t length, struct text_bytes *out) {
    for (size_t at = 0, size; at < length; at += size) {
        int32_t c = text_decode(text + at, length - at, &size);
        bool alone = is_punctuation(c) || is_chinese(c), ok = true;
        if (text_is_space(c)) {
            ok = text_bytes_append(out, " ", 1);
        } else if (!is_dropped(c)) {
            ok = !alone || text_bytes_append(out, " ", 1);
            ok = ok && (wordpiece->lower_case ? append_folded(out, c) : text_append_codepoint(out, c));
            ok = ok && (!alone || text_bytes_append(out, " ", 1));
        }
        if (!ok) return false;
    }
    return true;
}

/* The longest piece at the start of `word`: its id and, in *used, its bytes; -1 if there is none. `key` has room for word and ##. */
static int32_t longest_piece(const struct wordpiece *wordpiece, const char *word, size_t length, bool inside, size_t *used) {
    char key[2 + 4 * MOST_WORD_CHARACTERS] = "##";
    size_t prefix = inside ? 2 : 0;
    memcpy(key + prefix, word, length);
    for (size_t size = length; size > 0; size--) {
        int32_t id = vocab_find(&wordpiece->vocab, key, prefix + size);
        *used = size;
        if (id >= 0) return id;
    }
    return -1;
}

static bool append_pieces(const struct wordpiece *wordpiece, const char *word, size_t length, struct text_ids *ids) {
    size_t before = ids->count, characters = 0, used = 0;
    for (size_t i = 0; i < length; i++) characters += ((unsigned char)word[i] & 0xC0) != 0x80;
    if (characters > MOST_WORD_CHARACTERS) return text_ids_append(ids, wordpiece->unk);
    for (size_t at = 0; at < length; at += used) {
        int32_t id = longest_piece(wordpiece, word + at, length - at, at > 0, &used);
        if (id < 0) {
            ids->count = before;
            return text_ids_append(ids, wordpiece->unk);
        }
        if (!text_ids_append(ids, id)) return false;
    }
    return true;
}

/* Text without added tokens. */
static bool encode_plain(const struct wordpiece *wordpiece, const char *text, size_t length, struct text_ids *ids) {
    struct text_bytes words = {0};
    bool ok = append_words(wordpiece, text, length, &words);
    for (size_t at = 0; ok && at < words.length;) {
        const char *end = memchr(words.data + at, ' ', words.length - at);
        size_t stop = end != NULL ? (size_t)(end - words.data) : words.length;
        if (stop > at) ok = append_pieces(wordpiece, words.data + at, stop - at, ids);
        at = stop + 1;
    }
    free(words.data);
    return ok;
}

tessera_status wordpiece_encode(const struct wordpiece *wordpiece, const char *text, size_t length, struct text_ids *ids,
                                tessera_error *error) {
    for (size_t at = 0; at < length;) {
        size_t start = at;
        int found = added_tokens_search(&wordpiece->added, false, text, length, &start);
        size_t stop = found >= 0 ? start : length;
        if (!encode_plain(wordpiece, text + at, stop - at, ids)) return out_of_memory(error);
        if (found < 0) break;
        if (!text_ids_append(ids, wordpiece->added.tokens[found].id)) return out_of_memory(error);
        at = stop + wordpiece->added.tokens[found].length;
    }
    return TESSERA_OK;
}

void wordpiece_clear(struct wordpiece *wordpiece) {
    vocab_clear(&wordpiece->vocab);
    added_tokens_clear(&wordpiece->added);
}
