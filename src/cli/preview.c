/* Terminal previews; see preview.h. Pictures are made smaller by a box filter, never larger. */
#include "cli/preview.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/file.h"

#define BLOCKS_MAX_COLUMNS 80
#define KITTY_CHUNK 3072 /* bytes before base64, 4096 after */
#define PREVIEW_FILE_BYTES ((size_t)64 << 20)

struct picture {
    int width, height;
    uint8_t *pixels;
};

static void put_base64(const uint8_t *data, size_t length) {
    const char *digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < length; i += 3) {
        size_t n = length - i < 3 ? length - i : 3;
        uint32_t word = (uint32_t)data[i] << 16 | (n > 1 ? (uint32_t)data[i + 1] << 8 : 0) | (n > 2 ? data[i + 2] : 0u);
        putchar(digits[word >> 18]);
        putchar(digits[word >> 12 & 63]);
        putchar(n > 1 ? digits[word >> 6 & 63] : '=');
        putchar(n > 2 ? digits[word & 63] : '=');
    }
}

/* The mean of the source pixels under each target pixel. */
static struct picture shrink(const uint8_t *pixels, int width, int height, int max_width, int max_height) {
    double scale = 1;
    if (width > max_width) scale = (double)max_width / width;
    if (height * scale > max_height) scale = (double)max_height / height;
    struct picture small = {.width = (int)(width * scale), .height = (int)(height * scale)};
    if (small.width < 1) small.width = 1;
    if (small.height < 1) small.height = 1;
    small.pixels = malloc((size_t)small.width * (size_t)small.height * 3);
    for (int y = 0; small.pixels != NULL && y < small.height; y++)
        for (int x = 0; x < small.width; x++) {
            int y0 = (int)((long)y * height / small.height), y1 = (int)((long)(y + 1) * height / small.height);
            int x0 = (int)((long)x * width / small.width), x1 = (int)((long)(x + 1) * width / small.width);
            long sum[3] = {0}, n = (long)(y1 - y0) * (x1 - x0);
            for (int sy = y0; sy < y1; sy++)
                for (int sx = x0; sx < x1; sx++)
                    for (int c = 0; c < 3; c++) sum[c] += pixels[((size_t)sy * (size_t)width + (size_t)sx) * 3 + (size_t)c];
            for (int c = 0; c < 3; c++)
                small.pixels[((size_t)y * (size_t)small.width + (size_t)x) * 3 + (size_t)c] = (uint8_t)((sum[c] + n / 2) / n);
        }
    return small;
}

static void show_kitty(struct picture p) {
    size_t length = (size_t)p.width * (size_t)p.height * 3;
    for (size_t at = 0; at < length; at += KITTY_CHUNK) {
        size_t n = length - at < KITTY_CHUNK ? length - at : KITTY_CHUNK;
        if (at == 0)
            printf("\033_Ga=T,q=2,f=24,s=%d,v=%d,m=%d;", p.width, p.height, at + n < length);
        else
            printf("\033_Gm=%d;", at + n < length);
        put_base64(p.pixels + at, n);
        fputs("\033\\", stdout);
    }
    putchar('\n');
}

static void show_iterm(const char *path) {
    char *data;
    size_t length;
    if (file_read(path, PREVIEW_FILE_BYTES, &data, &length, NULL) != TESSERA_OK) return;
    printf("\033]1337;File=inline=1;size=%zu:", length);
    put_base64((const uint8_t *)data, length);
    fputs("\a\n", stdout);
    free(data);
}

static int cube_index(const uint8_t *rgb) {
    return (rgb[0] * 5 + 127) / 255 * 36 + (rgb[1] * 5 + 127) / 255 * 6 + (rgb[2] * 5 + 127) / 255;
}

static void put_sixel_run(int bits, int run) {
    if (run > 3)
        printf("!%d%c", run, 63 + bits);
    else
        for (int i = 0; i < run; i++) putchar(63 + bits);
}

/* One colour of a band of six rows, run-length coded. */
static void put_sixel_colour(struct picture p, int top, int colour) {
    int last = -1, run = 0;
    for (int x = 0; x < p.width; x++) {
        int bits = 0;
        for (int dy = 0; dy < 6 && top + dy < p.height; dy++)
            bits |= (cube_index(p.pixels + ((size_t)(top + dy) * (size_t)p.width + (size_t)x) * 3) == colour) << dy;
        if (bits != last && run > 0) {
            put_sixel_run(last, run);
            run = 0;
        }
        last = bits;
        run++;
    }
    put_sixel_run(last, run);
    putchar('$');
}

/* Six rows at a time over a palette of 6 x 6 x 6 colours. */
static void show_sixel(struct picture p) {
    printf("\033Pq\"1;1;%d;%d", p.width, p.height);
    for (int c = 0; c < 216; c++) printf("#%d;2;%d;%d;%d", c, c / 36 * 20, c / 6 % 6 * 20, c % 6 * 20);
    for (int top = 0; top < p.height; top += 6) {
        bool used[216] = {false};
        for (int y = top; y < top + 6 && y < p.height; y++)
            for (int x = 0; x < p.width; x++) used[cube_index(p.pixels + ((size_t)y * (size_t)p.width + (size_t)x) * 3)] = true;
        for (int c = 0; c < 216; c++) {
            if (!used[c]) continue;
            printf("#%d", c);
            put_sixel_colour(p, top, c);
        }
        putchar('-');
    }
    fputs("\033\\\n", stdout);
}

/* Upper half block: foreground is the upper pixel, background the lower. The number of lines. */
static int show_blocks(struct picture p) {
    for (int y = 0; y < p.height; y += 2) {
        for (int x = 0; x < p.width; x++) {
            const uint8_t *upper = p.pixels + ((size_t)y * (size_t)p.width + (size_t)x) * 3;
            const uint8_t *lower = y + 1 < p.height ? upper + (size_t)p.width * 3 : upper;
            printf("\033[38;2;%d;%d;%dm\033[48;2;%d;%d;%dm\u2580", upper[0], upper[1], upper[2], lower[0], lower[1], lower[2]);
        }
        fputs("\033[0m\n", stdout);
    }
    return (p.height + 1) / 2;
}

static int blocks_columns(void) {
    struct winsize window = {0};
    int columns = ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0 ? window.ws_col : BLOCKS_MAX_COLUMNS;
    return columns < BLOCKS_MAX_COLUMNS ? columns : BLOCKS_MAX_COLUMNS;
}

int preview_blocks(const uint8_t *pixels, int width, int height) {
    struct picture small = shrink(pixels, width, height, blocks_columns(), BLOCKS_MAX_COLUMNS);
    int lines = small.pixels != NULL ? show_blocks(small) : 0;
    free(small.pixels);
    return lines;
}

static bool environment_has(const char *name, const char *fragment) {
    const char *value = getenv(name);
    return value != NULL && strstr(value, fragment) != NULL;
}

/* Inside tmux and screen the outer terminal's protocols do not pass. */
static const char *choose_kind(void) {
    const char *no_color = getenv("NO_COLOR"); /* https://no-color.org: nothing in colour that was not asked for */
    if (no_color != NULL && *no_color != 0) return "none";
    if (getenv("TMUX") != NULL || environment_has("TERM", "screen")) return "blocks";
    if (getenv("KITTY_WINDOW_ID") != NULL || environment_has("TERM", "kitty")) return "kitty";
    if (environment_has("TERM_PROGRAM", "iTerm") || environment_has("TERM_PROGRAM", "WezTerm") || environment_has("LC_TERMINAL", "iTerm"))
        return "iterm";
    if (environment_has("TERM", "sixel") || environment_has("TERM", "foot") || environment_has("TERM", "mlterm")) return "sixel";
    return environment_has("TERM", "dumb") ? "none" : "blocks";
}

const char *preview_kind(const char *kind) {
    return strcmp(kind, "auto") == 0 ? choose_kind() : kind;
}

void preview_show(const char *kind, const char *path, const uint8_t *pixels, int width, int height) {
    if (isatty(STDOUT_FILENO) != 1) return;
    kind = preview_kind(kind);
    if (strcmp(kind, "none") == 0) return;
    if (strcmp(kind, "iterm") == 0) {
        show_iterm(path);
        return;
    }
    if (strcmp(kind, "blocks") == 0) {
        preview_blocks(pixels, width, height);
        return;
    }
    struct winsize window = {0};
    int columns = ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0 ? window.ws_col : BLOCKS_MAX_COLUMNS;
    int side = window.ws_xpixel > 0 ? window.ws_xpixel : columns * 8;
    struct picture small = shrink(pixels, width, height, side, side);
    if (small.pixels == NULL) return;
    if (strcmp(kind, "kitty") == 0) show_kitty(small);
    if (strcmp(kind, "sixel") == 0) show_sixel(small);
    free(small.pixels);
}
