/* Signals that arrive while products are computed: results stay right, and the handler runs on the stack of the thread that called.
 * oneDNN's products for AVX2 use their workspace as the stack, where a signal's frame would overwrite what lies before it. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "backend/backend.h"
#include "check.h"

enum { ROWS = 64, DEPTH = 768, COLUMNS = 192, PRODUCTS = 2000, INTERVAL = 150 /* microseconds between signals */ };

static volatile sig_atomic_t arrived, astray;
static char *stack;
static size_t stack_bytes;

static void count_signal(int number) {
    (void)number;
    char here;
    arrived++;
    astray += &here < stack || &here >= stack + stack_bytes;
}

static void find_stack(void) {
    pthread_attr_t attributes;
    void *base = NULL;
    CHECK(pthread_getattr_np(pthread_self(), &attributes) == 0, "this thread's attributes");
    CHECK(pthread_attr_getstack(&attributes, &base, &stack_bytes) == 0, "this thread's stack");
    pthread_attr_destroy(&attributes);
    stack = base;
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

int main(void) {
    struct sigaction action;
    find_stack();
    memset(&action, 0, sizeof action);
    action.sa_handler = count_signal;
    sigaction(SIGALRM, &action, NULL);
    test_products(1);
    test_products(2);
    return CHECK_REPORT();
}
