#include "memacct/residency.hpp"

#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "memacct/mapping_kind.hpp"
#include "memacct/mappings.hpp"
#include "memacct/page_regions.hpp"
#include "memacct/proc_file.hpp"
#include "memacct/process.hpp"
#include "memacct/procmap_query.hpp"

namespace memacct {
namespace {

constexpr std::size_t kSpareRows = 64;

// On the stack. The kernel gathers 512 at a time, so more would not make fewer walks.
using Regions = std::array<PageRegion, 1024>;

// How many mappings this process had when it was last read, to make room before reading.
std::atomic<std::size_t> last_row_count{512};

/// Fills a table's paths, each once.
class PathIndex {
 public:
  explicit PathIndex(std::vector<std::string>& paths) : paths_(paths) {}

  void name(std::string_view text, Mapping& row) {
    if (text.empty()) return;
    if (text != last_text_) {
      auto parsed = parse_mapping_name(text);
      auto const next = static_cast<std::int32_t>(paths_.size());
      // A deleted file and a new one of the same name share the path.
      auto const [entry, added] = indices_.try_emplace(parsed.path, next);
      if (added) paths_.push_back(std::move(parsed.path));
      last_text_ = text;
      last_index_ = entry->second;
      last_deleted_ = parsed.deleted;
    }
    row.path_index = last_index_;
    row.deleted = last_deleted_ ? 1 : 0;
  }

 private:
  std::vector<std::string>& paths_;
  std::unordered_map<std::string, std::int32_t> indices_;
  std::string last_text_;  // neighbours often share it
  std::int32_t last_index_ = -1;
  bool last_deleted_ = false;
};

Mapping to_row(QueriedMapping const& mapping) noexcept {
  Mapping row{.start = mapping.start,
              .end = mapping.end,
              .offset = mapping.offset,
              .inode = mapping.inode,
              .dev_major = mapping.dev_major,
              .dev_minor = mapping.dev_minor,
              .perms = mapping.perms};
  row[Size::kVms] = mapping.end - mapping.start;
  row[Size::kKernelPage] = mapping.page_bytes;
  return row;
}

/// False where the kernel does not offer it.
bool query_all(ProcessFile const& maps, MappingTable& table) {
  PathIndex paths(table.paths);
  NameBuffer buffer;
  QueriedMapping mapping;
  for (std::uint64_t address = 0;; address = mapping.end) {
    auto const answer = query_mapping(maps, address, buffer, mapping);
    if (answer == Answer::kNotOffered) return false;
    if (answer == Answer::kNoMapping) return true;
    auto row = to_row(mapping);
    paths.name(mapping.name, row);
    // Between two questions a mapping may have moved or grown: the later answer stands.
    while (!table.rows.empty() && table.rows.back().end > row.start) table.rows.pop_back();
    table.rows.push_back(row);
  }
}

/// Adds up the rss of `rows`. False where the kernel does not offer it.
bool scan_rows(ProcessFile const& pagemap, std::span<Mapping> rows, Pages which) {
  Regions regions;
  auto const end = rows.back().end;
  std::size_t first = 0;
  for (auto at = rows.front().start; at < end;) {
    auto const scanned = scan_pages(pagemap, at, end, which, regions);
    if (!scanned) return false;
    first = add_resident(rows, first, std::span(regions).first(scanned->region_count));
    at = scanned->scanned_to;
  }
  return true;
}

/// Takes back what is in the page tables and not in smaps' Rss, once kinds are known.
bool remove_uncounted(ProcessFile const& pagemap, MappingTable& table, std::uint64_t page_bytes) {
  for (auto& row : table.rows) {
    auto const is_dax =
        row.path_index >= 0 &&
        table.paths[static_cast<std::size_t>(row.path_index)].starts_with("/dev/dax");
    if (row[Size::kKernelPage] > page_bytes && !is_dax) {
      row.kind = MappingKind::kHugetlb;
      row[Size::kRss] = 0;
    }
    // A driver may map its device's own memory, which is no page of anyone, beside pages of RAM.
    // (The kernel skips mappings that are all device memory, VM_PFNMAP, by itself.) The pages of
    // a private mapping that was written to are none of a file, and count.
    if (row.kind == MappingKind::kDevice && (row.perms & kShared) != 0 && row[Size::kRss] != 0) {
      row[Size::kRss] = 0;
      if (!scan_rows(pagemap, {&row, 1}, Pages::kPresentFile)) return false;
    }
  }
  return true;
}

// ------------------------------------------------------------ the one beyond the last

constexpr std::uint64_t kVsyscallStart = 0xFFFFFFFFFF600000U;  // x86-64's ABI
constexpr std::uint64_t kVsyscallBytes = 4096;
constexpr std::uint64_t kFourGiB = std::uint64_t{1} << 32U;

enum class Vsyscall : std::uint8_t { kNotAsked, kNone, kExecuteOnly, kReadExecute };

// As the machine was booted: the same for all its 64-bit processes.
std::atomic<Vsyscall> vsyscall{Vsyscall::kNotAsked};

/// maps and smaps show it; PROCMAP_QUERY does not know it, as it is in no process's page tables.
Vsyscall find_vsyscall() {
  auto known = vsyscall.load(std::memory_order_relaxed);
  if (known == Vsyscall::kNotAsked) {
    auto const maps = read_file("/proc/self/maps");
    auto const text = std::string_view(maps ? *maps : std::string_view{});
    auto const line = text.substr(text.rfind('\n', text.size() - 2) + 1);
    known = Vsyscall::kNone;
    if (line.find("[vsyscall]") != std::string_view::npos) {
      auto const readable = line.find(" r-xp ") != std::string_view::npos;
      known = readable ? Vsyscall::kReadExecute : Vsyscall::kExecuteOnly;
    }
    vsyscall.store(known, std::memory_order_relaxed);
  }
  return known;
}

void add_vsyscall(MappingTable& table, std::uint64_t page_bytes) {
  // A 32-bit process has none, and ends below.
  if (table.rows.back().end <= kFourGiB) return;
  auto const known = find_vsyscall();
  if (known == Vsyscall::kNone) return;
  Mapping row{.start = kVsyscallStart,
              .end = kVsyscallStart + kVsyscallBytes,
              .path_index = static_cast<std::int32_t>(table.paths.size()),
              .kind = MappingKind::kSpecial,
              .perms = kExecute};
  if (known == Vsyscall::kReadExecute) row.perms |= kRead;
  row[Size::kVms] = kVsyscallBytes;
  row[Size::kKernelPage] = page_bytes;
  table.paths.emplace_back("[vsyscall]");
  table.rows.push_back(row);
}

}  // namespace

std::optional<MappingTable> read_residency(std::int32_t pid, ProcessFile const& maps,
                                           ProcessFile const& pagemap) {
  auto const page_bytes = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  MappingTable table{
      .source = MappingSource::kPagemap,
      .pid = pid == 0 ? current_pid() : pid,
      .columns = column(Size::kVms) | column(Size::kKernelPage) | column(Size::kRss)};
  if (pid == 0) {
    // Touched, so that what is read next includes it already.
    table.rows.resize(last_row_count.load(std::memory_order_relaxed) + kSpareRows);
    table.rows.clear();
  }
  if (!query_all(maps, table)) return std::nullopt;
  if (table.rows.empty()) maps.fail(ESRCH);
  if (!scan_rows(pagemap, table.rows, Pages::kPresent)) return std::nullopt;
  if (pid == 0) last_row_count.store(table.rows.size(), std::memory_order_relaxed);
  name_kinds(table, pid);
  if (!remove_uncounted(pagemap, table, page_bytes)) return std::nullopt;
  add_vsyscall(table, page_bytes);
  return table;
}

std::optional<MappingTable> read_residency(std::int32_t pid) {
  auto const directory = pid == 0 ? "/proc/self" : "/proc/" + std::to_string(pid);
  ProcessFile const maps(directory + "/maps");
  ProcessFile const pagemap(directory + "/pagemap");
  return read_residency(pid, maps, pagemap);
}

}  // namespace memacct
