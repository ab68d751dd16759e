// The CPUs of this process, see cpus.h: the affinity mask, physical cores, and control groups of both versions.
#include "cpus.h"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif
#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

namespace kernels {
namespace {

constexpr int NO_LIMIT = 1 << 20;
constexpr int ENOUGH = 4;  // cores that read about as fast as the memory of a laptop gives

std::string first_line(const std::string& path) {
  std::string line;
  std::ifstream file(path);
  std::getline(file, line);
  return line;
}

// The number that a text begins with, or `otherwise`.
double number(const std::string& text, double otherwise) {
  try {
    return std::stod(text);
  } catch (const std::exception&) {
    return otherwise;
  }
}

// The CPUs of a list like "0-7,16".
std::set<int> listed(const std::string& list) {
  std::set<int> cpus;
  std::istringstream parts(list);
  for (std::string part; std::getline(parts, part, ',');) {
    const int first = static_cast<int>(number(part, 0));
    const int last = static_cast<int>(number(part.substr(std::min(part.find('-'), part.size() - 1) + 1), first));
    for (int cpu = first; cpu <= std::min(last, NO_LIMIT); ++cpu) cpus.insert(cpu);
  }
  return cpus;
}

std::string folder_of(int cpu, const std::string& devices) {
  return devices + "/system/cpu/cpu" + std::to_string(cpu) + "/";
}

int physical(const std::vector<int>& cpus, const std::string& devices) {
  std::set<std::string> cores;  // hyperthreads of a core list the same siblings
  for (const int cpu : cpus) {
    const std::string siblings = first_line(folder_of(cpu, devices) + "topology/thread_siblings_list");
    cores.insert(siblings.empty() ? std::to_string(cpu) : siblings);
  }
  return static_cast<int>(cores.size());
}

// Those of `cpus` that are fast: the P cores of a hybrid x86 processor; on ARM, those with more than half of the
// largest capacity. All of them where the system makes no difference.
std::vector<int> fast(const std::vector<int>& cpus, const std::string& devices) {
  std::vector<int> found;
  const std::set<int> p_cores = listed(first_line(devices + "/cpu_core/cpus"));
  std::copy_if(cpus.begin(), cpus.end(), std::back_inserter(found), [&](int cpu) { return p_cores.count(cpu) > 0; });
  if (!found.empty()) return found;
  std::vector<double> capacities;
  for (const int cpu : cpus) capacities.push_back(number(first_line(folder_of(cpu, devices) + "cpu_capacity"), 1));
  const double largest = cpus.empty() ? 0 : *std::max_element(capacities.begin(), capacities.end());
  for (size_t i = 0; i < cpus.size(); ++i)
    if (2 * capacities[i] > largest) found.push_back(cpus[i]);
  return found;
}

int whole(double time, double period) {
  return time <= 0 || period <= 0 ? NO_LIMIT : std::clamp(static_cast<int>(time / period), 1, NO_LIMIT);
}

// Whole CPUs that one group allows. A missing file (of the root, say) and a form that we do not know are no limit.
int quota_of(const std::string& folder, bool v2) {
  if (!v2)
    return whole(number(first_line(folder + "/cpu.cfs_quota_us"), 0),
                 number(first_line(folder + "/cpu.cfs_period_us"), 0));
  const std::string line = first_line(folder + "/cpu.max");  // "max 100000" or "150000 100000"
  return whole(number(line, 0), number(line.substr(std::min(line.find(' '), line.size())), 0));
}

// The smallest quota from a group, which lies at `path` under the folder `root`, up to that folder.
int quota_of_path(const std::string& root, std::string path, bool v2) {
  int quota = quota_of(root, v2);
  for (; path.size() > 1; path.resize(path.rfind('/'))) quota = std::min(quota, quota_of(root + path, v2));
  return quota;
}

bool names_cpu(const std::string& controllers) { return ("," + controllers + ",").find(",cpu,") != std::string::npos; }

// A hierarchy of control groups with CPU quotas, or a part of it, as it can be read.
struct Mount {
  bool v2;
  std::string root;    // the group that is seen
  std::string folder;  // where
};

// A path of mountinfo, which writes a space as \040.
std::string unescaped(const std::string& path) {
  std::string text;
  for (size_t i = 0; i < path.size(); ++i)
    if (path[i] == '\\' && i + 3 < path.size()) {
      text += static_cast<char>(std::strtol(path.substr(i + 1, 3).c_str(), nullptr, 8));
      i += 3;
    } else {
      text += path[i];
    }
  return text;
}

// Lines are "ID PARENT DEVICE ROOT FOLDER OPTIONS [FIELDS ...] - TYPE SOURCE OPTIONS".
std::vector<Mount> mounted(const std::string& mounts) {
  std::vector<Mount> found;
  std::ifstream file(mounts);
  for (std::string line; std::getline(file, line);) {
    const size_t end = line.find(" - ");
    if (end == std::string::npos) continue;
    std::istringstream before(line.substr(0, end)), after(line.substr(end + 3));
    std::string skipped, root, folder, type, options;
    before >> skipped >> skipped >> skipped >> root >> folder;
    after >> type >> skipped >> options;
    if (type == "cgroup2" || (type == "cgroup" && names_cpu(options)))
      found.push_back({type == "cgroup2", unescaped(root), unescaped(folder)});
  }
  return found;
}

// Where the group `path` lies under a mount that shows the group `root`. Nowhere, if it is another's path: one from
// outside of a container, or of another namespace. The mount itself is all that can be read then.
std::string below(const std::string& root, const std::string& path) {
  if (path.find("/..") != std::string::npos) return "";
  if (root == "/") return path;
  return path.compare(0, root.size(), root) == 0 && path[root.size()] == '/' ? path.substr(root.size()) : "";
}

}  // namespace

int cpu_quota(const std::string& process, const std::string& mounts) {
  int quota = NO_LIMIT;
  const std::vector<Mount> all = mounted(mounts);
  std::ifstream file(process);
  for (std::string line; std::getline(file, line);) {  // "0::/path" of version 2, "4:cpu,cpuacct:/path" of version 1
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos || line[second + 1] != '/') continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    if (!controllers.empty() && !names_cpu(controllers)) continue;
    for (const Mount& mount : all)
      if (mount.v2 == controllers.empty())
        quota = std::min(quota, quota_of_path(mount.folder, below(mount.root, path), mount.v2));
  }
  return quota;
}

int count_cores(const std::vector<int>& cpus, const std::string& devices) {
  return std::max(physical(fast(cpus, devices), devices), std::min(physical(cpus, devices), ENOUGH));
}

int default_threads() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
#ifdef __linux__
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    std::vector<int> cpus;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &allowed)) cpus.push_back(cpu);
    cores = count_cores(cpus);
  }
#endif
#ifdef __APPLE__
  int p_cores = 0;
  size_t size = sizeof p_cores;
  if (sysctlbyname("hw.perflevel0.physicalcpu", &p_cores, &size, nullptr, 0) == 0 && p_cores > 0)
    cores = std::max(p_cores, std::min(cores, ENOUGH));
#endif
  return std::max(1, std::min(cores, cpu_quota()));
}

}  // namespace kernels
