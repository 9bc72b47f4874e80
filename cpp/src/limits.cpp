#include "memacct/limits.hpp"

#include <array>
#include <vector>

namespace memacct {
namespace {

using Bytes = std::optional<std::uint64_t>;

/// One limit, and what it leaves; nullopt: unknown.
struct Candidate {
  LimitSource source{};
  std::optional<std::string> path;
  std::uint64_t limit_bytes{};
  Bytes room_bytes;
};

/// The limits of a level, the hard one last.
void add_level(std::vector<Candidate>& candidates, CgroupLevel const& level) {
  struct Limit {
    LimitSource source{};
    Bytes limit_bytes;
    Bytes usage_bytes;
  };
  std::array<Limit, 3> const limits{
      {{LimitSource::kCgroupMemsw, level.memsw_limit_bytes, level.memsw_usage_bytes},
       {LimitSource::kCgroupHigh, level.high_bytes, level.usage_bytes},
       {LimitSource::kCgroup, level.limit_bytes, level.usage_bytes}}};
  for (auto const& [source, limit, usage] : limits) {
    if (!limit) continue;
    candidates.push_back({.source = source,
                          .path = level.path,
                          .limit_bytes = *limit,
                          .room_bytes = room_within(limit, usage, level)});
  }
}

/// From the own group upwards, the machine last.
std::vector<Candidate> list_candidates(std::optional<CgroupMemory> const& cgroup,
                                       std::optional<SystemMemory> const& system) {
  std::vector<Candidate> candidates;
  if (cgroup) {
    for (auto const& level : cgroup->levels) add_level(candidates, level);
    if (cgroup->hidden_limit_bytes) {
      candidates.push_back(
          {.source = LimitSource::kCgroup, .limit_bytes = *cgroup->hidden_limit_bytes});
    }
  }
  if (system) {
    candidates.push_back({.source = LimitSource::kMachine,
                          .limit_bytes = system->total_bytes,
                          .room_bytes = system->available_bytes});
  }
  return candidates;
}

}  // namespace

MemoryLimits find_limits(std::optional<CgroupMemory> const& cgroup,
                         std::optional<SystemMemory> const& system) {
  MemoryLimits result;
  auto const candidates = list_candidates(cgroup, system);
  result.headroom_known = !candidates.empty();
  for (auto const& candidate : candidates) {
    auto const& limit = result.effective_limit_bytes;
    if (!limit || candidate.limit_bytes <= *limit) {
      result.effective_limit_bytes = candidate.limit_bytes;
      result.effective_limit_source = candidate.source;
      result.effective_limit_path = candidate.path;
    }
    auto const room = candidate.room_bytes.value_or(candidate.limit_bytes);
    if (!result.headroom_bytes || room <= *result.headroom_bytes) {
      result.headroom_bytes = room;
      result.headroom_source = candidate.source;
      result.headroom_path = candidate.path;
    }
    if (!candidate.room_bytes) result.headroom_known = false;
  }
  return result;
}

}  // namespace memacct
