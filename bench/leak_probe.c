/* See leak_probe.h. */
#include "leak_probe.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void leak_standardise(float *x, int known, int asked, int dims) {
    for (int d = 0; d < dims; d++) {
        double mean = 0, square = 0;
        for (int i = 0; i < known; i++) mean += (double)x[(size_t)i * (size_t)dims + (size_t)d] / known;
        for (int i = 0; i < known; i++) square += pow((double)x[(size_t)i * (size_t)dims + (size_t)d] - mean, 2) / known;
        double scale = square > 1e-12 * mean * mean ? 1 / sqrt(square) : 0;
        for (int i = 0; i < known + asked; i++) {
            float *value = &x[(size_t)i * (size_t)dims + (size_t)d];
            *value = (float)(((double)*value - mean) * scale);
        }
    }
}

double *leak_products(const float *x, int known, int asked, int dims) {
    size_t count = (size_t)(known + asked) * (size_t)known;
    float *narrow = malloc(count * sizeof *narrow);
    double *products = malloc(count * sizeof *products);
    if (narrow != NULL && products != NULL) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, known + asked, known, dims, 1, x, dims, x, dims, 0, narrow, known);
        for (size_t i = 0; i < count; i++) products[i] = (double)narrow[i];
    } else {
        free(products);
        products = NULL;
    }
    free(narrow);
    return products;
}

void leak_nearest(const double *products, int known, int asked, int *found) {
    size_t n = (size_t)known;
    for (int i = 0; i < asked; i++) {
        const double *row = products + (size_t)(known + i) * n; /* |a - b|^2 = a a - 2 a b + b b, and a a is the same for all b */
        found[i] = 0;
        for (size_t j = 1; j < n; j++) {
            size_t best = (size_t)found[i];
            if (products[j * n + j] - 2 * row[j] < products[best * n + best] - 2 * row[best]) found[i] = (int)j;
        }
    }
}

bool leak_classify(const double *products, int known, int asked, const int *class_of, int classes, int *found) {
    size_t n = (size_t)known, c = (size_t)classes;
    double *square = malloc(n * n * sizeof *square), *weights = calloc(n * c, sizeof *weights);
    double *scores = malloc(c * sizeof *scores), trace = 0;
    bool good = square != NULL && weights != NULL && scores != NULL;
    if (good) {
        memcpy(square, products, n * n * sizeof *square);
        for (size_t i = 0; i < n; i++) trace += square[i * n + i];
        for (size_t i = 0; i < n; i++) square[i * n + i] += 0.01 * trace / known + 1e-12;
        for (size_t i = 0; i < n; i++) {
            weights[i * c + (size_t)class_of[i]] += 1;
            for (size_t j = 0; j < n; j++) weights[j * c + (size_t)class_of[i]] -= 1 / (double)known;
        }
        good = LAPACKE_dposv(LAPACK_ROW_MAJOR, 'U', known, classes, square, known, weights, classes) == 0;
    }
    for (int i = 0; good && i < asked; i++) {
        cblas_dgemv(CblasRowMajor, CblasTrans, known, classes, 1, weights, classes, products + (size_t)(known + i) * n, 1, 0, scores, 1);
        found[i] = 0;
        for (int k = 1; k < classes; k++)
            if (scores[k] > scores[found[i]]) found[i] = k;
    }
    free(square);
    free(weights);
    free(scores);
    return good;
}

bool leak_fit_open(struct leak_fit *fit, int dims, int targets) {
    *fit = (struct leak_fit){.dims = dims, .targets = targets};
    fit->squares = calloc((size_t)dims * (size_t)dims, sizeof *fit->squares);
    fit->weights = calloc((size_t)dims * (size_t)targets, sizeof *fit->weights);
    return fit->squares != NULL && fit->weights != NULL;
}

void leak_fit_add(struct leak_fit *fit, const double *x, const double *y, int rows) {
    int d = fit->dims, t = fit->targets;
    cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, d, rows, 1, x, d, 1, fit->squares, d);
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, d, t, rows, 1, x, d, y, t, 1, fit->weights, t);
}

bool leak_fit_solve(struct leak_fit *fit) {
    size_t d = (size_t)fit->dims;
    double trace = 0;
    for (size_t i = 0; i < d; i++) trace += fit->squares[i * d + i];
    for (size_t i = 0; i < d; i++) fit->squares[i * d + i] += 1e-3 * trace / fit->dims;
    return LAPACKE_dposv(LAPACK_ROW_MAJOR, 'U', fit->dims, fit->targets, fit->squares, fit->dims, fit->weights, fit->targets) == 0;
}

void leak_fit_apply(const struct leak_fit *fit, const double *x, double *y, int rows) {
    int d = fit->dims, t = fit->targets;
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, t, d, 1, x, d, fit->weights, t, 0, y, t);
}

void leak_fit_close(struct leak_fit *fit) {
    free(fit->squares);
    free(fit->weights);
    *fit = (struct leak_fit){0};
}
