/* For qsort. */
#ifndef TESSERA_BASE_ORDER_H
#define TESSERA_BASE_ORDER_H

/* Doubles, the smallest first. */
static inline int order_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

#endif
