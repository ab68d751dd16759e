// How many CPUs this process may use.
#pragma once
#include <string>
#include <vector>

namespace kernels {

// One thread for each core of `count_cores` within the affinity mask, and no more than `cpu_quota`; at least 1.
int default_threads();

// The physical cores among `cpus` that are worth a thread. Where there are fast and slow cores, the slow ones do not
// count: decoding waits for memory, which a few fast cores read as fast as it goes, and a slow core ends its last piece
// late. Fewer than four fast cores are filled up to four. `devices` is /sys/devices, or a tree like it.
int count_cores(const std::vector<int>& cpus, const std::string& devices = "/sys/devices");

// Whole CPUs that the control groups of the process allow, at least 1; a large number without a limit. `process` lists
// the groups as /proc/self/cgroup does, `mounts` where their hierarchies can be read as /proc/self/mountinfo does.
int cpu_quota(const std::string& process = "/proc/self/cgroup", const std::string& mounts = "/proc/self/mountinfo");

}  // namespace kernels
