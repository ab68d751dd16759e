/* A network between processes on one Linux machine: each packet arrives a given time after it was sent.

       delay MICROSECONDS MBIT_PER_S NAMESPACE...

   The i-th namespace gets the device mm0, whose other end is this program; the packets for 10.77.0.I go to number I,
   counted from 1. A sender's packets follow each other at the given rate (0: at once). Packets have up to 60,000 bytes,
   as those that a network card cuts by itself. Prints a line when the devices are there, and runs until it is killed. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define MAX_SIDES 16
#define MAX_PACKET 65536
#define MAX_WAITING 4096 /* packets of one sender under way; more are lost, as in a real network */

typedef struct {
  int64_t due;
  int to;
  ssize_t n;
  char *bytes;
} Packet;

typedef struct {
  int fd;
  int64_t free_at; /* when the last packet is on the wire */
  unsigned first, last;
  Packet waiting[MAX_WAITING];
} Side;

static Side sides[MAX_SIDES];

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int fail(const char *what) {
  perror(what);
  exit(1);
}

static int device_in(const char *name) {
  char path[256];
  snprintf(path, sizeof path, "/run/netns/%s", name);
  const int space = open(path, O_RDONLY);
  if (space < 0 || setns(space, CLONE_NEWNET)) fail(path);
  close(space);
  const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
  struct ifreq wanted = {.ifr_name = "mm0"};
  wanted.ifr_flags = IFF_TUN | IFF_NO_PI;
  if (fd < 0 || ioctl(fd, TUNSETIFF, &wanted)) fail("/dev/net/tun");
  return fd;
}

/* Takes all packets that a side has sent. */
static void take(Side *side, int n_sides, int64_t delay, double ns_per_byte) {
  static char buffer[MAX_PACKET];
  ssize_t n;
  while ((n = read(side->fd, buffer, sizeof buffer)) > 0) {
    const int to = buffer[19] - 1; /* the last byte of an IPv4 destination */
    if (n < 20 || (buffer[0] & 0xf0) != 0x40 || to < 0 || to >= n_sides) continue;
    if (side->last - side->first == MAX_WAITING) continue;
    const int64_t now = now_ns();
    side->free_at = (side->free_at > now ? side->free_at : now) + (int64_t)(n * ns_per_byte);
    Packet *packet = &side->waiting[side->last++ % MAX_WAITING];
    *packet = (Packet){side->free_at + delay, to, n, malloc(n)};
    if (!packet->bytes) fail("malloc");
    memcpy(packet->bytes, buffer, n);
  }
}

/* Delivers what is due; returns when the next packet is, or -1. */
static int64_t deliver(Side *side) {
  while (side->first != side->last) {
    Packet *packet = &side->waiting[side->first % MAX_WAITING];
    if (packet->due > now_ns()) return packet->due;
    if (write(sides[packet->to].fd, packet->bytes, packet->n) < 0) perror("write");
    free(packet->bytes);
    side->first++;
  }
  return -1;
}

int main(int argc, char **argv) {
  const int n_sides = argc - 3;
  if (n_sides < 1 || n_sides > MAX_SIDES) return 2;
  const int64_t delay = (int64_t)(atof(argv[1]) * 1e3);
  const double ns_per_byte = atof(argv[2]) > 0 ? 8e3 / atof(argv[2]) : 0;
  struct pollfd polled[MAX_SIDES];
  for (int i = 0; i < n_sides; ++i) {
    sides[i].fd = device_in(argv[3 + i]);
    polled[i] = (struct pollfd){sides[i].fd, POLLIN, 0};
  }
  prctl(PR_SET_TIMERSLACK, 1UL, 0, 0, 0);
  puts("ready");
  fflush(stdout);
  for (;;) {
    int64_t next = -1;
    for (int i = 0; i < n_sides; ++i) {
      take(&sides[i], n_sides, delay, ns_per_byte);
      const int64_t due = deliver(&sides[i]);
      if (due >= 0 && (next < 0 || due < next)) next = due;
    }
    const int64_t wait = next < 0 ? 1000000000 : next - now_ns();
    const struct timespec timeout = {wait / 1000000000, wait > 0 ? wait % 1000000000 : 0};
    ppoll(polled, n_sides, &timeout, NULL);
  }
}
