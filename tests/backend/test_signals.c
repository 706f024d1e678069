/* Signals that arrive while products are computed: results stay right, and the handler runs on the
 * stack of the thread that it interrupts. oneDNN's products for AVX2 use their workspace as the
 * stack, where a signal's frame would overwrite what lies before it. After a product OpenMP's
 * threads, which may be the host program's, take the signals that they took before. */
#include <omp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "backend/backend.h"
#include "check.h"

enum { ROWS = 64, DEPTH = 768, COLUMNS = 192, PRODUCTS = 2000, INTERVAL = 150 /* microseconds between signals */ };

static volatile sig_atomic_t arrived, astray;
static _Thread_local char *stack; /* of each thread that may take a signal */
static _Thread_local size_t stack_bytes;

static void count_signal(int number) {
    (void)number;
    char here;
    arrived++;
    astray += stack == NULL || &here < stack || &here >= stack + stack_bytes;
}

static void find_stack(void) {
    pthread_attr_t attributes;
    void *base = NULL;
    CHECK(pthread_getattr_np(pthread_self(), &attributes) == 0, "this thread's attributes");
    CHECK(pthread_attr_getstack(&attributes, &base, &stack_bytes) == 0, "this thread's stack");
    pthread_attr_destroy(&attributes);
    stack = base;
}

/* Of all threads that compute with this one. */
static void find_stacks(int threads) {
#pragma omp parallel num_threads(threads)
#pragma omp critical
    find_stack();
}

static void send_signals(int microseconds) {
    struct itimerval timer = {{0, microseconds}, {0, microseconds}};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0, "a timer");
}

static void test_products(int threads) {
    static float x[ROWS * DEPTH], w[COLUMNS * DEPTH], quiet[ROWS * COLUMNS], out[ROWS * COLUMNS];
    tessera_error error = {0};
    struct backend *backend = cpu_backend_open(threads, CPU_KERNELS_BEST, &error);
    CHECK(backend != NULL, "%s", error.message);
    if (backend == NULL) return;
    for (int i = 0; i < ROWS * DEPTH; i++) x[i] = (float)(i % 7) - 3;
    for (int i = 0; i < COLUMNS * DEPTH; i++) w[i] = (float)(i % 5) - 2;
    struct tensor tx = tensor_of(x, DTYPE_F32, SHAPE(ROWS, DEPTH)), tw = tensor_of(w, DTYPE_F32, SHAPE(COLUMNS, DEPTH));
    struct tensor tout = tensor_of(quiet, DTYPE_F32, SHAPE(ROWS, COLUMNS));
    CHECK(backend->ops->linear(backend, &tout, &tx, &tw, NULL, ACTIVATION_NONE, &error) == TESSERA_OK, "%s", error.message);
    tout.data = out;
    arrived = 0;
    find_stacks(threads);
    send_signals(INTERVAL);
    int same = 0;
    for (int i = 0; i < PRODUCTS; i++) {
        backend->ops->linear(backend, &tout, &tx, &tw, NULL, ACTIVATION_NONE, &error);
        same += memcmp(out, quiet, sizeof out) == 0;
    }
    send_signals(0);
    CHECK(same == PRODUCTS, "%d of %d products are right among signals", same, PRODUCTS);
    CHECK(arrived > 0, "signals arrived");
    CHECK(astray == 0, "%d of %d handlers ran on another stack", (int)astray, (int)arrived);
    backend_free(backend);
}

/* Threads of the team of `threads` that hold back one of the signals that a program uses. */
static int count_holding(int threads) {
    int holding = 0;
#pragma omp parallel num_threads(threads) reduction(+ : holding)
    {
        sigset_t held;
        pthread_sigmask(SIG_BLOCK, NULL, &held);
        holding += sigismember(&held, SIGINT) || sigismember(&held, SIGTERM) || sigismember(&held, SIGALRM);
    }
    return holding;
}

static void test_masks_come_back(int threads) {
    static float x[ROWS * DEPTH], w[COLUMNS * DEPTH], out[ROWS * COLUMNS];
    tessera_error error = {0};
    struct backend *backend = cpu_backend_open(threads, CPU_KERNELS_BEST, &error);
    CHECK(backend != NULL, "%s", error.message);
    if (backend == NULL) return;
    struct tensor tx = tensor_of(x, DTYPE_F32, SHAPE(ROWS, DEPTH)), tw = tensor_of(w, DTYPE_F32, SHAPE(COLUMNS, DEPTH));
    struct tensor tout = tensor_of(out, DTYPE_F32, SHAPE(ROWS, COLUMNS));
    CHECK(backend->ops->linear(backend, &tout, &tx, &tw, NULL, ACTIVATION_NONE, &error) == TESSERA_OK, "%s", error.message);
    CHECK(count_holding(threads) == 0, "%d of %d threads hold signals back after a product", count_holding(threads), threads);
    backend_free(backend);
}

int main(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = count_signal;
    sigaction(SIGALRM, &action, NULL);
    test_products(1);
    test_products(2);
    test_masks_come_back(1);
    test_masks_come_back(3);
    return CHECK_REPORT();
}
