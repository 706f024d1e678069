/* The server that strangers reach: real sockets on loopback, with TLS where it says so. Honest
 * requests by libcurl, the others by hand. */
#include "server_case.h"

/* ---- tests ---- */

static void test_honest(void) {
    struct server *server = start(server_default_limits(), true);
    CURL *curl = curl_easy_init();
    for (int i = 0; i < 3; i++) {
        struct got got = ask_with(curl, server, true, "/echo", TOKEN, LARGEST, 'a');
        CHECK(got.status == 200 && got.size == LARGEST && got.text[0] == 'a', "status %ld, %zu bytes: %s", got.status, got.size,
              curl_easy_strerror(got.code));
    }
    struct server_counts counts = server_counts(server);
    CHECK(counts.links.opened == 1, "keep-alive: %llu connections for 3 requests", (unsigned long long)counts.links.opened);
    CHECK(counts.bytes_received == 3 * LARGEST && counts.bytes_sent == 3 * LARGEST && counts.by_class[2] == 3, "bytes are counted");
    curl_easy_cleanup(curl);
    CHECK(ask(server, true, "/health", NULL, 0, 0).status == 200, "health needs no token");
    struct got got = ask(server, true, "/echo", NULL, 100, 'a');
    CHECK(got.status == 401, "no token: %ld", got.status);
    got = ask(server, true, "/echo", "fedcba9876543210fedcba9876543210", 100, 'a');
    CHECK(got.status == 401, "another token: %ld", got.status);
    got = ask(server, true, "/nothing", TOKEN, 0, 0);
    CHECK(got.status == 404, "no such path: %ld", got.status);
    got = ask(server, true, "/echo", TOKEN, 0, 0);
    CHECK(got.status == 405, "another method: %ld", got.status);
    got = ask(server, true, "/echo", TOKEN, LARGEST + 1, 'a');
    CHECK(got.status == 413, "a long body: %ld", got.status);
    got = ask(server, true, "/echo", TOKEN, 100000, 'b');
    CHECK(got.status == 400 && strstr(got.text, "field head") != NULL, "a wrong head: %ld %s", got.status, got.text);
    got = ask(server, true, "/echo", TOKEN, 5, 'a');
    CHECK(got.status == 400 && strstr(got.text, "field length") != NULL, "a short body: %ld %s", got.status, got.text);
    got = ask(server, false, "/echo", TOKEN, 100, 'a');
    CHECK(got.code != CURLE_OK && got.status == 0, "plain HTTP: %ld", got.status);
    check_alive(server, true, "after all that");
    CHECK(server_counts(server).memory == 0, "%zu bytes of bodies are kept", server_counts(server).memory);
    server_stop(server, 5);
}

static void test_wrong_pin(void) {
    struct server *server = start(server_default_limits(), true);
    char right = pin[12];
    pin[12] = right == 'A' ? 'B' : 'A';
    struct got got = ask(server, true, "/echo", TOKEN, 100, 'a');
    pin[12] = right;
    CHECK(got.code == CURLE_SSL_PINNEDPUBKEYNOTMATCH, "%s", curl_easy_strerror(got.code));
    CHECK(server_counts(server).requests == 0, "the request was sent");
    server_stop(server, 5);
}

/* Bytes that are no request, or not such a one: an error or the end of the connection, and the
 * server goes on. */
static void test_garbage(void) {
    struct server_limits limits = server_default_limits();
    limits.head_seconds = limits.body_seconds = 1; /* for halves: libmicrohttpd may overlook that the other side is closed */
    struct server *server = start(limits, false);
    static const struct {
        const char *bytes;
        int status; /* 0: any from 400 on, or none */
    } cases[] = {
        {"POST /echo HTTP/1.1\r\n" HEADERS "Content-Length: 18446744073709551615\r\n\r\naaaa", 0},
        {"POST /echo HTTP/1.1\r\n" HEADERS "Content-Length: 999999999999999999\r\n\r\naaaa", 413},
        {"POST /echo HTTP/1.1\r\n" HEADERS "Content-Length: -1\r\n\r\naaaa", 0},
        {"POST /echo HTTP/1.1\r\n" HEADERS "Content-Length: 0x10\r\n\r\naaaaaaaaaaaaaaaa", 0},
        {"POST /echo HTTP/1.1\r\n" HEADERS "Transfer-Encoding: chunked\r\n\r\n5\r\naaaaa\r\n0\r\n\r\n", 411},
        {"POST /echo HTTP/1.1\r\n" HEADERS "\r\n", 411},
        {"GET /echo HTTP/1.1\r\n" HEADERS "Content-Length: 5\r\n\r\naaaaa", 405},
        {"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\naaaaa", 413},
        {"POST /echo HTTP/1.1\r\n" HEADERS "Content-Length: 100\r\n\r\nhalf of it", 0},
        {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 0},
        {"GET\r\n\r\n", 0},
        {"\r\n\r\n\r\n", 0},
        {"GET /health HTTP/1.1\r\n\r\n", 0}, /* no Host */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int status = status_of(server, cases[i].bytes, strlen(cases[i].bytes));
        CHECK(cases[i].status == 0 ? status == 0 || status >= 400 : status == cases[i].status, "case %zu: status %d", i, status);
    }
    char noise[20000];
    srand(7);
    for (int round = 0; round < 50; round++) {
        for (size_t i = 0; i < sizeof noise; i++) noise[i] = (char)rand();
        if (round % 2 == 0) memcpy(noise, "POST /echo HTTP/1.1\r\n", 21);
        int status = status_of(server, noise, (size_t)rand() % sizeof noise);
        CHECK(status == 0 || status >= 400, "noise %d: status %d", round, status);
    }
    check_alive(server, false, "after garbage");
    CHECK(server_counts(server).memory == 0, "%zu bytes of bodies are kept", server_counts(server).memory);
    server_stop(server, 5);
}

/* Clients that send a byte now and then are closed at the deadline, however often they send: amid
 * the head, and amid the body. */
static void test_slow(void) {
    struct server_limits limits = server_default_limits();
    limits.head_seconds = 1;
    limits.body_seconds = 1;
    struct server *server = start(limits, false);
    static const char *const begins[] = {"POST /echo HTTP/1.1\r\nHost: x\r\nX: ",
                                         "POST /echo HTTP/1.1\r\n" HEADERS "Content-Length: 10000\r\n\r\n"};
    for (int i = 0; i < 2; i++) {
        int fd = dial(server);
        double start_seconds = clock_seconds();
        bool closed = false;
        send(fd, begins[i], strlen(begins[i]), MSG_NOSIGNAL);
        while (!closed && clock_seconds() < start_seconds + 30) {
            char byte;
            send(fd, "a", 1, MSG_NOSIGNAL);
            usleep(50000);
            closed = recv(fd, &byte, 1, MSG_DONTWAIT) == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
        }
        CHECK(closed, "a slow client %d stays", i);
        close(fd);
    }
    CHECK(server_counts(server).links.late == 2, "%llu connections were late", (unsigned long long)server_counts(server).links.late);
    check_alive(server, false, "after slow clients");
    server_stop(server, 5);
}

/* 1,000 connections that say nothing, first with the limit of an address, then without: the honest
 * client gets its answer. */
static void test_many(bool per_address) {
    enum { MANY = 1000 };
    static int fds[MANY];
    struct server_limits limits = server_default_limits();
    if (!per_address) limits.links.per_peer = 0, limits.links.new_links.per_second = 0;
    struct server *server = start(limits, true);
    for (int i = 0; i < MANY; i++) fds[i] = dial(server);
    if (per_address) /* refused until some of them have gone */
        for (int i = 0; i < MANY; i++) close(fds[i]);
    double until = clock_seconds() + 60;
    long status = 0;
    while (status != 200 && clock_seconds() < until) {
        status = ask(server, true, "/echo", TOKEN, 5000, 'a').status;
        if (status != 200) usleep(100000);
        if (!per_address) break; /* at the first attempt */
    }
    CHECK(status == 200, "status %ld", status);
    struct link_counts counts = server_counts(server).links;
    if (per_address)
        CHECK(counts.refused > MANY / 2, "%llu refused", (unsigned long long)counts.refused);
    else
        CHECK(counts.displaced >= MANY - 300 && counts.newcomers <= 257, "%llu displaced, %d newcomers",
              (unsigned long long)counts.displaced, counts.newcomers);
    for (int i = 0; i < MANY && !per_address; i++) close(fds[i]);
    server_stop(server, 5);
}

static void test_rate(void) {
    struct server_limits limits = server_default_limits();
    limits.requests = (struct rate){0.001, 3};
    struct server *server = start(limits, true);
    for (int i = 0; i < 5; i++) {
        struct got got = ask(server, true, "/echo", TOKEN, 100, 'a');
        CHECK(got.status == (i < 3 ? 200 : 429), "request %d: %ld", i, got.status);
        CHECK(i < 3 || (got.retry_after > 0 && got.retry_after <= 1001), "Retry-After %ld", got.retry_after);
    }
    CHECK(ask(server, true, "/health", NULL, 0, 0).status == 200, "health");
    server_stop(server, 5);
}

/* One token from three addresses, where two connections are allowed; a connection that ends makes
 * room. */
static void test_connections_of_a_token(void) {
    static const char *const from[] = {"host!127.0.0.2", "host!127.0.0.3", "host!127.0.0.4"};
    struct server_limits limits = server_default_limits();
    limits.links.per_peer = 2;
    struct server *server = start(limits, false);
    CURL *curls[3];
    for (int i = 0; i < 3; i++) {
        curls[i] = curl_easy_init();
        interface = from[i];
        struct got got = ask_with(curls[i], server, false, "/echo", TOKEN, 100, 'a');
        CHECK(got.status == (i < 2 ? 200 : 429), "connection %d: %ld", i, got.status);
    }
    curl_easy_cleanup(curls[0]);
    double until = clock_seconds() + 30;
    while (server_counts(server).links.now > 1 && clock_seconds() < until) usleep(1000);
    struct got got = ask_with(curls[2], server, false, "/echo", TOKEN, 100, 'a');
    CHECK(got.status == 200, "when another has ended: %ld", got.status);
    curl_easy_cleanup(curls[1]);
    curl_easy_cleanup(curls[2]);
    interface = NULL;
    server_stop(server, 5);
}

static void test_replaced_tokens(void) {
    struct server *server = start(server_default_limits(), true);
    struct tokens read;
    tessera_error error = {0};
    int revoked, added;
    CURL *curl = curl_easy_init();
    CHECK(ask_with(curl, server, true, "/echo", TOKEN, 100, 'a').status == 200, "before");
    CHECK(tokens_read(write_tokens(OTHER "\n"), &read, &error) == TESSERA_OK, "%s", error.message);
    server_replace_tokens(server, &read, &revoked, &added);
    CHECK(revoked == 1 && added == 0, "%d, %d", revoked, added);
    CHECK(ask_with(curl, server, true, "/echo", TOKEN, 100, 'a').status == 401, "a token that is revoked");
    CHECK(ask_with(curl, server, true, "/echo", OTHER, 100, 'a').status == 200, "one that stays");
    server_replace_tokens(server, &tokens, &revoked, &added);
    CHECK(ask_with(curl, server, true, "/echo", TOKEN, 100, 'a').status == 200, "and back");
    curl_easy_cleanup(curl);
    server_stop(server, 5);
}

/* ---- what is refused at the start ---- */

static void test_options(void) {
    struct server *server = NULL;
    tessera_error error = {0};
    struct server_options options = {
        .host = "0.0.0.0", .tokens = &tokens, .limits = server_default_limits(), .routes = routes, .num_routes = 2};
    CHECK(server_start(&options, &server, &error) == TESSERA_ERROR_ARGUMENT && server == NULL, "plain HTTP for everybody");
    options.key = identity_key(identity), options.certificate = identity_certificate(identity), options.tokens = NULL;
    CHECK(server_start(&options, &server, &error) == TESSERA_ERROR_ARGUMENT, "no tokens for everybody");
    options.tokens = &tokens, options.key = "no key", options.host = "127.0.0.1";
    CHECK(server_start(&options, &server, &error) == TESSERA_ERROR_UNSUPPORTED, "no key: %s", error.message);
    options.key = identity_key(identity), options.host = "256.0.0.1";
    CHECK(server_start(&options, &server, &error) == TESSERA_ERROR_ARGUMENT, "no address: %s", error.message);
    struct server *first = start(server_default_limits(), true);
    options.host = "127.0.0.1", options.port = server_port(first);
    CHECK(server_start(&options, &server, &error) == TESSERA_ERROR_IO, "a port that is taken: %s", error.message);
    server_stop(first, 0);
}

static void test_buckets(void) {
    struct rate rate = {2, 3};
    struct bucket bucket = {0};
    double wait = 0;
    for (int i = 0; i < 3; i++) CHECK(bucket_take(&bucket, rate, 100, NULL), "ticket %d", i);
    CHECK(!bucket_take(&bucket, rate, 100, &wait) && wait == 0.5, "wait %g", wait);
    CHECK(bucket_take(&bucket, rate, 100.5, NULL) && !bucket_take(&bucket, rate, 100.5, NULL), "one after half a second");
    struct rates *rates = calloc(1, sizeof *rates);
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct rate_address victim = rate_address_of((struct sockaddr *)&address);
    for (int i = 0; i < 3; i++) CHECK(rates_take(rates, &victim, rate, 100, NULL), "ticket %d", i);
    CHECK(!rates_take(rates, &victim, rate, 100, NULL), "no ticket");
    for (uint32_t i = 1; i < 1000; i++) {
        address.sin_addr.s_addr = htonl(i);
        struct rate_address other = rate_address_of((struct sockaddr *)&address);
        CHECK(rates_take(rates, &other, rate, 100, NULL), "address %u", i);
    }
    CHECK(!rates_take(rates, &victim, rate, 100, NULL), "no ticket beside others");
    free(rates);
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr.s6_addr = {0x20, 1, 0xd, 0xb8, 1, 2, 3, 4, 5}}, neighbour = six;
    neighbour.sin6_addr.s6_addr[15] = 1;
    struct rate_address a = rate_address_of((struct sockaddr *)&six), b = rate_address_of((struct sockaddr *)&neighbour);
    CHECK(rate_address_same(&a, &b), "one customer's addresses");
}

int main(void) {
    begin();
    test_buckets();
    test_options();
    test_honest();
    test_wrong_pin();
    test_garbage();
    test_slow();
    test_rate();
    test_connections_of_a_token();
    test_replaced_tokens();
    test_many(true);
    test_many(false);
    return end();
}
