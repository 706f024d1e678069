/* Threads within this process's limit, and beyond it. */
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/thread_limit.h"
#include "check.h"

/* Of a user who has no other process and may have ten threads. */
static int check_as_user(void) {
    enum { NOBODY_ELSE = 54321 };
    tessera_error error = {0};
    if (getuid() == 0 && setuid(NOBODY_ELSE) != 0) return 1; /* root has no limit */
    if (setrlimit(RLIMIT_NPROC, &(struct rlimit){10, 10}) != 0) return 2;
    if (thread_limit_check(20, &error) != TESSERA_ERROR_MEMORY) return 3;
    return strstr(error.message, ", not 21 (") != NULL && strstr(error.message, "ulimit -u is 10") != NULL ? 0 : 4;
}

int main(void) {
    tessera_error error = {0};
    int status = 0;
    CHECK(thread_limit_check(0, &error) == TESSERA_OK && thread_limit_check(20, &error) == TESSERA_OK, "%s", error.message);
    pid_t child = fork();
    if (child == 0) _exit(check_as_user());
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "%d", status);
    return CHECK_REPORT();
}
