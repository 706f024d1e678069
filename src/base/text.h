/* Text that came from outside and goes to a terminal.
 *
 * A name in a file's header may hold escape sequences that a terminal would obey (colours, titles,
 * its clipboard). Whatever is printed of such names passes through here: errors and notices do by
 * themselves. */
#ifndef TESSERA_BASE_TEXT_H
#define TESSERA_BASE_TEXT_H

#include <stdbool.h>
#include <stdio.h>

/* Puts '?' in the place of each control character: C0 (also line ends), DEL, C1 (U+0080 to U+009F),
 * the marks that turn the direction of writing, and every byte that is not UTF-8. */
void text_clean(char *text);
/* Prints `text` so; tabs and line ends, too, become '?'. NULL prints nothing. */
void text_print(FILE *stream, const char *text);

/* Whether `text` is one of `choices`, which are separated by |. */
bool text_is_choice(const char *choices, const char *text);

#endif
