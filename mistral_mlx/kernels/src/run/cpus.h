// How many CPUs this process may use.
#pragma once
#include <string>

namespace kernels {

// One thread for each physical core within the affinity mask and the quota of the control groups; at least 1.
int default_threads();

// Whole CPUs that the control groups of the process allow, at least 1; a large number without a limit. `process` lists
// the groups as /proc/self/cgroup does, and their hierarchies are mounted under `mount`.
int cpu_quota(const std::string& process = "/proc/self/cgroup", const std::string& mount = "/sys/fs/cgroup");

}  // namespace kernels
