#include "memacct/process_title.hpp"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

namespace memacct {
namespace {

constexpr std::size_t kNameBytes = 15;  // TASK_COMM_LEN without its NUL

/// The length of the UTF-8 character at the start of `bytes`; 0 if there is none (RFC 3629:
/// neither overlong forms nor surrogates).
std::size_t character_size(std::string_view bytes) {
  auto const at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  auto const first = at(0);
  if (first < 0x80) return 1;
  if (first < 0xC2 || first > 0xF4) return 0;
  std::size_t const size = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  if (bytes.size() < size) return 0;
  for (std::size_t i = 1; i < size; ++i) {
    if ((at(i) & 0xC0U) != 0x80U) return 0;
  }
  auto const second = at(1);
  bool const valid = !(first == 0xE0 && second < 0xA0) && !(first == 0xED && second > 0x9F) &&
                     !(first == 0xF0 && second < 0x90) && !(first == 0xF4 && second > 0x8F);
  return valid ? size : 0;
}

std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> words;
  while (true) {
    auto const start = text.find_first_not_of(' ');
    if (start == std::string_view::npos) return words;
    text.remove_prefix(start);
    words.push_back(text.substr(0, text.find(' ')));
    text.remove_prefix(words.back().size());
  }
}

std::string_view base_name(std::string_view path) {
  return path.substr(path.rfind('/') + 1);  // npos + 1 is 0: no slash, all of it
}

// What vLLM passes to set_process_title(); the title is "VLLM::" and then this.
constexpr std::array<std::pair<std::string_view, char const*>, 4> kTitled{
    {{"EngineCore", "engine_core"},
     {"Worker", "worker"},
     {"APIServer", "api_server"},
     {"DPCoordinator", "dp_coordinator"}}};

/// "<prefix>::<name>" or "<prefix>::<name>_<rank>". `cut`: the end of the text may be missing.
ProcessRole titled_role(std::string_view text, bool cut) {
  auto const colons = text.find("::");
  if (colons == 0 || colons == std::string_view::npos) return {};
  if (text.substr(0, colons).find_first_of(" /") != std::string_view::npos) return {};
  auto rest = text.substr(colons + 2);
  rest = rest.substr(0, rest.find(' '));
  for (auto const& [name, role] : kTitled) {
    if (rest == name) return {.role = role, .rank = std::nullopt};
    // A cut rank may be another's.
    if (cut && rest.size() > 2 && name.starts_with(rest)) return {.role = role, .rank = {}};
    if (!rest.starts_with(name) || rest[name.size()] != '_') continue;
    auto const rank = rest.substr(name.size() + 1);
    if (rank.empty()) return {};
    return {.role = role, .rank = cut ? std::nullopt : std::optional(std::string(rank))};
  }
  return {};
}

bool is_python(std::string_view program) {
  constexpr std::string_view kPython = "python";
  if (!program.starts_with(kPython)) return false;
  auto const version = program.substr(kPython.size());
  return version.find_first_not_of("0123456789.t") == std::string_view::npos;
}

bool is_shell(std::string_view program) {
  constexpr std::array<std::string_view, 6> kShells{"sh", "bash", "dash", "zsh", "ksh", "fish"};
  if (program.starts_with('-')) program.remove_prefix(1);  // a login shell
  return std::find(kShells.begin(), kShells.end(), program) != kShells.end();
}

/// What a Python interpreter runs, by the arguments after it.
char const* python_role(std::vector<std::string_view> const& words) {
  for (std::size_t i = 1; i < words.size(); ++i) {
    auto const next = i + 1 < words.size() ? words[i + 1] : std::string_view();
    if (words[i] == "-c") {
      // multiprocessing/resource_tracker.py and forkserver.py: "from <module> import main;..."
      auto const module = next == "from" && i + 2 < words.size() ? words[i + 2] : next;
      if (module == "multiprocessing.resource_tracker") return "resource_tracker";
      if (module == "multiprocessing.forkserver") return "fork_server";
      return "python";
    }
    if (words[i] == "-m") {
      return next == "vllm.entrypoints.openai.api_server" ? "api_server" : "python";
    }
    if (words[i].starts_with('-')) continue;
    return base_name(words[i]) == "vllm" && next == "serve" ? "api_server" : "python";
  }
  return "python";
}

}  // namespace

std::string printable(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    auto const size = character_size(bytes);
    if (size == 0) {
      text += "\xEF\xBF\xBD";
    } else if (size == 1 && (bytes[0] < ' ' || bytes[0] == '\x7F')) {
      text += ' ';
    } else {
      text += bytes.substr(0, size);
    }
    bytes.remove_prefix(std::max<std::size_t>(size, 1));
  }
  return text;
}

std::string title_from_cmdline(std::string_view cmdline) {
  auto title = printable(cmdline.substr(0, kTitleBytes));
  title.erase(title.find_last_not_of(' ') + 1);  // npos + 1 is 0: nothing but spaces
  return title;
}

std::string name_from_stat(std::string_view stat) {
  // The command may itself hold parentheses.
  auto const open = stat.find('(');
  auto const close = stat.rfind(')');
  if (open == std::string_view::npos || close == std::string_view::npos || close < open) return {};
  return printable(stat.substr(open + 1, close - open - 1));
}

ProcessRole role_of(std::string_view title, std::string_view name) {
  auto const cut = title.empty() && name.size() >= kNameBytes;
  auto const text = title.empty() ? name : title;
  if (auto titled = titled_role(text, cut); titled.role) return titled;
  auto const words = words_of(text);
  if (words.empty()) return {};
  auto const program = base_name(words[0]);
  if (is_shell(program)) return {.role = "shell", .rank = std::nullopt};
  if (is_python(program)) return {.role = python_role(words), .rank = std::nullopt};
  return {};
}

}  // namespace memacct
