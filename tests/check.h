/* The smallest test harness: CHECK counts, CHECK_REPORT ends main with what was counted. A failed
 * check prints and goes on. */
#ifndef TESSERA_TESTS_CHECK_H
#define TESSERA_TESTS_CHECK_H

#include <stdio.h>

static int check_passed, check_failed;

#define CHECK(condition, ...)                                                                                                              \
    do {                                                                                                                                   \
        if (condition) {                                                                                                                   \
            check_passed++;                                                                                                                \
        } else {                                                                                                                           \
            check_failed++;                                                                                                                \
            fprintf(stderr, "%s:%d: %s is false: ", __FILE__, __LINE__, #condition);                                                       \
            fprintf(stderr, __VA_ARGS__);                                                                                                  \
            fputc('\n', stderr);                                                                                                           \
        }                                                                                                                                  \
    } while (0)

#define CHECK_REPORT() (printf("%d passed, %d failed\n", check_passed, check_failed), check_failed == 0 ? 0 : 1)

#endif
