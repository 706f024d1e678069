/* A switch with slow, long cables, for bench/links.sh where the kernel has no netem.
 *
 *   links_relay BITS_PER_SECOND DELAY_MICROSECONDS NAME...
 *
 * Makes one TUN device per name; the i-th (from 1) belongs to the host whose IPv4 address ends in
 * i, and links.sh moves it into that host's network namespace. A packet goes the way it would go on
 * full-duplex cables with a switch between them:
 *
 *   host a --(line: one packet after the other, at the bandwidth)--(delay)--> switch port of b --(at the bandwidth)--> host b
 *
 * The port passes a packet through while it arrives, so an idle path costs the time on the line
 * once; when several hosts send to one, its port is what they wait for. 0 bits per second: no
 * limit. The host hands over up to 64 KiB at once (TCP segmentation offload), which is timed as the
 * Ethernet frames it stands for, 38 bytes around each. A line that has WAITING_MAX bytes waiting
 * loses what comes more, as a real one does. The process asks for real-time priority, because a
 * late wake-up would look like a slow network. Ends with its parent. Format:
 * Documentation/networking/tuntap.rst and virtio 1.2, 5.1.6 (struct virtio_net_hdr). Left out:
 * IPv6, broadcasts, loss, jitter. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { HOSTS_MAX = 250, PACKET_MAX = 65536 + 64, FRAME_EXTRA = 38, ADDRESS_AT = 16, READS_AT_ONCE = 16, WAITING_MAX = 64 << 20 };

struct packet {
    struct packet *next;
    int64_t due;        // ns: when it leaves the queue it is in
    int64_t line_time;  // ns on a line
    size_t size;
    int target;
    uint8_t bytes[];
};

struct queue {
    struct packet *first, **last;
    int64_t free_at;  // when the line or port has sent all that was given to it
    size_t waiting;   // bytes
};

struct relay {
    double ns_per_byte;
    int64_t delay;
    int count;
    struct pollfd devices[HOSTS_MAX];
    struct queue lines[HOSTS_MAX];  // from host i
    struct queue ports[HOSTS_MAX];  // to host i
};

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t later(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int device_open(const char *name) {
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (device < 0) return -1;
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    if (ioctl(device, TUNSETIFF, &request) == 0 && ioctl(device, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4) == 0) return device;
    close(device);
    return -1;
}

static void queue_add(struct queue *queue, struct packet *packet) {
    packet->next = NULL;
    *queue->last = packet;
    queue->last = &packet->next;
    queue->waiting += packet->size;
}

static struct packet *queue_take(struct queue *queue) {
    struct packet *packet = queue->first;
    queue->first = packet->next;
    if (queue->first == NULL) queue->last = &queue->first;
    queue->waiting -= packet->size;
    return packet;
}

/* The bytes that a packet (behind its virtio header) takes on an Ethernet cable once cut into
 * segments. */
static size_t frame_bytes(const struct virtio_net_hdr *header, size_t size) {
    size_t bytes = size - sizeof *header, segments = 1, headers = header->hdr_len;
    if (header->gso_type != VIRTIO_NET_HDR_GSO_NONE && header->gso_size > 0 && bytes > headers)
        segments = (bytes - headers + header->gso_size - 1) / header->gso_size;
    return bytes + (segments - 1) * headers + segments * FRAME_EXTRA;
}

/* A packet from a host: onto its line, if it is IPv4 for one of us. */
static void take_in(struct relay *relay, int source, const uint8_t *bytes, size_t size) {
    struct virtio_net_hdr header;
    const uint8_t *ip = bytes + sizeof header;
    struct queue *line = &relay->lines[source];
    if (size < sizeof header + ADDRESS_AT + 4 || ip[0] >> 4 != 4) return;
    int target = ip[ADDRESS_AT + 3] - 1;
    if (target < 0 || target >= relay->count || target == source || line->waiting + size > WAITING_MAX) return;
    struct packet *packet = malloc(sizeof *packet + size);
    if (packet == NULL) return;
    memcpy(&header, bytes, sizeof header);
    memcpy(packet->bytes, bytes, size);
    packet->size = size;
    packet->target = target;
    packet->line_time = (int64_t)((double)frame_bytes(&header, size) * relay->ns_per_byte);
    line->free_at = later(line->free_at, now_ns()) + packet->line_time;
    packet->due = line->free_at + relay->delay;
    queue_add(line, packet);
}

/* Moves on all that is due: from lines to ports, from ports to hosts. Returns when the next is due;
 * INT64_MAX: nothing waits. */
static int64_t move_on(struct relay *relay) {
    int64_t next = INT64_MAX;
    for (int i = 0; i < relay->count; i++) {
        struct queue *line = &relay->lines[i];
        while (line->first != NULL && line->first->due <= now_ns()) {
            struct packet *packet = queue_take(line);
            struct queue *port = &relay->ports[packet->target];
            packet->due = port->free_at = later(packet->due, port->free_at + packet->line_time);
            queue_add(port, packet);
        }
        if (line->first != NULL && line->first->due < next) next = line->first->due;
    }
    for (int i = 0; i < relay->count; i++) {
        struct queue *port = &relay->ports[i];
        while (port->first != NULL && port->first->due <= now_ns()) {
            struct packet *packet = queue_take(port);
            if (write(relay->devices[i].fd, packet->bytes, packet->size) < 0 && errno == EBADFD) exit(1);
            free(packet);
        }
        if (port->first != NULL && port->first->due < next) next = port->first->due;
    }
    return next;
}

static int serve(struct relay *relay) {
    static uint8_t bytes[PACKET_MAX];
    for (;;) {
        int64_t next = move_on(relay), wait = later(next - now_ns(), 0);
        struct timespec timeout = {.tv_sec = wait / 1000000000, .tv_nsec = wait % 1000000000};
        if (ppoll(relay->devices, (nfds_t)relay->count, next == INT64_MAX ? NULL : &timeout, NULL) < 0 && errno != EINTR) return 1;
        for (int i = 0; i < relay->count; i++) {
            if (relay->devices[i].revents & (POLLERR | POLLNVAL)) return 1;  // the device went away with its namespace
            if (!(relay->devices[i].revents & POLLIN)) continue;
            for (int reads = 0; reads < READS_AT_ONCE; reads++) {
                ssize_t size = read(relay->devices[i].fd, bytes, sizeof bytes);
                if (size <= 0) break;
                take_in(relay, i, bytes, (size_t)size);
            }
        }
    }
}

int main(int argc, char **argv) {
    static struct relay relay;
    double bits = argc > 2 ? strtod(argv[1], NULL) : 0;
    if (argc < 4 || argc - 3 > HOSTS_MAX) return fprintf(stderr, "usage: links_relay BITS_PER_SECOND DELAY_MICROSECONDS NAME...\n"), 2;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    relay.ns_per_byte = bits > 0 ? 8e9 / bits : 0;
    relay.delay = (int64_t)(strtod(argv[2], NULL) * 1000);
    relay.count = argc - 3;
    for (int i = 0; i < relay.count; i++) {
        relay.devices[i] = (struct pollfd){.fd = device_open(argv[3 + i]), .events = POLLIN};
        relay.lines[i].last = &relay.lines[i].first;
        relay.ports[i].last = &relay.ports[i].first;
        if (relay.devices[i].fd < 0) return fprintf(stderr, "links_relay: /dev/net/tun, %s: %s\n", argv[3 + i], strerror(errno)), 1;
    }
    if (sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 10}) != 0) prctl(PR_SET_TIMERSLACK, 1);
    printf("ready\n");
    fflush(stdout);
    return serve(&relay);
}
