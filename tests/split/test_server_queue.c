/* The server's queue: who waits, who is refused, whose turn it is, and what happens to those that
 * wait when it stops. */
#include "server_case.h"

struct asked {
    pthread_t thread;
    struct server *server;
    const char *token; /* NULL: TOKEN */
    size_t size;       /* 0: 70,000 */
    struct got got;
};

static void *run_ask(void *user) {
    struct asked *a = user;
    a->got = ask(a->server, true, "/echo", a->token != NULL ? a->token : TOKEN, a->size > 0 ? a->size : 70000, 'a');
    return NULL;
}

static void test_full_queue(void) {
    struct server_limits limits = server_default_limits();
    limits.queue = 2;
    struct server *server = start(limits, true);
    struct asked asked[2];
    gate_open = 0;
    for (int i = 0; i < 2; i++) {
        asked[i] = (struct asked){.server = server};
        pthread_create(&asked[i].thread, NULL, run_ask, &asked[i]);
        wait_until_queued(server, i + 1);
    }
    struct got got = ask(server, true, "/echo", TOKEN, 100, 'a');
    CHECK(got.status == 429 && got.retry_after > 0, "a third: %ld, Retry-After %ld", got.status, got.retry_after);
    gate_open = 1;
    for (int i = 0; i < 2; i++) {
        pthread_join(asked[i].thread, NULL);
        CHECK(asked[i].got.status == 200 && asked[i].got.size == 70000, "request %d: %ld", i, asked[i].got.status);
    }
    check_alive(server, true, "after a full queue");
    server_stop(server, 5);
}

/* Three requests are on their way when the queue has one place left: the first to be whole gets it. */
static void test_race_for_queue(void) {
    struct server_limits limits = server_default_limits();
    static const char begin[] = "POST /echo HTTP/1.1\r\n" HEADERS "Connection: close\r\nContent-Length: 20\r\n\r\naaaaaaaaaaaaaaaa";
    int fds[3], answered[2] = {0}; /* 200, 429 */
    limits.queue = 1;
    struct server *server = start(limits, false);
    gate_open = 0;
    for (int i = 0; i < 3; i++) {
        fds[i] = dial(server);
        CHECK(send(fds[i], begin, sizeof begin - 1, MSG_NOSIGNAL) > 0, "send");
    }
    double until = clock_seconds() + 30;
    while ((server_counts(server).active != 3 || server_counts(server).bytes_received < 48) && clock_seconds() < until) usleep(1000);
    for (int i = 0; i < 3; i++) CHECK(send(fds[i], "aaaa", 4, MSG_NOSIGNAL) == 4, "send");
    while (server_counts(server).too_many < 2 && clock_seconds() < until) usleep(1000);
    gate_open = 1;
    for (int i = 0; i < 3; i++) {
        char text[4096] = "";
        int status = 0;
        read_to_end(fds[i], text, sizeof text);
        sscanf(text, "HTTP/1.1 %d", &status);
        answered[0] += status == 200;
        answered[1] += status == 429;
        close(fds[i]);
    }
    CHECK(answered[0] == 1 && answered[1] == 2, "%d were computed, %d refused", answered[0], answered[1]);
    server_stop(server, 5);
}

static void test_memory(void) {
    struct server_limits limits = server_default_limits();
    limits.memory = 100000;
    struct server *server = start(limits, true);
    struct asked asked = {.server = server};
    gate_open = 0;
    pthread_create(&asked.thread, NULL, run_ask, &asked);
    wait_until_queued(server, 1);
    CHECK(ask(server, true, "/echo", TOKEN, 40000, 'a').status == 429, "more than 100,000 bytes");
    gate_open = 1;
    pthread_join(asked.thread, NULL);
    CHECK(asked.got.status == 200, "%ld", asked.got.status);
    check_alive(server, true, "after that");
    server_stop(server, 5);
}

/* One token fills the queue; another still gets in, and before what the first has waiting. */
static void test_fair_queue(void) {
    struct server_limits limits = server_default_limits();
    limits.queue = 4;
    struct server *server = start(limits, true);
    struct asked asked[6];
    int before = computed;
    gate_open = 0;
    for (int i = 0; i < 6; i++) {
        asked[i] = (struct asked){.server = server, .token = i < 4 ? TOKEN : OTHER, .size = i < 4 ? 100 : 200};
        pthread_create(&asked[i].thread, NULL, run_ask, &asked[i]);
        wait_until_queued(server, i + 1);
    }
    CHECK(ask(server, true, "/echo", TOKEN, 100, 'a').status == 429, "the first token's fifth");
    CHECK(ask(server, true, "/echo", OTHER, 100, 'a').status == 429, "the other's third: it has its half");
    usleep(100000); /* the first request takes a while */
    gate_open = 1;
    for (int i = 0; i < 6; i++) {
        pthread_join(asked[i].thread, NULL);
        CHECK(asked[i].got.status == 200, "request %d: %ld", i, asked[i].got.status);
    }
    CHECK(sizes[before % 64] == 100 && sizes[(before + 1) % 64] == 200, "the other token waits behind the first one's");
    server_stop(server, 5);
}

/* A token that others' bodies left no room for has a quarter of the memory all the same. */
static void test_fair_memory(void) {
    struct server_limits limits = server_default_limits();
    limits.memory = 100000;
    struct server *server = start(limits, true);
    struct asked asked[2];
    gate_open = 0;
    for (int i = 0; i < 2; i++) {
        asked[i] = (struct asked){.server = server, .size = i == 0 ? 50000 : 24000};
        pthread_create(&asked[i].thread, NULL, run_ask, &asked[i]);
        wait_until_queued(server, i + 1);
    }
    struct asked other = {.server = server, .token = OTHER, .size = 20000};
    CHECK(ask(server, true, "/echo", TOKEN, 5000, 'a').status == 429, "more than three quarters");
    pthread_create(&other.thread, NULL, run_ask, &other);
    wait_until_queued(server, 3);
    gate_open = 1;
    for (int i = 0; i < 2; i++) pthread_join(asked[i].thread, NULL);
    pthread_join(other.thread, NULL);
    CHECK(other.got.status == 200, "the other token: %ld", other.got.status);
    server_stop(server, 5);
}

/* Tokens change while the server runs, also for a connection that has shown one. */
static void *run_stop(void *user) {
    server_stop(user, 20);
    return NULL;
}

/* The request that is computed gets its answer, the one that waits a 503, a new one no connection. */
static void test_stop(void) {
    struct server *server = start(server_default_limits(), true);
    struct asked asked[2];
    pthread_t stopping;
    int port = server_port(server), before = computed;
    gate_open = 0;
    for (int i = 0; i < 2; i++) {
        asked[i] = (struct asked){.server = server};
        pthread_create(&asked[i].thread, NULL, run_ask, &asked[i]);
        wait_until_queued(server, i + 1);
    }
    usleep(100000); /* the first is being computed */
    pthread_create(&stopping, NULL, run_stop, server);
    usleep(100000);
    gate_open = 1;
    pthread_join(asked[0].thread, NULL);
    pthread_join(asked[1].thread, NULL);
    pthread_join(stopping, NULL);
    CHECK(asked[0].got.status == 200 && asked[0].got.size == 70000, "the first: %ld", asked[0].got.status);
    CHECK(asked[1].got.status == 503 && asked[1].got.retry_after > 0, "the second: %ld", asked[1].got.status);
    CHECK(computed == before + 1, "%d were computed", computed - before);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) != 0, "the port is still open");
    close(fd);
}

/* A client that leaves while its request is computed. */
static void test_leaving(void) {
    struct server *server = start(server_default_limits(), false);
    static const char request[] = "POST /echo HTTP/1.1\r\n" HEADERS "Content-Length: 16\r\n\r\naaaaaaaaaaaaaaaa";
    gate_open = 0;
    int fd = dial(server);
    send(fd, request, sizeof request - 1, MSG_NOSIGNAL);
    wait_until_queued(server, 1);
    struct linger at_once = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(fd);
    gate_open = 1;
    check_alive(server, false, "after a client has left");
    server_stop(server, 5);
}

int main(void) {
    begin();
    test_full_queue();
    test_race_for_queue();
    test_memory();
    test_fair_queue();
    test_fair_memory();
    test_leaving();
    test_stop();
    return end();
}
