// The CPUs of this process, see cpus.h: the affinity mask, physical cores, and control groups of both versions.
#include "cpus.h"

#include <algorithm>
#include <exception>
#include <fstream>
#include <set>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

namespace kernels {
namespace {

constexpr int NO_LIMIT = 1 << 20;

std::string first_line(const std::string& path) {
  std::string line;
  std::ifstream file(path);
  std::getline(file, line);
  return line;
}

int whole(double time, double period) {
  return time <= 0 || period <= 0 ? NO_LIMIT : std::clamp(static_cast<int>(time / period), 1, NO_LIMIT);
}

// Whole CPUs that one group allows. A missing file (of the root, say) and a form that we do not know are no limit.
int quota_of(const std::string& folder, bool v2) {
  try {
    if (!v2)
      return whole(std::stod(first_line(folder + "/cpu.cfs_quota_us")),
                   std::stod(first_line(folder + "/cpu.cfs_period_us")));
    const std::string line = first_line(folder + "/cpu.max");  // "max 100000" or "150000 100000"
    return whole(std::stod(line), std::stod(line.substr(line.find(' '))));
  } catch (const std::exception&) {
    return NO_LIMIT;
  }
}

// The smallest quota from a group up to the root of its hierarchy. In a container the path may be the one outside of
// it, which does not exist under the mount: only the root is left then, which is the container's own group.
int quota_of_path(const std::string& root, std::string path, bool v2) {
  int quota = quota_of(root, v2);
  for (; path.size() > 1; path.resize(path.rfind('/'))) quota = std::min(quota, quota_of(root + path, v2));
  return quota;
}

bool names_cpu(const std::string& controllers) { return ("," + controllers + ",").find(",cpu,") != std::string::npos; }

}  // namespace

int cpu_quota(const std::string& process, const std::string& mount) {
  int quota = NO_LIMIT;
  std::ifstream file(process);
  for (std::string line; std::getline(file, line);) {  // "0::/path" of version 2, "4:cpu,cpuacct:/path" of version 1
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos || line[second + 1] != '/') continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    if (controllers.empty()) quota = std::min(quota, quota_of_path(mount, path, true));
    if (names_cpu(controllers)) quota = std::min(quota, quota_of_path(mount + "/cpu", path, false));
  }
  return quota;
}

int default_threads() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
#ifdef __linux__
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    std::set<std::string> siblings;  // one entry per physical core
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &allowed)) {
        const std::string topology =
            "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list";
        const std::string list = first_line(topology);
        siblings.insert(list.empty() ? std::to_string(cpu) : list);
      }
    cores = static_cast<int>(siblings.size());
  }
#endif
  return std::max(1, std::min(cores, cpu_quota()));
}

}  // namespace kernels
