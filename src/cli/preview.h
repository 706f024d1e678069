/* The picture itself on the terminal: kitty's graphics protocol
 * (https://sw.kovidgoyal.net/kitty/graphics-protocol/), iTerm2's inline pictures
 * (https://iterm2.com/documentation-images.html), sixel (DEC VT340), or two pixels per character
 * cell in 24-bit colour. */
#ifndef TESSERA_CLI_PREVIEW_H
#define TESSERA_CLI_PREVIEW_H

#include "tessera.h"

/* kind: "auto", "kitty", "iterm", "sixel", "blocks" or "none". Writes to stdout, and only if that
 * is a terminal. `path` is the PNG file of the same picture (iTerm2 wants the file). A picture that
 * cannot be shown is no error. */
void preview_show(const char *kind, const char *path, const uint8_t *pixels, int width, int height);

/* What "auto" means in this terminal; every other kind as it is. */
const char *preview_kind(const char *kind);
/* Two pixels in each character cell, made smaller to fit the terminal; how many lines that takes, 0
 * if memory is out. */
int preview_blocks(const uint8_t *pixels, int width, int height);

#endif
