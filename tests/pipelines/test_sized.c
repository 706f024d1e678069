/* Programs and libraries of different ages: structs that are shorter or longer than the library's. */
#include <stddef.h>
#include <string.h>

#include "check.h"
#include "pipelines/sized.h"

struct first { /* of an older program */
    size_t struct_size;
    int width;
};
struct known { /* the library's */
    size_t struct_size;
    int width, height;
    double scale;
};
struct newer { /* of a newer program */
    struct known known;
    int depth;
};

static void test_in(void) {
    const struct known defaults = {.struct_size = sizeof defaults, .width = 1, .height = 2, .scale = 3};
    struct known k = defaults;
    tessera_error error = {0};
    struct first old = {sizeof old, 7};
    CHECK(sized_read(&k, sizeof k, &old, sizeof old, "size", &error) == TESSERA_OK, "%s", error.message);
    CHECK(k.struct_size == sizeof k && k.width == 7, "%zu, %d", k.struct_size, k.width);
    CHECK(k.scale == 3, "a field that the program does not have keeps its default, not %g", k.scale);
    struct newer young = {.known = {.struct_size = sizeof young, .width = 8, .height = 9}};
    k = defaults;
    CHECK(sized_read(&k, sizeof k, &young, sizeof old, "size", &error) == TESSERA_OK && k.height == 9, "%s", error.message);
    young.depth = 1;
    CHECK(sized_read(&k, sizeof k, &young, sizeof old, "size", &error) == TESSERA_ERROR_ARGUMENT && strstr(error.message, "size: "), "%s",
          error.message);
    old.struct_size = 0;
    CHECK(sized_read(&k, sizeof k, &old, sizeof old, "size", &error) == TESSERA_ERROR_ARGUMENT && strstr(error.message, "initialiser"), "%s",
          error.message);
}

static void test_out(void) {
    const struct known k = {.width = 1, .height = 2, .scale = 3};
    struct {
        struct first old;
        unsigned char behind[64];
    } program = {.old = {sizeof program.old, 0}};
    memset(program.behind, 0x55, sizeof program.behind);
    CHECK(sized_write(&program.old, &k, sizeof k, sizeof(size_t)) && program.old.width == 1, "width %d", program.old.width);
    CHECK(program.old.struct_size == sizeof program.old, "the program's size stays");
    for (size_t i = 0; i < sizeof program.behind; i++) CHECK(program.behind[i] == 0x55, "byte %zu behind the program's struct", i);
    struct newer young = {.known.struct_size = sizeof young, .depth = 5};
    CHECK(sized_write(&young, &k, sizeof k, sizeof(size_t)) && young.known.scale == 3 && young.depth == 5, "%g, %d", young.known.scale,
          young.depth);
    young.known.struct_size = 0;
    CHECK(!sized_write(&young, &k, sizeof k, sizeof(size_t)), "a size that is not set");
}

int main(void) {
    test_in();
    test_out();
    return CHECK_REPORT();
}
