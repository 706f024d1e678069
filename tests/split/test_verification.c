/* --verify's words, what slips through, and that draws have the chances that they say. */
#include "split/verification.h"

#include <math.h>
#include <stdlib.h>

#include "check.h"

static struct verification read(const char *words, tessera_status expected) {
    struct verification v;
    tessera_error error = {0};
    CHECK(verification_read(words, &v, &error) == expected, "%s: %s", words != NULL ? words : "NULL", error.message);
    return v;
}

static void test_words(void) {
    CHECK(read(NULL, TESSERA_OK).kind == VERIFY_NONE && read("none", TESSERA_OK).kind == VERIFY_NONE, "none");
    struct verification v = read("exact=3,fraction=0.25", TESSERA_OK);
    CHECK(v.kind == VERIFY_EXACT && v.count == 3 && v.fraction == 0.25, "%d %g", v.count, v.fraction);
    v = read("replicas=2", TESSERA_OK);
    CHECK(v.kind == VERIFY_REPLICAS && v.count == 2 && v.fraction == 1, "%d %g", v.count, v.fraction);
    v = read("challenge=3", TESSERA_OK);
    CHECK(v.kind == VERIFY_CHALLENGE && v.count == 3 && !v.asks, "%d", v.count);
    v = read("challenge=3,by=replica", TESSERA_OK);
    CHECK(v.kind == VERIFY_CHALLENGE && v.count == 3 && v.asks, "%d", v.count);
    static const char *const wrong[] = {"",
                                        "exact",
                                        "exact=",
                                        "exact=1",
                                        "exact=2.5",
                                        "exact=10",
                                        "exact=2,fraction=2",
                                        "exact=2,share=1",
                                        "exact=2,",
                                        "challenge=0",
                                        "challenge=3,fraction=1",
                                        "challenge=nan",
                                        "challenge=3,by=",
                                        "challenge=3,by=replicas",
                                        "exact=2,by=replica",
                                        "replicas=3x"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) read(wrong[i], TESSERA_ERROR_ARGUMENT);
}

static void test_chances(void) {
    struct verification v = read("challenge=3", TESSERA_OK);
    CHECK(fabs(verification_miss(&v, 28, 1) - 25.0 / 28) < 1e-12, "%g", verification_miss(&v, 28, 1));
    CHECK(fabs(verification_miss(&v, 4, 2) - 0) < 1e-12, "%g: three of four steps meet one of two", verification_miss(&v, 4, 2));
    CHECK(verification_miss(&v, 28, 28) == 0, "%g", verification_miss(&v, 28, 28));
    v = read("exact=2,fraction=0.3", TESSERA_OK);
    CHECK(fabs(verification_miss(&v, 28, 2) - 0.49) < 1e-12, "%g", verification_miss(&v, 28, 2));
    v = read("none", TESSERA_OK);
    CHECK(verification_miss(&v, 28, 28) == 1, "none");
}

static void test_draws(void) {
    enum { TIMES = 20000 };
    struct verification v = read("exact=2,fraction=0.3", TESSERA_OK);
    int drawn = 0, seen[10] = {0}, out[10];
    for (int i = 0; i < TIMES; i++) drawn += verification_draws(&v);
    CHECK(abs(drawn - 6000) < 400, "%d of %d", drawn, TIMES); /* 6 standard deviations */
    for (int i = 0; i < TIMES; i++) {
        CHECK(verification_choose(3, 10, out) == 3 && out[0] < out[1] && out[1] < out[2] && out[0] >= 0 && out[2] < 10, "%d %d %d", out[0],
              out[1], out[2]);
        for (int k = 0; k < 3; k++) seen[out[k]]++;
    }
    for (int i = 0; i < 10; i++) CHECK(abs(seen[i] - 6000) < 400, "step %d: %d", i, seen[i]);
    CHECK(verification_choose(5, 3, out) == 3 && out[2] == 2, "all of them");
    v = read("challenge=2", TESSERA_OK);
    CHECK(!verification_draws(&v), "challenges come later");
}

int main(void) {
    test_words();
    test_chances();
    test_draws();
    return CHECK_REPORT();
}
