/* Time and memory as the operating system gives them. */
#ifndef TESSERA_BASE_CLOCK_H
#define TESSERA_BASE_CLOCK_H

#include <stddef.h>

double clock_seconds(void);        /* monotonic */
double clock_thread_seconds(void); /* that this thread has run */
size_t memory_peak_resident(void); /* VmHWM of this process in bytes, mapped file pages included; 0 where unknown */
size_t memory_resident(void);      /* VmRSS, the same now */
size_t memory_addresses(void);     /* VmSize: addresses that this process has mapped, bytes; 0 where unknown */
size_t memory_total(void);         /* of the machine or the control group, bytes */
/* The same, where `list` says in which groups this process is, and their folder is `groups`:
 * /proc/self/cgroup and /sys/fs/cgroup. */
size_t memory_total_of(const char *list, const char *groups);
enum { KERNEL_ID_BYTES = 40 };
void kernel_id(char out[KERNEL_ID_BYTES]); /* of the running kernel, the same in all its containers; "" where unknown */
int threads_available(void);               /* processors that this process may use (affinity mask and control group) */

#endif
