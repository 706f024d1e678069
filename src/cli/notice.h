/* Lines that the library wants a person to see, each of them once in a run. */
#ifndef TESSERA_CLI_NOTICE_H
#define TESSERA_CLI_NOTICE_H

struct progress;

enum { NOTICE_MOST = 256 };

struct notices {
    struct progress *progress;            /* whose redrawn line is taken away first; may be NULL */
    unsigned long long seen[NOTICE_MOST]; /* digests of the lines so far */
    int count;
};

/* A tessera_notice; `user` is the struct notices. Prints "tessera: TEXT" to standard error. */
void notice_print(void *user, const char *text);

#endif
