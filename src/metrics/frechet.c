/* See frechet.h. Matrices are [dims, dims], symmetric, so that rows and columns are the same to
 * LAPACK. */
#include "metrics/frechet.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>

#include "base/error.h"

struct gaussian {
    double *mean, *covariance; /* [dims]; [dims, dims], whole */
};

static void gaussian_free(struct gaussian *g) {
    free(g->mean);
    free(g->covariance);
}

/* False: memory is out. */
static bool gaussian_of(const float *x, int64_t count, int dims, struct gaussian *g) {
    size_t n = (size_t)dims;
    double *centred = malloc((size_t)count * n * sizeof *centred);
    *g = (struct gaussian){calloc(n, sizeof *g->mean), calloc(n * n, sizeof *g->covariance)};
    if (centred == NULL || g->mean == NULL || g->covariance == NULL) {
        free(centred);
        return false;
    }
    for (int64_t i = 0; i < count * dims; i++) g->mean[i % dims] += (double)x[i] / (double)count;
    for (int64_t i = 0; i < count * dims; i++) centred[i] = (double)x[i] - g->mean[i % dims];
    cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, dims, (int)count, 1 / (double)(count - 1), centred, dims, 0, g->covariance, dims);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++) g->covariance[i * n + j] = g->covariance[j * n + i];
    free(centred);
    return true;
}

static double trace(const double *matrix, int dims) {
    double sum = 0;
    for (int i = 0; i < dims; i++) sum += matrix[(size_t)i * (size_t)dims + (size_t)i];
    return sum;
}

static double root(double x) {
    return x > 0 ? sqrt(x) : 0; /* rounding leaves eigenvalues a little below zero */
}

/* Tr((S T)^(1/2)). S is overwritten by its eigenvectors V, S = V D V^T; then D^(1/2) V^T T V
 * D^(1/2) has the eigenvalues that are wanted. `work` holds two matrices and a vector. False:
 * LAPACK did not converge. */
static bool trace_of_root(double *s, const double *t, int dims, double *work, double *sum) {
    size_t n = (size_t)dims;
    double *product = work, *inner = work + n * n, *eigenvalues = inner + n * n;
    if (LAPACKE_dsyevd(LAPACK_ROW_MAJOR, 'V', 'U', dims, s, dims, eigenvalues) != 0) return false;
    for (size_t i = 0; i < n * n; i++) s[i] *= root(eigenvalues[i % n]); /* V D^(1/2) */
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, dims, dims, dims, 1, t, dims, s, dims, 0, product, dims);
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, dims, dims, dims, 1, s, dims, product, dims, 0, inner, dims);
    if (LAPACKE_dsyevd(LAPACK_ROW_MAJOR, 'N', 'U', dims, inner, dims, eigenvalues) != 0) return false;
    *sum = 0;
    for (size_t i = 0; i < n; i++) *sum += root(eigenvalues[i]);
    return true;
}

tessera_status frechet_distance(const float *x, int64_t num_x, const float *y, int64_t num_y, int dims, double *distance,
                                tessera_error *error) {
    if (num_x < 2 || num_y < 2 || dims < 1)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "a Fréchet distance needs two samples at least on each side");
    size_t n = (size_t)dims;
    struct gaussian a = {0}, b = {0};
    double *work = malloc((2 * n * n + n) * sizeof *work), difference = 0, traces = 0, cross = 0;
    tessera_status status = TESSERA_OK;
    if (work == NULL || !gaussian_of(x, num_x, dims, &a) || !gaussian_of(y, num_y, dims, &b)) {
        status = error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the statistics of %d features", dims);
    } else {
        for (size_t i = 0; i < n; i++) difference += (a.mean[i] - b.mean[i]) * (a.mean[i] - b.mean[i]);
        traces = trace(a.covariance, dims) + trace(b.covariance, dims);
        if (!trace_of_root(a.covariance, b.covariance, dims, work, &cross))
            status = error_set(error, TESSERA_ERROR_INTERNAL, "LAPACK finds no eigenvalues of these features' covariance");
    }
    *distance = difference + traces - 2 * cross;
    free(work);
    gaussian_free(&a);
    gaussian_free(&b);
    return status;
}
