// What readings of devices keep for the next one: room for the lists and sentences, so that none
// is allocated again, and what was found out about a list that is read once more.
#pragma once
#include <array>
#include <cstdint>
#include <deque>
#include <string>

#include "memacct/identity.hpp"

namespace memacct {

/// A list, and which of its records is ours.
struct Look {
  nvml::ProcessList list;
  OwnRecord own;
};

/// The last reading of one device. While the list is the same, so is what follows from it.
struct DeviceMemo {
  std::string uuid;
  std::uint64_t list_bit = 0;
  bool valid = false;
  SelfFacts asked;  // what was known before the list was looked at,
  SelfFacts facts;  // and with what was found out for it
  Look look;
  Shares shares;
  std::uint64_t tree_changes_count = 0;
};

struct ReadingRoom {
  std::array<Look, 3> looks;
  SelfFacts asked;
  SelfFacts facts;
  std::deque<DeviceMemo> memos;  // of the devices read so far; they don't move

  [[nodiscard]] DeviceMemo& memo_of(std::string const& uuid) {
    for (auto& memo : memos) {
      if (memo.uuid == uuid) return memo;
    }
    auto& memo = memos.emplace_back();
    memo.uuid = uuid;
    memo.list_bit = std::uint64_t{1} << ((memos.size() - 1) % 64);
    return memo;
  }
};

}  // namespace memacct
